from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from stocks_assets.domain.alerts import (
    OVERLAP,
    TICKERS_AT_MOST,
    Finished,
    Run,
    Standing,
    State,
    Told,
    Verdict,
    find_alerts,
    judge,
)

START = datetime(2026, 11, 20, tzinfo=UTC)


def run(number, succeeded, *, job="refresh", minute=None):
    at = START + timedelta(minutes=number if minute is None else minute)
    return Finished(f"run {number}", job, at, succeeded, "" if succeeded else "A: the line is dead")


def told(runs, since=None, standing=None):
    """The alerts on `runs`, and what is told in the end."""
    return find_alerts(since or Told(START), runs, standing or Standing())


def test_a_job_that_fails_is_told_once_until_it_works_again():
    outcomes = [True, False, False, True, True, False]
    alerts, _ = told([run(number, ok) for number, ok in enumerate(outcomes)])
    assert [(alert.run_id, alert.recovered) for alert in alerts] == [
        ("run 1", False),
        ("run 3", True),
        ("run 5", False),
    ]
    assert alerts[0].text == "refresh failed: A: the line is dead"
    assert alerts[1].text == "refresh works again; it failed in run 1"


def test_jobs_fail_each_for_itself():
    alerts, then = told([run(1, False), run(2, False, job="load"), run(3, True, job="load")])
    assert [(alert.job, alert.recovered) for alert in alerts] == [
        ("refresh", False),
        ("load", False),
        ("load", True),
    ]
    assert {job: one.run_id for job, one in then.failing.items()} == {"refresh": "run 1"}


def test_what_ended_before_anybody_listened_is_no_news():
    assert told([run(-1, False)]) == ([], Told(START))


def test_a_run_that_is_seen_later_than_one_that_ended_after_it_is_still_told():
    _, then = told([run(2, True, job="load")])
    late, then = told([run(1, False)], then)
    assert [alert.run_id for alert in late] == ["run 1"]
    assert told([run(1, False), run(2, True, job="load")], then)[0] == []


def test_what_is_kept_of_what_was_judged_does_not_grow():
    _, then = told([run(number, True) for number in range(300)])
    assert then.until == START + timedelta(minutes=299) - OVERLAP
    assert len(then.seen) == 11


def test_what_is_no_news_is_not_looked_at_for_ever():
    _, then = told([run(1, False)])
    later = then.looked_at(START + timedelta(minutes=60))
    assert later.until == START + timedelta(minutes=60) - OVERLAP
    assert later.looked_at(START).until == later.until
    [alert], _ = told([run(61, True)], later)
    assert alert.recovered


def of_request(*states, again=()):
    """Runs 0, 1, .. of a request in `states`; `again` maps a run to the one it stands for."""
    replaces = dict(again)
    return [
        Run(
            f"run {number}",
            state,
            None if state is State.AT_WORK else START + timedelta(minutes=number),
            f"run {replaces[number]}" if number in replaces else None,
        )
        for number, state in enumerate(states)
    ]


def minute(number):
    return START + timedelta(minutes=number)


def test_a_request_is_judged_once_when_all_its_runs_have_ended():
    failed, fine, at_work = State.FAILED, State.SUCCEEDED, State.AT_WORK
    assert judge(of_request(failed, fine, at_work), expected=3) is None
    assert judge(of_request(failed, fine, failed), expected=3) == Verdict(
        False, minute(2), ["run 2", "run 0"]
    )
    assert judge(of_request(failed, fine, fine), expected=3) == Verdict(False, minute(2), ["run 0"])
    # The third is still to be started.
    assert judge(of_request(fine, fine), expected=3) is None
    assert judge(of_request(fine, fine, fine), expected=3) == Verdict(
        True, minute(2), ["run 2", "run 1", "run 0"]
    )


def test_of_a_run_that_was_started_again_the_last_try_counts():
    retried, fine, failed = State.RETRIED, State.SUCCEEDED, State.FAILED
    assert judge(of_request(retried)) is None
    assert judge(of_request(retried, fine, again={1: 0})).succeeded
    assert not judge(of_request(failed, failed, fine, again={2: 0}), expected=2).succeeded
    assert judge(of_request(failed, failed, fine, fine, again={2: 0, 3: 1}), expected=2).succeeded


