from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from stocks_assets.domain.alerts import (
    OVERLAP,
    Finished,
    Run,
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


def told(runs, since=None):
    """The alerts on `runs`, and what is told in the end."""
    then, alerts = since or Told(START), []
    for alert, after in find_alerts(then, runs):
        then = after
        alerts += [alert] if alert else []
    return alerts, then


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
    assert dict(then.failing) == {"refresh": "run 1"}


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
