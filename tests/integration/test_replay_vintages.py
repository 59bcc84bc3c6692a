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


def check_weekly_averages(world, recordings, vintage):
    for ticker in TICKERS:
        expected = weeks(recordings, vintage, ticker)
        adjusted = [float(fields["5. adjusted close"]) for _, fields in expected.values()]
        rows = world.query(
            f"select * from gold.agg_weekly_prices where ticker = '{ticker}' order by week_start"
        )
        assert rows["week_start"].to_list() == list(expected)
        for weeks_in_window in (4, 13, 26, 52):
            averages = rows[f"sma_{weeks_in_window}w"].to_list()
            for position, average in enumerate(averages):
                window = adjusted[max(0, position + 1 - weeks_in_window) : position + 1]
                if len(window) < weeks_in_window:
                    assert average is None
                else:
                    assert close_to(average, sum(window) / weeks_in_window)


def split_weeks(recordings, ticker):
    """Return {monday: (open, high, low, volume)} of weeks with a split after their first session.

    From the daily recording, on the scale of the week's last session: there the vendor's weekly
    bar mixes two scales.
    """
    if ticker not in ("AAPL", "IBM"):
        return {}
    series = payload(recordings, DAILY, "2013-03-01", ticker)["Time Series (Daily)"]
    by_week = {}
    for label in sorted(series):
        day = date.fromisoformat(label)
        by_week.setdefault(day - timedelta(days=day.weekday()), []).append(series[label])
    found = {}
    for monday, days in by_week.items():
        splits = [float(day["8. split coefficient"]) for day in days]
        if all(split == 1 for split in splits[1:]):
            continue
        later = [math.prod(splits[position + 1 :]) for position in range(len(days))]
        found[monday] = (
            float(days[0]["1. open"]) / later[0],
            max(float(day["2. high"]) / by for day, by in zip(days, later, strict=True)),
            min(float(day["3. low"]) / by for day, by in zip(days, later, strict=True)),
            round(sum(int(day["6. volume"]) * by for day, by in zip(days, later, strict=True))),
        )
    return found


def check_monthly(world, recordings, vintage):
    for ticker in TICKERS:
        months, from_daily = {}, split_weeks(recordings, ticker)
        for monday, (_, fields) in weeks(recordings, vintage, ticker).items():
            # A week belongs to the month of its last session by the calendar.
            last = sessions(monday, monday + timedelta(days=6))[-1]
            vendors = (
                float(fields["1. open"]),
                float(fields["2. high"]),
                float(fields["3. low"]),
                int(fields["6. volume"]),
            )
            bar = (
                *from_daily.get(monday, vendors),
                float(fields["5. adjusted close"]) / float(fields["4. close"]),
                float(fields["5. adjusted close"]),
            )
            months.setdefault(last.replace(day=1), []).append(bar)
        rows = world.query(
            f"select * from gold.agg_monthly_prices where ticker = '{ticker}' order by month_start"
        )
        assert rows["month_start"].to_list() == list(months)
        closes = []
        for row, (month, bars) in zip(rows.iter_rows(named=True), months.items(), strict=True):
            opens, highs, lows, volumes, scales, adjusted = zip(*bars, strict=True)
            closes.append(adjusted[-1])
            assert close_to(row["adjusted_open"], opens[0] * scales[0]), month
            assert close_to(
                row["adjusted_high"], max(map(math.prod, zip(highs, scales, strict=True)))
            )
            assert close_to(
                row["adjusted_low"], min(map(math.prod, zip(lows, scales, strict=True)))
            )
            assert row["volume"] == sum(volumes)
            assert row["adjusted_close"] == closes[-1]
            assert row["week_count"] == len(bars)
            if len(closes) >= 12:
                assert close_to(row["sma_12m"], sum(closes[-12:]) / 12)
            else:
                assert row["sma_12m"] is None


def check_daily(world, recordings):
    for ticker in ("AAPL", "IBM"):
        series = payload(recordings, DAILY, "2013-03-01", ticker)["Time Series (Daily)"]
        days = sorted(series)
        rows = world.query(
            f"select * from gold.fct_daily_prices where ticker = '{ticker}' order by session_date"
        )
        assert [str(day) for day in rows["session_date"]] == days
        previous = None
        for day, row in zip(days, rows.iter_rows(named=True), strict=True):
            fields = series[day]
            close, dividend, split = (
                float(fields["4. close"]),
                float(fields["7. dividend amount"]),
                float(fields["8. split coefficient"]),
            )
            assert (row["close"], row["volume"]) == (close, int(fields["6. volume"]))
            assert row["vendor_adjusted_close"] == float(fields["5. adjusted close"])
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
            for day in days
            if float(series[day]["8. split coefficient"]) != 1
        ]


def test_each_vintage_arrives_in_gold_as_its_payloads_say(replayed, recordings):
    check_weekly(replayed, recordings, FIRST)
    check_weekly_averages(replayed, recordings, FIRST)
    check_monthly(replayed, recordings, FIRST)
    check_daily(replayed, recordings)
    assert list(split_weeks(recordings, "AAPL")) == [date(2000, 6, 19)]
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
