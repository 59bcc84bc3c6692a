from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from stocks_assets.domain.alerts import Finished, Told, find_alerts

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
