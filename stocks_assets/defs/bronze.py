"""Bronze: one asset a dataset; each reply of the vendor becomes an immutable object."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from stocks_assets.adapters.bronze import BronzeStore, Failed, Skipped, Stored, Waiting
from stocks_assets.adapters.planning import make_plan
from stocks_assets.adapters.sources.port import Source
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.defs.batch import (
    Batch,
    Done,
    Event,
    is_deferred,
    record,
    tickers_of,
    valid_and_not,
)
from stocks_assets.defs.partitions import TICKERS
from stocks_assets.domain.datasets import DATASETS, Dataset
from stocks_assets.domain.planner import Plan

OWNERS = ["team:data-platform"]
KINDS = {"s3", "bronze", "json"}


def bronze_asset(
    dataset: Dataset, *, tickers_per_run: int, fetch_threads: int
) -> dg.AssetsDefinition:
    """Return the asset that fetches `dataset`."""
    functions = " or ".join(endpoint.function for endpoint in dataset.endpoints)

    @dg.asset(
        key=["bronze", dataset.name],
        description=f"{dataset.description} The replies of {functions}, kept exactly as they came.",
        group_name="bronze",
        kinds=KINDS,
        owners=OWNERS,
        partitions_def=TICKERS,
        # Layers whose backfill policies differ never share a run, so that a ticker that fails here
        # costs the layer below nothing.
        backfill_policy=dg.BackfillPolicy.multi_run(tickers_per_run),
        output_required=False,
    )
    def fetch(
        context: dg.AssetExecutionContext,
        batch: Batch,
        source: dg.ResourceParam[Source],
        bronze: dg.ResourceParam[BronzeStore],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> Iterator[Event | dg.AssetObservation]:
        tickers = tickers_of(context, batch)
        valid, invalid = valid_and_not(tickers)
        # Who asks for a partition by name gets it fetched; a refresh keeps to the plan.
        plan = make_plan(source, warehouse, valid) if is_deferred(context) else None
        if plan is not None:
            valid = plan.tickers(dataset.name)
            context.log.info(f"bronze/{dataset.name}: {plan.describe()}")
            yield dg.AssetObservation(context.asset_key, metadata=plan_metadata(plan))
        stored = bronze.ingest(source, dataset, valid, threads=fetch_threads)

        def results() -> Iterator[Done | Skipped | Failed | Waiting]:
            yield from invalid
            for result in stored:
                yield _describe(bronze, result) if isinstance(result, Stored) else result

        yield from record(context, warehouse, results(), expected=len(valid) + len(invalid))

    return fetch


def _describe(bronze: BronzeStore, stored: Stored) -> Done:
    return Done(
        stored.ticker,
        stored.key.content_hash,
        {
            "object": dg.MetadataValue.url(bronze.url(stored.key)),
            "object_key": str(stored.key),
            "new": stored.is_new,
            "function": stored.function,
            "reply_bytes": stored.reply_bytes,
            "fetched_at": dg.MetadataValue.timestamp(stored.key.fetched_at),
        },
    )


def plan_metadata(plan: Plan) -> dict[str, Any]:
    """Return what the UI shows of a plan."""
    metadata: dict[str, Any] = {
        "calls_now": len(plan.calls),
        "calls_waiting": len(plan.waiting),
        "still_fresh": plan.fresh,
        "next_calls": [f"{dataset} {ticker}" for dataset, ticker in plan.calls[:25]],
    }
    if plan.done_by is not None:
        metadata["done_by"] = dg.MetadataValue.timestamp(plan.done_by)
    if plan.allowance.left is not None:
        metadata["calls_left_today"] = plan.allowance.left
    return metadata


def bronze_assets(*, tickers_per_run: int, fetch_threads: int) -> list[dg.AssetsDefinition]:
    """Return the bronze assets, one a dataset."""
    return [
        bronze_asset(dataset, tickers_per_run=tickers_per_run, fetch_threads=fetch_threads)
        for dataset in DATASETS.values()
    ]
