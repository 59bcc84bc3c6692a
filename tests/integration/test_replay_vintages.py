"""Recorded payloads through the whole graph, held against figures computed from the payloads here.

The figures are computed with the standard library alone, from the JSON, by the definitions.
"""

import json
import math
from datetime import date, timedelta
from itertools import pairwise

import pytest

from stocks_assets.adapters.sources.replay import ReplaySource
from stocks_assets.domain.calendar import sessions

FIRST, SECOND = date(2022, 2, 11), date(2024, 4, 15)
TICKERS = ["AAPL", "DELL", "IBM", "MSFT"]
WEEKLY, DAILY = "TIME_SERIES_WEEKLY_ADJUSTED", "TIME_SERIES_DAILY_ADJUSTED"


def payload(recordings, function, vintage, ticker):
    return json.loads((recordings / function / str(vintage) / f"{ticker}.json").read_bytes())


def weeks(recordings, vintage, ticker):
    """Return {monday: (label, fields)}, oldest first, as the payload has them."""
    series = payload(recordings, WEEKLY, vintage, ticker)["Weekly Adjusted Time Series"]
    labelled = sorted((date.fromisoformat(label), fields) for label, fields in series.items())
    return {day - timedelta(days=day.weekday()): (day, fields) for day, fields in labelled}


@pytest.fixture
def replayed(world, recordings):
    world.add(*TICKERS)
    first = world.refresh(ReplaySource(recordings, FIRST), TICKERS)
    assert first.success
    return world


def close_to(one, other):
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


def check_weekly(world, recordings, vintage):
    for ticker in TICKERS:
        expected = weeks(recordings, vintage, ticker)
        rows = {
            row["week_start"]: row
            for row in world.query(
                "select f.*, c.company_name, d.is_session from gold.fct_weekly_prices f "
                "join gold.dim_company c using (ticker) "
                "join gold.dim_date d on d.date_day = f.session_date "
                f"where ticker = '{ticker}'"
            ).iter_rows(named=True)
        }
        assert rows.keys() == expected.keys()
        for monday, (label, fields) in expected.items():
            row = rows[monday]
            assert row["session_date"] == label
            assert row["is_session"]
            for column, field in {
                "open": "1. open",
                "high": "2. high",
                "low": "3. low",
                "close": "4. close",
                "adjusted_close": "5. adjusted close",
                "dividend_amount": "7. dividend amount",
            }.items():
                assert row[column] == float(fields[field]), (ticker, monday, column)
            assert row["volume"] == int(fields["6. volume"])
        adjusted = [float(fields["5. adjusted close"]) for _, fields in expected.values()]
        mondays = list(expected)
        for (before, now), monday in zip(pairwise(adjusted), mondays[1:], strict=True):
            assert close_to(rows[monday]["simple_return_1w"], now / before - 1)
        assert rows[mondays[0]]["simple_return_1w"] is None


def days(recordings, ticker):
    """Return {session: fields}, oldest first, of the daily recording; empty where there is none."""
    if ticker not in ("AAPL", "IBM"):
        return {}
    series = payload(recordings, DAILY, "2013-03-01", ticker)["Time Series (Daily)"]
    return {date.fromisoformat(label): series[label] for label in sorted(series)}


def growth_of_days(daily, since, until):
    """Return the total return of the daily recording between two of its sessions, plus 1."""
    growth, previous = 1.0, None
    for day, fields in daily.items():
        close = float(fields["4. close"])
        if since < day <= until:
            paid = float(fields["7. dividend amount"])
            growth *= float(fields["8. split coefficient"]) * (close + paid) / previous
        previous = close
    return growth


def bar_of_days(daily, inside):
    """Return open, high, low and volume of some sessions on the scale of the last one's close."""
    fields = [daily[day] for day in inside]
    splits = [float(day["8. split coefficient"]) for day in fields]
    later = [math.prod(splits[position + 1 :]) for position in range(len(fields))]
    return (
        float(fields[0]["1. open"]) / later[0],
        max(float(day["2. high"]) / by for day, by in zip(fields, later, strict=True)),
        min(float(day["3. low"]) / by for day, by in zip(fields, later, strict=True)),
        round(sum(int(day["6. volume"]) * by for day, by in zip(fields, later, strict=True))),
    )


