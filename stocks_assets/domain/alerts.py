"""When a person is told that a job fails, and that it works again: once each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that has ended, and how; `reason` in a few words, where it failed."""

    run_id: str
    job: str
    ended_at: datetime
    succeeded: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """What to tell: a job that fails since this run, or works again."""

    run_id: str
    job: str
    recovered: bool
    text: str


@dataclass(frozen=True, slots=True)
class Told:
    """What was told: up to when runs were looked at, and by job the run since which it fails.

    `seen` are the runs that ended at that very moment: others may have ended with them.
    """

    until: datetime
    seen: frozenset[str] = frozenset()
    failing: Mapping[str, str] = field(default_factory=dict)


def find_alerts(told: Told, finished: Iterable[Finished]) -> list[tuple[Alert | None, Told]]:
    """Return, for each run that is news, what to tell of it if anything, and what is told then.

    A job that fails again after it was told of is no news; one that works again is. Runs are taken
    in the order in which they ended, whatever their order here.
    """
    steps: list[tuple[Alert | None, Told]] = []
    for run in sorted(finished, key=lambda run: (run.ended_at, run.run_id)):
        if run.ended_at < told.until or run.run_id in told.seen:
            continue
        same_moment = run.ended_at == told.until
        told = replace(
            told,
            until=run.ended_at,
            seen=(told.seen if same_moment else frozenset()) | {run.run_id},
        )
        alert = None
        if run.succeeded and run.job in told.failing:
            since = told.failing[run.job]
            alert = Alert(run.run_id, run.job, True, f"{run.job} works again; it failed in {since}")
            told = replace(told, failing={k: v for k, v in told.failing.items() if k != run.job})
        elif not run.succeeded and run.job not in told.failing:
            alert = Alert(run.run_id, run.job, False, f"{run.job} failed: {run.reason}")
            told = replace(told, failing={**told.failing, run.job: run.run_id})
        steps.append((alert, told))
    return steps
