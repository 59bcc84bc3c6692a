"""What need not be looked at every day: weekly and monthly proofs that what is stored is right.

Datasets that change seldom need no schedule of their own: the daily refresh asks for each of them
when it is due (`domain/datasets.py`).

Of the ticks that a machine which was off has missed, Dagster evaluates the last one alone. So each
session's tick asks whether what is due was asked for, and makes it up.
"""

import zlib
from collections.abc import Sequence
from datetime import date

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from stocks_assets.defs.gold import ALL_ROWS
from stocks_assets.defs.rebuild import REBUILD, rebuild_job
from stocks_assets.defs.universe import universe
from stocks_assets.domain.calendar import (
    NEW_YORK,
    is_session,
    last_end_of_first_week,
    last_end_of_week,
)

PROVE = "prove_gold"
_MONTHS = 12
_RUN_KEY = "dagster/run_key"
_A_MODEL = dg.AssetKey(["gold", "fct_daily_prices"])


def prove_job(gold: dg.AssetsDefinition) -> UnresolvedAssetJobDefinition:
    """Return the job that runs the tests of `gold`, all of them on all rows."""
    return dg.define_asset_job(
        PROVE,
        selection=dg.AssetSelection.checks(gold),
        description="Every dbt test looks at all rows of gold, and not just at those that are new.",
        tags={ALL_ROWS: "true"},
    )


@dg.schedule(
    job_name=PROVE,
    cron_schedule="30 21 * * 1-5",
    execution_timezone="America/New_York",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Lets every dbt test look at all rows of gold, at 21:30 New York time of a week's "
    "last session; where that was missed, of the next session.",
)
def every_week(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request the run."""
    day = context.scheduled_execution_time.astimezone(NEW_YORK).date()
    if not is_session(day):
        return dg.SkipReason(f"the New York Stock Exchange is closed on {day}")
    run_key = last_end_of_week(day).isoformat()
    if was_asked_for(context.instance, PROVE, run_key):
        return dg.SkipReason(f"the week that ended on {run_key} was asked for already")
    if not universe(context.instance):
        return dg.SkipReason("there are no tickers yet")
    if context.instance.get_latest_materialization_event(_A_MODEL) is None:
        return dg.SkipReason("nothing of gold is built yet")
    return dg.RunRequest(run_key=run_key)


@dg.schedule(
    job=rebuild_job,
    cron_schedule="30 20 * * 1-5",
    execution_timezone="America/New_York",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Builds a twelfth of silver anew from bronze, at 20:30 New York time of the first "
    "session of a month that ends a week; where that was missed, of the next session. In a year "
    "that is all of it. What is stored and is not what bronze says is put right.",
)
def every_month(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request the run for the tickers of the month."""
    day = context.scheduled_execution_time.astimezone(NEW_YORK).date()
    if not is_session(day):
        return dg.SkipReason(f"the New York Stock Exchange is closed on {day}")
    month = last_end_of_first_week(day)
    run_key = f"{month:%Y-%m}"
    if was_asked_for(context.instance, REBUILD, run_key):
        return dg.SkipReason(f"the twelfth of {run_key} was asked for already")
    tickers = of_month(universe(context.instance), month)
    if not tickers:
        return dg.SkipReason("no ticker is due this month")
    config = {"tickers": tickers, "as_far_as_stored": True}
    run_config = {"ops": {"rebuild_tables": {"config": config}}}
    return dg.RunRequest(run_key=run_key, run_config=run_config)


def was_asked_for(instance: dg.DagsterInstance, job: str, run_key: str) -> bool:
    """Tell whether a schedule's run of `job` for `run_key` was submitted, whatever came of it."""
    statuses = [one for one in dg.DagsterRunStatus if one != dg.DagsterRunStatus.NOT_STARTED]
    asked = dg.RunsFilter(job_name=job, tags={_RUN_KEY: run_key}, statuses=statuses)
    return bool(instance.get_runs(asked, limit=1))


def of_month(tickers: Sequence[str], day: date) -> list[str]:
    """Return those of `tickers` whose month it is, a twelfth or so; each has one in a year.

    It is the ticker's own, whichever others come and go.
    """
    return [ticker for ticker in tickers if zlib.crc32(ticker.encode()) % _MONTHS == day.month - 1]
