"""What a refresh left behind is made good by itself: failures, gaps, calls that had to wait."""

import dagster as dg

from stocks_assets.adapters.backlog import make_backlog
from stocks_assets.adapters.dbt_project import project_digest
from stocks_assets.adapters.planning import make_plan
from stocks_assets.adapters.sources.port import Source
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.defs.jobs import refresh_job, request_runs
from stocks_assets.defs.universe import universe
from stocks_assets.settings import read_settings

_SHOWN = 20


@dg.schedule(
    job=refresh_job,
    # After the refresh of the day, so that it takes no call away from it.
    cron_schedule="0 20 * * *",
    execution_timezone="America/New_York",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Refreshes just the tickers of which something failed or is missing, or had to "
    "wait for calls, at 20:00 New York time of every day.",
)
def catch_up(
    context: dg.ScheduleEvaluationContext,
    source: dg.ResourceParam[Source],
    warehouse: dg.ResourceParam[Warehouse],
) -> list[dg.RunRequest] | dg.SkipReason:
    """Request a run, or a few, for what is left to do, if the calls left allow any of it."""
    tickers = universe(context.instance)
    months = read_settings().intraday_months
    plan = make_plan(source, warehouse, tickers, intraday_months=months)
    backlog = make_backlog(
        source, warehouse, tickers, intraday_months=months, gold_project=project_digest()
    )
    if plan is not None and plan.waiting and not plan.calls:
        return dg.SkipReason(plan.describe())
    called = {call.ticker for call in plan.calls} if plan is not None else set()
    wanted = [ticker for ticker in tickers if ticker in called or ticker in backlog]
    if not wanted:
        return dg.SkipReason(f"nothing of {len(tickers)} tickers has failed, is missing or waits")
    for ticker in list(backlog)[:_SHOWN]:
        context.log.info(f"{ticker}: {'; '.join(backlog[ticker])}")
    return request_runs(f"catch up {context.scheduled_execution_time:%Y-%m-%d}", wanted, tickers)
