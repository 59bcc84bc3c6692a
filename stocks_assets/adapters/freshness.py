"""What is too old of what the warehouse has."""

from collections.abc import Sequence
from datetime import date, datetime

from stocks_assets.adapters.planning import calls_for
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.calendar import NEW_YORK, sessions
from stocks_assets.domain.datasets import DAILY_BARS, DROPPED
from stocks_assets.domain.freshness import Stale, stale_answers, stale_bars
from stocks_assets.domain.gaps import VENDOR_SINCE, Expectation
from stocks_assets.domain.listings import delisted_since
from stocks_assets.domain.payloads import SilverTable

SILVER_BARS = "silver.daily_bars"


def find_stale_bars(
    warehouse: Warehouse, relation: str, tickers: Sequence[str], now: datetime
) -> list[Stale]:
    """Return those of `tickers` whose newest session in `relation` is too old.

    `relation` has the columns ticker and session_date, and is a table of silver or gold.
    """
    days = sessions(VENDOR_SINCE, now.astimezone(NEW_YORK).date())
    newest = warehouse.newest_sessions(relation, tickers)
    if relation == SILVER_BARS:
        inputs = [(DAILY_BARS.name, DAILY_BARS.name)]
        behind = set(warehouse.tickers_behind_in_silver(tickers, inputs))
    else:
        in_silver = warehouse.newest_sessions(SILVER_BARS, tickers)
        behind = {t for t, day in in_silver.items() if newest.get(t, date.min) < day}
    return stale_bars(
        tickers,
        newest,
        Expectation(days, warehouse.listings(), now),
        relation,
        answers={
            call.ticker: checked for call, checked in warehouse.fetches(DAILY_BARS.name).items()
        },
        behind=behind,
    )


def find_stale_answers(
    warehouse: Warehouse, table: SilverTable, tickers: Sequence[str], now: datetime
) -> list[Stale]:
    """Return what `table` is loaded from, of `tickers`, that was last answered too long ago."""
    calls = (
        call
        for dataset in table.inputs
        if dataset.name not in DROPPED
        for call in calls_for(dataset, tickers, now, 0)
    )
    return stale_answers(calls, warehouse.fetches(), delisted_since(warehouse.listings()), now)
