from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stocks_assets.domain.datasets import (
    COMPANIES,
    DAILY_BARS,
    DATASETS,
    INTRADAY_BARS,
    SPLITS,
    WEEKLY_BARS,
    Call,
    parts_of,
)
from stocks_assets.domain.planner import Allowance, Checked, Priority, Want, is_due, plan_calls

NOW = datetime(2026, 11, 18, 23, tzinfo=UTC)  # a Wednesday, after the close
FREE_KEY = Allowance(left=25, per_day=25)


def data(hours_ago):
    return Checked(NOW - timedelta(hours=hours_ago), "Data")


OF_TICKERS = [name for name, dataset in DATASETS.items() if not dataset.is_of_market]


def never(tickers, datasets=OF_TICKERS):
    return [want(dataset, ticker) for ticker in tickers for dataset in datasets]


def want(
    dataset,
    ticker="A",
    last=None,
    priority=Priority.NORMAL,
    *,
    part="",
    delisted_on=None,
    listed_on=None,
):
    return Want(Call(dataset, ticker, part), priority, last, delisted_on, listed_on)


def due(dataset, last, now):
    return is_due(want(dataset.name, last=last), now)


def test_500_tickers_on_25_calls_a_day_make_25_calls_and_say_when_the_rest_is_done():
    tickers = [f"T{number:03}" for number in range(500)]
    plan = plan_calls(never(tickers), NOW, FREE_KEY)
    assert len(plan.calls) == 25
    assert {call.dataset for call in plan.calls} == {"weekly_bars"}
    wanted = 500 * len(OF_TICKERS)
    assert len(plan.waiting) == wanted - 25
    assert plan.done_by == NOW + timedelta(days=wanted // 25 - 1)


def test_the_next_day_goes_on_where_the_last_one_stopped():
    tickers = [f"T{number:03}" for number in range(60)]
    state, days = {}, []
    for day in range(3):
        now = NOW + timedelta(days=day)
        wants = [want("weekly_bars", ticker, state.get(ticker)) for ticker in tickers]
        plan = plan_calls(wants, now, FREE_KEY)
        state |= {call.ticker: Checked(now, "Data") for call in plan.calls}
        days.append([call.ticker for call in plan.calls])
    assert days == [tickers[:25], tickers[25:50], tickers[50:]]


def test_priority_comes_before_staleness_and_staleness_before_the_alphabet():
    wants = [
        want("daily_bars", "A", data(36)),
        want("daily_bars", "B"),
        want("daily_bars", "C", priority=Priority.LOW),
        want("daily_bars", "D", data(24), Priority.HIGH),
        want("daily_bars", "E", data(240)),
    ]
    plan = plan_calls(wants, NOW, Allowance())
    assert [call.ticker for call in plan.of("daily_bars")] == ["D", "B", "E", "A", "C"]


def test_bars_are_not_asked_for_before_another_session_has_closed():
    friday_evening = Checked(datetime(2026, 11, 20, 22, tzinfo=UTC), "Data")
    sunday, monday = datetime(2026, 11, 22, 22, tzinfo=UTC), datetime(2026, 11, 23, 22, tzinfo=UTC)
    assert not due(DAILY_BARS, friday_evening, sunday)
    assert due(DAILY_BARS, friday_evening, monday)
    # Thanksgiving: no session between Wednesday's close and Friday's early one.
    wednesday = Checked(datetime(2026, 11, 25, 22, tzinfo=UTC), "Data")
    assert not due(DAILY_BARS, wednesday, datetime(2026, 11, 26, 23, tzinfo=UTC))
    assert due(DAILY_BARS, wednesday, datetime(2026, 11, 27, 18, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("dataset", "days"), [(WEEKLY_BARS, 5), (SPLITS, 7), (COMPANIES, 30)], ids=lambda p: str(p)[:20]
)
def test_datasets_that_change_slowly_can_wait(dataset, days):
    assert not due(dataset, data(24 * days - 1), NOW)
    assert due(dataset, data(24 * days + 24), NOW)


@pytest.mark.parametrize(
    ("outcome", "after"),
    [
        ("UnknownSymbol", timedelta(days=7)),
        ("PremiumOnly", timedelta(days=1)),
        ("TransportFailed", timedelta(0)),
        ("Malformed", timedelta(0)),
    ],
)
def test_what_was_refused_is_asked_for_again_when_that_may_help(outcome, after):
    last = Checked(NOW - after, outcome, failures=6)
    assert due(DAILY_BARS, last, NOW)
    if after:
        assert not due(DAILY_BARS, last, NOW - timedelta(seconds=1))


def test_what_was_not_available_is_asked_for_again_in_the_turns_of_its_dataset():
    def missing(days):
        return Checked(NOW - timedelta(days=days), "Unavailable")

    assert due(DAILY_BARS, missing(1), NOW)
    assert not due(COMPANIES, missing(29), NOW)
    assert due(COMPANIES, missing(30), NOW)


def test_one_dataset_that_is_unknown_speaks_for_the_whole_ticker():
    unknown = Checked(NOW - timedelta(hours=1), "UnknownSymbol")
    wants = [*never(["A"]), *never(["NOPE"], ["splits", "dividends"])]
    wants.append(want("weekly_bars", "NOPE", unknown, Priority.HIGH))
    plan = plan_calls(wants, NOW, Allowance())
    assert {call.ticker for call in plan.calls} == {"A"}
    assert plan.fresh == 3


def refused(at, times):
    return Checked(at, "UnknownSymbol", None, times)


@pytest.mark.parametrize(
    ("listed_on", "times", "is_new"),
    [
        (None, 1, True),  # added lately
        (None, 5, True),
        (None, 6, False),
        (NOW.date(), 6, True),  # listed lately
        ((NOW - timedelta(days=30)).date(), 99, True),
        ((NOW - timedelta(days=31)).date(), 6, False),
    ],
)
def test_what_may_be_new_is_asked_for_after_each_session_though_the_vendor_did_not_know_it(
    listed_on, times, is_new
):
    def is_asked(last, now):
        wants = [
            want("weekly_bars", last=last, listed_on=listed_on),
            *(want(name, listed_on=listed_on) for name in ("daily_bars", "splits")),
        ]
        return {call.dataset for call in plan_calls(wants, now, FREE_KEY).calls}

    yesterday = refused(NOW - timedelta(days=1), times)
    # One refusal speaks for all datasets, and the first that is not refused for all as well.
    assert is_asked(yesterday, NOW) == (
        {"weekly_bars", "daily_bars", "splits"} if is_new else set()
    )
    today = refused(NOW, times)
    assert is_asked(today, NOW + timedelta(hours=5)) == set()
    a_week_ago = refused(NOW - timedelta(days=7), times)
    assert is_asked(a_week_ago, NOW)


def test_daily_bars_that_were_had_at_noon_are_due_after_the_close():
    noon = Checked(datetime(2026, 11, 20, 17, tzinfo=UTC), "Data")
    assert not due(DAILY_BARS, noon, datetime(2026, 11, 20, 20, 59, tzinfo=UTC))
    assert due(DAILY_BARS, noon, datetime(2026, 11, 20, 21, tzinfo=UTC))
    evening = Checked(datetime(2026, 11, 20, 23, 30, tzinfo=UTC), "Data")
    assert not due(DAILY_BARS, evening, datetime(2026, 11, 23, 20, 59, tzinfo=UTC))
    assert due(DAILY_BARS, evening, datetime(2026, 11, 23, 21, tzinfo=UTC))


def test_a_list_of_splits_that_may_lack_one_is_due_before_its_time():
    yesterday = Checked(NOW - timedelta(days=1), "Data")
    assert not due(SPLITS, yesterday, NOW)
    call = Call("splits", "A")
    assert is_due(Want(call, Priority.NORMAL, yesterday, is_lacking=True), NOW)


def test_at_a_weekend_what_may_be_new_is_left_alone():
    friday_evening = refused(datetime(2026, 11, 20, 23, 30, tzinfo=UTC), 1)
    assert not due(DAILY_BARS, friday_evening, datetime(2026, 11, 23, 4, tzinfo=UTC))
    assert due(DAILY_BARS, friday_evening, datetime(2026, 11, 23, 23, 30, tzinfo=UTC))


def test_what_the_vendor_knew_once_is_not_new():
    last = Checked(NOW - timedelta(days=3), "UnknownSymbol", NOW - timedelta(days=9), 1)
    assert not due(DAILY_BARS, last, NOW)


def test_a_month_that_is_over_is_asked_for_once_and_the_running_one_each_session():
    def last(at):
        return Checked(at, "Data")

    october = "2026-10"
    in_october = last(datetime(2026, 10, 20, 23, tzinfo=UTC))
    afterwards = last(datetime(2026, 10, 31, 23, tzinfo=UTC))
    assert is_due(want("intraday_bars", part=october, last=in_october), NOW)
    assert not is_due(want("intraday_bars", part=october, last=afterwards), NOW)
    assert is_due(want("intraday_bars", part="2026-11", last=data(30)), NOW)


def test_the_months_of_a_window_go_back_from_this_one_and_the_newest_is_asked_for_first():
    parts = parts_of(INTRADAY_BARS, NOW.date(), 13)
    assert (parts[0], parts[-1], len(parts)) == ("2026-11", "2025-11", 13)
    assert parts_of(INTRADAY_BARS, NOW.date(), 0) == ()
    assert parts_of(SPLITS, NOW.date(), 0) == ("",)
    plan = plan_calls([want("intraday_bars", part=part) for part in reversed(parts)], NOW, FREE_KEY)
    assert [call.part for call in plan.calls] == list(parts)


def test_a_delisted_security_is_asked_for_once_more_and_then_left_alone():
    delisted_on = (NOW - timedelta(days=100)).date()
    before, after = data(24 * 110), data(24 * 90)
    assert is_due(want("daily_bars", last=before, delisted_on=delisted_on), NOW)
    assert not is_due(want("daily_bars", last=after, delisted_on=delisted_on), NOW)
    assert is_due(want("daily_bars", delisted_on=delisted_on), NOW)


def test_without_a_limit_by_the_day_everything_due_is_called_for_now():
    plan = plan_calls(never(["A", "B"]), NOW, Allowance())
    assert len(plan.calls) == 2 * len(OF_TICKERS)
    assert (plan.waiting, plan.done_by) == ((), NOW)


def test_a_spent_day_makes_no_call_and_says_when_to_come_back():
    frees = NOW + timedelta(hours=3)
    plan = plan_calls(never(["A"]), NOW, Allowance(left=0, per_day=25, frees_at=frees))
    assert plan.calls == ()
    assert plan.done_by == frees


WANTS = st.lists(
    st.builds(
        Want,
        call=st.builds(
            lambda dataset, ticker, part: Call(
                dataset, ticker, part if DATASETS[dataset].is_monthly else ""
            ),
            st.sampled_from(sorted(OF_TICKERS)),
            st.sampled_from(["A", "B", "C", "D"]),
            st.sampled_from(["2026-11", "2026-09"]),
        ),
        priority=st.sampled_from(Priority),
        last=st.none()
        | st.builds(
            Checked,
            at=st.integers(0, 2000).map(lambda hours: NOW - timedelta(hours=hours)),
            outcome=st.sampled_from(["Data", "UnknownSymbol", "TransportFailed"]),
        ),
    ),
    unique_by=lambda want: want.call,
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


def test_on_a_small_key_every_dataset_of_every_ticker_gets_its_turn():
    tickers = [f"T{number:02}" for number in range(60)]
    state, made = {}, set()
    wanted = [Call(dataset, ticker) for ticker in tickers for dataset in OF_TICKERS]
    wanted = [call for call in wanted if call.dataset != "intraday_bars"]
    first = plan_calls([Want(call, Priority.NORMAL, None) for call in wanted], NOW, FREE_KEY)
    for day in range(40):
        now = NOW + timedelta(days=day)
        wants = [Want(call, Priority.NORMAL, state.get(call)) for call in wanted]
        calls = plan_calls(wants, now, FREE_KEY).calls
        state |= {call: Checked(now, "Data", now) for call in calls}
        if made != set(wanted):
            made |= set(calls)
            finished = now
    assert made == set(wanted)
    assert finished == first.done_by
    oldest = min(checked.at for checked in state.values())
    assert now - oldest <= timedelta(days=30 + len(wanted) // 25)


def test_a_call_that_failed_keeps_its_place_until_it_has_failed_often():
    def failed(times):
        return Checked(NOW - timedelta(days=1), "TransportFailed", None, times)

    for times, expected in ((1, ["A", "B"]), (2, ["A", "B"]), (3, ["B", "A"])):
        wants = [want("weekly_bars", "A", failed(times)), want("weekly_bars", "B")]
        plan = plan_calls(wants, NOW, FREE_KEY)
        assert [call.ticker for call in plan.calls] == expected
    # What there was data of is as old as that, whatever failed since.
    old = Checked(NOW - timedelta(days=1), "TransportFailed", NOW - timedelta(days=30), 1)
    wants = [want("weekly_bars", "A", data(24 * 20)), want("weekly_bars", "B", old)]
    assert [call.ticker for call in plan_calls(wants, NOW, FREE_KEY).calls] == ["B", "A"]


def test_a_refusal_does_not_speak_for_a_ticker_that_there_is_data_of():
    refused = Checked(NOW - timedelta(hours=1), "UnknownSymbol", None, 1)
    wants = [want("splits", "SPY", refused), want("daily_bars", "SPY", data(24 * 3))]
    assert [call.dataset for call in plan_calls(wants, NOW, FREE_KEY).calls] == ["daily_bars"]


def test_a_month_is_asked_for_once_more_after_the_vendor_has_had_time_for_its_last_session():
    close = datetime(2026, 10, 30, 20, 1, tzinfo=UTC)
    at_once, a_day_later = Checked(close, "Data"), Checked(close + timedelta(days=1), "Data")
    assert is_due(want("intraday_bars", part="2026-10", last=at_once), NOW)
    assert not is_due(want("intraday_bars", part="2026-10", last=a_day_later), NOW)
    missing = Checked(NOW - timedelta(days=3), "Unavailable")
    assert not is_due(want("intraday_bars", part="2026-09", last=missing), NOW)
    assert is_due(want("intraday_bars", part="2026-09", last=missing), NOW + timedelta(days=30))
