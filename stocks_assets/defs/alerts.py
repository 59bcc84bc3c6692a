"""A failing job, and one that works again, reach whoever the settings name."""

import json
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.execution.backfill import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionsFilter,
    BulkActionStatus,
    PartitionBackfill,
)
from dagster._core.scheduler.instigation import TickStatus
from dagster_shared.error import SerializableErrorInfo

from stocks_assets.adapters.backlog import find_failing
from stocks_assets.adapters.messages import Message, Sender, deliver
from stocks_assets.adapters.sources.build import offers
from stocks_assets.adapters.warehouse import Failure, Warehouse
from stocks_assets.defs.checks import every_ticker_is_refreshed, step_of
from stocks_assets.defs.jobs import BATCH, BATCH_RUNS
from stocks_assets.defs.logs import Redactor
from stocks_assets.defs.partitions import tickers_of_tags
from stocks_assets.defs.rebuild import REBUILD, rebuild_tables
from stocks_assets.defs.universe import universe
from stocks_assets.domain.alerts import (
    Alert,
    Failing,
    Finished,
    Run,
    Standing,
    State,
    Told,
    find_alerts,
    judge,
)
from stocks_assets.domain.datasets import DATASETS, MARKET
from stocks_assets.errors import StackError
from stocks_assets.settings import read_settings

NAME = "alerts"
_SECONDS_BETWEEN_LOOKS = 30
_TICKED = [TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.FAILURE]
# A sensor's code is given a minute, and the runs that it asks for are started one by one.
_LONGEST_TICK = timedelta(hours=1)
_REASON_LENGTH = 600
# The cursor is kept with each look, so what it holds of a way that is gone has its bounds.
_TEXT_LENGTH = 3000
_UNSENT_AT_MOST = 30
_STATES = {
    dg.DagsterRunStatus.SUCCESS: State.SUCCEEDED,
    dg.DagsterRunStatus.FAILURE: State.FAILED,
    dg.DagsterRunStatus.CANCELED: State.STOPPED,
}
_BACKFILL_STATES = {
    BulkActionStatus.COMPLETED: State.SUCCEEDED,
    BulkActionStatus.COMPLETED_SUCCESS: State.SUCCEEDED,
    BulkActionStatus.COMPLETED_FAILED: State.FAILED,
    BulkActionStatus.FAILED: State.FAILED,
    BulkActionStatus.CANCELED: State.STOPPED,
}
_UNENDED_BACKFILLS = [one for one in BulkActionStatus if one not in BULK_ACTION_TERMINAL_STATUSES]
_RUNS_A_PAGE = 1000
_BACKFILL = "dagster/backfill"
_FIRST_BACKFILL = "dagster/root_backfill_id"
_WILL_RETRY = "dagster/will_retry"
_ROOT = "dagster/root_run_id"


@dataclass
class _Memory:
    """What a look leaves to the next one: in the cursor, as JSON.

    `backfills` have not ended yet. `unsent` are the messages that have still to go out.
    """

    told: Told
    backfills: set[str] = field(default_factory=set)
    unsent: Sequence[Message] = ()

    @classmethod
    def read(cls, cursor: str | None) -> "_Memory":
        """Return what `cursor` says; without one nothing before this moment is news."""
        if cursor is None:
            return cls(Told(datetime.now(UTC)))
        kept = json.loads(cursor)
        since = datetime.fromisoformat(kept.get("since") or kept["until"])
        # Before requests were judged, it was a list of runs.
        seen = kept["seen"] if isinstance(kept["seen"], dict) else {}
        return cls(
            Told(
                since,
                {k: datetime.fromisoformat(at) for k, at in seen.items()},
                {job: _read_failing(one) for job, one in kept["failing"].items()},
            ),
            set(kept.get("backfills", ())),
            [Message(subject, text, frozenset(by)) for subject, text, by in kept.get("unsent", ())],
        )

    def write(self) -> str:
        """Return the cursor."""
        return json.dumps(
            {
                "since": self.told.since.isoformat(),
                "seen": {key: at.isoformat() for key, at in self.told.seen.items()},
                "failing": {job: _write_failing(one) for job, one in self.told.failing.items()},
                "backfills": sorted(self.backfills),
                "unsent": [[one.subject, one.text, sorted(one.by)] for one in self.unsent],
            }
        )


