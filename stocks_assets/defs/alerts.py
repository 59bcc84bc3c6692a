"""A failing job, and one that works again, reach whoever the settings name."""

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import dagster as dg
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES
from dagster._core.scheduler.instigation import TickStatus
from dagster_shared.error import SerializableErrorInfo

from stocks_assets.adapters.messages import Messenger, NotSentError
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.defs.jobs import BATCH, BATCH_RUNS
from stocks_assets.defs.logs import Redactor
from stocks_assets.domain.alerts import Finished, Run, State, Told, find_alerts, judge
from stocks_assets.settings import read_settings

NAME = "alerts"
_SECONDS_BETWEEN_LOOKS = 30
_TICKED = [TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.FAILURE]
_REASON_LENGTH = 600
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
_STATES = {
    dg.DagsterRunStatus.SUCCESS: State.SUCCEEDED,
    dg.DagsterRunStatus.FAILURE: State.FAILED,
    dg.DagsterRunStatus.CANCELED: State.STOPPED,
}
# More than can end while the looks overlap.
_RUNS_A_LOOK = 1000
_SHOWN = 10
_BACKFILL = "dagster/backfill"
_FIRST_BACKFILL = "dagster/root_backfill_id"
_WILL_RETRY = "dagster/will_retry"
_ROOT = "dagster/root_run_id"


@dataclass
class _Memory:
    """What a look leaves to the next one: in the cursor, as JSON.

    `backfills` have runs that ended and do not end yet. `sent` are, of the message that did not go
    out by all ways, the end that it is about, and the ways that it went.
    """

    told: Told
    backfills: set[str] = field(default_factory=set)
    sent: tuple[str, frozenset[str]] = ("", frozenset())

    @classmethod
    def read(cls, cursor: str | None) -> "_Memory":
        """Return what `cursor` says; without one nothing before this moment is news."""
        if cursor is None:
            return cls(Told(datetime.now(UTC)))
        kept = json.loads(cursor)
        since = datetime.fromisoformat(kept.get("since") or kept["until"])
        # Before requests were judged, it was a list of runs.
        seen = kept["seen"] if isinstance(kept["seen"], dict) else {}
        about, ways = kept.get("sent", ("", []))
        return cls(
            Told(since, {k: datetime.fromisoformat(at) for k, at in seen.items()}, kept["failing"]),
            set(kept.get("backfills", ())),
            (about, frozenset(ways)),
        )

    def write(self) -> str:
        """Return the cursor."""
        return json.dumps(
            {
                "since": self.told.since.isoformat(),
                "seen": {key: at.isoformat() for key, at in self.told.seen.items()},
                "failing": dict(self.told.failing),
                "backfills": sorted(self.backfills),
                "sent": [self.sent[0], sorted(self.sent[1])],
            }
        )


