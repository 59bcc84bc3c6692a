"""The code location: one lineage graph from the vendor's replies to the marts."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from stocks_assets.adapters.messages import Messenger
from stocks_assets.defs import (
    access,
    alerts,
    arrivals,
    catch_up,
    checks,
    extras,
    freshness,
    inbox,
    jobs,
    launch,
    rebuild,
    universe,
    upkeep,
)
from stocks_assets.defs.bronze import bronze_assets
from stocks_assets.defs.gold import gold_assets
from stocks_assets.defs.report import report_asset
from stocks_assets.defs.resources import production
from stocks_assets.defs.silver import silver_assets
from stocks_assets.settings import Launcher, Settings, read_settings

# Known and meant: backfill policies are what batches need, beta or not, and the layers' differ so
# that no two layers share a run (`defs.bronze`); the jobs' own runs name their tickers.
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", dg.BetaWarning)
warnings.filterwarnings("ignore", "Asset job (refresh|load) materializes assets with varying")
# Where gold has nothing new no test of it runs, and the report that follows it waits for none.
logging.getLogger("dagster._core.execution.plan.active").addFilter(
    lambda record: "emitted no result in step 'gold'" not in record.getMessage()
)


def build_defs(
    resources: Mapping[str, Any],
    *,
    tickers_per_run: int = 500,
    fetch_threads: int = 8,
    intraday_months: int = 0,
    tolerated_rejected_share: float = 0.01,
    register_arrivals: bool = False,
    reports_kept: int = 30,
    ui_charts: bool = True,
    messenger: Messenger | None = None,
    ui_url: str = "http://127.0.0.1:3000",
    launcher: Launcher = "in_process",
) -> dg.Definitions:
    """Return the definitions on top of `resources`."""
    [gold, *assets] = freshness.with_policies(
        [
            gold_assets(tickers_per_run=tickers_per_run),
            *bronze_assets(
                tickers_per_run=tickers_per_run,
                fetch_threads=fetch_threads,
                intraday_months=intraday_months,
            ),
            inbox.bronze_inbox,
            *silver_assets(tickers_per_run=tickers_per_run, ui_charts=ui_charts),
            *access.access_assets(tickers_per_run=tickers_per_run),
            report_asset(reports_kept=reports_kept),
        ]
    )
    return dg.Definitions(
        assets=[*assets, gold],
        asset_checks=[
            checks.every_ticker_is_refreshed,
            checks.sessions_are_complete,
            *freshness.freshness_checks(),
            *checks.silver_checks(tolerated_share=tolerated_rejected_share),
        ],
        jobs=[
            jobs.refresh_job,
            jobs.load_job,
            jobs.export_job,
            rebuild.rebuild_job,
            extras.prove_job(gold),
            universe.universe_job,
            upkeep.prune_job,
        ],
        schedules=[
            jobs.after_the_close,
            catch_up.catch_up,
            extras.every_week,
            extras.every_month,
            upkeep.every_session,
        ],
        sensors=[
            inbox.files_dropped,
            arrivals.arrivals_sensor(registers_unknown=register_arrivals),
            access.gold_changed,
            *([alerts.alerts_sensor(messenger, ui_url=ui_url)] if messenger else []),
        ],
        loggers={jobs.PROGRESS_LOGGER: jobs.progress_logger},
        resources={"roster": universe.roster, **resources},
        executor=launch.executor(launcher),
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Build the definitions that `dagster`, `dg` and the code server load."""
    settings = read_settings()
    return build_defs(
        production(),
        tickers_per_run=settings.tickers_per_run,
        fetch_threads=settings.fetch_threads,
        intraday_months=settings.intraday_months,
        tolerated_rejected_share=settings.tolerated_rejected_share,
        register_arrivals=settings.register_arrivals,
        reports_kept=settings.reports_kept,
        ui_charts=settings.ui_charts,
        messenger=_messenger(settings),
        ui_url=settings.ui_url or f"http://127.0.0.1:{settings.ui_port or 3000}",
        launcher=settings.launcher,
    )


def _messenger(settings: Settings) -> Messenger | None:
    """Return who tells people, if the settings name anybody to tell."""
    secrets = (settings.alert_webhook_url, settings.alert_smtp_url)
    webhook, smtp = (secret.get_secret_value() if secret else None for secret in secrets)
    return Messenger(webhook, smtp, settings.alert_mail_to) if webhook or smtp else None
