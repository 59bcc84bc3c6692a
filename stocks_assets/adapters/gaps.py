"""Missing sessions and splits, found in what the warehouse knows."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.calendar import NEW_YORK, last_closed_session, sessions
from stocks_assets.domain.datasets import DAILY_BARS, SPLITS, Call
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
        holdings = find_holdings(warehouse, tickers)
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


def find_holdings(warehouse: Warehouse, tickers: Sequence[str]) -> list[Holding]:
    """Return the daily bars that silver holds of each of `tickers` that has any, as if counted.

    Counted are those of tickers that were loaded since they last were, and all of them where the
    server knows of rows that came or went otherwise.
    """
    # In this order, so that what a load does meanwhile is never taken for counted.
    before = warehouse.counted_bars()
    changes = warehouse.changes_of_bars()
    loaded = warehouse.loads_of_bars()
    if before is None or changes is None:
        anew = set(loaded)
    else:
        anew = {ticker for ticker, at in loaded.items() if before.loaded_at.get(ticker) != at}
    held = _count(warehouse, anew)
    if before is not None and changes is not None:
        known = {ticker: one for ticker, one in before.holdings.items() if ticker in loaded}
        kept = {ticker: one for ticker, one in known.items() if ticker not in anew}
        more = _sum(held) - (_sum(known) - _sum(kept))
        if changes.are_explained(before.changes, more):
            held |= kept
        else:
            anew = set(loaded)
            held = _count(warehouse, anew)
    if changes is not None and (before is None or anew or changes != before.changes):
        warehouse.note_counted_bars(
            changes,
            held,
            {ticker: loaded[ticker] for ticker in anew},
            since=before.counted_at if before is not None else None,
        )
    # What was never loaded has no rows, or such as the books do not know of.
    held |= _count(warehouse, set(tickers) - loaded.keys())
    return [held[ticker] for ticker in sorted(set(tickers)) if ticker in held]


def _sum(holdings: Mapping[str, Holding]) -> int:
    return sum(one.count for one in holdings.values())


def _count(warehouse: Warehouse, tickers: Collection[str]) -> dict[str, Holding]:
    holdings = warehouse.holdings(sorted(tickers)) if tickers else []
    return {holding.ticker: holding for holding in holdings}


def count_bars(
    warehouse: Warehouse, tickers: Sequence[str]
) -> tuple[list[Holding], dict[str, int]]:
    """Return the holdings of `tickers`, and how many daily bars are gone of each that had more."""
    # Read before the bars are counted: those that a load adds meanwhile are not missed.
    loads = warehouse.silver_loads(DAILY_BARS.name, tickers)
    holdings = find_holdings(warehouse, tickers)
    lost = find_lost(
        {ticker: load.stored_count for ticker, load in loads.items()},
        {holding.ticker: holding.count for holding in holdings},
    )
    return holdings, lost


def find_unexplained(warehouse: Warehouse, tickers: Sequence[str]) -> set[str]:
    """Return those of `tickers` whose list of splits may lack one that their newest bars tell of.

    That is where a close leaps, no split is known that explains it, and the list came before the
    vendor had had time for the session.
    """
    leaps = warehouse.unexplained_leaps(tickers)
    fetches = warehouse.fetches(SPLITS.name) if leaps else {}
    return {
        ticker
        for ticker, session in leaps.items()
        if may_lack(fetches.get(Call(SPLITS.name, ticker)), session)
    }


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
