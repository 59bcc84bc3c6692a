"""When the newest bars are enough, and when they go on from what is stored."""

import json
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from stocks_assets.domain.calendar import sessions
from stocks_assets.domain.outcomes import Unavailable
from stocks_assets.domain.payloads import goes_on_from
from stocks_assets.domain.planner import Checked
from stocks_assets.domain.recent import BARS_BACK, StoredBar, are_recent_bars_enough
from stocks_assets.domain.sample_market import SampleMarket

MARKET = SampleMarket()
MONDAY_NIGHT = datetime(2026, 11, 23, 23, tzinfo=UTC)
STORED = StoredBar(date(2026, 8, 27), 10.0)


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
    assert not is_enough(had(1), stored=StoredBar(date(2026, 7, 1), 10.0))


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
            stored = StoredBar(now.date() - timedelta(days=87), 10.0)
            if not is_enough(Checked(now, "Data", whole_at=whole_at), ticker, stored, now):
                whole_at = now
                wholes.append(now)
        asked[ticker] = wholes
        gaps = [later - earlier for earlier, later in pairwise(wholes)]
        assert len(wholes) in (5, 6), (ticker, wholes)
        # Christmas is a Friday.
        assert max(gaps) <= timedelta(days=10), (ticker, gaps)
    a_night = [sum(night in wholes for wholes in asked.values()) for night in nights]
    assert max(a_night[5:]) <= 50
    assert max(a_night[10:]) <= 35


def history(ticker, day, **how):
    return MARKET.reply("TIME_SERIES_DAILY_ADJUSTED", ticker, day, **how)


def bar_back(ticker, day):
    """Return the bar that lies so far back in what the vendor had on `day`."""

    series = json.loads(history(ticker, day))["Time Series (Daily)"]
    label = sorted(series)[-1 - BARS_BACK]
    return StoredBar(date.fromisoformat(label), float(series[label]["5. adjusted close"]))


def test_newest_bars_go_on_from_a_bar_until_an_action_restates_it():
    went_on, restated = 0, 0
    day, next_day = date(2026, 11, 19), date(2026, 11, 20)
    for ticker in MARKET.tickers(150):
        if b"Error Message" in history(ticker, next_day):
            continue
        stored = bar_back(ticker, day)
        newest = history(ticker, next_day, outputsize="compact")
        is_same = bar_back_of(stored, history(ticker, next_day)) == stored.adjusted_close
        assert goes_on_from(stored, newest) == is_same, ticker
        went_on, restated = went_on + is_same, restated + (not is_same)
    assert went_on > 100
    assert restated


def bar_back_of(stored, body):

    bar = json.loads(body)["Time Series (Daily)"][str(stored.session_date)]
    return float(bar["5. adjusted close"])


def test_what_cannot_be_read_or_lacks_the_session_does_not_go_on():
    stored = bar_back("KLVN", date(2026, 11, 19))
    newest = history("KLVN", date(2026, 11, 20), outputsize="compact")
    assert goes_on_from(stored, newest)
    assert not goes_on_from(StoredBar(date(2020, 1, 2), stored.adjusted_close), newest)
    assert not goes_on_from(stored, newest[:-20])
    assert not goes_on_from(stored, b"{}")


def test_a_damaged_bar_elsewhere_does_not_keep_the_newest_ones_from_going_on():
    stored = bar_back("KLVN", date(2026, 11, 19))
    newest = history("KLVN", date(2026, 11, 20), outputsize="compact")
    first = newest.index(b'"1. open": "') + len(b'"1. open": "')
    assert goes_on_from(stored, newest[:first] + b"x" + newest[first:])
