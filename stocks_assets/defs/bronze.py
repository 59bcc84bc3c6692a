"""Bronze: one asset a dataset; each reply of the vendor becomes an immutable object."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import chain
from typing import Any

import dagster as dg

from stocks_assets.adapters.bronze import (
    NOT_STORED,
    BronzeStore,
    Failed,
    Result,
    Skipped,
    Stored,
    Waiting,
)
from stocks_assets.adapters.planning import calls_for, find_tails, make_plan
from stocks_assets.adapters.sources.port import Source
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.defs.batch import (
    Batch,
    Done,
    Event,
    is_deferred,
    made_from,
    record,
    record_whole,
    resumed_since,
    tickers_of,
    valid_and_not,
)
from stocks_assets.defs.partitions import TICKERS
from stocks_assets.defs.retries import is_another_try, retried
from stocks_assets.domain.bronze_key import QuarantineKey
from stocks_assets.domain.datasets import DATASETS, MARKET, Call, Dataset
from stocks_assets.domain.planner import ANSWERED, Plan

OWNERS = ["team:data-platform"]
KINDS = {"s3", "bronze"}
_QUARANTINE_DAYS = 30
_SHOWN = 50


def bronze_asset(
    dataset: Dataset, *, tickers_per_run: int, fetch_threads: int, intraday_months: int
) -> dg.AssetsDefinition:
    """Return the asset that fetches `dataset`."""
    functions = " or ".join(endpoint.function for endpoint in dataset.endpoints)

    @dg.asset(
        key=["bronze", dataset.name],
        description=f"{dataset.description} The replies of {functions}, kept exactly as they came.",
        group_name="bronze",
        kinds={*KINDS, dataset.form},
        owners=OWNERS,
        partitions_def=None if dataset.is_of_market else TICKERS,
        # Layers whose backfill policies differ never share a run, so that a ticker that fails here
        # costs the layer below nothing.
        backfill_policy=None
        if dataset.is_of_market
        else dg.BackfillPolicy.multi_run(tickers_per_run),
        output_required=False,
    )
    @retried
    def fetch(
        context: dg.AssetExecutionContext,
        batch: Batch,
        source: dg.ResourceParam[Source],
        bronze: dg.ResourceParam[BronzeStore],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> Iterator[Event | dg.AssetObservation]:
        asked = batch.tickers if dataset.is_of_market else tickers_of(context, batch)
        valid, invalid = valid_and_not(asked)
        deferred, decided_at = is_deferred(context), datetime.now(UTC)
        # Who asks for a partition by name gets it fetched, its newest month at least; a refresh
        # keeps to the plan.
        months = intraday_months if deferred else max(1, intraday_months)
        calls = list(calls_for(dataset, valid, decided_at, months))

        @cache
        def versions() -> Mapping[str, str]:
            return _versions(bronze, dataset, [MARKET] if dataset.is_of_market else valid)

        if not source.offers(dataset):
            # Said and not noted: another key may well have it.
            yield from record(
                context,
                warehouse,
                _not_offered(calls),
                expected=len(valid),
                version_of=lambda ticker: versions().get(ticker),
            )
            return
        plan = make_plan(source, warehouse, valid, intraday_months=months) if deferred else None
        since = resumed_since(context)
        noted = warehouse.noted_since(dataset.name, since) if since is not None else {}
        # What failed in a try before this one did so in this run; it is not asked for again. What
        # the store did not take is.
        failed = {
            call: Failed(call.ticker, noted[call][1])
            for call in (calls if is_another_try(context) else ())
            if call in noted and noted[call][0] not in (*ANSWERED, NOT_STORED)
        }
        if plan is not None:
            calls = [call for call in plan.of(dataset.name) if call not in failed]
            context.log.info(f"bronze/{dataset.name}: {plan.describe()}")
            yield dg.AssetObservation(context.asset_key, metadata=plan_metadata(plan))
        answered = [
            call
            for call in (calls if plan is None else ())
            if call in noted and noted[call][0] in ANSWERED
        ]
        passed_over = {*answered, *failed}
        asked_for = [call for call in calls if call not in passed_over]
        # Dagster waits for the events of partitions, which may be lost though the call was noted.
        known = iter(()) if deferred else bronze.known(dataset, answered)
        made = bronze.ingest(
            source,
            dataset,
            asked_for,
            threads=fetch_threads,
            decided_at=decided_at,
            # Who asks by name gets all there is.
            tails=find_tails(warehouse, dataset, asked_for, decided_at) if deferred else {},
            # A refresh leaves a call to whoever makes it; who asks by name wants its result.
            waits=not deferred,
        )
        calls = [*failed, *([] if deferred else answered), *asked_for]
        results = merge_parts(calls, chain(failed.items(), known, made))

        def described() -> Iterator[Done | Skipped | Failed | Waiting]:
            yield from [] if dataset.is_of_market else invalid
            for ticker, parts in results:
                yield _describe(bronze, ticker, parts)

        wanted = {call.ticker for call in calls}
        yield from record(
            context,
            warehouse,
            described(),
            expected=len(wanted) + len(invalid),
            left=lambda: wanted,
            version_of=lambda ticker: versions().get(ticker),
        )

    return fetch


def _not_offered(calls: Sequence[Call]) -> Iterator[Skipped]:
    for ticker in dict.fromkeys(call.ticker for call in calls):
        yield Skipped(ticker, "the plan of the key does not have this dataset")


def merge_parts(
    calls: Sequence[Call], results: Iterator[tuple[Call, Result]]
) -> Iterator[tuple[str, list[tuple[Call, Result]]]]:
    """Yield each ticker with the results of all its calls, as soon as the last of them is there."""
    outstanding = Counter(call.ticker for call in calls)
    parts: dict[str, list[tuple[Call, Result]]] = {}
    for call, result in results:
        parts.setdefault(call.ticker, []).append((call, result))
        outstanding[call.ticker] -= 1
        if not outstanding[call.ticker]:
            yield call.ticker, parts.pop(call.ticker)


def _describe(
    bronze: BronzeStore, ticker: str, parts: Sequence[tuple[Call, Result]]
) -> Done | Skipped | Failed | Waiting:
    """Return what a ticker came to: failed if a part did, and done if one was stored."""
    if failed := [(call, result) for call, result in parts if isinstance(result, Failed)]:
        reasons = "; ".join(
            f"{call.part}: {result.reason}" if call.part else result.reason
            for call, result in failed
        )
        return Failed(ticker, reasons, may_pass=all(result.may_pass for _, result in failed))
    in_order = sorted(parts, key=lambda part: part[0])
    stored = [result for _, result in in_order if isinstance(result, Stored)]
    if not stored:
        waiting = (result for _, result in parts if isinstance(result, Waiting))
        skipped = (result for _, result in parts if isinstance(result, Skipped))
        return next(waiting, None) or next(skipped)
    metadata: dict[str, Any] = {
        "object": dg.MetadataValue.url(bronze.url(stored[-1].key)),
        "object_key": str(stored[-1].key),
        "new": any(part.is_new for part in stored),
        "fetched_at": dg.MetadataValue.timestamp(max(part.key.fetched_at for part in stored)),
    }
    if stored[-1].function:
        metadata["function"] = stored[-1].function
        metadata["reply_bytes"] = sum(part.reply_bytes for part in stored)
    if len(stored) > 1:
        metadata["objects"] = dg.MetadataValue.md(
            "\n".join(f"- [{part.key}]({bronze.url(part.key)})" for part in stored)
        )
    version = " ".join(part.key.content_hash for part in stored)
    if parts[0][0].part:
        # Of all parts, whichever of them were asked for this time.
        dataset = DATASETS[stored[0].key.dataset]
        version = _versions(bronze, dataset, [ticker]).get(ticker, version)
    return Done(ticker, version, metadata)


def _versions(bronze: BronzeStore, dataset: Dataset, tickers: Sequence[str]) -> Mapping[str, str]:
    """Return the data version of what there is of each of `tickers`: its newest objects' hashes."""
    hashes: dict[str, list[str]] = {}
    for call, key in sorted(bronze.newest(dataset, tickers).items()):
        hashes.setdefault(call.ticker, []).append(key.content_hash)
    return {ticker: " ".join(of_ticker) for ticker, of_ticker in hashes.items()}


