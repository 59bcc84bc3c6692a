"""What would grow for ever: Dagster's events of old runs, and what their steps printed."""

from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster_postgres import PostgresEventLogStorage

from stocks_assets.defs.storage import prune
from stocks_assets.domain.calendar import NEW_YORK, is_session
from stocks_assets.settings import read_settings

PRUNE = "prune_events"


@dg.op(
    description="Removes the events, and what steps printed, of runs that ended long ago; what the "
    "UI shows of each asset, partition and check stays."
)
def prune_old(context: dg.OpExecutionContext) -> dg.Output[None]:
    """Remove what is older than the setting `STOCKS_EVENT_DAYS` says."""
    instance = context.instance
    before = datetime.now(UTC) - timedelta(days=read_settings().event_days)
    events = 0
    if isinstance(instance.event_log_storage, PostgresEventLogStorage):
        events = prune(instance.event_log_storage, before)
        context.log.info(f"{events} events from before {before:%Y-%m-%d %H:%M} UTC are gone")
    else:
        storage = type(instance.event_log_storage).__name__
        context.log.warning(f"events are in {storage}, not in PostgreSQL: none is removed")
    # What other machines have of it is theirs.
    ended = dg.RunsFilter(statuses=FINISHED_STATUSES, created_before=before, updated_before=before)
    for run_id in instance.run_storage.get_run_ids(ended):
        instance.compute_log_manager.delete_logs(prefix=[run_id])
    return dg.Output(None, metadata={"events": events})


@dg.job(name=PRUNE, description="Removes Dagster's old events that nothing shown rests on.")
def prune_job() -> None:
    """Remove old events."""
    prune_old()


@dg.schedule(
    job=prune_job,
    cron_schedule="0 3 * * 1-5",
    execution_timezone="America/New_York",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Removes Dagster's old events at 03:00 New York time of every session.",
)
def every_session(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request the run."""
    day = context.scheduled_execution_time.astimezone(NEW_YORK).date()
    if not is_session(day):
        return dg.SkipReason(f"the New York Stock Exchange is closed on {day}")
    return dg.RunRequest()
