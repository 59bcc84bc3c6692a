"""Silver: typed tables in PostgreSQL, shaped from bronze objects, loaded in batches of tickers."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from pydantic import Field

from stocks_assets.adapters import silver
from stocks_assets.adapters.bronze import BronzeStore, Failed, Skipped, Waiting
from stocks_assets.adapters.charts import CHARTED, bar_charts
from stocks_assets.adapters.silver import Loaded
from stocks_assets.adapters.warehouse import SilverLoad, Warehouse
from stocks_assets.defs.batch import (
    Batch,
    Done,
    Event,
    is_deferred,
    made_from,
    record,
    record_whole,
    tickers_of,
    valid_and_not,
)
from stocks_assets.defs.bronze import OWNERS
from stocks_assets.defs.partitions import INBOX_KEY, TICKERS
from stocks_assets.defs.retries import retried
from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.datasets import DROPPED, MARKET
from stocks_assets.domain.payloads import SILVER_TABLES, SilverTable

KINDS = {"postgres", "silver", "dlt", "polars"}


class Trust(dg.Config):
    """What to take on trust that is refused otherwise."""

    accept_shorter: bool = Field(
        default=False,
        description="Take a payload that has much fewer rows than are stored: those it has not go.",
    )


_DESCRIPTIONS = {
    "weekly_bars": "One row per ticker and week, keyed on the week's Monday; raw prices as traded.",
    "daily_bars": "One row per ticker and trading session; raw prices as traded.",
    "corporate_actions": "One row per ticker, ex-date and kind of action: dividends and splits.",
    "companies": "One row per ticker: the company behind it, as the vendor last described it.",
    "monthly_bars": "One row per ticker and month, keyed on its first day; raw prices as traded.",
    "intraday_bars": "One row per ticker and five minutes of a session; raw prices as traded.",
    "listings": "One row per listing of a security: a ticker, from when on and until when.",
}


def silver_asset(
    table: SilverTable, *, tickers_per_run: int, ui_charts: bool
) -> dg.AssetsDefinition:
    """Return the asset that loads `table`; with `ui_charts` the UI shows its bars as a picture."""
    is_of_market = all(dataset.is_of_market for dataset in table.inputs)
    inputs = inputs_of(table)

    @dg.asset(
        key=["silver", table.name],
        deps=inputs,
        description=_DESCRIPTIONS[table.name],
        group_name="silver",
        kinds=KINDS,
        owners=OWNERS,
        partitions_def=None if is_of_market else TICKERS,
        backfill_policy=None if is_of_market else dg.BackfillPolicy.multi_run(tickers_per_run + 1),
        output_required=False,
        metadata={"dagster/table_name": f"silver.{table.name}"},
    )
    @retried
    def load(
        context: dg.AssetExecutionContext,
        config: Trust,
        batch: Batch,
        bronze: dg.ResourceParam[BronzeStore],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> Iterator[Event]:
        valid, invalid = (
            ([MARKET], []) if is_of_market else valid_and_not(tickers_of(context, batch))
        )
        # A refresh loads what is new; who asks for a partition by name gets it loaded anew.
        loaded = silver.load(
            bronze,
            warehouse,
            table,
            valid,
            only_stale=is_deferred(context),
            accept_shorter=config.accept_shorter,
        )

        def results() -> Iterator[Done | Skipped | Failed | Waiting]:
            yield from invalid
            with charts(warehouse, table, is_wanted=ui_charts) as chart:
                for result in loaded:
                    yield describe(bronze, result, chart) if isinstance(result, Loaded) else result

        yield from record(
            context,
            warehouse,
            results(),
            expected=len(valid) + len(invalid),
            left=lambda: warehouse.tickers_behind_in_silver(
                valid, [(table.name, dataset.name) for dataset in table.inputs]
            ),
            inputs=made_from(context, inputs),
        )

    return load


def inputs_of(table: SilverTable) -> set[dg.AssetKey]:
    """Return the assets that a table is made from."""
    return {
        INBOX_KEY if dataset.name in DROPPED else dg.AssetKey(["bronze", dataset.name])
        for dataset in table.inputs
    }


def charts(
    warehouse: Warehouse, table: SilverTable, *, is_wanted: bool
) -> AbstractContextManager[Callable[[str], str | None] | None]:
    """Have something that draws a ticker's bars, or None where there are none to draw."""
    return (
        bar_charts(warehouse, table.name) if is_wanted and table.name in CHARTED else nullcontext()
    )


def describe(
    bronze: BronzeStore, loaded: Loaded, chart: Callable[[str], str | None] | None
) -> Done:
    """Return what the UI shows of a load."""
    load = loaded.load
    rows = load.row_count if load.stored_count is None else load.stored_count
    keys = [BronzeKey.parse(key) for key in load.bronze_keys]
    picture = chart(load.ticker) if chart is not None else None
    metadata: dict[str, Any] = {
        **({"chart": dg.MetadataValue.md(picture)} if picture is not None else {}),
        "dagster/partition_row_count" if load.ticker else "dagster/row_count": rows,
        "objects": dg.MetadataValue.md("\n".join(f"- [{key}]({bronze.url(key)})" for key in keys)),
        "rejected_rows": load.rejected_count,
    }
    if load.first_date and load.last_date:
        metadata["first_session"] = load.first_date.isoformat()
        metadata["last_session"] = load.last_date.isoformat()
    if loaded.rejected_by_rule:
        metadata["rejected_by_rule"] = dict(loaded.rejected_by_rule)
    if loaded.changes:
        metadata["changes"] = dict(loaded.changes)
    return Done(load.ticker, data_version(load), metadata)


def data_version(load: SilverLoad) -> str:
    """Return the data version of what is loaded from the objects that a load names."""
    contents = " ".join(BronzeKey.parse(key).content_hash for key in load.bronze_keys)
    return hashlib.sha256(contents.encode()).hexdigest()[:16]


@dg.asset(
    key=["silver", "exchange_calendar"],
    description="One row per calendar date: whether the New York Stock Exchange trades, and when.",
    group_name="silver",
    kinds=KINDS,
    owners=OWNERS,
    output_required=False,
    metadata={"dagster/table_name": "silver.exchange_calendar"},
)
@retried
def exchange_calendar(
    context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]
) -> Iterator[Event]:
    """Load the calendar up to the end of next year."""
    frame = silver.load_exchange_calendar(warehouse, datetime.now(UTC).date())
    sessions = frame.filter("is_session")["calendar_date"]
    metadata: dict[str, Any] = {
        "dagster/row_count": frame.height,
        "sessions": sessions.len(),
        "first_session": str(sessions.min()),
        "last_session": str(sessions.max()),
    }
    version = str(frame.hash_rows(seed=0).sum())
    yield from record_whole(context, metadata, version)


def silver_assets(*, tickers_per_run: int, ui_charts: bool) -> list[dg.AssetsDefinition]:
    """Return the silver assets, one a table."""
    tables = [
        silver_asset(table, tickers_per_run=tickers_per_run, ui_charts=ui_charts)
        for table in SILVER_TABLES.values()
    ]
    return [*tables, exchange_calendar]
