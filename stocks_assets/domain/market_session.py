"""Which sessions are of the market as a whole, and not just of the tickers that have them first."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

# A ticker without a bar in so many sessions is no longer waited for.
_WAITED_FOR: Final = 10


@dataclass(frozen=True, slots=True)
class MarketSession:
    """A session that `tickers` have a bar of, out of `expected`."""

    day: date
    tickers: int
    expected: int


def market_sessions(tickers: Mapping[date, int]) -> list[MarketSession]:
    """Return the sessions of the market, oldest first; `tickers` says how many have each one.

    A session is the market's if at least half of the tickers have it that are expected to: as many
    as have the fullest of it and the ten sessions before. A day on which few tickers have been
    fetched yet, or few exchanges were open, is none.
    """
    days = sorted(tickers)
    found = []
    for place, day in enumerate(days):
        expected = max(tickers[one] for one in days[max(0, place - _WAITED_FOR) : place + 1])
        if 2 * tickers[day] >= expected:
            found.append(MarketSession(day, tickers[day], expected))
    return found
