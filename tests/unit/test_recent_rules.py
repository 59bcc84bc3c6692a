"""When the newest bars are enough, and when they go on from what is stored."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from statistics import median

import polars as pl
import pytest

from stocks_assets.domain.calendar import sessions
from stocks_assets.domain.outcomes import Unavailable
from stocks_assets.domain.payloads import SILVER_TABLES, standing_of_reply
from stocks_assets.domain.planner import Checked
from stocks_assets.domain.recent import BARS_KEPT, Standing, are_recent_bars_enough, bar_back
from stocks_assets.domain.sample_market import SampleMarket

MARKET = SampleMarket()
MONDAY_NIGHT = datetime(2026, 11, 23, 23, tzinfo=UTC)
COLUMNS = [
    *("session_date", "open", "high", "low", "close", "volume"),
    *("adjusted_close", "dividend_amount", "split_coefficient"),
]


def bars_until(day, count=BARS_KEPT):
    """Return so many bars up to `day`, the oldest first."""
    days = sessions(day - timedelta(days=400), day)[-count:]
    return pl.DataFrame({"session_date": days, "adjusted_close": [10.0] * count})


STORED = bars_until(date(2026, 11, 20))


def had(days_ago, outcome="Data"):
    """Return a call of an hour ago that brought all there is so many days ago."""
    whole_at = MONDAY_NIGHT - timedelta(days=days_ago)
    return Checked(MONDAY_NIGHT - timedelta(hours=1), outcome, whole_at=whole_at)


def is_enough(last, ticker="AAPL", stored=STORED, now=MONDAY_NIGHT):
    return are_recent_bars_enough(ticker, last, stored, now)


def test_the_newest_bars_are_enough_within_days_of_a_whole_history():
    assert is_enough(had(1))
    assert not is_enough(had(8))
    assert not is_enough(None)
    assert not is_enough(Checked(MONDAY_NIGHT, "Data"))


@pytest.mark.parametrize("outcome", ["NotStored", "TransportFailed", Unavailable.__name__])
def test_all_is_asked_for_after_anything_but_data(outcome):
    assert not is_enough(had(1, outcome))


def test_all_is_asked_for_where_the_stored_bar_is_too_old_to_be_among_the_newest():
    # 95 sessions reach back to July 10, and 60 from October 5.
    assert is_enough(had(1), stored=bars_until(date(2026, 10, 6)))
    assert not is_enough(had(1), stored=bars_until(date(2026, 10, 1)))


def test_all_is_asked_for_where_little_is_stored_or_no_adjusted_close():
    assert not is_enough(had(1), stored=bars_until(date(2026, 11, 20), count=60))
    raw = STORED.with_columns(adjusted_close=pl.lit(None, pl.Float64))
    assert not is_enough(had(1), stored=raw)


def test_each_ticker_has_all_asked_for_once_a_week_and_all_of_them_on_different_days():
    tickers = MARKET.tickers(100)
    # Thursday is Thanksgiving: who has that day is asked for on another.
    nights = [
        datetime(day.year, day.month, day.day, 23, tzinfo=UTC)
        for day in sessions(MONDAY_NIGHT.date(), date(2026, 12, 31))
    ]
    asked = {}
    for ticker in tickers:
        whole_at, wholes = MONDAY_NIGHT - timedelta(hours=3), []
        for now in nights:
            stored = bars_until(now.date() - timedelta(days=1))
            if not is_enough(Checked(now, "Data", whole_at=whole_at), ticker, stored, now):
                whole_at = now
                wholes.append(now)
        asked[ticker] = wholes
        gaps = [later - earlier for earlier, later in pairwise(wholes)]
        assert len(wholes) in (5, 6), (ticker, wholes)
        # Christmas is a Friday.
        assert max(gaps) <= timedelta(days=10), (ticker, gaps)
    a_night = [sum(night in wholes for wholes in asked.values()) for night in nights]
    assert max(a_night[5:]) <= 60
    # After a holiday, those of two days come at once.
    assert median(a_night[5:]) <= 30


def test_who_refreshes_once_a_week_has_all_asked_for_each_time():
    saturdays = [datetime(2026, 11, 14, 15, tzinfo=UTC) + timedelta(weeks=n) for n in range(5)]
    for ticker in MARKET.tickers(20):
        for before, now in pairwise(saturdays):
            stored = bars_until(before.date())
            last = Checked(before, "Data", whole_at=before)
            assert not is_enough(last, ticker, stored, now), (ticker, now)


def history(ticker, day, **how):
    return MARKET.reply("TIME_SERIES_DAILY_ADJUSTED", ticker, day, **how)


def stored_of(ticker, day):
    """Return the newest of the bars that silver has once the vendor had the history of `day`."""
    rows = SILVER_TABLES["daily_bars"].shape(ticker, {"daily_bars": history(ticker, day)}).rows
    return rows.sort("session_date").tail(BARS_KEPT).select(COLUMNS)


def restates(stored, now):
    """Tell whether the bar that the newest ones have to go on from is another in `now`."""
    bar = bar_back(stored)
    return bar.join(now, on=["session_date", "adjusted_close"], how="semi").is_empty()


def test_newest_bars_go_on_from_what_is_stored_until_an_action_restates_it():
    day, next_day = date(2026, 11, 19), date(2026, 11, 20)
    found = []
    for ticker in MARKET.tickers(150):
        if b"Error Message" in history(ticker, next_day):
            continue
        stored = stored_of(ticker, day)
        is_restated = restates(stored, stored_of(ticker, next_day))
        expected = Standing.RESTATED if is_restated else Standing.NEW
        if not history(ticker, next_day).count(str(next_day).encode()):
            continue
        newest = history(ticker, next_day, outputsize="compact")
        assert standing_of_reply(newest, stored) is expected, ticker
        of_today = history(ticker, day, outputsize="compact")
        assert standing_of_reply(of_today, stored) is Standing.KNOWN, ticker
        found.append(expected)
    assert found.count(Standing.NEW) > 100
    assert found.count(Standing.RESTATED)


def test_a_restatement_that_begins_between_the_oldest_bar_and_the_one_that_is_held_is_seen():
    stored = stored_of("KLVN", date(2026, 11, 19))
    newest = history("KLVN", date(2026, 11, 20), outputsize="compact")
    assert standing_of_reply(newest, stored) is Standing.NEW
    ex_date = stored["session_date"][-76]
    had_before = stored.with_columns(
        adjusted_close=pl.when(pl.col("session_date") < ex_date)
        .then(pl.col("adjusted_close") * 1.01)
        .otherwise("adjusted_close")
    )
    assert standing_of_reply(newest, had_before) is Standing.RESTATED


def test_what_cannot_be_read_or_lacks_the_session_does_not_go_on():
    stored = stored_of("KLVN", date(2026, 11, 19))
    newest = history("KLVN", date(2026, 11, 20), outputsize="compact")
    assert standing_of_reply(newest, stored) is Standing.NEW
    for_long = stored_of("KLVN", date(2026, 3, 19))
    assert standing_of_reply(newest, for_long) is Standing.RESTATED
    assert standing_of_reply(newest[:-20], stored) is Standing.RESTATED
    assert standing_of_reply(b"{}", stored) is Standing.RESTATED
    assert standing_of_reply(newest, stored.tail(60)) is Standing.RESTATED


def test_a_correction_within_the_window_is_new_and_a_damaged_bar_elsewhere_does_not_restate():
    stored = stored_of("KLVN", date(2026, 11, 20))
    newest = history("KLVN", date(2026, 11, 20), outputsize="compact")
    first = newest.index(b'"1. open": "') + len(b'"1. open": "')
    assert standing_of_reply(newest, stored) is Standing.KNOWN
    corrected = newest[:first] + b"1" + newest[first:]
    assert standing_of_reply(corrected, stored) is Standing.NEW
    damaged = newest[:first] + b"x" + newest[first:]
    assert standing_of_reply(damaged, stored) is Standing.NEW
