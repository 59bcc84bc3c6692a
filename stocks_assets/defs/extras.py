"""What need not be looked at every day: weekly and monthly proofs that what is stored is right.

Datasets that change seldom need no schedule of their own: the daily refresh asks for each of them
when it is due (`domain/datasets.py`).
"""

from collections.abc import Sequence
from datetime import date

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from stocks_assets.defs.gold import ALL_ROWS
from stocks_assets.defs.rebuild import rebuild_job
from stocks_assets.defs.universe import universe

PROVE = "prove_gold"
_MONTHS = 12


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
    cron_schedule="0 10 * * 6",
    execution_timezone="America/New_York",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Lets every dbt test look at all rows of gold, on Saturday morning.",
)
def every_week(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request the run."""
    if not universe(context.instance):
        return dg.SkipReason("there are no tickers yet")
    return dg.RunRequest(run_key=f"{context.scheduled_execution_time:%Y-%m-%d}")


@dg.schedule(
    job=rebuild_job,
    cron_schedule="0 12 1-7 * *",
    execution_timezone="America/New_York",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Builds a twelfth of silver anew from bronze, at noon of the first Saturday of a "
    "month: in a year, all of it. What is stored and is not what bronze says is put right.",
)
def every_month(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request the run for the tickers of the month."""
    day = context.scheduled_execution_time.date()
    if day.isoweekday() != 6:
        return dg.SkipReason(f"{day} is not the first Saturday of the month")
    tickers = of_month(universe(context.instance), day)
    if not tickers:
        return dg.SkipReason("no ticker is due this month")
    run_config = {"ops": {"rebuild_tables": {"config": {"tickers": tickers}}}}
    return dg.RunRequest(run_key=f"{day:%Y-%m}", run_config=run_config)


def of_month(tickers: Sequence[str], day: date) -> list[str]:
    """Return every twelfth of `tickers`: other ones each month of a year, all of them in one."""
    return list(tickers[day.month - 1 :: _MONTHS])
