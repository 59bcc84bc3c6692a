"""The sensor on the bucket: what is new there, whoever put it there, is loaded.

The state is in PostgreSQL: a reset sensor loses nothing. Dagster's cursor, kept once what a tick
tells is stored, says up to when people were told; without it they are told again.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME

from stocks_assets.adapters.arrivals import NEVER, Arrivals
from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.bronze_index import Look
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.defs.batch import DEFER_ASSET_EVENTS
from stocks_assets.defs.jobs import LOAD, REFRESH, UNFINISHED, request_runs
from stocks_assets.defs.partitions import backfills_at_work, tickers_of_run
from stocks_assets.defs.universe import Roster, universe
from stocks_assets.domain.arrivals import Busy, LoadPlan, Notice, Unloaded, plan_loads
from stocks_assets.domain.datasets import LISTINGS, MARKET

_SECONDS_BETWEEN_LOOKS = 30
# No more than so many keys or tickers are shown in one place.
_SHOWN = 50
# A run that has begun holds its lock within that time.
_BEGINS_WITHIN = timedelta(minutes=5)
# What fetches from the vendor and loads; all else leaves what is new as it is.
LOADING_LAYERS = ("bronze", "silver")
_LOADING_JOBS = (REFRESH, LOAD, IMPLICIT_ASSET_JOB_NAME)
_QUARANTINE = dg.AssetKey(["bronze", "quarantine"])
_MARKET_ASSETS = [dg.AssetKey(["silver", LISTINGS.name])]


def arrivals_sensor(*, registers_unknown: bool) -> dg.SensorDefinition:
    """Return the sensor; with `registers_unknown`, tickers of new objects join the universe."""

    @dg.sensor(
        name="objects_arrived",
        job_name=LOAD,
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks below bronze/ in the bucket, and lets objects that silver has not "
        "loaded be loaded, whoever put them there: one run for exactly their tickers.",
    )
    def objects_arrived(
        context: dg.SensorEvaluationContext,
        bronze: dg.ResourceParam[BronzeStore],
        warehouse: dg.ResourceParam[Warehouse],
        roster: dg.ResourceParam[Roster],
    ) -> dg.SensorResult:
        look, arrivals = bronze.look(), Arrivals(warehouse)
        told_until = datetime.fromisoformat(context.cursor) if context.cursor else NEVER
        members, now = universe(context.instance), datetime.now(UTC)
        plan = plan_loads(
            arrivals.unloaded(members, registers=registers_unknown, told_until=told_until),
            universe=members,
            busy=find_busy(context.instance, warehouse, members, now),
            registers=registers_unknown,
            now=now,
        )
        if plan.register:
            roster.add(context.instance, plan.register, None)
        arrivals.hand_over([*plan.tickers, *([MARKET] if plan.has_market else [])])
        notices, told_at = arrivals.tell(
            [stranger.ticker for stranger in plan.strangers], told_until=told_until
        )
        for line in _lines(plan, notices):
            context.log.warning(line)
        context.log.info(_describe(look, plan))
        requests = list(_requests(plan, [*members, *plan.register]))
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason(_describe(look, plan)),
            asset_events=list(_observations(plan, notices)),
            cursor=told_at.isoformat(),
        )

    return objects_arrived


def _requests(plan: LoadPlan, members: Sequence[str]) -> Iterator[dg.RunRequest]:
    """Yield the runs that load what is new: others for other objects, or another attempt."""
    run_key = hashlib.sha256(" ".join(plan.marks).encode()).hexdigest()[:32]
    if plan.tickers:
        yield from request_runs(run_key, plan.tickers, members)
    elif plan.has_market:
        yield dg.RunRequest(
            run_key=run_key, tags={DEFER_ASSET_EVENTS: "true"}, asset_selection=_MARKET_ASSETS
        )


def find_busy(
    instance: dg.DagsterInstance, warehouse: Warehouse, members: Sequence[str], now: datetime
) -> Busy:
    """Return what unfinished runs fetch or load; one whose process is gone will do neither.

    Nor will one that was created and not submitted, as a daemon was killed in between. While a load
    is at work, what is new waits, and becomes one batch. A backfill starts the runs of silver when
    those of bronze have ended.
    """
    records = instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED))
    alive = warehouse.living(record.dagster_run.run_id for record in records)
    tickers: set[str] = set()
    everything = any(
        # Without assets it is one of a job.
        backfill.asset_selection is None or _are_loaded(backfill.asset_selection)
        for backfill in backfills_at_work(instance)
    )
    for record in records:
        run = record.dagster_run
        began_at = max(record.update_timestamp, record.create_timestamp).astimezone(UTC)
        is_new = now - began_at < _BEGINS_WITHIN
        waits = run.status == dg.DagsterRunStatus.QUEUED
        if not waits and run.run_id not in alive and not is_new:
            continue
        everything = everything or run.job_name == LOAD
        tickers.update(_loaded_by(run, members))
    return Busy(frozenset(tickers), everything)


def _loaded_by(run: dg.DagsterRun, members: Sequence[str]) -> set[str]:
    """Return the tickers that a run fetches or loads, the market among them.

    A run without a selection has all assets of its job. An export has tickers, and loads none.
    """
    selection = run.asset_selection or frozenset()
    has_all = not selection and not run.asset_check_selection and run.job_name in _LOADING_JOBS
    if not has_all and not _are_loaded(selection):
        return set()
    tickers = set(tickers_of_run(run.tags, run.run_config, members))
    if has_all or not selection.isdisjoint(_MARKET_ASSETS):
        tickers.add(MARKET)
    return tickers


def _are_loaded(selection: Iterable[dg.AssetKey]) -> bool:
    return any(key.path[0] in LOADING_LAYERS for key in selection)


def _describe(look: Look, plan: LoadPlan) -> str:
    parts = [f"{look.new} new objects, {look.calls} listing calls"]
    if look.hinted:
        parts.append(f"{look.hinted} keys that the store had named")
    if look.overwritten:
        parts.append(f"{look.overwritten} overwritten")
    if plan.objects:
        parts.append(f"{plan.objects} objects of {len(plan.tickers)} tickers go to a run")
    if plan.held:
        parts.append(f"{plan.held} tickers wait for runs at work")
    if plan.paused:
        parts.append(f"{plan.paused} tickers wait, as their last run has not loaded them")
    return "; ".join(parts)


def _lines(plan: LoadPlan, notices: Sequence[Notice]) -> Iterator[str]:
    """Yield what somebody has to do something about."""
    for notice in notices[:_SHOWN]:
        yield notice.reason if notice.key in notice.reason else f"{notice.key}: {notice.reason}"
    if len(notices) > _SHOWN:
        yield f"and {len(notices) - _SHOWN} more, see bronze.notices"
    if plan.strangers:
        yield (
            f"there are objects of {_some(plan.strangers)}, not in the universe: "
            "stocks tickers add, or set STOCKS_REGISTER_ARRIVALS=true"
        )


def _observations(plan: LoadPlan, notices: Sequence[Notice]) -> Iterator[dg.AssetObservation]:
    metadata: dict[str, Any] = {}
    if notices:
        rows = [dg.TableRecord(notice._asdict()) for notice in notices[:_SHOWN]]
        columns = [dg.TableColumn(name, "string") for name in Notice._fields]
        metadata["objects_to_look_at"] = len(notices)
        metadata["some_objects"] = dg.MetadataValue.table(rows, schema=dg.TableSchema(columns))
    if plan.strangers:
        metadata["tickers_not_in_universe"] = len(plan.strangers)
        metadata["some_tickers"] = [one.ticker for one in plan.strangers[:_SHOWN]]
    if metadata:
        yield dg.AssetObservation(_QUARANTINE, metadata=metadata)


def _some(strangers: Sequence[Unloaded]) -> str:
    more = f" and {len(strangers) - _SHOWN} more" if len(strangers) > _SHOWN else ""
    return ", ".join(one.ticker for one in strangers[:_SHOWN]) + more
