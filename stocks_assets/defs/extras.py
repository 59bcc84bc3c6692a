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
from stocks_assets.domain.calendar import NEW_YORK, ends_first_week, ends_week

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
    cron_schedule="30 21 * * 1-5",
    execution_timezone="America/New_York",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Lets every dbt test look at all rows of gold, at 21:30 New York time of a week's "
    "last session.",
)
def every_week(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request the run."""
    day = context.scheduled_execution_time.astimezone(NEW_YORK).date()
    if not ends_week(day):
        return dg.SkipReason(f"{day} is not the last session of its week")
    if not universe(context.instance):
        return dg.SkipReason("there are no tickers yet")
    return dg.RunRequest(run_key=day.isoformat())


@dg.schedule(
    job=rebuild_job,
    cron_schedule="30 20 * * 1-5",
    execution_timezone="America/New_York",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Builds a twelfth of silver anew from bronze, at 20:30 New York time of the first "
    "session of a month that ends a week: in a year, all of it. What is stored and is not what "
    "bronze says is put right.",
)
def every_month(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request the run for the tickers of the month."""
    day = context.scheduled_execution_time.astimezone(NEW_YORK).date()
    if not ends_first_week(day):
        return dg.SkipReason(f"{day} is not the first session of its month that ends a week")
    tickers = of_month(universe(context.instance), day)
    if not tickers:
        return dg.SkipReason("no ticker is due this month")
    config = {"tickers": tickers, "as_far_as_stored": True}
    run_config = {"ops": {"rebuild_tables": {"config": config}}}
    return dg.RunRequest(run_key=f"{day:%Y-%m}", run_config=run_config)


def of_month(tickers: Sequence[str], day: date) -> list[str]:
    """Return every twelfth of `tickers`: other ones each month of a year, all of them in one."""
    return list(tickers[day.month - 1 :: _MONTHS])
