"""The inbox in Dagster: an asset that takes files up, and a sensor that sees them come."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DEFAULT_DATA_VERSION

from stocks_assets.adapters.inbox import Inbox, Left, Outcome, Quarantined, Taken, digest
from stocks_assets.adapters.warehouse import Failure, Warehouse
from stocks_assets.defs.batch import DEFER_ASSET_EVENTS, Event, failure_table, is_deferred
from stocks_assets.defs.bronze import KINDS, OWNERS
from stocks_assets.defs.jobs import LOAD, UNFINISHED
from stocks_assets.defs.partitions import INBOX_KEY
from stocks_assets.defs.retries import retried
from stocks_assets.defs.universe import universe

_SECONDS_BETWEEN_LOOKS = 30
# No more than so many files or tickers are shown in one place.
_SHOWN = 50


@dg.asset(
    key=INBOX_KEY,
    description="Files that people put below inbox/ in the bucket: prices and corporate actions in "
    "CSV, JSON or Parquet, kept as one object a ticker. What cannot be read goes to "
    "quarantine/inbox/ with the reason.",
    group_name="bronze",
    kinds=KINDS,
    owners=OWNERS,
    output_required=False,
)
@retried
def bronze_inbox(
    context: dg.AssetExecutionContext,
    inbox: dg.ResourceParam[Inbox],
    warehouse: dg.ResourceParam[Warehouse],
) -> Iterator[Event]:
    """Take up the files that wait."""
    outcomes = inbox.take_up()
    for line in _lines(outcomes):
        context.log.warning(line)
    metadata = describe(outcomes, universe(context.instance))
    deferred = is_deferred(context)
    # What the last files came to stays in sight until there are others.
    if (deferred and outcomes) or any(isinstance(outcome, Left) for outcome in outcomes):
        yield dg.AssetMaterialization(asset_key=context.asset_key, metadata=metadata)
    if left := [outcome for outcome in outcomes if isinstance(outcome, Left)]:
        reasons = "; ".join(f"{outcome.path}: {outcome.reason}" for outcome in left[:_SHOWN])
        failures = [Failure(context.asset_key.to_user_string(), "", reasons)]
        warehouse.record_failures(context.run.run_id, failures)
        if not deferred:
            raise dg.Failure(
                f"{len(left)} of {len(outcomes)} files could not be taken up",
                metadata={"failed": failure_table(failures)},
                allow_retries=False,
            )
    if deferred:
        yield dg.MaterializeResult()
    else:
        # Always the same: it is the objects of a ticker that its tables can be behind.
        yield dg.MaterializeResult(metadata=metadata, data_version=DEFAULT_DATA_VERSION)


def describe(outcomes: Sequence[Outcome], tickers: Iterable[str]) -> Mapping[str, Any]:
    """Return what the UI shows of a take-up, in a universe of `tickers`."""
    taken = [outcome for outcome in outcomes if isinstance(outcome, Taken)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, Quarantined)]
    touched = sorted({ticker for file in taken for ticker in (*file.rows, *file.withdrawn)})
    strangers = sorted(set(touched) - set(tickers))
    metadata: dict[str, Any] = {
        "files_taken": len(taken),
        "files_quarantined": len(refused),
        "rows": sum(sum(file.rows.values()) for file in taken),
        "rows_without_ticker": sum(sum(file.not_tickers.values()) for file in taken),
        "new_objects": sum(file.new_objects for file in taken),
        "tickers": len(touched),
        "some_tickers": touched[:_SHOWN],
        "tickers_not_in_universe": strangers[:_SHOWN],
    }
    if taken:
        metadata["taken"] = _table(
            {
                "file": file.path,
                "dataset": file.dataset,
                "rows": str(sum(file.rows.values())),
                "tickers": str(len(file.rows)),
                "withdrawn": _some(file.withdrawn),
                "no_tickers": _some(f"{text!r}: {n}" for text, n in file.not_tickers.items()),
                "columns_ignored": _some(file.ignored),
                "kept_as": file.kept_as,
            }
            for file in taken[:_SHOWN]
        )
    if refused:
        metadata["quarantined"] = _table(
            {"file": file.path, "reason": file.reason, "kept_as": file.kept_as}
            for file in refused[:_SHOWN]
        )
    return metadata


def _lines(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield what somebody has to do something about."""
    for outcome in outcomes:
        match outcome:
            case Quarantined(path, kept_as, reason):
                yield f"{path} is in quarantine as {kept_as}: {reason}"
            case Left(path, reason):
                yield f"{path} stays where it is: {reason}"
            case Taken(path, not_tickers=not_tickers) if not_tickers:
                rows = sum(not_tickers.values())
                shown = _some(map(repr, not_tickers))
                yield f"{path}: {rows} rows are left out, as their ticker is none: {shown}"


def _table(rows: Iterable[Mapping[str, str]]) -> dg.TableMetadataValue:
    records = list(rows)
    return dg.MetadataValue.table(
        [dg.TableRecord(dict(record)) for record in records],
        schema=dg.TableSchema([dg.TableColumn(name, "string") for name in records[0]]),
    )


def _some(texts: Iterable[str]) -> str:
    listed = list(texts)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


@dg.sensor(
    job_name=LOAD,
    minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks below inbox/ in the bucket, and lets files that lie there be taken up. Then "
    "the sensor objects_arrived lets just their tickers be loaded.",
)
def files_dropped(
    context: dg.SensorEvaluationContext, inbox: dg.ResourceParam[Inbox]
) -> dg.RunRequest | dg.SkipReason:
    """Request the run for the files that wait; the same files never start it again."""
    waiting = inbox.waiting()
    if not waiting:
        return dg.SkipReason("nothing lies below inbox/")
    unfinished = dg.RunsFilter(job_name=LOAD, statuses=UNFINISHED)
    if context.instance.get_runs(filters=unfinished, limit=1):
        return dg.SkipReason(f"{len(waiting)} files wait for the run that takes files up to end")
    if not universe(context.instance):
        return dg.SkipReason(
            f"{len(waiting)} files wait, and there are no tickers yet; add some with: "
            "stocks tickers add AAPL"
        )
    # Its own events are Dagster's to expect, so that a file that stays makes the run fail.
    return dg.RunRequest(
        run_key=digest(waiting),
        asset_selection=[INBOX_KEY],
        tags={DEFER_ASSET_EVENTS: "false"},
    )
