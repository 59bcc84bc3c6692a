"""The New York exchange's calendar: sessions, holidays, opening and closing times.

`exchange_calendars` and pandas take about a second to import, so they are imported when the
first question is asked and not with this module.
"""

import threading
from bisect import bisect_right
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import polars as pl

NEW_YORK = ZoneInfo("America/New_York")

_USUAL_CLOSE = time(16)
_LONGEST_CLOSING = timedelta(days=14)
_LONGEST_MONTH = timedelta(days=31)


def sessions(start: date, end: date) -> list[date]:
    """Sessions from `start` to `end`, both included, oldest first."""
    return _days(start, end).filter("is_session")["calendar_date"].to_list()


def is_session(day: date) -> bool:
    """Whether the exchange opens on `day`."""
    return bool(_days(day, day)["is_session"].any())


def ends_week(day: date) -> bool:
    """Whether `day` is a session and no other follows in its week."""
    sunday = day + timedelta(days=7 - day.isoweekday())
    return sessions(day, sunday) == [day]


def ends_first_week(day: date) -> bool:
    """Whether `day` is the first of its month that `ends_week`."""
    last_sunday = day - timedelta(days=day.isoweekday())
    before = sessions(last_sunday - _LONGEST_CLOSING, last_sunday)[-1]
    return ends_week(day) and before.month != day.month


def last_end_of_week(day: date) -> date:
    """The last session up to `day` that `ends_week`."""
    recent = sessions(day - _LONGEST_CLOSING, day)
    return next(one for one in reversed(recent) if ends_week(one))


def last_end_of_first_week(day: date) -> date:
    """The last session up to `day` that `ends_first_week`."""
    recent = sessions(day - _LONGEST_MONTH - _LONGEST_CLOSING, day)
    return next(one for one in reversed(recent) if ends_first_week(one))


def last_closed_session(now: datetime) -> date:
    """The last session whose close is at or before `now`; early closes count as they happen.

    Raises:
        ValueError: `now` has no time zone.
    """
    if now.utcoffset() is None:
        msg = f"{now!r} has no time zone; pass an aware time such as datetime.now(UTC)"
        raise ValueError(msg)
    moment = now.astimezone(UTC).replace(tzinfo=None)
    first = moment - _LONGEST_CLOSING
    with _one_builds:
        closes, days = _closes(first.year // 10, moment.year // 10)
    return days[bisect_right(closes, moment) - 1]


def last_day_over(moment: datetime) -> date:
    """The last day, of New York, on which nobody traded any more at `moment`.

    That is the day itself from the close of its session on, or from four in the afternoon where it
    has none: other exchanges, which may open then, have closed as well.
    """
    local = moment.astimezone(NEW_YORK)
    day = local.date()
    return day if local >= _close_of(day) else day - timedelta(days=1)


def month_is_over(month: str, moment: datetime) -> bool:
    """Whether the last session of `month`, such as 2024-03, had closed at `moment`.

    Raises:
        ValueError: `month` is no month, or `moment` has no time zone.
    """
    first = date.fromisoformat(f"{month}-01")
    next_month = (first + timedelta(days=31)).replace(day=1)
    return last_closed_session(moment) >= sessions(first, next_month - timedelta(days=1))[-1]


def exchange_calendar_frame(start: date, end: date) -> pl.DataFrame:
    """One row per calendar date from `start` to `end`, both included.

    Returns:
        calendar_date Date, is_session Boolean, is_early_close Boolean, holiday_name String
        (null on sessions and weekends, "Special closing" where no regular holiday explains a
        closed weekday), opens_at and closes_at Datetime("us", "UTC") (null without a session).
    """
    return _days(start, end)


# Threads that ask for the same decades at once wait for one to build them.
_one_builds = threading.Lock()


def _days(start: date, end: date) -> pl.DataFrame:
    # Whole decades, so that a process meets a handful of distinct calendars however it asks.
    with _one_builds:
        days = _decades(start.year // 10, max(start, end).year // 10)
    return days.filter(pl.col("calendar_date").is_between(start, end))


@lru_cache(maxsize=1024)
def _close_of(day: date) -> datetime:
    closes_at = _days(day, day)["closes_at"].item()
    return closes_at or datetime.combine(day, _USUAL_CLOSE, NEW_YORK)


@lru_cache(maxsize=8)
def _closes(first: int, last: int) -> tuple[list[datetime], list[date]]:
    """Return when the sessions of some decades close, in UTC, and their days: asked very often."""
    held = _decades(first, last).filter("is_session")
    return (
        held["closes_at"].dt.replace_time_zone(None).to_list(),
        held["calendar_date"].to_list(),
    )


@lru_cache(maxsize=8)
def _decades(first: int, last: int) -> pl.DataFrame:
    import exchange_calendars  # noqa: PLC0415

    start, end = date(first * 10, 1, 1), date(last * 10 + 9, 12, 31)
    calendar = exchange_calendars.get_calendar("XNYS", start=start, end=end)
    regular = calendar.regular_holidays.holidays(start, end, return_name=True)
    names = {stamp.date(): name for stamp, name in regular.items()}
    schedule = pl.DataFrame(
        {
            "calendar_date": calendar.sessions.to_numpy(),
            "opens_at": calendar.opens.dt.tz_convert(None).to_numpy(),
            "closes_at": calendar.closes.dt.tz_convert(None).to_numpy(),
        }
    )
    early = [stamp.date() for stamp in calendar.early_closes]

    schedule = schedule.with_columns(
        pl.col("calendar_date").cast(pl.Date),
        pl.col("opens_at", "closes_at").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
    )
    holidays = pl.DataFrame(
        {"calendar_date": list(names), "regular": list(names.values())},
        schema={"calendar_date": pl.Date, "regular": pl.String},
    )
    weekday = pl.col("calendar_date").dt.weekday() <= 5
    return (
        pl.select(calendar_date=pl.date_range(start, end))
        # The library forgets its regular holidays before 1970, so they are taken out here.
        .join(
            schedule.join(holidays, on="calendar_date", how="anti"), on="calendar_date", how="left"
        )
        .join(holidays, on="calendar_date", how="left", maintain_order="left")
        .select(
            "calendar_date",
            is_session=pl.col("opens_at").is_not_null(),
            is_early_close=pl.col("opens_at").is_not_null() & pl.col("calendar_date").is_in(early),
            holiday_name=pl.when(weekday & pl.col("opens_at").is_null()).then(
                pl.col("regular").fill_null("Special closing")
            ),
            opens_at="opens_at",
            closes_at="closes_at",
        )
        .sort("calendar_date")
    )
