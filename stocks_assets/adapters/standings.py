"""How each ticker stands: what the exchanges say of it, when it was last fetched, what failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from stocks_assets.adapters.warehouse import Failure, Warehouse
from stocks_assets.domain.listings import delisted_since, successors
from stocks_assets.domain.planner import Priority


@dataclass(frozen=True, slots=True)
class Standing:
    """A ticker's priority, its listing in words, and its fortunes.

    `fetched` says when each dataset last had data; `failure` is the newest, perhaps mended since.
    """

    ticker: str
    priority: Priority
    listing: str
    fetched: Mapping[str, datetime]
    failed_at: datetime | None
    failure: Failure | None


def find_standings(warehouse: Warehouse, tickers: Sequence[str]) -> list[Standing]:
    """Return how each of `tickers` stands."""
    priorities = warehouse.priorities()
    listings = Listings(warehouse.listings())
    failures = warehouse.last_failures(tickers)
    fetched: dict[str, dict[str, datetime]] = {ticker: {} for ticker in tickers}
    for (ticker, dataset), at in warehouse.last_successes(tickers).items():
        fetched[ticker][dataset] = at
    return [
        Standing(
            ticker,
            priorities.get(ticker, Priority.NORMAL),
            listings.state(ticker),
            fetched[ticker],
            *failures.get(ticker, (None, None)),
        )
        for ticker in tickers
    ]


class Listings:
    """What the list of securities, `silver.listings`, says of a ticker."""

    def __init__(self, listings: pl.DataFrame) -> None:
        self._active = set(listings.filter(pl.col("status") == "active")["ticker"])
        self._delisted = delisted_since(listings)
        self._successors = successors(listings)

    def state(self, ticker: str) -> str:
        """Return such as `active` or `delisted on 2022-10-28`; empty where nothing is known."""
        if ticker in self._active:
            return "active"
        if ticker in self._successors:
            return f"renamed to {self._successors[ticker]}"
        if ticker in self._delisted:
            return f"delisted on {self._delisted[ticker]}"
        return ""

    def hint(self, ticker: str) -> str:
        """Return in one line what to know before keeping `ticker`; empty where it is listed."""
        state = self.state(ticker)
        if ticker in self._successors and state != "active":
            return f"{ticker} was {state}: stocks tickers add {self._successors[ticker]}"
        if ticker in self._delisted and state != "active":
            return f"{ticker} was {state}: what there is of it ends there"
        return ""