def test_what_somebody_stopped_is_neither_a_failure_nor_a_recovery():
    assert judge(of_request(State.SUCCEEDED, State.STOPPED), expected=2) is None
    assert not judge(of_request(State.FAILED, State.STOPPED), expected=2).succeeded


def test_how_a_backfill_stands_counts_until_something_is_done_again():
    fine = of_request(State.SUCCEEDED)
    failed = Run("backfill", State.FAILED, minute(5))
    assert judge(fine, own=failed) == Verdict(False, minute(5), ["backfill"])
    assert judge([], own=failed) == Verdict(False, minute(5), ["backfill"])
    again = Run("run 9", State.SUCCEEDED, minute(9), "run 0")
    assert judge([*fine, again], own=failed) == Verdict(True, minute(9), ["run 9"])
    assert judge(fine, own=Run("backfill", State.AT_WORK)) is None
    assert judge(fine, own=Run("backfill", State.STOPPED, minute(5))) is None
    assert not judge(
        of_request(State.FAILED), own=Run("backfill", State.STOPPED, minute(5))
    ).succeeded


runs = st.lists(
    st.tuples(st.integers(0, 5), st.booleans(), st.sampled_from(["refresh", "load"])), max_size=12
).map(lambda some: [run(n, ok, job=job, minute=at) for n, (at, ok, job) in enumerate(some)])


@given(runs, st.data())
def test_looking_again_or_in_parts_tells_the_same(finished, data):
    at_once, then = told(finished)
    assert told(finished, then) == ([], then)
    in_order = sorted(finished, key=lambda one: (one.ended_at, one.run_id))
    cut = data.draw(st.integers(0, len(in_order)))
    first, between = told(in_order[:cut])
    # The next look sees some of the runs again.
    second, last = told(in_order, between)
    assert first + second == at_once
    assert last == then


@given(runs)
def test_alerts_of_a_job_take_turns(finished):
    alerts, _ = told(finished)
    for job in ("refresh", "load"):
        turns = [alert.recovered for alert in alerts if alert.job == job]
        assert turns == [bool(number % 2) for number in range(len(turns))]


TICKERS = ["A", "B", "C"]


def refresh(number, *failed, asked=None, reason=""):
    """A refresh in which these tickers failed, or the whole did."""
    lines = {ticker: [f"{ticker}: torn"] for ticker in failed}
    at = START + timedelta(minutes=number)
    is_fine = not failed and not reason
    return Finished(f"run {number}", "refresh", at, is_fine, reason, "", lines, asked)


def following(*steps, tickers=TICKERS):
    """The texts told of refreshes, each with the tickers that fail then."""
    then, texts = Told(START), []
    for end, failing in steps:
        alerts, then = told([end], then, Standing(tickers, failing))
        texts += [alert.text for alert in alerts]
    return texts, then


def test_a_refresh_that_passes_over_a_broken_ticker_has_not_recovered():
    texts, then = following(
        (refresh(1, "A"), ["A"]),
        (refresh(2), ["A"]),
        (refresh(3, "A"), ["A"]),
        (refresh(4), ["A"]),
    )
    assert texts == ["refresh failed: A: torn"]
    assert told([refresh(5)], then, Standing(TICKERS, []))[0][0].recovered


def test_a_refresh_of_other_tickers_recovers_none():
    texts, _ = following((refresh(1, "A", "B"), []), (refresh(2, asked=["C"]), []))
    assert texts == ["refresh failed: A: torn\nB: torn"]
    texts, _ = following((refresh(1, "A"), []), (refresh(2, asked=["A", "C"]), []))
    assert texts[1:] == ["refresh works again; it failed in run 1"]


