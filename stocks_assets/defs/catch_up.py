"""What a refresh left behind is made good by itself: failures, gaps, calls that had to wait."""

from datetime import UTC, datetime
from functools import partial

import dagster as dg

from stocks_assets.adapters.backlog import find_behind, make_backlog
from stocks_assets.adapters.dbt_project import project_digest
from stocks_assets.adapters.planning import make_plan
from stocks_assets.adapters.sources.port import Source
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.defs.arrivals import LOADING_LAYERS, find_busy
from stocks_assets.defs.jobs import CATCH_UP, refresh_job, request_runs
from stocks_assets.defs.partitions import tickers_of_backfills
from stocks_assets.defs.universe import universe
from stocks_assets.domain.backlog import choose
from stocks_assets.domain.calendar import NEW_YORK, is_session
from stocks_assets.settings import read_settings

_SHOWN = 20


@dg.schedule(
    name=CATCH_UP,
    job=refresh_job,
    # After the refresh of the day, so that it takes no call away from it, and when the vendor has
    # had its time for the session (`domain/gaps.py`).
    cron_schedule="0 23 * * *",
    execution_timezone="America/New_York",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Refreshes just the tickers of which something failed or is missing, or had to "
    "wait for calls, at 23:00 New York time of every day. On days without a session what is only "
    "due again stays as it is.",
)
def catch_up(
    context: dg.ScheduleEvaluationContext,
    source: dg.ResourceParam[Source],
    warehouse: dg.ResourceParam[Warehouse],
) -> list[dg.RunRequest] | dg.SkipReason:
    """Request a run, or a few, for what is left to do, as far as the calls left allow it."""
    tickers = universe(context.instance)
    months = read_settings().intraday_months
    behind = find_behind(warehouse, tickers, gold_project=project_digest())
    plan = make_plan(source, warehouse, tickers, intraday_months=months, holdings=behind.holdings)
    backlog = make_backlog(source, warehouse, tickers, intraday_months=months, behind=behind)
    chosen = partial(
        choose,
        tickers,
        backlog,
        behind.tickers,
        called=None if plan is None else {call.ticker for call in plan.calls},
        is_session=is_session(context.scheduled_execution_time.astimezone(NEW_YORK).date()),
    )
    # Between its layers a backfill has no run, and goes on.
    busy = find_busy(context.instance, warehouse, tickers, datetime.now(UTC)).tickers
    wanted = chosen(busy=busy | tickers_of_backfills(context.instance, LOADING_LAYERS))
    if not wanted and (left := chosen(busy=())):
        return dg.SkipReason(f"{len(left)} of {len(tickers)} tickers are left to runs at work")
    if not wanted and plan is not None and plan.waiting and not plan.calls:
        return dg.SkipReason(plan.describe())
    if not wanted:
        return dg.SkipReason(f"nothing of {len(tickers)} tickers has failed, is missing or waits")
    for ticker in [ticker for ticker in wanted if ticker in backlog][:_SHOWN]:
        context.log.info(f"{ticker}: {'; '.join(backlog[ticker])}")
    return request_runs(f"catch up {context.scheduled_execution_time:%Y-%m-%d}", wanted, tickers)