def expected_weeks(recordings, vintage, ticker):
    """Return {monday: (label, bar, close, growth)}: of the daily recording where it has all days."""
    daily = days(recordings, ticker)
    found, before = {}, None
    for monday, (label, fields) in weeks(recordings, vintage, ticker).items():
        inside = [day for day in sessions(monday, label) if day in daily]
        adjusted = float(fields["5. adjusted close"])
        whole = inside == sessions(monday, label)
        vendors = (
            *(float(fields[name]) for name in ("1. open", "2. high", "3. low")),
            int(fields["6. volume"]),
        )
        growth = None
        if before is not None:
            exact = whole and before[0] in daily
            growth = growth_of_days(daily, before[0], label) if exact else adjusted / before[1]
        bar = bar_of_days(daily, inside) if whole else vendors
        found[monday] = (label, bar, float(fields["4. close"]), growth)
        before = (label, adjusted)
    return found


def check_weekly_averages(world, recordings, vintage):
    for ticker in TICKERS:
        expected = expected_weeks(recordings, vintage, ticker)
        rows = world.query(
            f"select * from gold.agg_weekly_prices where ticker = '{ticker}' order by week_start"
        )
        assert rows["week_start"].to_list() == list(expected)
        index = [1.0]
        for _, _, _, growth in list(expected.values())[1:]:
            index.append(index[-1] * growth)
        _, _, last_close, _ = list(expected.values())[-1]
        adjusted = [last_close * value / index[-1] for value in index]
        for position, row in enumerate(rows.iter_rows(named=True)):
            label, (first, high, low, volume), close, _ = expected[row["week_start"]]
            assert row["session_date"] == label
            assert close_to(row["adjusted_close"], adjusted[position])
            scale = adjusted[position] / close
            assert close_to(row["adjusted_open"], first * scale)
            assert close_to(row["adjusted_high"], high * scale)
            assert close_to(row["adjusted_low"], low * scale)
            assert row["volume"] == volume
            for length in (4, 13, 26, 52):
                window = adjusted[max(0, position + 1 - length) : position + 1]
                average = row[f"sma_{length}w"]
                if len(window) < length:
                    assert average is None
                else:
                    assert close_to(average, sum(window) / length)


def check_monthly(world, recordings, vintage):
    for ticker in TICKERS:
        daily, by_month = days(recordings, ticker), {}
        for monday, week in expected_weeks(recordings, vintage, ticker).items():
            # A week belongs to the month of its last session by the calendar.
            last = sessions(monday, monday + timedelta(days=6))[-1]
            by_month.setdefault(last.replace(day=1), []).append(week)
        rows = world.query(
            f"select * from gold.agg_monthly_prices where ticker = '{ticker}' order by month_start"
        )
        assert rows["month_start"].to_list() == list(by_month)
        before = None
        for row in rows.iter_rows(named=True):
            month = row["month_start"]
            end = (month + timedelta(days=31)).replace(day=1) - timedelta(days=1)
            if all(day in daily for day in sessions(month, end)):
                assert row["source"] == "daily"
                inside = sessions(month, end)
                bar, label = bar_of_days(daily, inside), inside[-1]
                close = float(daily[label]["4. close"])
                if before and before["source"] == "daily":
                    growth = growth_of_days(daily, before["session_date"], label)
                    assert close_to(row["simple_return_1m"] + 1, growth)
            else:
                assert row["source"] == "weekly"
                of_month = by_month[month]
                label, close = of_month[-1][0], of_month[-1][2]
                opens, highs, lows, volumes = zip(*(week[1] for week in of_month), strict=True)
                bar = (opens[0], max(highs), min(lows), sum(volumes))
                if before and before["source"] == "weekly":
                    growth = math.prod(week[3] for week in of_month)
                    assert close_to(row["simple_return_1m"] + 1, growth)
            scale = row["adjusted_close"] / close
            assert row["session_date"] == label
            assert close_to(row["adjusted_open"], bar[0] * scale), month
            assert close_to(row["adjusted_high"], bar[1] * scale)
            assert close_to(row["adjusted_low"], bar[2] * scale)
            assert row["volume"] == bar[3]
            before = row
        closes = rows["adjusted_close"]
        assert closes[-1] == by_month[rows["month_start"][-1]][-1][2]
        off = (rows["sma_12m"] - closes.rolling_mean(12, min_samples=12)).abs()
        assert (off / closes).max() < 1e-9
        assert rows["sma_12m"].null_count() == 11


