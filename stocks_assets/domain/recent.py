"""When the newest bars are enough, and the whole history need not be asked for."""

import zlib
from datetime import datetime, timedelta
from enum import Enum, auto

import polars as pl

from stocks_assets.domain.calendar import last_closed_session, sessions
from stocks_assets.domain.planner import Checked

BARS_KEPT = 110
"""How many of the newest stored bars the newest ones of the vendor, 100, are held against."""
# How far before the newest stored bar lies the one that shows whether a history was restated. Of
# 100 bars that come it is one, unless two months passed. Whatever restates a history restates it
# too, as far as it has happened since, and most of what is corrected belatedly.
_BARS_BACK = 60
_SESSIONS_SURELY_GIVEN = 95
_SESSIONS_A_WEEK = 5
# A whole history came shortly before the day on which it is due, by a backfill say.
_SOON = timedelta(days=2)
# On a ticker's own day there was no session, or nothing was asked.
_AT_LAST = timedelta(days=6, hours=12)


_ADJUSTED = ["session_date", "adjusted_close"]


class Standing(Enum):
    """What newest bars are to the stored ones."""

    RESTATED = auto()
    """Older bars are others by now, or it cannot be told."""
    NEW = auto()
    """They go on from what is stored, and say something that it does not."""
    KNOWN = auto()
    """All that they say is stored."""


def are_recent_bars_enough(
    ticker: str, last: Checked | None, stored: pl.DataFrame, now: datetime
) -> bool:
    """Tell whether to ask for the newest bars first, and for all only if they do not go on.

    Each ticker has a day of the week on which all is asked for, so that a universe that was
    backfilled at once is not all asked for on one day. `stored` is as for `standing_of`.
    """
    if last is None or last.outcome != "Data" or last.whole_at is None:
        return False
    session, age = last_closed_session(now), now - last.whole_at
    own_day = zlib.crc32(ticker.encode()) % _SESSIONS_A_WEEK
    if age >= _AT_LAST or (age >= _SOON and session.weekday() == own_day):
        return False
    bar = bar_back(stored)
    given = sessions(session - timedelta(days=200), session)[-_SESSIONS_SURELY_GIVEN:]
    return bar is not None and bar["session_date"].item() >= given[0]


def bar_back(stored: pl.DataFrame) -> pl.DataFrame | None:
    """Return the stored bar that newest ones have to go on from, if it has an adjusted close."""
    bar = stored.slice(max(stored.height - 1 - _BARS_BACK, 0), 1)
    is_one = stored.height > _BARS_BACK and bar["adjusted_close"].null_count() == 0
    return bar if is_one else None


def standing_of(given: pl.DataFrame, stored: pl.DataFrame) -> Standing:
    """Compare the newest bars that the vendor has with the newest stored ones.

    Both have a row a session: `session_date`, `adjusted_close` and whatever else is compared, the
    stored ones with the oldest first.
    """
    bar = bar_back(stored)
    if bar is None or given.join(bar, on=_ADJUSTED, how="semi").height != 1:
        return Standing.RESTATED
    # Whatever is restated from a day before that bar on, its bars that come show as well.
    older = stored.filter(pl.col("session_date") <= bar["session_date"].item())
    shared = given.select(_ADJUSTED).join(older, on="session_date", how="semi")
    if not shared.join(older, on=_ADJUSTED, how="anti", nulls_equal=True).is_empty():
        return Standing.RESTATED
    unknown = given.join(stored, on=given.columns, how="anti", nulls_equal=True)
    return Standing.KNOWN if unknown.is_empty() else Standing.NEW
