"""The plan of calls, made from what is stored and what is left."""

from collections.abc import Sequence
from datetime import UTC, datetime

from stocks_assets.adapters.sources.port import Source
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.datasets import DATASETS
from stocks_assets.domain.planner import Plan, Priority, Want, plan_calls


def make_plan(source: Source, warehouse: Warehouse, tickers: Sequence[str]) -> Plan | None:
    """Return the plan for all datasets of `tickers`; None where calls cost nothing.

    Steps of one run that each make the plan and then their own part of its calls keep to one plan:
    what a step has called for is fresh to the next, and gone from the allowance.
    """
    allowance = source.allowance()
    if allowance is None:
        return None
    fetches, priorities = warehouse.fetches(), warehouse.priorities()
    wants = (
        Want(
            dataset, ticker, priorities.get(ticker, Priority.NORMAL), fetches.get((dataset, ticker))
        )
        for ticker in tickers
        for dataset in DATASETS
    )
    return plan_calls(wants, datetime.now(UTC), allowance)
