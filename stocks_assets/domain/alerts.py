"""When a person is told that a job fails, and that it works again: once each.

What is judged is a request, such as the refresh of a day, and not each of its runs: of ten runs of
which one fails, the request has failed once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

# Runs are looked at again for so long: one may be seen later than another that ended after it.
OVERLAP = timedelta(minutes=10)
# A job that is never run again, such as a backfill, is not waited for for ever.
_FAILING_AT_MOST = 100


class State(StrEnum):
    """How a run stands; `RETRIED` is one that failed and is started again by itself."""

    AT_WORK = "at work"
    RETRIED = "retried"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a request; `again` is the run that it was started in place of."""

    run_id: str
    state: State
    ended_at: datetime | None = None
    again: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """A request that has ended, and how; `reason` in a few words, where it failed.

    `run_id` is the run that ended last, or else whatever tells this end from all others; `page` is
    where the UI shows more.
    """

    run_id: str
    job: str
    ended_at: datetime
    succeeded: bool
    reason: str = ""
    page: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """What to tell: a job that fails since this run, or works again."""

    run_id: str
    job: str
    recovered: bool
    text: str
    page: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What was told: since when runs are looked at, and by job the run since which it fails.

    `seen` are the ends that were judged, and when they were, as far back as `OVERLAP`.
    """

    since: datetime
    seen: Mapping[str, datetime] = field(default_factory=dict)
    failing: Mapping[str, str] = field(default_factory=dict)

    @property
    def until(self) -> datetime:
        """Return since when runs have to be looked at."""
        return max(self.since, max(self.seen.values(), default=self.since) - OVERLAP)


def last_tries(runs: Iterable[Run]) -> list[Run]:
    """Return those of `runs` that no other was started in place of."""
    runs = list(runs)
    replaced = {run.again for run in runs}
    return [run for run in runs if run.run_id not in replaced]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request succeeded, when it ended, and the runs that say so, the last first."""

    succeeded: bool
    ended_at: datetime
    run_ids: Sequence[str]


def judge(runs: Iterable[Run], *, expected: int = 1) -> Verdict | None:
    """Return what the request of `runs` came to; `expected` is how many runs it was made of.

    None: it has not ended, or was stopped by somebody, who needs not be told.
    """
    runs = list(runs)
    last = last_tries(runs)
    ended = sorted(((run.ended_at, run) for run in last if run.ended_at), key=_when, reverse=True)
    unended = any(run.state in (State.AT_WORK, State.RETRIED) for run in last)
    if not ended or unended or len(ended) < len(last):
        return None
    ended_at = ended[0][0]
    if failed := [run.run_id for _, run in ended if run.state is State.FAILED]:
        return Verdict(False, ended_at, failed)
    begun = sum(run.again is None for run in runs)
    if begun < expected or any(run.state is State.STOPPED for run in last):
        return None
    return Verdict(True, ended_at, [run.run_id for _, run in ended])


def _when(one: tuple[datetime, Run]) -> tuple[datetime, str]:
    return one[0], one[1].run_id


def find_alerts(told: Told, finished: Iterable[Finished]) -> list[tuple[Alert | None, Told]]:
    """Return, for each end that is news, what to tell of it if anything, and what is told then.

    A job that fails again after it was told of is no news; one that works again is. Ends are taken
    in the order in which they came about, whatever their order here.
    """
    steps: list[tuple[Alert | None, Told]] = []
    for end in sorted(finished, key=lambda end: (end.ended_at, end.run_id)):
        if end.ended_at < told.until or end.run_id in told.seen:
            continue
        told = replace(told, seen={**told.seen, end.run_id: end.ended_at})
        told = replace(told, seen={k: at for k, at in told.seen.items() if at >= told.until})
        alert = None
        if end.succeeded and end.job in told.failing:
            text = f"{end.job} works again; it failed in {told.failing[end.job]}"
            alert = Alert(end.run_id, end.job, True, text, end.page)
            told = replace(told, failing={k: v for k, v in told.failing.items() if k != end.job})
        elif not end.succeeded and end.job not in told.failing:
            alert = Alert(end.run_id, end.job, False, f"{end.job} failed: {end.reason}", end.page)
            failing = [*told.failing.items(), (end.job, end.run_id)]
            told = replace(told, failing=dict(failing[-_FAILING_AT_MOST:]))
        steps.append((alert, told))
    return steps
