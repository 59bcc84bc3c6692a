"""How many tickers share one run, and how each is still recorded for its own partition.

A run of the UI (materialize, backfill) names its partitions, Dagster expects their events, and a
ticker that fails makes the run fail. A run of the `refresh` job names its tickers in the config of
the `batch` resource and carries the tag `dagster/defer_asset_events`: Dagster then expects and
writes no asset events of its own, so those written here are the whole record, the layers can follow
one another in one run, and what failed is judged at the end (`checks.every_ticker_is_refreshed`).

Of what failed in such a run, and of nothing else, Dagster is told that it was to be made: once the
run has ended as failed, it counts the partition as failed, until it is made again.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    DagsterEventBatchMetadata,
)
from pydantic import Field

from stocks_assets.adapters.bronze import Failed, Skipped, Waiting
from stocks_assets.adapters.warehouse import Failure, Warehouse
from stocks_assets.defs.retries import is_another_try, is_tried_again, request_retry
from stocks_assets.domain.tickers import parse_ticker
from stocks_assets.errors import InvalidTickerError

DEFER_ASSET_EVENTS = "dagster/defer_asset_events"
DATA_VERSION = "dagster/data_version"
# No more than so many reasons are shown in one place; all of them are in ops.failures.
_SHOWN = 50
# They are written with the first result after that time, so a process that is killed while a result
# is long in coming loses the events of those before it. What they tell of is done.
_SECONDS_TOGETHER = 1.0

Event = dg.AssetMaterialization | dg.MaterializeResult[Any]
AnyContext = dg.AssetExecutionContext | dg.OpExecutionContext


class Batch(dg.ConfigurableResource[Any]):
    """The tickers of a run that names them itself."""

    tickers: list[str] = Field(default=[], description="Tickers; none: the run's partitions.")


@dataclass(frozen=True, slots=True)
class Done:
    """A ticker that an asset was brought up to date for, and what to show of it."""

    ticker: str
    data_version: str
    metadata: dict[str, Any] = field(default_factory=dict)


def is_deferred(context: dg.AssetExecutionContext) -> bool:
    """Tell whether the events written here are the whole record of the run."""
    return context.run.tags.get(DEFER_ASSET_EVENTS) == "true"


def resumed_since(context: dg.AssetExecutionContext) -> datetime | None:
    """Return when the refresh began that this run goes on with; None if it is no re-execution.

    What was fetched since then is not asked for again: just what failed or was not come to is.
    """
    root = context.run.root_run_id
    if is_another_try(context):
        root = root or context.run.run_id
    if root is None or not (is_deferred(context) or is_another_try(context)):
        return None
    record = context.instance.get_run_record_by_id(root)
    return record.create_timestamp.astimezone(UTC) if record else None


def names_tickers(context: dg.AssetExecutionContext, batch: Batch) -> bool:
    """Tell whether the run is for certain tickers; one of a cross-sectional asset is not."""
    return bool(batch.tickers) or context.has_partition_key or context.has_partition_key_range


def tickers_of(context: dg.AssetExecutionContext, batch: Batch) -> list[str]:
    """Return the tickers that the run is for."""
    if batch.tickers:
        return batch.tickers
    if not names_tickers(context, batch):
        raise dg.Failure(
            "the run has no tickers: choose partitions, or name them in the config of the "
            "resource 'batch'",
            allow_retries=False,
        )
    return list(context.partition_keys)


def valid_and_not(tickers: Sequence[str]) -> tuple[list[str], list[Failed]]:
    """Part the tickers from what is none: a partition can be added with any name."""
    valid, failed = [], []
    for ticker in tickers:
        try:
            meant = parse_ticker(ticker)
        except InvalidTickerError as error:
            failed.append(Failed(ticker, str(error)))
            continue
        if meant == ticker:
            valid.append(ticker)
        else:
            failed.append(Failed(ticker, f"{ticker!r} is not a ticker; {meant!r} may be meant"))
    return valid, failed


def made_from(
    context: AnyContext, inputs: Collection[dg.AssetKey], code_version: str | None = None
) -> Mapping[str, str]:
    """Return the tags that Dagster tells by whether what a step makes is behind its `inputs`.

    Without them it goes by the times of events: what was asked for again and found to be as it was
    would then leave all that was made of it "unsynced". They point at the newest event there is,
    whatever it is of; a later one of an input counts where the data version is another. So they are
    to be had before the inputs are looked at, and are of use only where each event of the inputs
    has its data version.
    """
    newest = context.instance.event_log_storage.get_maximum_record_id()
    records = {
        record.asset_entry.asset_key: record.asset_entry.last_materialization_record
        for record in context.instance.get_asset_records(list(inputs))
    }
    tags = {CODE_VERSION_TAG: code_version or context.run.run_id}
    for key in sorted(inputs):
        last = records.get(key)
        version = last and extract_data_version_from_entry(last.event_log_entry)
        tags[get_input_data_version_tag(key)] = (version or DEFAULT_DATA_VERSION).value
        # Of an input that has no event yet as well: pointed at nothing, none would ever count.
        tags[get_input_event_pointer_tag(key)] = str(newest)
    return tags


def materialization(
    key: dg.AssetKey, done: Done, inputs: Mapping[str, str]
) -> dg.AssetMaterialization:
    """Return the event of what is done; `inputs` are tags that say what it was `made_from`."""
    return dg.AssetMaterialization(
        asset_key=key,
        partition=done.ticker or None,
        metadata=done.metadata,
        tags={**inputs, DATA_VERSION: done.data_version},
    )


def record_whole(
    context: dg.AssetExecutionContext,
    metadata: Mapping[str, Any],
    version: str | None = None,
    inputs: Mapping[str, str] | None = None,
) -> Iterator[Event]:
    """Record what has no partitions as made; `inputs` as `record` has them."""
    if not is_deferred(context):
        known = dg.DataVersion(version) if version else None
        yield dg.MaterializeResult(metadata=metadata, data_version=known)
        return
    tags = {**(inputs or {}), **({DATA_VERSION: version} if version else {})}
    yield dg.AssetMaterialization(context.asset_key, metadata=metadata, tags=tags)
    yield dg.MaterializeResult()


def record(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    results: Iterator[Done | Skipped | Failed | Waiting],
    *,
    expected: int,
    left: Callable[[], Iterable[str]] = tuple,
    inputs: Mapping[str, str] | None = None,
    version_of: Callable[[str], str | None] = lambda _: None,
) -> Iterator[Event]:
    """Turn results into the events of their partitions, as they come, a second's worth or more.

    What the source has nothing of is recorded as such, so that what follows does not wait for it;
    `version_of` says which data version that leaves a ticker with, if it had something before.
    A ticker that has to wait, as no call is left for it, has no event: nothing failed. Where the
    results break off, those of the tickers `left` that had none have failed. `inputs` are tags that
    say what all of it was `made_from`.

    Raises:
        dagster.RetryRequested: something failed that may pass by itself, and there are tries left.
        dagster.Failure: tickers failed, in a run whose partitions Dagster expects.
    """
    deferred = is_deferred(context)
    alone = not deferred and expected == 1
    undone: list[Failed | Waiting] = []
    ready: list[dg.AssetMaterialization] = []
    since = time.monotonic()
    asset = context.asset_key.to_user_string()
    for number, result in enumerate(_to_the_last(results, context, ready, left), start=1):
        about = {"dataset": asset, "ticker": result.ticker}
        match result:
            case Failed() | Waiting():
                undone.append(result)
                say = context.log.error if isinstance(result, Failed) else context.log.debug
                say(f"{asset} {result.ticker or 'of the market'}: {result.reason}", extra=about)
                continue
            case Skipped():
                whose = result.ticker or "of the market"
                context.log.info(f"{asset} {whose}: not available, {result.reason}", extra=about)
                metadata = {"available": False, "reason": result.reason}
                version = version_of(result.ticker) or "unavailable"
                done = Done(result.ticker, version, metadata)
            case _:
                done = result
        if alone:
            # A run of one ticker may go through all layers: its result lets the next one start.
            yield dg.MaterializeResult(
                metadata=done.metadata, data_version=dg.DataVersion(done.data_version)
            )
        else:
            ready.append(materialization(context.asset_key, done, inputs or {}))
        if time.monotonic() - since > _SECONDS_TOGETHER:
            write_together(context, ready)
            since = time.monotonic()
        if number % 100 == 0:
            context.log.info(f"{asset}: {number} of {expected} tickers", extra={"dataset": asset})
    _judge(context, warehouse, undone, expected)
    if deferred:
        yield dg.MaterializeResult()


def _to_the_last(
    results: Iterator[Done | Skipped | Failed | Waiting],
    context: dg.AssetExecutionContext,
    ready: list[dg.AssetMaterialization],
    left: Callable[[], Iterable[str]],
) -> Iterator[Done | Skipped | Failed | Waiting]:
    """Yield the results; however they end, what is ready is written: it is done."""
    seen = set()
    try:
        for result in results:
            if not isinstance(result, Failed):
                seen.add(result.ticker)
            yield result
    except Exception as error:
        if is_deferred(context):
            asset, reason = context.asset_key.to_user_string(), "the step ended before it was done"
            mark_left(
                context,
                error,
                lambda: [Failure(asset, ticker, reason) for ticker in {*left()} - seen],
            )
        raise
    finally:
        write_together(context, ready)


def write_together(context: AnyContext, ready: list[dg.AssetMaterialization]) -> None:
    """Write the events and empty the list; yielded, each would be two transactions of its own."""
    batch = str(uuid4())
    for number, made in enumerate(ready, start=1):
        DagsterEvent.asset_materialization(
            context.get_step_execution_context(),
            made,
            DagsterEventBatchMetadata(batch, number == len(ready)),
        )
    ready.clear()


def write_failed(context: dg.AssetExecutionContext, failures: Sequence[Failure]) -> None:
    """Have what failed, and no ticker else, count as failed once the run has ended as failed.

    To Dagster that is a partition which a failed run was to make, and which was not made since.
    """
    step, batch = context.get_step_execution_context(), str(uuid4())
    # Runs that write of the same assets at once do so in the same order.
    for number, failure in enumerate(sorted(failures, key=lambda one: one.asset), start=1):
        DagsterEvent.from_step(
            dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
            step,
            AssetMaterializationPlannedData(
                dg.AssetKey.from_user_string(failure.asset), partition=failure.ticker or None
            ),
            f"{failure.asset} {failure.ticker or 'of the market'} failed: {failure.reason}",
            DagsterEventBatchMetadata(batch, number == len(failures)),
        )


def mark_left(
    context: dg.AssetExecutionContext, error: Exception, left: Callable[[], Sequence[Failure]]
) -> None:
    """Mark what a step that breaks with `error` was still to do, unless it has another try."""
    if is_tried_again(context, error):
        return
    try:
        write_failed(context, left())
    except Exception as another:  # noqa: BLE001 # what broke the step may break this
        error.add_note(f"what was left to do is not marked as failed: {another}")


def _judge(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    undone: Sequence[Failed | Waiting],
    expected: int,
) -> None:
    """Have the step tried again, note what failed, or fail: see `record`."""
    asset = context.asset_key.to_user_string()
    waiting = [one for one in undone if isinstance(one, Waiting)]
    failed = [one for one in undone if isinstance(one, Failed)]
    if waiting:
        context.log.warning(
            f"{asset}: {len(waiting)} of {expected} tickers have to wait: {waiting[0].reason}"
        )
    failures = [Failure(asset, one.ticker, one.reason) for one in failed]
    if may_pass := [one for one in failed if one.may_pass]:
        lasting = [f for f, one in zip(failures, failed, strict=True) if not one.may_pass]
        warehouse.record_failures(context.run.run_id, lasting)
        # With no try left, those that failed are recorded as such and the others go on.
        request_retry(context, f"{len(may_pass)} tickers: {may_pass[0].reason}")
    if not failed:
        return
    warehouse.record_failures(context.run.run_id, failures)
    if is_deferred(context):
        write_failed(context, failures)
    else:
        raise dg.Failure(
            f"{len(failures)} of {expected} tickers failed",
            metadata={"failed": failure_table(failures)},
            allow_retries=False,
        )


def failure_table(failures: Sequence[Failure]) -> dg.TableMetadataValue:
    """Return failures as a table for the UI."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord({"asset": f.asset, "ticker": f.ticker, "reason": f.reason})
            for f in failures[:_SHOWN]
        ],
        schema=dg.TableSchema(
            [dg.TableColumn(name, "string") for name in ("asset", "ticker", "reason")]
        ),
    )
