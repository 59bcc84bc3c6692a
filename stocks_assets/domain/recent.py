"""When the newest bars are enough, and the whole history need not be asked for."""

import zlib
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from stocks_assets.domain.calendar import last_closed_session
from stocks_assets.domain.planner import Checked

BARS_BACK = 60
"""How many bars before the newest stored one lies the one that the newest ones are held against.

Of 100 sessions that come it is one, unless two months passed. Whatever restates a history
restates it too, as far as it has happened since, and most of what is corrected belatedly.
"""
_OLDEST = timedelta(days=120)
_SESSIONS_A_WEEK = 5
# A whole history came by a backfill in the middle of the week.
_SOON = timedelta(days=2)
# On a ticker's own day there was no session, or nothing was asked.
_AT_LAST = timedelta(days=7, hours=12)


@dataclass(frozen=True, slots=True)
class StoredBar:
    """A stored daily bar of the vendor's: the close is adjusted, in the ticker's currency."""

    session_date: date
    adjusted_close: float


def are_recent_bars_enough(
    ticker: str, last: Checked | None, stored: StoredBar, now: datetime
) -> bool:
    """Tell whether to ask for the newest bars first, and for all only if they do not go on.

    Each ticker has a day of the week on which all is asked for, so that a universe that was
    backfilled at once is not all asked for on one day. `stored` is the bar `BARS_BACK` before the
    newest.
    """
    if last is None or last.outcome != "Data" or last.whole_at is None:
        return False
    session, age = last_closed_session(now), now - last.whole_at
    own_day = zlib.crc32(ticker.encode()) % _SESSIONS_A_WEEK
    is_whole_due = age >= _AT_LAST or (age >= _SOON and session.weekday() == own_day)
    return not is_whole_due and session - stored.session_date <= _OLDEST
