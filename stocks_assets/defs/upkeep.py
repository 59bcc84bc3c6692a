"""What would grow for ever: Dagster's events of old runs, and what their steps printed."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from stocks_assets.defs.storage import BatchingEventLog
from stocks_assets.domain.calendar import NEW_YORK, is_session
from stocks_assets.settings import read_settings

PRUNE = "prune_events"


@dg.op(
    description="Removes the events, and what steps printed, of runs that ended long ago; what the "
    "UI shows of each asset, partition and check stays."
)
def prune(context: dg.OpExecutionContext) -> dg.Output[None]:
    """Remove what is older than the setting `STOCKS_EVENT_DAYS` says.

    Raises:
        dagster.Failure: Dagster's events are not in a storage of this project.
    """
    storage = context.instance.event_log_storage
    if not isinstance(storage, BatchingEventLog):
        raise dg.Failure(
            f"events are in {type(storage).__name__}, of which nothing is removed: have "
            "dagster.yaml name stocks_assets.defs.storage, as `stocks up` writes it",
            allow_retries=False,
        )
    before = datetime.now(UTC) - timedelta(days=read_settings().event_days)
    pruned = storage.prune(before)
    for run_id in pruned.run_ids:
        context.instance.compute_log_manager.delete_logs(prefix=[run_id])
    context.log.info(
        f"{pruned.events} events and {pruned.checks} results of checks from before "
        f"{before:%Y-%m-%d %H:%M} UTC are gone, of {len(pruned.run_ids)} runs"
    )
    counts = {"events": pruned.events, "checks": pruned.checks, "runs": len(pruned.run_ids)}
    return dg.Output(None, metadata=counts)


@dg.job(name=PRUNE, description="Removes Dagster's old events that nothing shown rests on.")
def prune_job() -> None:
    """Remove old events."""
    prune()


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
