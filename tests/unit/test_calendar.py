import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from stocks_assets.domain.calendar import (
    exchange_calendar_frame,
    is_session,
    last_closed_session,
    sessions,
)

NEW_YORK = ZoneInfo("America/New_York")


def day_of(frame: pl.DataFrame, day: date) -> dict[str, object]:
    return frame.row(by_predicate=pl.col("calendar_date") == day, named=True)


@pytest.mark.parametrize(("year", "count"), [(2025, 250), (2026, 251), (2027, 251)])
def test_a_year_has_the_sessions_that_the_exchange_announced(year, count):
    assert len(sessions(date(year, 1, 1), date(year, 12, 31))) == count


# The library leaves pre-1970 holidays open; the counts are those of the exchange's own record.
@pytest.mark.parametrize(("year", "count"), [(1960, 252), (1965, 252), (1968, 226), (1969, 250)])
def test_years_before_1970_close_on_their_holidays_too(year, count):
    assert len(sessions(date(year, 1, 1), date(year, 12, 31))) == count


def test_sessions_include_both_ends_and_come_oldest_first():
    assert sessions(date(2026, 7, 2), date(2026, 7, 7)) == [
        date(2026, 7, 2),
        date(2026, 7, 6),
        date(2026, 7, 7),
    ]


def test_a_span_that_ends_before_it_starts_has_no_sessions():
    assert sessions(date(2026, 7, 7), date(2026, 7, 2)) == []
    assert sessions(date(2030, 7, 7), date(2016, 7, 2)) == []


@pytest.mark.parametrize(
    "day", [date(2025, 1, 9), date(2025, 6, 19), date(2027, 6, 18), date(2026, 7, 3)]
)
def test_the_exchange_is_closed_on_holidays_and_days_of_mourning(day):
    assert not is_session(day)


def test_weekends_have_no_session_and_plain_tuesdays_have_one():
    assert not is_session(date(2026, 11, 21))
    assert is_session(date(2026, 11, 24))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (datetime(2025, 11, 25, 15, 59, tzinfo=NEW_YORK), date(2025, 11, 24)),
        (datetime(2025, 11, 25, 16, 0, tzinfo=NEW_YORK), date(2025, 11, 25)),
        (datetime(2025, 11, 28, 12, 59, tzinfo=NEW_YORK), date(2025, 11, 26)),
        (datetime(2025, 11, 28, 13, 0, tzinfo=NEW_YORK), date(2025, 11, 28)),
        (datetime(2025, 11, 30, 23, 0, tzinfo=NEW_YORK), date(2025, 11, 28)),
        (datetime(2026, 1, 1, 12, 0, tzinfo=UTC), date(2025, 12, 31)),
        (datetime(2020, 1, 1, 0, 0, tzinfo=UTC), date(2019, 12, 31)),
    ],
)
def test_a_session_counts_from_the_minute_it_closes(now, expected):
    assert last_closed_session(now) == expected


def test_the_last_closed_session_does_not_depend_on_the_zone_of_the_clock():
    close = datetime(2026, 3, 10, 20, 0, tzinfo=UTC)
    tokyo = close.astimezone(timezone(timedelta(hours=9)))
    assert tokyo.date() == date(2026, 3, 11)
    assert last_closed_session(tokyo) == last_closed_session(close) == date(2026, 3, 10)


def test_a_clock_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="no time zone"):
        last_closed_session(datetime(2026, 1, 5, 18, 0))


def test_early_closes_are_at_one_in_new_york():
    frame = exchange_calendar_frame(date(2025, 1, 1), date(2027, 12, 31))
    early = frame.filter("is_early_close")
    assert early["calendar_date"].to_list() == [
        date(2025, 7, 3),
        date(2025, 11, 28),
        date(2025, 12, 24),
        date(2026, 11, 27),
        date(2026, 12, 24),
        date(2027, 11, 26),
    ]
    local = early["closes_at"].dt.convert_time_zone("America/New_York").dt.time()
    assert {moment.hour for moment in local} == {13}


def test_a_closed_weekday_says_why_and_other_days_say_nothing():
    frame = exchange_calendar_frame(date(2025, 1, 1), date(2027, 12, 31))
    assert day_of(frame, date(2025, 1, 9))["holiday_name"] == "Special closing"
    assert "Juneteenth" in str(day_of(frame, date(2027, 6, 18))["holiday_name"])
    assert day_of(frame, date(2026, 7, 3))["holiday_name"] == "July 4th"
    open_or_weekend = frame.filter(
        pl.col("is_session") | (pl.col("calendar_date").dt.weekday() > 5)
    )
    assert open_or_weekend["holiday_name"].null_count() == open_or_weekend.height
    assert frame["holiday_name"].null_count() == open_or_weekend.height


def test_the_frame_reaches_from_1960_with_one_row_a_day():
    start, end = date(1960, 1, 1), date(2027, 12, 31)
    frame = exchange_calendar_frame(start, end)
    assert frame.schema == {
        "calendar_date": pl.Date(),
        "is_session": pl.Boolean(),
        "is_early_close": pl.Boolean(),
        "holiday_name": pl.String(),
        "opens_at": pl.Datetime("us", "UTC"),
        "closes_at": pl.Datetime("us", "UTC"),
    }
    assert frame["calendar_date"].to_list() == pl.date_range(start, end, eager=True).to_list()
    traded = frame.filter("is_session")
    assert (traded["opens_at"] < traded["closes_at"]).all()
    assert (traded["closes_at"].dt.date() == traded["calendar_date"]).all()
    assert frame.filter(~pl.col("is_session"))["opens_at"].null_count() == (
        frame.height - traded.height
    )


def test_asking_for_part_of_the_calendar_gives_that_part_of_the_whole():
    whole = exchange_calendar_frame(date(1960, 1, 1), date(2027, 12, 31))
    part = exchange_calendar_frame(date(1969, 12, 20), date(1970, 1, 5))
    assert part.equals(whole.filter(pl.col("calendar_date").is_between(*_ends(part))))


def _ends(frame: pl.DataFrame) -> tuple[date, date]:
    return frame["calendar_date"][0], frame["calendar_date"][-1]


def test_importing_the_module_leaves_pandas_and_the_calendar_library_alone():
    code = (
        "import sys, stocks_assets.domain.calendar, stocks_assets.domain.sample_market;"
        "print(sorted({'pandas', 'exchange_calendars'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
