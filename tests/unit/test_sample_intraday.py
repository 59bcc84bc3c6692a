import hashlib
import json
from datetime import date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stocks_assets.domain.calendar import sessions
from stocks_assets.domain.sample_intraday import intraday_bars
from stocks_assets.domain.sample_market import SampleMarket

MARKET = SampleMarket()
TODAY = date(2026, 11, 20)
LATE, DELISTED, SPLIT = "ORBL", "GLSW", "KLVN"
INTERVALS = [1, 5, 15, 30, 60]
PRICES = ["1. open", "2. high", "3. low", "4. close"]
# The session after Thanksgiving is the last one of its month here, and closes early.
THANKSGIVING = sessions(date(2025, 11, 24), date(2025, 11, 28))
EARLY = date(2025, 11, 28)


def ask(ticker, month, interval=5, last=TODAY, market=MARKET, **parameters):
    body = market.reply(
        "TIME_SERIES_INTRADAY", ticker, last, month=month, interval=f"{interval}min", **parameters
    )
    return json.loads(body)


def bars(ticker, month, interval=5, last=TODAY, market=MARKET):
    """Rows by label, oldest first, as printed."""
    return dict(
        reversed(ask(ticker, month, interval, last, market)[f"Time Series ({interval}min)"].items())
    )


def by_session(rows):
    days = {}
    for label, row in rows.items():
        days.setdefault(label[:10], []).append(row)
    return days


def daily_bars(ticker, month, last=TODAY):
    rows = json.loads(MARKET.reply("TIME_SERIES_DAILY", ticker, last))["Time Series (Daily)"]
    return {day: row for day, row in reversed(rows.items()) if day.startswith(month)}


def come_to(rows):
    """What printed bars, oldest first, come to as one."""
    return {
        "1. open": rows[0]["1. open"],
        "2. high": max((row["2. high"] for row in rows), key=float),
        "3. low": min((row["3. low"] for row in rows), key=float),
        "4. close": rows[-1]["4. close"],
        "5. volume": str(sum(int(row["5. volume"]) for row in rows)),
    }


@st.composite
def a_few_sessions(draw):
    """Daily rows of any possible shape; some do not move at all, some have no volume."""
    rows = []
    for place, day in enumerate(THANKSGIVING):
        low = draw(st.integers(1, 10**6))
        high = low + draw(st.just(0) | st.integers(0, low))
        opened, close = draw(st.integers(low, high)), draw(st.integers(low, high))
        volume = draw(st.integers(0, 10) | st.integers(0, 10**11))
        prices = [price / 100 for price in (opened, high, low, close)]
        rows.append((place, day, *prices, volume))
    columns = ["session", "date", "open", "high", "low", "close", "volume"]
    return pl.DataFrame(rows, schema=columns, orient="row")


@settings(max_examples=40, deadline=None)
@given(a_few_sessions(), st.integers(0, 2**64 - 1), st.sampled_from(INTERVALS))
def test_bars_of_any_session_are_possible_and_come_to_the_daily_bar(daily, key, minutes):
    drawn = intraday_bars(key, daily, minutes)
    assert (drawn["volume"] >= 0).all()
    assert (drawn["low"] > 0).all()
    assert drawn.filter(
        (pl.col("low") > pl.min_horizontal("open", "close"))
        | (pl.col("high") < pl.max_horizontal("open", "close"))
    ).is_empty()
    together = drawn.group_by(pl.col("starts_at").dt.date().alias("date"), maintain_order=True).agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
    )
    assert together.equals(daily.drop("session"))


@pytest.mark.parametrize("minutes", INTERVALS)
def test_bars_lie_side_by_side_from_the_opening_to_the_close(minutes):
    daily = pl.DataFrame(
        {
            "session": range(len(THANKSGIVING)),
            "date": THANKSGIVING,
            **dict.fromkeys(["open", "high", "low", "close"], 10.0),
            "volume": 1000,
        }
    )
    starts = intraday_bars(1, daily, minutes)["starts_at"].to_list()
    expected = []
    for day in THANKSGIVING:
        start = datetime(day.year, day.month, day.day, 9, 30)
        close = start.replace(hour=13 if day == EARLY else 16, minute=0)
        while start < close:
            expected.append(start)
            start += timedelta(minutes=minutes)
    assert starts == expected


def test_no_two_sessions_companies_or_markets_are_drawn_alike():
    one = pl.DataFrame(
        {
            "session": [7],
            "date": [date(2025, 3, 3)],
            "open": [10.0],
            "high": [12.0],
            "low": [9.0],
            "close": [11.0],
            "volume": [10**6],
        }
    )
    drawn = [
        intraday_bars(key, one.with_columns(session=pl.lit(session)), 1).drop("starts_at")
        for key, session in ((1, 7), (1, 8), (2, 7))
    ]
    for column in ("close", "volume"):
        assert len({tuple(frame[column]) for frame in drawn}) == 3


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(MARKET.tickers(60)),
    st.dates(date(2016, 1, 1), TODAY).map(lambda day: f"{day:%Y-%m}"),
    st.sampled_from(INTERVALS[1:]),
)
def test_a_month_of_bars_comes_to_its_daily_bars(ticker, month, interval):
    daily = daily_bars(ticker, month)
    if not daily:
        assert "Error Message" in ask(ticker, month, interval)
        return
    found = by_session(bars(ticker, month, interval))
    assert {day: come_to(rows) for day, rows in found.items()} == daily


