"""Silver built anew from bronze alone, without asking the vendor for anything."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from stocks_assets.adapters import silver
from stocks_assets.adapters.bronze import BronzeStore, Failed
from stocks_assets.adapters.silver import Loaded
from stocks_assets.adapters.warehouse import Failure, Warehouse
from stocks_assets.defs.batch import (
    DATA_VERSION,
    failure_table,
    made_from,
    materialization,
    valid_and_not,
    write_together,
)
from stocks_assets.defs.silver import charts, data_version, describe, inputs_of
from stocks_assets.defs.universe import universe
from stocks_assets.domain.datasets import MARKET
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.settings import read_settings

REBUILD = "rebuild_silver"


class Rebuild(dg.Config):
    """What to build anew."""

    tickers: list[str] = Field(default=[], description="Tickers; none: the universe.")
    tables: list[str] = Field(default=[], description="Silver tables; none: all.")
    as_far_as_stored: bool = Field(
        default=False, description="Whether a ticker that is named may have no object."
    )


@dg.op(
    description="Loads every object in bronze again, in the order in which they came, and puts "
    "the result in the place of what was stored."
)
def rebuild_tables(
    context: dg.OpExecutionContext,
    config: Rebuild,
    bronze: dg.ResourceParam[BronzeStore],
    warehouse: dg.ResourceParam[Warehouse],
) -> dg.Output[None]:
    """Build the tables anew.

    Raises:
        dagster.Failure: a table or ticker that is named is none; or tickers failed and keep what
            was stored, or are built without an object that was refused; all others are done.
    """
    if unknown := sorted(set(config.tables) - SILVER_TABLES.keys()):
        raise dg.Failure(
            f"there is no silver table {', '.join(unknown)}; there are {', '.join(SILVER_TABLES)}",
            allow_retries=False,
        )
    _, invalid = valid_and_not(config.tickers)
    if invalid:
        reasons = "; ".join(failed.reason for failed in invalid)
        raise dg.Failure(reasons, allow_retries=False)
    of_universe = universe(context.instance)
    known, ui_charts = set(of_universe), read_settings().ui_charts
    tickers = config.tickers or of_universe
    counts: dict[str, Any] = {}
    failures: list[Failure] = []
    found: set[str] = set()
    for name in config.tables or SILVER_TABLES:
        table = SILVER_TABLES[name]
        inputs = made_from(context, inputs_of(table))
        results = list(
            silver.rebuild(bronze, warehouse, table, [MARKET] if table.is_of_market else tickers)
        )
        built = [
            result
            for result in results
            if isinstance(result, Loaded) and (table.is_of_market or result.ticker in known)
        ]
        with charts(warehouse, table, is_wanted=ui_charts) as chart:
            key = dg.AssetKey(["silver", name])
            news = [
                materialization(key, describe(bronze, result, chart), inputs)
                for result in _news(context, key, built)
            ]
        write_together(context, news)
        counts[name] = sum(r.load.row_count for r in results if isinstance(r, Loaded))
        found.update(result.ticker for result in results)
        failures += [
            Failure(f"silver/{name}", r.ticker, r.reason) for r in results if isinstance(r, Failed)
        ]
        context.log.info(f"silver/{name}: {counts[name]} rows of {len(results)} tickers")
    # Of the universe, a ticker may well wait for its first object; one that is named has some.
    failures += [
        Failure("bronze", ticker, "it has no object in bronze for these tables")
        for ticker in config.tickers
        if ticker not in found and not config.as_far_as_stored
    ]
    warehouse.record_failures(context.run_id, failures)
    if failures:
        raise dg.Failure(
            f"{len(failures)} tickers failed: those with an object that could not be had keep what "
            "was stored, others are built without what was refused; all others are done",
            metadata={"failed": failure_table(failures)},
            allow_retries=False,
        )
    return dg.Output(None, metadata={"rows": counts})


def _news(
    context: dg.OpExecutionContext, key: dg.AssetKey, results: Sequence[Loaded]
) -> list[Loaded]:
    """Return the results of another data version than the last event of their partition has.

    All else is as it was: an event would only say that something had come, which freshness is
    judged by.
    """
    recorded = context.instance.event_log_storage.get_latest_tags_by_partition(
        key,
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        tag_keys=[DATA_VERSION],
        asset_partitions=[result.ticker for result in results if result.ticker],
    )
    versions = {ticker: tags.get(DATA_VERSION) for ticker, tags in recorded.items()}
    last = context.instance.get_latest_materialization_event(key)
    if last is not None and last.asset_materialization is not None:
        versions[MARKET] = (last.asset_materialization.tags or {}).get(DATA_VERSION)
    return [one for one in results if data_version(one.load) != versions.get(one.ticker)]


@dg.job(name=REBUILD, description="Builds silver anew from bronze alone.")
def rebuild_job() -> None:
    """Build silver anew."""
    rebuild_tables()
