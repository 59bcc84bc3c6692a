"""The plan of calls, made from what is stored and what is left."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import polars as pl

from stocks_assets.adapters.gaps import find_lacking, find_unexplained
from stocks_assets.adapters.sources.port import Source
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.calendar import NEW_YORK
from stocks_assets.domain.datasets import (
    DAILY_BARS,
    DATASETS,
    MARKET,
    SPLITS,
    Call,
    Dataset,
    parts_of,
)
from stocks_assets.domain.gaps import Holding
from stocks_assets.domain.listings import delisted_since, listed_since
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.domain.planner import Plan, Priority, Want, plan_calls
from stocks_assets.domain.recent import BARS_KEPT, are_recent_bars_enough


def make_plan(
    source: Source,
    warehouse: Warehouse,
    tickers: Sequence[str],
    *,
    intraday_months: int,
    holdings: Sequence[Holding] | None = None,
) -> Plan | None:
    """Return the plan for all datasets of the market and of `tickers`; None where calls are free.

    `holdings` spare counting the bars of `tickers`, where who asks has them counted.

    Steps of one run that each make the plan and then their own part of its calls keep to one plan:
    what a step has called for is fresh to the next, and gone from the allowance.
    """
    allowance = source.allowance()
    if allowance is None:
        return None
    now = datetime.now(UTC)
    fetches, priorities = warehouse.fetches(), warehouse.priorities()
    listings = warehouse.listings()
    delisted, listed = delisted_since(listings), listed_since(listings)
    lacking = {
        Call(dataset.name, ticker)
        for dataset, found in (
            (DAILY_BARS, find_lacking(warehouse, tickers, now, holdings)),
            (SPLITS, find_unexplained(warehouse, tickers)),
        )
        for ticker in found
    }
    wants = (
        Want(
            call,
            _priority(call, priorities),
            fetches.get(call),
            delisted.get(call.ticker),
            listed.get(call.ticker),
            is_lacking=call in lacking,
        )
        for dataset in DATASETS.values()
        if source.offers(dataset)
        for call in calls_for(dataset, tickers, now, intraday_months)
    )
    return plan_calls(wants, now, allowance)


def find_tails(
    warehouse: Warehouse, dataset: Dataset, calls: Sequence[Call], now: datetime
) -> dict[Call, pl.DataFrame]:
    """Return of which of `calls` the newest rows are enough, and those that are stored of them.

    All is asked for where silver is not what the newest object said: what it refused, or has not
    loaded yet, decides for the whole history.
    """
    if not any(endpoint.recent for endpoint in dataset.endpoints):
        return {}
    tickers = [call.ticker for call in calls]
    fetches, bars = warehouse.fetches(dataset.name), warehouse.newest_bars(tickers, BARS_KEPT)
    newest = warehouse.newest_objects([dataset.name], tickers)
    loads = [
        warehouse.silver_loads(table.name, tickers)
        for table in SILVER_TABLES.values()
        if dataset in table.inputs
    ]
    return {
        call: stored
        for call in calls
        if (stored := bars.get(call.ticker)) is not None
        and are_recent_bars_enough(call.ticker, fetches.get(call), stored, now)
        and all(
            (load := loaded.get(call.ticker)) is not None
            and str(newest.get(call)) in load.bronze_keys
            # Rejected rows count as long as their object is the newest one.
            and not load.rejected_count
            for loaded in loads
        )
    }


def calls_for(
    dataset: Dataset, tickers: Sequence[str], now: datetime, intraday_months: int
) -> Iterator[Call]:
    """Yield the calls that keep all of `dataset` up to date, for `tickers` or for the market."""
    parts = parts_of(dataset, now.astimezone(NEW_YORK).date(), intraday_months)
    for ticker in (MARKET,) if dataset.is_of_market else tickers:
        for part in parts:
            yield Call(dataset.name, ticker, part)


def _priority(call: Call, priorities: Mapping[str, Priority]) -> Priority:
    # The list of securities says what is worth asking for at all.
    return Priority.HIGH if call.ticker == MARKET else priorities.get(call.ticker, Priority.NORMAL)
