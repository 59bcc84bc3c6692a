"""Which tickers are not done, and why."""

from datetime import UTC, date, datetime, timedelta

import pytest

from stocks_assets.domain.backlog import choose, find_backlog
from stocks_assets.domain.datasets import Call
from stocks_assets.domain.gaps import Gap, Place
from stocks_assets.domain.planner import Checked, Priority, Want

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DATASETS = ("weekly_bars", "daily_bars", "splits")


def backlog(
    outcomes, *, age=timedelta(hours=1), reasons=None, silver=None, lost=None, gold=(), gaps=()
):
    """The backlog of A, of whose datasets `outcomes` says what came of the last calls."""
    wants = [
        Want(
            Call(dataset, "A"),
            Priority.NORMAL,
            Checked(NOW - age, outcomes[dataset], failures=6) if dataset in outcomes else None,
        )
        for dataset in DATASETS
    ]
    found = find_backlog(
        wants,
        NOW,
        failed=reasons or {},
        gaps=gaps,
        behind_in_silver=silver or {},
        lost_bars=lost or {},
        behind_in_gold=gold,
    )
    return found.get("A")


def test_a_ticker_that_is_fetched_loaded_and_built_is_done_however_old():
    done = dict.fromkeys(DATASETS, "Data")
    assert backlog(done) is None
    assert backlog(done, age=timedelta(days=99)) is None
    assert backlog({**done, "splits": "Unavailable"}, age=timedelta(days=99)) is None


def test_a_ticker_that_was_never_fetched_is_missing_in_whole_or_in_part():
    assert backlog({}) == ["nothing of it was ever fetched"]
    assert backlog({"splits": "Data"}) == ["weekly_bars, daily_bars were never fetched"]
    assert backlog({"splits": "Data", "weekly_bars": "Data"}) == ["daily_bars was never fetched"]


@pytest.mark.parametrize("outcome", ["TransportFailed", "Malformed", "BadKey", "NotStored"])
def test_a_call_that_failed_is_told_with_its_reason(outcome):
    outcomes = {**dict.fromkeys(DATASETS, "Data"), "splits": outcome}
    assert backlog(outcomes) == [f"splits failed: {outcome}"]
    reasons = {Call("splits", "A"): f"{outcome}: no reply"}
    assert backlog(outcomes, reasons=reasons) == [f"splits failed: {outcome}: no reply"]


@pytest.mark.parametrize(("outcome", "days"), [("UnknownSymbol", 7), ("PremiumOnly", 1)])
def test_what_the_planner_leaves_alone_is_left_alone_until_it_is_due(outcome, days):
    outcomes = {**dict.fromkeys(DATASETS, "Data"), "splits": outcome}
    assert backlog(outcomes, age=timedelta(days=days - 1)) is None
    assert backlog(outcomes, age=timedelta(days=days)) == [f"splits failed: {outcome}"]


def test_a_ticker_that_the_vendor_does_not_know_is_not_missing_its_other_datasets():
    assert backlog({"weekly_bars": "UnknownSymbol"}) is None


def test_silver_and_gold_that_are_behind_are_told_whatever_was_fetched():
    done = dict.fromkeys(DATASETS, "Data")
    behind = backlog(done, silver={"A": ["daily_bars", "companies"]}, gold=["A"])
    assert behind == [
        "silver/daily_bars, silver/companies without the newest objects",
        "gold is behind silver",
    ]


def test_rows_that_silver_has_lost_are_a_reason():
    done = dict.fromkeys(DATASETS, "Data")
    assert backlog(done, lost={"A": 1}) == ["a row is gone from silver/daily_bars"]
    assert backlog(done, lost={"A": 5}) == ["5 rows are gone from silver/daily_bars"]


def test_a_gap_that_a_call_may_fill_is_a_reason():
    gap = Gap("A", Place.INSIDE, date(2026, 11, 2), date(2026, 11, 3), 2)
    assert backlog(dict.fromkeys(DATASETS, "Data"), gaps=[gap]) == [
        "2 sessions are missing between bars, 2026-11-02 to 2026-11-03"
    ]


TICKERS = ["A", "B", "C", "D"]


def chosen(*, called, busy=(), is_session=True):
    """Of A to D, B and C are in the backlog, and C needs no call."""
    return choose(TICKERS, {"B", "C"}, {"C"}, called=called, busy=busy, is_session=is_session)


def test_a_catch_up_takes_what_can_be_had():
    assert chosen(called=None) == ["B", "C"]
    assert chosen(called=set(TICKERS)) == TICKERS
    # No call is left, and silver and gold need none.
    assert chosen(called=set()) == ["C"]
    assert chosen(called={"A"}) == ["A", "C"]


def test_on_a_day_without_a_session_what_is_only_due_starts_nothing():
    assert chosen(called=set(TICKERS), is_session=False) == ["B", "C"]
    assert chosen(called={"A", "D"}, is_session=False) == ["C"]


def test_what_a_run_at_work_has_is_left_to_it():
    assert chosen(called={"A", "B"}, busy={"A", "C"}) == ["B"]