def alerts_sensor(messenger: Messenger, *, ui_url: str) -> dg.SensorDefinition:
    """Return the sensor that sends by `messenger`; its links go to `ui_url`."""

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends a message when a job begins to fail, and when it works again: once all "
        "runs of a request have ended. Schedules and sensors whose ticks fail count as well. What "
        "cannot be sent is sent again with the next look.",
    )
    def alerts(
        context: dg.SensorEvaluationContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.SkipReason:
        memory, sent, trouble = _Memory.read(context.cursor), 0, ""
        ends = [
            *_ends(context.instance, warehouse, memory),
            *_ticks(context.instance, memory.told),
        ]
        for alert, then in find_alerts(memory.told, ends):
            if alert is not None:
                word = "works again" if alert.recovered else "failed"
                about, ways = memory.sent
                try:
                    messenger.send(
                        f"stocks: {alert.job} {word}",
                        f"{alert.text}\n{ui_url}/{alert.page}",
                        except_by=ways if about == alert.run_id else frozenset(),
                    )
                except NotSentError as error:
                    # Raised, it would cost the cursor, and with it what is known to be sent.
                    context.log.error(str(error))  # noqa: TRY400 # it says all
                    trouble = f"; {error}; it is sent again with the next look"
                    memory.sent = (alert.run_id, error.sent)
                    break
                sent += 1
            memory.told, memory.sent = then, ("", frozenset())
        context.update_cursor(memory.write())
        failing = ", ".join(memory.told.failing) or "none"
        return dg.SkipReason(f"{sent} messages sent; failing: {failing}{trouble}")

    return alerts


def _ends(
    instance: dg.DagsterInstance, warehouse: Warehouse, memory: _Memory
) -> Iterator[Finished]:
    """Yield the requests that have ended since the last look, and some before it again."""
    records = instance.get_run_records(
        dg.RunsFilter(statuses=_ENDED, updated_after=memory.told.until),
        limit=_RUNS_A_LOOK,
        order_by="update_timestamp",
        ascending=True,
    )
    requests = {_request_of(record.dagster_run): None for record in records}
    requests |= {(_BACKFILL, one): None for one in memory.backfills}
    memory.backfills = set()
    for tag, name in requests:
        backfill = instance.get_backfill(name) if tag == _BACKFILL else None
        # One that goes on starts more runs.
        if backfill is not None and backfill.status not in BULK_ACTION_TERMINAL_STATUSES:
            memory.backfills.add(name)
            continue
        filters = [dg.RunsFilter(tags={tag: name})]
        if tag == _ROOT:
            filters.append(dg.RunsFilter(run_ids=[name]))
        found = [record for one in filters for record in instance.get_run_records(one)]
        if found and (end := _end_of(found, warehouse)) is not None:
            ended_at = backfill.backfill_end_timestamp if backfill is not None else None
            yield (
                end
                if ended_at is None
                else replace(end, ended_at=max(end.ended_at, datetime.fromtimestamp(ended_at, UTC)))
            )


def _ticks(instance: dg.DagsterInstance, told: Told) -> Iterator[Finished]:
    """Yield the last tick of each schedule and sensor, where it failed or works again."""
    redact = Redactor.from_settings(read_settings())
    for state in instance.all_instigator_state():
        name = f"{state.instigator_type.value.lower()} {state.instigator_name}"
        ticks = instance.get_ticks(
            state.instigator_origin_id,
            state.selector_id,
            after=told.until.timestamp(),
            limit=1,
            statuses=_TICKED,
        )
        if state.instigator_name == NAME or not ticks:
            continue
        tick, has_failed = ticks[0], ticks[0].status is TickStatus.FAILURE
        if has_failed or name in told.failing:
            yield Finished(
                f"tick {tick.tick_id}",
                name,
                datetime.fromtimestamp(tick.end_timestamp or tick.timestamp, UTC),
                not has_failed,
                redact(_cause(tick.error)) if tick.error is not None else "",
                "automation",
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


def _end_of(records: Sequence[dg.RunRecord], warehouse: Warehouse) -> Finished | None:
    tags = records[0].dagster_run.tags
    verdict = judge(map(_run, records), expected=int(tags.get(BATCH_RUNS, 1)))
    if verdict is None:
        return None
    job = records[0].dagster_run.job_name
    if _BACKFILL in tags:
        job = f"backfill {tags.get(_FIRST_BACKFILL, tags[_BACKFILL])}"
    return Finished(
        verdict.run_ids[0],
        job,
        verdict.ended_at,
        verdict.succeeded,
        "" if verdict.succeeded else _reason(warehouse, verdict.run_ids),
        f"runs/{verdict.run_ids[0]}",
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


def _reason(warehouse: Warehouse, run_ids: Iterable[str]) -> str:
    failures = [one for run_id in run_ids for one in warehouse.failures(run_id)]
    lines = [f"{one.ticker}: {one.reason} ({one.asset})" for one in failures[:_SHOWN]]
    if len(failures) > _SHOWN:
        lines.append(f"and {len(failures) - _SHOWN} more")
    return "\n".join(lines) or "see the run"
