"""The market report: one asset after gold, made by each refresh that brought anything new."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from stocks_assets.adapters.curated import Curated
from stocks_assets.adapters.report.reading import NEEDS
from stocks_assets.adapters.report.storing import Report, Reports
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.defs.batch import Event, is_deferred, record_whole
from stocks_assets.defs.bronze import OWNERS
from stocks_assets.defs.checks import LAST_ASSET
from stocks_assets.defs.jobs import BATCH
from stocks_assets.domain.report import INDEX

MARKET_REPORT = dg.AssetKey(["curated", "market_report"])


def report_asset(*, reports_kept: int) -> dg.AssetsDefinition:
    """Return the asset that makes the report and keeps so many of them."""

    @dg.asset(
        key=MARKET_REPORT,
        # Profiles are read too, from `LAST_ASSET`. It is no dependency: a ticker that failed makes
        # its check hold up what follows, and the report says which one that was.
        deps=[key for name in NEEDS if (key := dg.AssetKey(name.split("."))) != LAST_ASSET],
        description="The market as pages for a browser, each with all that it shows in one file: "
        "`reports/<date>/index.html`, the newest also as `reports/latest/index.html`. "
        "`stocks report` opens it.",
        group_name="report",
        kinds={"s3", "html"},
        owners=OWNERS,
        output_required=False,
    )
    def market_report(
        context: dg.AssetExecutionContext,
        curated: dg.ResourceParam[Curated],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> Iterator[Event]:
        reports = Reports(curated.store)
        started = time.perf_counter()
        deferred = is_deferred(context)
        if deferred and _is_early(context):
            context.log.info("left to the runs of the batch that have not begun")
            yield dg.MaterializeResult()
            return
        made = reports.make(warehouse, datetime.now(UTC), keep=reports_kept, only_changed=deferred)
        if made is None:
            context.log.info("the newest report says all that there is")
            yield dg.MaterializeResult()
            return
        metadata = _metadata(reports, made, time.perf_counter() - started)
        yield from record_whole(context, metadata, made.files[INDEX]["sha256"][:16])

    return market_report


def _is_early(context: dg.AssetExecutionContext) -> bool:
    """Tell whether runs that were asked for together with this one have not begun.

    A report has all tickers: made by each of ten runs, it would be made ten times.
    """
    batch = context.run.tags.get(BATCH)
    waiting = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED]
    of_batch = dg.RunsFilter(tags={BATCH: batch or ""}, statuses=waiting)
    return batch is not None and context.instance.get_runs_count(of_batch) > 0


def _metadata(reports: Reports, report: Report, seconds: float) -> dict[str, Any]:
    return {
        "open": dg.MetadataValue.md("`stocks report` downloads it and opens it in the browser"),
        "object": dg.MetadataValue.url(reports.url(report, INDEX)),
        "session": report.session or "none yet",
        "tickers": len(report.pages),
        "tickers_to_look_at": report.ill,
        "files": len(report.files),
        "megabytes": round(report.size / 1e6, 2),
        "seconds": round(seconds, 2),
    }