def test_a_ticker_that_works_in_one_job_fails_anew_in_another():
    load = replace(refresh(1, "A"), run_id="load 1", job="load")
    _, then = told([load], standing=Standing(TICKERS, ["A"]))
    _, then = told([refresh(2, asked=["B"])], then, Standing(TICKERS, []))
    again = replace(refresh(3, "A"), run_id="load 3", job="load")
    assert told([again], then, Standing(TICKERS, ["A"]))[0] == []
    _, then = told([refresh(2.5, asked=["A"])], then, Standing(TICKERS, []))
    [alert], _ = told([again], then, Standing(TICKERS, ["A"]))
    assert alert.text == "load failed: A: torn"


def test_of_tickers_that_fail_those_that_are_new_are_told():
    texts, _ = following(
        (refresh(1, "A"), ["A"]),
        (refresh(2, "A", "B"), ["A", "B"]),
        (refresh(3, "B"), ["B"]),
        (refresh(4, "A", "B"), ["A", "B"]),
    )
    assert texts == [
        "refresh failed: A: torn",
        "refresh failed: B: torn\nand 1 as before",
        "refresh failed: A: torn\nand 1 as before",
    ]


def test_a_job_that_fails_as_a_whole_is_told_whichever_ticker_fails_beside():
    texts, _ = following(
        (refresh(1, "A"), ["A"]),
        (refresh(2, "A", reason="gold: no space"), ["A"]),
        (refresh(3, reason="gold: no space"), ["A"]),
        (refresh(4), ["A"]),
        (refresh(5), []),
    )
    assert texts == [
        "refresh failed: A: torn",
        "refresh failed: gold: no space\nand 1 as before",
        "refresh works again; it failed in run 1",
    ]


def test_a_ticker_that_left_the_universe_is_not_waited_for():
    _, then = following((refresh(1, "A"), ["A"]))
    [alert], _ = told([refresh(2, asked=["B"])], then, Standing(["B"], []))
    assert alert.recovered


def test_of_more_tickers_than_are_remembered_all_have_to_work():
    many = [f"T{number}" for number in range(TICKERS_AT_MOST + 1)]
    [text, *more], then = following(
        (refresh(1, *many), many),
        (refresh(2, *many), many),
        (refresh(3), many[:2]),
        (refresh(4, "T0"), many[:2]),
        tickers=many,
    )
    assert text.endswith(f"and {len(many) - 10} more")
    assert more == []
    assert then.failing["refresh"].tickers == {"T0", "T1"}
    assert told([refresh(5)], then, Standing(many, []))[0][0].recovered


some = st.sets(st.sampled_from(TICKERS))


@given(st.lists(st.tuples(some, some, some, st.booleans()), max_size=15))
def test_each_failure_is_told_once_and_nothing_works_that_fails(days):
    """Each day tickers are broken, asked for and due; what is not due is not called for."""
    then, answers, named = Told(START), {}, set()
    for number, (broken, asked, due, breaks) in enumerate(days):
        called = {ticker for ticker in asked if ticker in due}
        answers |= {ticker: ticker not in broken for ticker in called}
        failed = called & broken
        failing = {ticker for ticker, answered in answers.items() if not answered}
        end = refresh(number, *failed, asked=asked, reason="gold" if breaks else "")
        alerts, then = told([end], then, Standing(TICKERS, failing))
        told_of = then.failing["refresh"].tickers if "refresh" in then.failing else set()
        # What was told and works, once it was asked for, may be told again.
        named = {ticker for ticker in named if ticker in failing or ticker not in asked}
        assert len(alerts) <= 1
        for alert in alerts:
            if alert.recovered:
                assert not failed
                assert not named
                continue
            new = {line.split(":")[0] for line in alert.text.split("failed: ")[1].splitlines()}
            new &= set(TICKERS)
            assert not new & named
            named |= new
        assert failed <= named
        assert named & failing <= told_of


@given(st.lists(st.tuples(some, some), max_size=15))
def test_a_recovery_follows_a_failure_that_was_told(days):
    steps = [(refresh(n, *failed), failing) for n, (failed, failing) in enumerate(days)]
    then, failing = Told(START), False
    for end, fail in steps:
        alerts, then = told([end], then, Standing(TICKERS, fail))
        for alert in alerts:
            assert failing or not alert.recovered
            failing = not alert.recovered
