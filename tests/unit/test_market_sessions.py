"""Which sessions are the market's: those that at least half of the tickers have."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from stocks_assets.domain.market_session import MarketSession, market_sessions

FIRST = date(2026, 11, 2)


def on(*counts: int) -> dict[date, int]:
    return {FIRST + timedelta(days=n): count for n, count in enumerate(counts)}


def days(*counts: int) -> list[int]:
    """The places of the market's sessions among days with bars of so many tickers."""
    return [(one.day - FIRST).days for one in market_sessions(on(*counts))]


def test_a_session_is_the_markets_once_half_of_the_tickers_have_it():
    assert days(500, 500, 40) == [0, 1]
    assert days(500, 500, 249) == [0, 1]
    assert days(500, 500, 250) == [0, 1, 2]
    assert market_sessions(on(500, 490, 300))[-1] == MarketSession(
        FIRST + timedelta(days=2), tickers=300, expected=500
    )


def test_a_day_on_which_few_exchanges_are_open_is_no_session_of_the_market():
    assert days(500, 3, 498) == [0, 2]


def test_tickers_that_are_fetched_in_turn_have_the_session_that_half_have_reached():
    assert days(100, 100, 75, 50, 25) == [0, 1, 2, 3]


def test_tickers_that_are_gone_are_waited_for_through_ten_sessions():
    assert days(500, *[200] * 12) == [0, 11, 12]


def test_a_market_grows_from_few_tickers():
    assert days(3, 3, 500, 3) == [0, 1, 2]
    assert days() == []


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60))
def test_there_is_a_session_wherever_there_are_bars(counts):
    found = market_sessions(on(*counts))
    assert found
    assert all(one.expected <= 2 * one.tickers <= 2 * one.expected for one in found)

    assert max(counts) in {one.tickers for one in found}


def test_the_order_in_which_days_are_named_is_no_matter():
    counts = on(500, 3, 498)
    assert market_sessions(dict(reversed(counts.items()))) == market_sessions(counts)