@dg.asset(
    key=["bronze", "quarantine"],
    deps=[dg.AssetKey(["bronze", name]) for name in DATASETS],
    description="Replies that were no data: refusals and what could not be read, kept without the "
    f"key below quarantine/ in the bucket. Lists those of the last {_QUARANTINE_DAYS} days.",
    group_name="bronze",
    kinds=KINDS,
    owners=OWNERS,
    output_required=False,
)
def quarantine(
    context: dg.AssetExecutionContext, bronze: dg.ResourceParam[BronzeStore]
) -> Iterator[Event]:
    """List what the vendor answered that was no data."""
    since = datetime.now(UTC).date() - timedelta(days=_QUARANTINE_DAYS)
    found = bronze.quarantined(since)
    metadata: dict[str, Any] = {
        "replies": len(found),
        "by_outcome": dict(Counter(key.outcome for key in found)),
        "newest": _quarantine_table(found[:_SHOWN]),
    }
    inputs = made_from(context, context.assets_def.asset_deps[context.asset_key])
    yield from record_whole(context, metadata, inputs=inputs)


def _quarantine_table(keys: Sequence[QuarantineKey]) -> dg.TableMetadataValue:
    names = ("received_at", "dataset", "ticker", "part", "outcome", "object")
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                dict(
                    zip(
                        names,
                        (
                            f"{key.received_at:%Y-%m-%d %H:%M:%S}",
                            key.call.dataset,
                            key.call.ticker,
                            key.call.part,
                            key.outcome,
                            str(key),
                        ),
                        strict=True,
                    )
                )
            )
            for key in keys
        ],
        schema=dg.TableSchema([dg.TableColumn(name, "string") for name in names]),
    )


def plan_metadata(plan: Plan) -> dict[str, Any]:
    """Return what the UI shows of a plan."""
    metadata: dict[str, Any] = {
        "calls_now": len(plan.calls),
        "calls_waiting": len(plan.waiting),
        "still_fresh": plan.fresh,
        "next_calls": [str(call) for call in plan.calls[:25]],
    }
    if plan.done_by is not None:
        metadata["done_by"] = dg.MetadataValue.timestamp(plan.done_by)
    if plan.allowance.left is not None:
        metadata["calls_left_today"] = plan.allowance.left
    return metadata


def bronze_assets(
    *, tickers_per_run: int, fetch_threads: int, intraday_months: int
) -> list[dg.AssetsDefinition]:
    """Return the bronze assets: one a dataset, and the list of what was no data."""
    fetched = [
        bronze_asset(
            dataset,
            tickers_per_run=tickers_per_run,
            fetch_threads=fetch_threads,
            intraday_months=intraday_months,
        )
        for dataset in DATASETS.values()
    ]
    return [*fetched, quarantine]
