"""Which tickers are too old, and which have no more to be had."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from stocks_assets.domain.calendar import sessions
from stocks_assets.domain.datasets import Call
from stocks_assets.domain.freshness import stale_answers, stale_bars
from stocks_assets.domain.gaps import Expectation
from stocks_assets.domain.planner import Checked

NOW = datetime(2026, 11, 21, 15, tzinfo=UTC)  # a Saturday
FRIDAY, THURSDAY = date(2026, 11, 20), date(2026, 11, 19)
NIGHT = datetime(2026, 11, 21, 4, tzinfo=UTC)
EVENING = NIGHT - timedelta(hours=5)
LISTINGS = pl.DataFrame(
    [("GONE", date(2020, 1, 2), THURSDAY)],
    schema={"ticker": pl.String, "listed_on": pl.Date, "delisted_on": pl.Date},
    orient="row",
)
EXPECTED = Expectation(sessions(date(2026, 1, 2), date(2026, 12, 31)), LISTINGS, NOW)


def is_stale(newest, answer, *, ticker="A", behind=()):
    found = stale_bars(
        [ticker],
        {ticker: newest} if newest else {},
        EXPECTED,
        "bars",
        answers={ticker: answer} if answer else {},
        behind=behind,
    )
    return bool(found)


def test_a_ticker_with_the_newest_session_is_fresh_and_one_that_may_have_more_is_not():
    assert not is_stale(FRIDAY, Checked(NIGHT, "Data"))
    assert is_stale(THURSDAY, Checked(EVENING, "Data"))
    assert is_stale(THURSDAY, Checked(NIGHT, "TransportFailed", had_at=EVENING))
    assert is_stale(THURSDAY, None)
    assert is_stale(None, None)
    assert is_stale(None, Checked(NIGHT, "TransportFailed"))


@pytest.mark.parametrize(
    ("newest", "answer", "ticker"),
    [
        (THURSDAY, Checked(NIGHT, "Data"), "HALTED"),
        (THURSDAY, Checked(NIGHT, "UnknownSymbol", had_at=EVENING), "DEAD"),
        (None, Checked(EVENING, "UnknownSymbol"), "NOPE"),
        (None, Checked(EVENING, "Unavailable"), "EMPTY"),
        (THURSDAY, Checked(EVENING, "Data"), "GONE"),
    ],
)
def test_what_nobody_has_makes_nothing_stale(newest, answer, ticker):
    assert not is_stale(newest, answer, ticker=ticker)


def test_what_the_layer_before_has_is_to_be_had():
    assert is_stale(THURSDAY, Checked(NIGHT, "Data"), behind=["A"])
    assert is_stale(None, Checked(NIGHT, "Data"), behind=["A"])
    assert is_stale(None, Checked(NIGHT, "UnknownSymbol"), behind=["A"])


def test_answers_on_what_the_vendor_does_not_know_do_not_age():
    call = Call("companies", "A")
    long_ago = NOW - timedelta(days=90)
    for outcome, count in (("Data", 1), ("TransportFailed", 1), ("UnknownSymbol", 0)):
        checked = Checked(long_ago, outcome, had_at=long_ago)
        assert len(stale_answers([call], {call: checked}, {}, NOW)) == count
