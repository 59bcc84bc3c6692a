from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stocks_assets.domain.datasets import COMPANIES, DAILY_BARS, DATASETS, SPLITS, WEEKLY_BARS
from stocks_assets.domain.planner import Allowance, Checked, Priority, Want, is_due, plan_calls

NOW = datetime(2026, 11, 18, 23, tzinfo=UTC)  # a Wednesday, after the close
FREE_KEY = Allowance(left=25, per_day=25)


def data(hours_ago):
    return Checked(NOW - timedelta(hours=hours_ago), "Data")


def never(tickers, datasets=DATASETS, priority=Priority.NORMAL):
    return [Want(dataset, ticker, priority, None) for ticker in tickers for dataset in datasets]


def test_500_tickers_on_25_calls_a_day_make_25_calls_and_say_when_the_rest_is_done():
    tickers = [f"T{number:03}" for number in range(500)]
    plan = plan_calls(never(tickers), NOW, FREE_KEY)
    assert len(plan.calls) == 25
    assert {dataset for dataset, _ in plan.calls} == {"weekly_bars"}
    assert len(plan.waiting) == 2475
    assert plan.done_by == NOW + timedelta(days=99)


def test_the_next_day_goes_on_where_the_last_one_stopped():
    tickers = [f"T{number:03}" for number in range(60)]
    state, days = {}, []
    for day in range(3):
        now = NOW + timedelta(days=day)
        wants = [
            Want("weekly_bars", ticker, Priority.NORMAL, state.get(ticker)) for ticker in tickers
        ]
        plan = plan_calls(wants, now, FREE_KEY)
        state |= {ticker: Checked(now, "Data") for _, ticker in plan.calls}
        days.append([ticker for _, ticker in plan.calls])
    assert days == [tickers[:25], tickers[25:50], tickers[50:]]


def test_priority_comes_before_staleness_and_staleness_before_the_alphabet():
    wants = [
        Want("daily_bars", "A", Priority.NORMAL, data(36)),
        Want("daily_bars", "B", Priority.NORMAL, None),
        Want("daily_bars", "C", Priority.LOW, None),
        Want("daily_bars", "D", Priority.HIGH, data(24)),
        Want("daily_bars", "E", Priority.NORMAL, data(240)),
    ]
    plan = plan_calls(wants, NOW, Allowance())
    assert plan.tickers("daily_bars") == ["D", "B", "E", "A", "C"]


def test_bars_are_not_asked_for_before_another_session_has_closed():
    friday_evening = Checked(datetime(2026, 11, 20, 22, tzinfo=UTC), "Data")
    sunday, monday = datetime(2026, 11, 22, 22, tzinfo=UTC), datetime(2026, 11, 23, 22, tzinfo=UTC)
    assert not is_due(DAILY_BARS, friday_evening, sunday)
    assert is_due(DAILY_BARS, friday_evening, monday)
    # Thanksgiving: no session between Wednesday's close and Friday's early one.
    wednesday = Checked(datetime(2026, 11, 25, 22, tzinfo=UTC), "Data")
    assert not is_due(DAILY_BARS, wednesday, datetime(2026, 11, 26, 23, tzinfo=UTC))
    assert is_due(DAILY_BARS, wednesday, datetime(2026, 11, 27, 18, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("dataset", "days"), [(WEEKLY_BARS, 5), (SPLITS, 7), (COMPANIES, 30)], ids=lambda p: str(p)[:20]
)
def test_datasets_that_change_slowly_can_wait(dataset, days):
    assert not is_due(dataset, data(24 * days - 1), NOW)
    assert is_due(dataset, data(24 * days + 24), NOW)


@pytest.mark.parametrize(
    ("outcome", "after"),
    [
        ("UnknownSymbol", timedelta(days=7)),
        ("PremiumOnly", timedelta(days=30)),
        ("Unavailable", timedelta(days=30)),
        ("TransportFailed", timedelta(0)),
        ("Malformed", timedelta(0)),
    ],
)
def test_what_was_refused_is_asked_for_again_when_that_may_help(outcome, after):
    last = Checked(NOW - after, outcome)
    assert is_due(DAILY_BARS, last, NOW)
    if after:
        assert not is_due(DAILY_BARS, last, NOW - timedelta(seconds=1))


def test_one_dataset_that_is_unknown_speaks_for_the_whole_ticker():
    unknown = Checked(NOW - timedelta(hours=1), "UnknownSymbol")
    wants = [*never(["A"]), *never(["NOPE"], ["splits", "dividends"])]
    wants.append(Want("weekly_bars", "NOPE", Priority.HIGH, unknown))
    plan = plan_calls(wants, NOW, Allowance())
    assert {ticker for _, ticker in plan.calls} == {"A"}
    assert plan.fresh == 3


def test_without_a_limit_by_the_day_everything_due_is_called_for_now():
    plan = plan_calls(never(["A", "B"]), NOW, Allowance())
    assert len(plan.calls) == 2 * len(DATASETS)
    assert (plan.waiting, plan.done_by) == ((), NOW)


def test_a_spent_day_makes_no_call_and_says_when_to_come_back():
    frees = NOW + timedelta(hours=3)
    plan = plan_calls(never(["A"]), NOW, Allowance(left=0, per_day=25, frees_at=frees))
    assert plan.calls == ()
    assert plan.done_by == frees


WANTS = st.lists(
    st.builds(
        Want,
        dataset=st.sampled_from(sorted(DATASETS)),
        ticker=st.sampled_from(["A", "B", "C", "D"]),
        priority=st.sampled_from(Priority),
        last=st.none()
        | st.builds(
            Checked,
            at=st.integers(0, 2000).map(lambda hours: NOW - timedelta(hours=hours)),
            outcome=st.sampled_from(["Data", "UnknownSymbol", "TransportFailed"]),
        ),
    ),
    unique_by=lambda want: (want.dataset, want.ticker),
)


@given(WANTS, st.integers(0, 30))
def test_a_plan_is_a_partition_of_what_is_wanted_and_never_exceeds_the_allowance(wants, left):
    plan = plan_calls(wants, NOW, Allowance(left=left, per_day=25))
    assert len(plan.calls) <= left
    assert len(plan.calls) + len(plan.waiting) + plan.fresh == len(wants)
    assert len({*plan.calls, *plan.waiting}) == len(plan.calls) + len(plan.waiting)
    assert not plan.waiting or len(plan.calls) == left


@given(WANTS, st.randoms())
def test_a_plan_does_not_depend_on_the_order_of_what_is_wanted(wants, random):
    shuffled = list(wants)
    random.shuffle(shuffled)
    assert plan_calls(wants, NOW, FREE_KEY) == plan_calls(shuffled, NOW, FREE_KEY)
