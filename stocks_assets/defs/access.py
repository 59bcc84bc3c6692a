"""Gold as Parquet objects for whoever reads files: one asset with tickers, one across them.

They are no part of a refresh: a new session changes the objects of every ticker, and each is
written as a whole. The job `export` brings them up to date, by hand or by the sensor
`gold_changed`.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import dagster as dg

from stocks_assets.adapters.bronze import Failed, Skipped
from stocks_assets.adapters.curated import Curated, Exported, totals
from stocks_assets.adapters.dbt_project import ensure_manifest, project_digest
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.defs.batch import (
    Batch,
    Done,
    Event,
    is_deferred,
    record,
    record_whole,
    tickers_of,
    valid_and_not,
)
from stocks_assets.defs.bronze import OWNERS
from stocks_assets.defs.jobs import ACCESS, EXPORT, LOAD, REFRESH, UNFINISHED, refresh_run
from stocks_assets.defs.partitions import TICKERS
from stocks_assets.defs.retries import retried
from stocks_assets.defs.universe import universe
from stocks_assets.domain.arrivals import pause
from stocks_assets.domain.exports import ExportedTable, exported_tables

KINDS = {"s3", "parquet"}
BY_TICKER = dg.AssetKey(["curated", "by_ticker"])
WHOLE = dg.AssetKey(["curated", "whole"])
_CHANGE_TAG = "stocks/gold_change"
_SECONDS_BETWEEN_LOOKS = 60


def access_assets(*, tickers_per_run: int) -> list[dg.AssetsDefinition]:
    """Return the assets that export what the dbt project has in gold."""
    tables = exported_tables(json.loads(ensure_manifest().read_bytes()))
    digest = project_digest()
    return [
        _by_ticker([table for table in tables if table.is_per_ticker], digest, tickers_per_run + 3),
        _whole([table for table in tables if not table.is_per_ticker], digest),
    ]


def _by_ticker(
    tables: Sequence[ExportedTable], digest: str, tickers_per_run: int
) -> dg.AssetsDefinition:
    @dg.asset(
        key=BY_TICKER,
        deps=[dg.AssetKey([table.schema, table.name]) for table in tables],
        description="One Parquet object per table of gold and ticker, in Hive's layout: "
        "`gold/<table>/ticker=<ticker>/data.parquet`.",
        group_name=ACCESS,
        kinds=KINDS,
        owners=OWNERS,
        partitions_def=TICKERS,
        backfill_policy=dg.BackfillPolicy.multi_run(tickers_per_run),
        output_required=False,
    )
    @retried
    def export_tickers(
        context: dg.AssetExecutionContext,
        batch: Batch,
        curated: dg.ResourceParam[Curated],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> Iterator[Event]:
        valid, invalid = valid_and_not(tickers_of(context, batch))
        exported = curated.export(tables, valid, built_by=digest, only_changed=is_deferred(context))
        yield from record(
            context,
            warehouse,
            _by_their_ticker(exported, valid, invalid),
            expected=len(valid) + len(invalid),
        )

    return export_tickers


def _by_their_ticker(
    exported: Iterator[Exported], tickers: Sequence[str], invalid: Iterable[Failed]
) -> Iterator[Done | Skipped | Failed]:
    """Yield what came of each ticker: its objects come one after the other."""
    yield from invalid
    seen = set()
    for ticker, results in groupby(exported, key=lambda result: result.key.ticker or ""):
        objects = list(results)
        seen.add(ticker)
        yield Done(
            ticker,
            _version(objects),
            {"dagster/partition_row_count": sum(one.rows for one in objects), **_counts(objects)},
        )
    for ticker in tickers:
        if ticker not in seen:
            yield Skipped(ticker, "gold has no rows of it")


def _whole(tables: Sequence[ExportedTable], digest: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=WHOLE,
        deps=[dg.AssetKey([table.schema, table.name]) for table in tables],
        description="One Parquet object per table of gold that is about the market or small: "
        "`gold/<table>/data.parquet`.",
        group_name=ACCESS,
        kinds=KINDS,
        owners=OWNERS,
        output_required=False,
    )
    @retried
    def export_whole(
        context: dg.AssetExecutionContext, curated: dg.ResourceParam[Curated]
    ) -> Iterator[Event]:
        results = list(curated.export(tables, None, built_by=digest))
        metadata: dict[str, Any] = {
            "dagster/row_count": sum(one.rows for one in results),
            **_counts(results),
            "tables": _table(results),
        }
        yield from record_whole(context, metadata, _version(results))

    return export_whole


def _counts(results: Sequence[Exported]) -> dict[str, int]:
    lines = list(totals(results).values())
    names = ("objects", "written", "removed", "rows", "bytes")
    return {name: sum(line[name] for line in lines) for name in names}


def _version(results: Iterable[Exported]) -> str:
    contents = " ".join(sorted(f"{one.key} {one.sha256}" for one in results))
    return hashlib.sha256(contents.encode()).hexdigest()[:16]


def _table(results: Sequence[Exported]) -> dg.TableMetadataValue:
    columns = ("table", "outcome", "rows", "bytes")
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "table": one.key.table,
                    "outcome": one.outcome,
                    "rows": one.rows,
                    "bytes": one.size,
                }
            )
            for one in results
        ],
        schema=dg.TableSchema(
            [dg.TableColumn(name, "int" if name in columns[2:] else "string") for name in columns]
        ),
    )


@dg.sensor(
    job_name=EXPORT,
    minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Exports gold when it has changed and no refresh runs. Off until switched on: it "
    "writes the whole histories of all tickers every day.",
)
def gold_changed(
    context: dg.SensorEvaluationContext, warehouse: dg.ResourceParam[Warehouse]
) -> dg.RunRequest | dg.SkipReason:
    """Request a run for what has changed: one that failed comes again, ever more seldom."""
    newest = warehouse.newest_gold_change()
    if newest is None:
        return dg.SkipReason("gold has noted no change")
    for job in (REFRESH, LOAD, EXPORT):
        unfinished = dg.RunsFilter(job_name=job, statuses=UNFINISHED)
        if context.instance.get_runs(filters=unfinished, limit=1):
            return dg.SkipReason(f"a run of {job!r} has not ended")
    tickers = universe(context.instance)
    if not tickers:
        return dg.SkipReason("there are no tickers")
    of_change = dg.RunsFilter(job_name=EXPORT, tags={_CHANGE_TAG: str(newest)})
    attempts = context.instance.get_run_records(of_change)
    wait = _reason_to_wait(attempts, datetime.now(UTC))
    if wait is not None:
        return dg.SkipReason(wait)
    run_key = f"{newest}, attempt {len(attempts) + 1}" if attempts else str(newest)
    run_config, tags = refresh_run(tickers, tickers)
    tags[_CHANGE_TAG] = str(newest)
    return dg.RunRequest(run_key=run_key, run_config=run_config, tags=tags)


def _reason_to_wait(attempts: Sequence[dg.RunRecord], now: datetime) -> str | None:
    """Return why a change is not exported now, after `attempts` that have ended, newest first.

    A run that somebody cancelled is not made up for.
    """
    if any(one.dagster_run.status != dg.DagsterRunStatus.FAILURE for one in attempts):
        return "the newest change of gold was exported, or its export was cancelled"
    if not attempts:
        return None
    due = attempts[0].update_timestamp + pause(len(attempts))
    if now >= due:
        return None
    return f"{len(attempts)} exports failed; the next attempt is due at {due:%Y-%m-%d %H:%M} UTC"
