"""Missing sessions, found in what the warehouse knows."""

from collections.abc import Sequence
from datetime import datetime

from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.calendar import NEW_YORK, last_closed_session, sessions
from stocks_assets.domain.datasets import DAILY_BARS, Call
from stocks_assets.domain.gaps import (
    SETTLES_AFTER,
    VENDOR_SINCE,
    Expectation,
    Gap,
    Holding,
    can_be_filled,
    find_lost,
    may_lack,
)
from stocks_assets.domain.planner import Priority, Want, is_due


def find_gaps(
    warehouse: Warehouse,
    tickers: Sequence[str],
    now: datetime,
    holdings: Sequence[Holding] | None = None,
) -> list[tuple[Gap, bool]]:
    """Return the gaps in the daily bars of `tickers`, and whether a call may fill each.

    A ticker without any daily bars has none: what was never loaded is no gap. `holdings` spare
    counting the bars, where who asks has them counted.
    """
    fetches = warehouse.fetches(DAILY_BARS.name)
    days = sessions(VENDOR_SINCE, now.astimezone(NEW_YORK).date())
    expected = Expectation(days, warehouse.listings(), now)
    if holdings is None:
        holdings = warehouse.holdings(tickers)
    holed = [holding.ticker for holding in holdings if not expected.is_whole(holding)]
    stored = warehouse.stored_sessions(holed)
    found = []
    for holding in holdings:
        call = Call(DAILY_BARS.name, holding.ticker)
        last = fetches.get(call)
        may_ask = is_due(Want(call, Priority.NORMAL, last, is_lacking=True), now)
        found += [
            (gap, may_ask and can_be_filled(gap, last))
            for gap in expected.gaps(holding, stored.get(holding.ticker))
        ]
    return found


def count_bars(
    warehouse: Warehouse, tickers: Sequence[str]
) -> tuple[list[Holding], dict[str, int]]:
    """Return the holdings of `tickers`, and how many daily bars are gone of each that had more."""
    # Read before the bars are counted: those that a load adds meanwhile are not missed.
    loads = warehouse.silver_loads(DAILY_BARS.name, tickers)
    holdings = warehouse.holdings(tickers)
    lost = find_lost(
        {ticker: load.stored_count for ticker, load in loads.items()},
        {holding.ticker: holding.count for holding in holdings},
    )
    return holdings, lost


def find_lacking(
    warehouse: Warehouse,
    tickers: Sequence[str],
    now: datetime,
    holdings: Sequence[Holding] | None = None,
) -> set[str]:
    """Return those of `tickers` that lack bars which a call may bring that is not due otherwise.

    Nothing is counted where no answer came before the vendor had had time for the last session, or
    where `holdings` of all of them are there.
    """
    fetches = warehouse.fetches(DAILY_BARS.name)
    settled = last_closed_session(now - SETTLES_AFTER)
    early = set()
    for ticker in tickers:
        call = Call(DAILY_BARS.name, ticker)
        last = fetches.get(call)
        if may_lack(last, settled) and not is_due(Want(call, Priority.NORMAL, last), now):
            early.add(ticker)
    if not early:
        return set()
    if holdings is not None:
        holdings = [holding for holding in holdings if holding.ticker in early]
    found = find_gaps(warehouse, sorted(early), now, holdings)
    return {gap.ticker for gap, is_fillable in found if is_fillable}