def check_daily(world, recordings):
    for ticker in ("AAPL", "IBM"):
        series = payload(recordings, DAILY, "2013-03-01", ticker)["Time Series (Daily)"]
        labels = sorted(series)
        rows = world.query(
            "select gold.*, silver.adjusted_close as vendor from gold.fct_daily_prices gold "
            "join silver.daily_bars silver using (ticker, session_date) "
            f"where ticker = '{ticker}' order by session_date"
        )
        assert [str(day) for day in rows["session_date"]] == labels
        previous = None
        for day, row in zip(labels, rows.iter_rows(named=True), strict=True):
            fields = series[day]
            close, dividend, split = (
                float(fields["4. close"]),
                float(fields["7. dividend amount"]),
                float(fields["8. split coefficient"]),
            )
            assert (row["close"], row["volume"]) == (close, int(fields["6. volume"]))
            assert row["vendor"] == float(fields["5. adjusted close"])
            assert (row["dividend_amount"], row["split_ratio"]) == (dividend, split)
            if previous is None:
                assert row["simple_return_1d"] is None
            else:
                assert close_to(1 + row["simple_return_1d"], split * (close + dividend) / previous)
            previous = close
        splits = world.query(
            "select ex_date, split_ratio from silver.corporate_actions "
            f"where ticker = '{ticker}' and action_type = 'split' order by ex_date"
        ).rows()
        assert splits == [
            (date.fromisoformat(day), float(series[day]["8. split coefficient"]))
            for day in labels
            if float(series[day]["8. split coefficient"]) != 1
        ]


def test_each_vintage_arrives_in_gold_as_its_payloads_say(replayed, recordings):
    check_weekly(replayed, recordings, FIRST)
    check_weekly_averages(replayed, recordings, FIRST)
    check_monthly(replayed, recordings, FIRST)
    check_daily(replayed, recordings)
    first_objects = replayed.objects()

    assert replayed.refresh(ReplaySource(recordings, SECOND), TICKERS).success
    check_weekly(replayed, recordings, SECOND)
    check_weekly_averages(replayed, recordings, SECOND)
    check_monthly(replayed, recordings, SECOND)
    check_daily(replayed, recordings)
    # The daily recordings did not change, the weekly ones did, and no object was touched.
    new = set(replayed.objects()) - set(first_objects)
    assert set(first_objects) <= set(replayed.objects())
    assert {key.split("/")[1] for key in new} == {"weekly_bars"}
    assert len(new) == len(TICKERS)

    last = replayed.query(
        "select ticker, week_start, session_date, is_complete from gold.fct_weekly_prices "
        "where week_start = '2024-04-15' order by ticker"
    )
    assert last["session_date"].to_list() == [SECOND] * len(TICKERS)
    assert last["is_complete"].to_list() == [False] * len(TICKERS)

    companies = replayed.query("select ticker, company_name, has_profile from gold.dim_company")
    assert sorted(companies.rows()) == [(ticker, ticker, False) for ticker in TICKERS]


def test_the_newest_vintage_not_after_the_date_is_served(recordings):
    from stocks_assets.domain.datasets import WEEKLY_BARS

    served = {
        vintage: ReplaySource(recordings, vintage).fetch(WEEKLY_BARS, "AAPL")
        for vintage in (date(2022, 2, 10), FIRST, date(2024, 4, 14), SECOND, None)
    }
    bodies = {
        vintage: (recordings / WEEKLY / str(vintage) / "AAPL.json").read_bytes()
        for vintage in (FIRST, SECOND)
    }
    assert "no recording" in served[date(2022, 2, 10)].reason
    assert served[FIRST].body == served[date(2024, 4, 14)].body == bodies[FIRST]
    assert served[SECOND].body == served[None].body == bodies[SECOND]


def test_the_recorded_tickers_are_listed(recordings):
    assert ReplaySource(recordings, None).listed_tickers(None) == TICKERS
    assert ReplaySource(recordings, date(2013, 3, 1)).listed_tickers(None) == ["AAPL", "IBM"]
