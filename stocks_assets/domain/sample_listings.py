"""The sample market's lists of securities, listed and delisted, in the vendor's CSV.

Two cases are made by hand: a company that gave its ticker up for another one, and a ticker that had
an earlier life.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from stocks_assets.domain.sample_companies import company, traits_of

LISTED_COMPANIES = 500
"""How many companies are on the lists: the first by rank."""

_HEADER = ("symbol", "name", "exchange", "assetType", "ipoDate", "delistingDate", "status")

# Until so many sessions after its listing, the company of a ticker went by an old one.
_OLD_TICKERS = {"TYDE": "TFPC"}
_RENAMED_AFTER = 20


class _Listing(NamedTuple):
    symbol: str
    name: str
    exchange: str
    asset_type: str
    ipo_date: date
    delisting_date: date | None


def listing_status(seed: int, sessions: Sequence[date], *, delisted: bool) -> bytes:
    """What is listed, or what was `delisted`, once the last of `sessions` has closed.

    `sessions` are all of the market's so far. A security's dates are the first session that it
    trades, and the first that it does not trade any more. A company that took another ticker has
    its whole history and its first date under the new one; the old one was delisted on that day.

    Returns:
        CSV with the vendor's header, CRLF line ends and `null` for no date, sorted by symbol.
    """
    listings = [
        listing
        for listing in _listings(seed, sessions)
        if (listing.delisting_date is not None) == delisted
    ]
    status = "Delisted" if delisted else "Active"
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_HEADER)
    writer.writerows((*row[:-1], row.delisting_date or "null", status) for row in sorted(listings))
    return text.getvalue().encode()


def _listings(seed: int, sessions: Sequence[date]) -> Iterator[_Listing]:
    """Yield every listing that has begun, in no order."""
    if not sessions:
        return
    # Whole weeks, so that these days are weekdays too.
    listed, gone = (sessions[0] - timedelta(weeks=weeks) for weeks in (1000, 500))
    yield _Listing("WNDL", "Windle, Lark & Sons Co", "NYSE", "Stock", listed, gone)
    for rank in range(LISTED_COMPANIES):
        about, traits = company(rank), traits_of(seed, rank)
        ipo_date = _at(sessions, traits.listed)
        if ipo_date is None:
            continue
        asset_type = "ETF" if about.asset_type == "ETF" else "Stock"
        last = _Listing(
            about.ticker,
            about.name,
            traits.exchange,
            asset_type,
            ipo_date,
            _at(sessions, traits.delisted),
        )
        old_ticker = _OLD_TICKERS.get(about.ticker)
        if old_ticker is None:
            yield last
            continue
        renamed = _at(sessions, traits.listed + _RENAMED_AFTER)
        yield last._replace(symbol=old_ticker, delisting_date=renamed)
        if renamed is not None:
            yield last


def _at(sessions: Sequence[date], place: int | None) -> date | None:
    """The session at `place`; null for one that is still to come."""
    return sessions[place] if place is not None and place < len(sessions) else None