@pytest.mark.parametrize("interval", INTERVALS[1:])
def test_bars_of_every_length_tell_of_the_same_trades(interval):
    minutes = by_session(bars(SPLIT, "2025-11", 1))
    longer = by_session(bars(SPLIT, "2025-11", interval))
    assert {
        day: [come_to(rows[i : i + interval]) for i in range(0, len(rows), interval)]
        for day, rows in minutes.items()
    } == longer


def test_a_sessions_bars_never_change_and_a_month_that_is_over_keeps_its_bytes():
    tenth = bars(SPLIT, "2024-03", last=date(2024, 3, 10))
    assert list(tenth)[-1] == "2024-03-08 15:55:00"
    over = bars(SPLIT, "2024-03", last=date(2024, 3, 31))
    assert tenth == {label: over[label] for label in tenth}
    assert len(over) > len(tenth)
    assert ask(SPLIT, "2024-03", last=date(2024, 3, 31)) == ask(SPLIT, "2024-03")


def test_the_same_question_gets_the_same_bytes_for_ever():
    reply = MARKET.reply("TIME_SERIES_INTRADAY", "KLVN", TODAY, month="2025-11", interval="5min")
    assert hashlib.sha256(reply).hexdigest() == (
        "7fbfcf7e148dbb048ace042a1b642746af368e8c8ade233a82471806dda93091"
    )


def test_bars_have_the_vendors_layout():
    body = MARKET.reply("TIME_SERIES_INTRADAY", "QNL.B", TODAY, month="2024-03", interval="5min")
    reply = json.loads(body)
    assert body == json.dumps(reply, indent=4).encode()
    assert list(reply) == ["Meta Data", "Time Series (5min)"]
    assert reply["Meta Data"] == {
        "1. Information": "Intraday (5min) open, high, low, close prices and volume",
        "2. Symbol": "QNL.B",
        "3. Last Refreshed": "2024-03-28 15:55:00",
        "4. Interval": "5min",
        "5. Output Size": "Full size",
        "6. Time Zone": "US/Eastern",
    }
    rows = reply["Time Series (5min)"]
    assert list(rows) == sorted(rows, reverse=True)
    assert list(rows)[-1] == "2024-03-01 09:30:00"
    for row in rows.values():
        assert list(row) == [*PRICES, "5. volume"]
        assert all(row[price].endswith("00") for price in PRICES)
        assert all(len(row[price].partition(".")[2]) == 4 for price in PRICES)
        assert row["5. volume"].isdecimal()


def test_a_compact_reply_is_the_newest_hundred_bars_of_the_month():
    full, compact = ask("OAKM", "2024-03"), ask("OAKM", "2024-03", outputsize="compact")
    newest = list(full["Time Series (5min)"].items())[:100]
    assert list(compact["Time Series (5min)"].items()) == newest
    assert compact["Meta Data"]["5. Output Size"] == "Compact"


def test_the_market_is_busiest_at_the_opening_and_the_close():
    halves = by_session(bars(SPLIT, "2024-03", 30)).values()
    volumes = [sum(int(row["5. volume"]) for row in at) for at in zip(*halves, strict=True)]
    assert min(volumes[0], volumes[-1]) > 1.5 * max(volumes[3:-3])


def test_the_first_and_the_last_month_of_a_company_hold_its_sessions_only():
    late, gone = (
        json.loads(MARKET.reply("TIME_SERIES_DAILY", ticker, TODAY))["Time Series (Daily)"]
        for ticker in (LATE, DELISTED)
    )
    listed, last = min(late), max(gone)
    assert min(bars(LATE, listed[:7])).startswith(listed)
    assert max(bars(DELISTED, last[:7])).startswith(last)
    before = date.fromisoformat(listed).replace(day=1) - timedelta(days=1)
    after = date.fromisoformat(last).replace(day=28) + timedelta(days=7)
    for ticker, month in ((LATE, before), (DELISTED, after)):
        assert "Error Message" in ask(ticker, f"{month:%Y-%m}")


@pytest.mark.parametrize(
    ("ticker", "month"),
    [
        ("NOSUCH", "2024-03"),
        ("", "2024-03"),
        ("KLVN", "2026-12"),
        ("KLVN", "2015-12"),
        ("KLVN", "0000-01"),
    ],
)
def test_where_there_is_nothing_the_vendor_says_so(ticker, month):
    assert ask(ticker, month) == {
        "Error Message": "Invalid API call. Please retry or visit the documentation "
        "(https://www.alphavantage.co/documentation/) for TIME_SERIES_INTRADAY."
    }


def test_a_month_whose_first_session_has_not_closed_has_no_bars_yet():
    assert "Error Message" in ask("KLVN", "2024-03", last=date(2024, 2, 29))
    assert set(by_session(bars("KLVN", "2024-03", last=date(2024, 3, 1)))) == {"2024-03-01"}