def _read_failing(kept: str | list[Any]) -> Failing:
    if isinstance(kept, str):  # before it was known what fails of a job
        return Failing(kept, as_a_whole=True)
    run_id, as_a_whole, tickers = kept
    return Failing(run_id, as_a_whole, None if tickers is None else frozenset(tickers))


def _write_failing(one: Failing) -> list[Any]:
    return [one.run_id, one.as_a_whole, None if one.tickers is None else sorted(one.tickers)]


def alerts_sensor(
    messenger: Sender, *, ui_url: str, runs_a_page: int = _RUNS_A_PAGE
) -> dg.SensorDefinition:
    """Return the sensor that sends by `messenger`; its links go to `ui_url`."""

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends a message when a job begins to fail, as a whole or for a ticker, and "
        "when it works again: once all runs of a request have ended. Schedules and sensors whose "
        "ticks fail count as well. What one way does not take is sent by it again with the next "
        "look; the other way goes on.",
    )
    def alerts(
        context: dg.SensorEvaluationContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.SkipReason:
        memory, books = _Memory.read(context.cursor), _Books(warehouse)
        look = _Look(context.instance, books, memory.told, universe(context.instance))
        records = _ended_runs(look.instance, look.told.until, runs_a_page)
        ends = [*_ends(look, memory, records), *_ticks(look.instance, look.told)]
        standing = books.standing(look.tickers, look.told, ends)
        found, memory.told = find_alerts(memory.told, ends, standing)
        if ends_at := [one.end_time for one in records if one.end_time]:
            memory.told = memory.told.looked_at(datetime.fromtimestamp(max(ends_at), UTC))
        messages = [*memory.unsent, *(_message(one, messenger, ui_url) for one in found)]
        delivery = deliver(messages, messenger, at_most=_UNSENT_AT_MOST)
        memory.unsent = delivery.unsent
        # Raised, it would cost the cursor, and with it what is known to be sent.
        trouble = [*books.trouble, *delivery.trouble]
        for line in trouble:
            context.log.error(line)
        if delivery.unsent:
            trouble.append(f"{len(delivery.unsent)} wait for the next look")
        context.update_cursor(memory.write())
        failing = ", ".join(memory.told.failing) or "none"
        return dg.SkipReason(
            "; ".join([f"{delivery.sent} messages sent; failing: {failing}", *trouble])
        )

    return alerts


def _message(alert: Alert, messenger: Sender, ui_url: str) -> Message:
    word = "works again" if alert.recovered else "failed"
    text = alert.text
    if len(text) > _TEXT_LENGTH:
        text = f"{text[:_TEXT_LENGTH]} ..."
    return Message(
        f"stocks: {alert.job} {word}",
        f"{text}\n{ui_url}/{alert.page}",
        frozenset(messenger.ways),
    )


class _Books:
    """What the warehouse knows of failures; where it cannot be read, that is said once.

    A job that fails as the warehouse is away is told of all the same.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self.trouble: list[str] = []

    def failures(self, run_id: str) -> list[Failure]:
        """Return what failed in a run; nothing if that cannot be read."""
        if self.trouble:
            return []
        try:
            return self._warehouse.failures(run_id)
        except (StackError, psycopg.OperationalError) as error:
            self._give_up(error)
            return []

    def standing(self, tickers: Sequence[str], told: Told, ends: Sequence[Finished]) -> Standing:
        """Return which of `tickers` fail, of those that were told, if there are `ends` to judge by.

        Where it cannot be read, all of them may.
        """
        known = [MARKET, *tickers]
        touched = [one.tickers for one in told.failing.values()]
        wanted = set(known) if None in touched else frozenset().union(*filter(None, touched))
        if not wanted or not ends or self.trouble:
            return Standing(set(known), set(known))
        settings = read_settings()
        try:
            failing = find_failing(
                self._warehouse,
                [ticker for ticker in tickers if ticker in wanted],
                [one for one in DATASETS.values() if offers(settings, one)],
                intraday_months=settings.intraday_months,
            )
        except (StackError, psycopg.OperationalError) as error:
            self._give_up(error)
            failing = set(known)
        return Standing(set(known), failing)

    def _give_up(self, error: Exception) -> None:
        self.trouble.append(f"what failed cannot be read ({type(error).__name__})")


@dataclass(frozen=True, slots=True)
class _Look:
    """What is looked at, what was told before, and the universe."""

    instance: dg.DagsterInstance
    books: _Books
    told: Told
    tickers: Sequence[str]


def _ended_runs(
    instance: dg.DagsterInstance, since: datetime, runs_a_page: int
) -> list[dg.RunRecord]:
    """Return the runs that have ended since then, in the order in which they did."""
    found: list[dg.RunRecord] = []
    while True:
        page = instance.get_run_records(
            dg.RunsFilter(statuses=list(_STATES), updated_after=since),
            limit=runs_a_page,
            order_by="update_timestamp",
            ascending=True,
        )
        found += page
        if len(page) < runs_a_page:
            return found
        since = page[-1].update_timestamp


def _ends(look: _Look, memory: _Memory, records: Iterable[dg.RunRecord]) -> Iterator[Finished]:
    """Yield the requests that have ended since the last look; of `records` are runs that have."""
    instance, unended = look.instance, memory.backfills
    memory.backfills = {
        one.backfill_id
        for one in instance.get_backfills(filters=BulkActionsFilter(statuses=_UNENDED_BACKFILLS))
    }
    ended = instance.get_backfills(
        filters=BulkActionsFilter(
            statuses=BULK_ACTION_TERMINAL_STATUSES, created_after=look.told.until
        )
    )
    requests = {_request_of(record.dagster_run): None for record in records}
    # Some have no run, as they fail before the first.
    for name in (*unended, *(one.backfill_id for one in ended)):
        requests[_BACKFILL, name] = None
    for tag, name in requests:
        backfill = instance.get_backfill(name) if tag == _BACKFILL else None
        filters = [dg.RunsFilter(tags={tag: name})]
        if tag == _ROOT:
            filters.append(dg.RunsFilter(run_ids=[name]))
        found = [record for one in filters for record in instance.get_run_records(one)]
        if (end := _end_of(look, found, backfill)) is not None:
            yield end


def _ticks(instance: dg.DagsterInstance, told: Told) -> Iterator[Finished]:
    """Yield the last tick of each schedule and sensor, where it failed or works again.

    A schedule's tick has the time at which it was due, however late it is made, and is the same one
    where it is tried again. So what counts is when it ended, and how. Sensors' ticks have the time
    at which they begin, and are many.
    """
    began_after = (told.until - _LONGEST_TICK).timestamp()
    redact = Redactor.from_settings(read_settings())
    for state in instance.all_instigator_state():
        name = f"{state.instigator_type.value.lower()} {state.instigator_name}"
        is_schedule = state.instigator_type is InstigatorType.SCHEDULE
        ticks = instance.get_ticks(
            state.instigator_origin_id,
            state.selector_id,
            after=None if is_schedule else began_after,
            limit=1,
            statuses=_TICKED,
        )
        if state.instigator_name == NAME or not ticks:
            continue
        tick, has_failed = ticks[0], ticks[0].status is TickStatus.FAILURE
        ended_at = datetime.fromtimestamp(tick.end_timestamp or tick.timestamp, UTC)
        end = f"tick {tick.tick_id} {'failed' if has_failed else 'worked'}"
        if ended_at < told.until or end in told.seen:
            continue
        if has_failed or name in told.failing:
            yield Finished(
                end,
                name,
                ended_at,
                not has_failed,
                redact(_cause(tick.error)) if tick.error is not None else "",
                "automation",
                asked=(),
            )


def _cause(error: SerializableErrorInfo) -> str:
    while error.cause is not None:
        error = error.cause
    return textwrap.shorten(error.message, _REASON_LENGTH, placeholder=" ...")


def _request_of(run: dg.DagsterRun) -> tuple[str, str]:
    """Return the tag, and its value, that the runs of the same request have."""
    for tag in (_BACKFILL, BATCH):
        if tag in run.tags:
            return tag, run.tags[tag]
    return _ROOT, run.root_run_id or run.run_id


def _end_of(
    look: _Look, records: Sequence[dg.RunRecord], backfill: PartitionBackfill | None
) -> Finished | None:
    """Return how a request ended; None if it has not, or was judged before."""
    runs = [_run(record) for record in records]
    own = _own_run(backfill, runs) if backfill is not None else None
    if records:
        tags, job = records[0].dagster_run.tags, records[0].dagster_run.job_name
    else:
        tags, job = backfill.tags if backfill is not None else {}, ""
    verdict = judge(runs, expected=int(tags.get(BATCH_RUNS, 1)), own=own)
    if verdict is None or verdict.run_ids[0] in look.told.seen:
        return None
    last = verdict.run_ids[0]
    backfill_id = own.run_id if own is not None else tags.get(_BACKFILL)
    reason, failed = ("", {}) if verdict.succeeded else _why(look, verdict.run_ids, backfill)
    return Finished(
        last,
        f"backfill {tags.get(_FIRST_BACKFILL, backfill_id)}" if backfill_id else job,
        verdict.ended_at,
        verdict.succeeded,
        reason,
        f"runs/b/{last}" if last == backfill_id else f"runs/{last}",
        failed,
        _asked([record.dagster_run for record in records], look.tickers),
    )


def _own_run(backfill: PartitionBackfill, runs: Iterable[Run]) -> Run:
    """Return how the backfill itself stands, as one more run.

    That it is complete and failed says the same of its runs, unless none of them tells why.
    """
    state = _BACKFILL_STATES.get(backfill.status, State.AT_WORK)
    if backfill.status is BulkActionStatus.COMPLETED_FAILED and any(
        run.state is not State.SUCCEEDED for run in runs
    ):
        state = State.SUCCEEDED
    moment = backfill.backfill_end_timestamp or backfill.backfill_timestamp
    return Run(
        backfill.backfill_id,
        state,
        None if state is State.AT_WORK else datetime.fromtimestamp(moment, UTC),
    )


def _run(record: dg.RunRecord) -> Run:
    run = record.dagster_run
    state = _STATES.get(run.status, State.AT_WORK)
    # Dagster says so of runs of commands as well, and starts none of them again.
    is_retried = run.tags.get(_WILL_RETRY) == "true" and run.remote_job_origin is not None
    if state is State.FAILED and is_retried:
        state = State.RETRIED
    ended_at = datetime.fromtimestamp(record.end_time, UTC) if record.end_time else None
    return Run(run.run_id, state, ended_at, run.parent_run_id)


def _asked(runs: Iterable[dg.DagsterRun], tickers: Sequence[str]) -> Collection[str]:
    """Return the tickers, of all `tickers`, that the runs were for, and the market."""
    found = {MARKET}
    for run in runs:
        if run.job_name == REBUILD:
            found.update(_config_of(run, "ops", rebuild_tables.name).get("tickers") or tickers)
        else:
            config = _config_of(run, "resources", "batch")
            found.update(config.get("tickers") or tickers_of_tags(run.tags, tickers))
    return found


def _config_of(run: dg.DagsterRun, *path: str) -> Mapping[str, Any]:
    config: Mapping[str, Any] = run.run_config
    for name in (*path, "config"):
        config = config.get(name) or {}
    return config


def _why(
    look: _Look, run_ids: Iterable[str], backfill: PartitionBackfill | None
) -> tuple[str, dict[str, list[str]]]:
    """Return why runs failed: what is no ticker's reason, and lines for each ticker that failed."""
    redact = Redactor.from_settings(read_settings())
    reasons: dict[str, None] = {}
    failed: dict[str, list[str]] = {}
    for run_id in run_ids:
        if backfill is not None and run_id == backfill.backfill_id:
            error = backfill.error
            reasons[_cause(error) if error is not None else "not all of it was made"] = None
            continue
        failures = look.books.failures(run_id)
        reasons |= dict.fromkeys(_reasons_beside(look.instance, run_id, failures))
        for one in failures:
            line = f"{one.ticker}: {one.reason} ({one.asset})" if one.ticker else one.reason
            failed.setdefault(one.ticker, []).append(
                textwrap.shorten(line, _REASON_LENGTH, placeholder=" ...")
            )
    return redact("; ".join(reasons)), failed


def _reasons_beside(
    instance: dg.DagsterInstance, run_id: str, failures: Sequence[Failure]
) -> Iterator[str]:
    """Yield why a run failed but for the tickers that did: which steps, or why it ended."""
    of_tickers = {step_of(failure) for failure in failures}
    if failures:
        of_tickers |= {every_ticker_is_refreshed.node_def.name, rebuild_tables.name}
    records = instance.get_records_for_run(
        run_id, of_type={dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    ).records
    events = [record.event_log_entry.get_dagster_event() for record in records]
    steps = [event for event in events if event.is_step_failure]
    for event in steps:
        if event.step_key not in of_tickers:
            error = event.step_failure_data.error
            yield f"{event.step_key}: {_cause(error) if error is not None else 'see the run'}"
    if not steps:
        yield next((event.message for event in events if event.message), "") or "see the run"
