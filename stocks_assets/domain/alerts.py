"""When a person is told that a job fails, and that it works again: once each.

What is judged is a request, such as the refresh of a day, and not each of its runs: of ten runs of
which one fails, the request has failed once. A job fails as a whole or for tickers, which are
remembered: it works again when none of them fails any more; that it fails as before is no news.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

# Runs are looked at again for so long: one may be seen later than another that ended after it.
OVERLAP = timedelta(minutes=10)
# A job that is never run again, such as a backfill, is not waited for for ever.
_FAILING_AT_MOST = 100
TICKERS_AT_MOST = 100
"""So many tickers of a job are remembered by name."""
_SHOWN = 10


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
    """A request that has ended, and how.

    `run_id` is the run that ended last, or else whatever tells this end from all others; `page` is
    where the UI shows more. `failed` are the tickers that failed, each with lines that say why;
    `reason` is why the request failed, if that is no ticker's. `asked` are the tickers that it was
    for; None: all of them.
    """

    run_id: str
    job: str
    ended_at: datetime
    succeeded: bool
    reason: str = ""
    page: str = ""
    failed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    asked: Collection[str] | None = None

    @property
    def failed_as_a_whole(self) -> bool:
        """Tell whether it failed for more than the tickers that are named."""
        return not self.succeeded and (bool(self.reason) or not self.failed)


@dataclass(frozen=True, slots=True)
class Standing:
    """The tickers that there are, and those of them that fail, whoever asked for them last."""

    tickers: Collection[str] = ()
    failing: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Alert:
    """What to tell: a job that fails since this run, or works again."""

    run_id: str
    job: str
    recovered: bool
    text: str
    page: str = ""


@dataclass(frozen=True, slots=True)
class Failing:
    """What was told of a job and is not over: the run that it began with, and what fails.

    `tickers` is None where more fail than are remembered.
    """

    run_id: str
    as_a_whole: bool
    tickers: frozenset[str] | None = frozenset()


@dataclass(frozen=True, slots=True)
class Told:
    """What was told: since when runs are looked at, and by job what fails.

    `seen` are the ends that were judged, and when they were, as far back as `OVERLAP`.
    """

    since: datetime
    seen: Mapping[str, datetime] = field(default_factory=dict)
    failing: Mapping[str, Failing] = field(default_factory=dict)

    @property
    def until(self) -> datetime:
        """Return since when runs have to be looked at."""
        return max(self.since, max(self.seen.values(), default=self.since) - OVERLAP)

    def looked_at(self, moment: datetime) -> "Told":
        """Return this once all that ended up to `moment` was looked at, news or not."""
        return replace(self, since=max(self.since, moment - OVERLAP))


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


def judge(runs: Iterable[Run], *, expected: int = 1, own: Run | None = None) -> Verdict | None:
    """Return what the request of `runs` came to; `expected` is how many runs it was made of.

    `own` is how the request itself stands, where it has a state beside those of its runs: it counts
    as one of them, until a run ends after it. None: it has not ended, or was stopped by somebody,
    who needs not be told.
    """
    runs = list(runs)
    if own is not None and not _is_outdated(own, runs):
        runs.append(own)
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


def _is_outdated(own: Run, runs: Iterable[Run]) -> bool:
    """Tell whether something was done again after the request had ended."""
    return own.ended_at is not None and any(
        run.ended_at is not None and run.ended_at > own.ended_at for run in runs
    )


def _when(one: tuple[datetime, Run]) -> tuple[datetime, str]:
    return one[0], one[1].run_id


def find_alerts(
    told: Told, finished: Iterable[Finished], standing: Standing
) -> tuple[list[Alert], Told]:
    """Return what to tell of the ends that are news, and what is told then.

    Ends are taken in the order in which they came about, whatever their order here.
    """
    alerts: list[Alert] = []
    for end in sorted(finished, key=lambda end: (end.ended_at, end.run_id)):
        if end.ended_at < told.until or end.run_id in told.seen:
            continue
        told = replace(told, seen={**told.seen, end.run_id: end.ended_at})
        told = replace(told, seen={k: at for k, at in told.seen.items() if at >= told.until})
        before = told.failing.get(end.job)
        # A ticker that works in any job is waited for in none.
        failing = {
            job: replace(one, tickers=_bounded(_still(one.tickers, end, standing)))
            for job, one in told.failing.items()
        }
        now = _after(failing.pop(end.job, None), end)
        if (text := _news(before, end, now)) is not None:
            alerts.append(Alert(end.run_id, end.job, now is None, text, end.page))
        if now is not None:
            failing[end.job] = now
        told = replace(told, failing=dict(list(failing.items())[-_FAILING_AT_MOST:]))
    return alerts, told


def _after(before: Failing | None, end: Finished) -> Failing | None:
    """Return what fails of the job after `end`; None if nothing does that was or is to be told.

    `before` are the job's failures that `end` has not ended.
    """
    still = before.tickers if before is not None else frozenset()
    tickers = None if still is None else _bounded(still | end.failed.keys())
    if not end.failed_as_a_whole and tickers is not None and not tickers:
        return None
    run_id = before.run_id if before is not None else end.run_id
    return Failing(run_id, end.failed_as_a_whole, tickers)


def _still(told: frozenset[str] | None, end: Finished, standing: Standing) -> Collection[str]:
    """Return those of the tickers that were told that do not work again after `end`.

    A request that was not for a ticker says nothing of it. One that succeeds may have passed over
    a ticker that is not due.
    """
    if told is None:
        return standing.failing
    return [
        ticker
        for ticker in told.intersection(standing.tickers)
        if ticker in standing.failing
        or ticker in end.failed
        or (end.asked is not None and ticker not in end.asked)
    ]


def _bounded(tickers: Collection[str]) -> frozenset[str] | None:
    return frozenset(tickers) if len(tickers) <= TICKERS_AT_MOST else None


def _news(before: Failing | None, end: Finished, now: Failing | None) -> str | None:
    """Return what to say of `end`; None if it is no news."""
    if before is not None and now is None:
        return f"{end.job} works again; it failed in {before.run_id}"
    if end.succeeded:
        return None
    known = before.tickers if before is not None else frozenset()
    new = sorted(end.failed.keys() - known) if known is not None else []
    lines = [line for ticker in new for line in end.failed[ticker]]
    if end.failed_as_a_whole and not (before is not None and before.as_a_whole):
        lines.insert(0, end.reason)
    elif not new:
        return None
    shown = lines[:_SHOWN]
    if len(lines) > _SHOWN:
        shown.append(f"and {len(lines) - _SHOWN} more")
    if as_before := len(end.failed) - len(new):
        shown.append(f"and {as_before} as before")
    return f"{end.job} failed: " + "\n".join(shown)
