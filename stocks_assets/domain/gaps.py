"""Sessions that a ticker should have bars of and has not: a rule over calendar and listing.

Expected are the sessions from the listing's first day on, or from the first stored bar where that
is not known, to the day of its end, or to the last session that the vendor has had time for. Of a
ticker that was used more than once, those between two listings are not.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

import polars as pl

from stocks_assets.domain.calendar import last_closed_session
from stocks_assets.domain.planner import ANSWERED, Checked

# The vendor has a session some hours after its close.
SETTLES_AFTER = timedelta(hours=6)
# Alpha Vantage's daily bars go back so far, and no further.
VENDOR_SINCE = date(1999, 11, 1)


class Place(StrEnum):
    """Where in a ticker's history sessions are missing."""

    BEFORE = "before the first bar"
    INSIDE = "between bars"
    AFTER = "after the last bar"


@dataclass(frozen=True, slots=True)
class Holding:
    """The daily bars stored of a ticker: the first, the last, and how many."""

    ticker: str
    first: date
    last: date
    count: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What the database has counted of a table: rows that came, were changed and went, in a file.

    What was rolled back counts as well. A crash has it begin at nothing; a table that is emptied,
    restored or written anew has another file.
    """

    file: int
    inserted: int
    updated: int
    deleted: int

    def are_explained(self, before: "Changes", more: int) -> bool:
        """Tell whether all that has changed since `before` is that there are `more` rows."""
        went_back = self.inserted < before.inserted or self.deleted < before.deleted
        if self.file != before.file or went_back:
            return False
        if self.inserted == before.inserted and self.deleted == before.deleted:
            return more == 0 and self.updated == before.updated
        return self.inserted - self.deleted - (before.inserted - before.deleted) == more


@dataclass(frozen=True, slots=True)
class Gap:
    """Sessions in a row that are missing, `first` and `last` included."""

    ticker: str
    place: Place
    first: date
    last: date
    sessions: int

    def describe(self) -> str:
        """Return such as `3 sessions are missing between bars, 2024-03-01 to 2024-03-05`."""
        if self.sessions == 1:
            return f"the session of {self.first} is missing {self.place}"
        return f"{self.sessions} sessions are missing {self.place}, {self.first} to {self.last}"


class Expectation:
    """Which sessions each ticker should have bars of.

    `sessions` is the exchange's calendar, oldest first; `listings` a frame as
    `schemas.Listings` has it; `now` an aware time.
    """

    def __init__(self, sessions: Sequence[date], listings: pl.DataFrame, now: datetime) -> None:
        self._until = last_closed_session(now - SETTLES_AFTER)
        self._sessions = sessions[: bisect_right(sessions, self._until)]
        # The last listing of each ticker, and the ends of the time between two of them.
        self._listed: dict[str, tuple[date | None, date]] = {}
        self._pauses: dict[str, list[tuple[date, date]]] = {}
        for ticker, listed_on, delisted_on in (
            listings.sort("delisted_on").select("ticker", "listed_on", "delisted_on").iter_rows()
        ):
            _, gone_on = self._listed.get(ticker, (None, date.max))
            if listed_on is not None and gone_on < listed_on:
                self._pauses.setdefault(ticker, []).append((gone_on, listed_on))
            self._listed[ticker] = (listed_on, delisted_on)

    def is_whole(self, holding: Holding) -> bool:
        """Tell whether no session is missing between the first and the last bar.

        Of a ticker that was used more than once, that is not told by their number.
        """
        if holding.ticker in self._pauses:
            return False
        return holding.count == len(self._between(holding.first, holding.last))

    def gaps(self, holding: Holding, stored: Iterable[date] | None = None) -> list[Gap]:
        """Return what is missing, oldest first; `stored` are the dates of a holding not whole."""
        listed_on, delisted_on = self._listed.get(holding.ticker, (None, date.max))
        since = max(listed_on or holding.first, VENDOR_SINCE)
        after = self._between(holding.last + timedelta(days=1), min(delisted_on, self._until))
        if unlisted := self._unlisted(holding.ticker):
            after = [day for day in after if day not in unlisted]
        found = [
            self._gap(holding.ticker, Place.BEFORE, self._between(since, holding.first)[:-1]),
            *self._inside(holding, stored),
            self._gap(holding.ticker, Place.AFTER, after),
        ]
        return [gap for gap in found if gap is not None]

    def _inside(self, holding: Holding, stored: Iterable[date] | None) -> Iterable[Gap | None]:
        if stored is None:
            return
        there = {*stored, *self._unlisted(holding.ticker)}
        missing: list[date] = []
        for day in self._between(holding.first, holding.last):
            if day not in there:
                missing.append(day)
            elif missing:
                yield self._gap(holding.ticker, Place.INSIDE, missing)
                missing = []

    def _unlisted(self, ticker: str) -> set[date]:
        """Return the sessions between two listings of the ticker."""
        day = timedelta(days=1)
        pauses = self._pauses.get(ticker, ())
        return {one for end, start in pauses for one in self._between(end + day, start - day)}

    def _between(self, first: date, last: date) -> Sequence[date]:
        return self._sessions[
            bisect_left(self._sessions, first) : bisect_right(self._sessions, last)
        ]

    @staticmethod
    def _gap(ticker: str, place: Place, missing: Sequence[date]) -> Gap | None:
        return Gap(ticker, place, missing[0], missing[-1], len(missing)) if missing else None


def count_rejected(gap: Gap, labels: Mapping[str, Iterable[str]]) -> int:
    """Return how many sessions of the gap have rows that were rejected, dated by `labels`."""
    days = set(labels.get(gap.ticker, ()))
    return sum(str(gap.first) <= day <= str(gap.last) for day in days)


def find_lost(noted: Mapping[str, int | None], stored: Mapping[str, int]) -> dict[str, int]:
    """Return how many rows are gone of each ticker that has fewer `stored` than were `noted`.

    `noted` is how many there were after the last load, None where they were not counted.
    """
    missing = {ticker: (count or 0) - stored.get(ticker, 0) for ticker, count in noted.items()}
    return {ticker: count for ticker, count in missing.items() if count > 0}


def describe_lost(count: int) -> str:
    """Return such as `3 rows are gone from silver/daily_bars`."""
    return f"{'a row is' if count == 1 else f'{count} rows are'} gone from silver/daily_bars"


def can_be_filled(gap: Gap, last: Checked | None) -> bool:
    """Tell whether asking for the ticker's daily bars may bring sessions of the gap.

    What an answer did not have that came when the vendor had had time, it does not have: it is
    not asked for again because of the gap.
    """
    return may_lack(last, gap.last)


def may_lack(last: Checked | None, session: date) -> bool:
    """Tell whether the last answer came before the vendor had had time for `session`."""
    if last is None:
        return True
    answered_at = last.at if last.outcome in ANSWERED else last.had_at
    return answered_at is None or last_closed_session(answered_at - SETTLES_AFTER) < session
