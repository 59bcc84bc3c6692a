from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stocks_assets.domain.calendar import NEW_YORK, sessions
from stocks_assets.domain.datasets import Call
from stocks_assets.domain.gaps import (
    Changes,
    Expectation,
    Gap,
    Holding,
    Place,
    can_be_filled,
    count_rejected,
    find_lost,
)
from stocks_assets.domain.planner import Checked, Priority, Want, is_due

NOW = datetime(2026, 11, 21, 15, tzinfo=UTC)  # a Saturday
DAYS = sessions(date(2026, 1, 2), date(2026, 12, 31))
CLOSED = [day for day in DAYS if day <= date(2026, 11, 20)]
NO_LISTINGS = pl.DataFrame(
    schema={"ticker": pl.String, "listed_on": pl.Date, "delisted_on": pl.Date}
)
LAST = CLOSED[-1]


def listings(*rows):
    return pl.DataFrame(rows, schema=NO_LISTINGS.schema, orient="row")


def holding(days, ticker="A"):
    return Holding(ticker, days[0], days[-1], len(days))


def gaps(days, listed=NO_LISTINGS, now=NOW):
    expected, held = Expectation(DAYS, listed, now), holding(days)
    return expected.gaps(held, None if expected.is_whole(held) else days)


def test_a_whole_history_up_to_the_last_session_has_no_gap():
    assert gaps(CLOSED) == []


def test_sessions_in_a_row_are_one_gap_and_a_weekend_does_not_part_them():
    friday, monday = date(2026, 11, 6), date(2026, 11, 9)
    stored = [day for day in CLOSED if day not in (friday, monday, date(2026, 11, 12))]
    assert gaps(stored) == [
        Gap("A", Place.INSIDE, friday, monday, 2),
        Gap("A", Place.INSIDE, date(2026, 11, 12), date(2026, 11, 12), 1),
    ]


def test_holidays_are_no_gap_and_early_closes_are_sessions():
    christmas, eve = date(2026, 12, 25), date(2026, 12, 24)
    after = datetime(2026, 12, 29, 15, tzinfo=UTC)
    stored = [day for day in DAYS if date(2026, 12, 1) <= day <= date(2026, 12, 28)]
    assert christmas not in stored
    assert gaps(stored, now=after) == []
    stored.remove(eve)
    assert gaps(stored, now=after) == [Gap("A", Place.INSIDE, eve, eve, 1)]


def test_a_session_is_not_missed_before_the_vendor_has_had_time():
    two_hours_after_the_close = datetime(2026, 11, 20, 23, tzinfo=UTC)
    assert gaps(CLOSED[:-1], now=two_hours_after_the_close) == []
    assert gaps(CLOSED[:-1], now=two_hours_after_the_close + timedelta(hours=5)) == [
        Gap("A", Place.AFTER, LAST, LAST, 1)
    ]


def test_a_listing_says_where_a_history_begins_and_ends():
    listed_on, delisted_on = date(2026, 3, 2), date(2026, 6, 30)
    listed = listings(("A", listed_on, delisted_on))
    within = [day for day in CLOSED if listed_on <= day <= delisted_on]
    assert gaps(within, listed) == []
    assert gaps(within[3:-2], listed) == [
        Gap("A", Place.BEFORE, within[0], within[2], 3),
        Gap("A", Place.AFTER, within[-2], within[-1], 2),
    ]
    assert [gap.place for gap in gaps(within)] == [Place.AFTER]


def test_of_a_ticker_that_was_used_twice_the_last_listing_counts():
    twice = listings(
        ("A", date(2001, 1, 2), date(2020, 6, 30)), ("A", date(2026, 3, 2), date(9999, 12, 31))
    )
    since = [day for day in CLOSED if day >= date(2026, 3, 2)]
    assert gaps(since, twice) == []


def test_a_ticker_lacks_nothing_between_two_listings():
    gone_on, back_on = date(2026, 3, 31), date(2026, 9, 1)
    twice = listings(
        ("A", date(2001, 1, 2), gone_on), ("A", back_on, date(9999, 12, 31)), ("B", None, LAST)
    )
    listed = [day for day in CLOSED if not gone_on < day < back_on]
    assert gaps(listed, twice) == []
    lacking = [day for day in listed if day not in (gone_on, back_on, date(2026, 10, 1))]
    assert gaps(lacking, twice) == [
        Gap("A", Place.INSIDE, gone_on, gone_on, 1),
        Gap("A", Place.INSIDE, back_on, back_on, 1),
        Gap("A", Place.INSIDE, date(2026, 10, 1), date(2026, 10, 1), 1),
    ]
    # A bar of the time between makes up for none that is missing.
    between = next(day for day in CLOSED if day > gone_on)
    stored = sorted([*(day for day in listed if day != date(2026, 10, 1)), between])
    assert gaps(stored, twice) == [Gap("A", Place.INSIDE, date(2026, 10, 1), date(2026, 10, 1), 1)]
    # Of the one that is gone nothing more is to come.
    first = [day for day in CLOSED if day <= gone_on]
    since = [day for day in CLOSED if day >= back_on]
    assert gaps(first, twice) == [Gap("A", Place.AFTER, back_on, LAST, len(since))]


@given(st.sets(st.sampled_from(CLOSED), min_size=1), st.sampled_from([None, *CLOSED[:40]]))
def test_what_is_stored_and_what_is_missing_are_the_expected_sessions(stored, listed_on):
    days = sorted(stored)
    listed = listings(("A", listed_on, date(9999, 12, 31))) if listed_on else NO_LISTINGS
    since = min(listed_on or days[0], days[0])
    missing = []
    for gap in gaps(days, listed):
        covered = [day for day in CLOSED if gap.first <= day <= gap.last]
        assert len(covered) == gap.sessions
        assert {covered[0], covered[-1]} == {gap.first, gap.last}
        missing += covered
    assert sorted([*missing, *days]) == [day for day in CLOSED if day >= since]


def test_what_an_answer_did_not_have_is_not_asked_for_again():
    gap = Gap("A", Place.AFTER, LAST, LAST, 1)
    closes_at = datetime(2026, 11, 20, 21, tzinfo=UTC)
    assert can_be_filled(gap, None)
    assert can_be_filled(gap, Checked(closes_at - timedelta(hours=1), "Data"))
    assert can_be_filled(gap, Checked(closes_at + timedelta(hours=1), "Data"))
    assert not can_be_filled(gap, Checked(closes_at + timedelta(hours=7), "Data"))
    failed_since = Checked(NOW, "TransportFailed", had_at=closes_at - timedelta(days=3), failures=2)
    assert can_be_filled(gap, failed_since)
    answered_since = Checked(NOW, "TransportFailed", had_at=closes_at + timedelta(days=1))
    assert not can_be_filled(gap, answered_since)


def test_a_session_that_came_late_is_asked_for_the_same_night_and_once():
    """On Friday at 18:30 the vendor has not yet had it; at 23:00 it may."""
    call = Call("daily_bars", "A")
    evening, night = (datetime(2026, 11, 20, h, m, tzinfo=NEW_YORK) for h, m in ((18, 30), (23, 0)))
    (gap,) = gaps(CLOSED[:-1], now=night)
    asked = Checked(evening, "Data")
    assert can_be_filled(gap, asked)
    assert is_due(Want(call, Priority.NORMAL, asked, is_lacking=True), night)
    # Without a gap it is left alone until Monday.
    assert not is_due(Want(call, Priority.NORMAL, asked), night + timedelta(days=1))
    for answer in ("Data", "Unavailable"):
        assert not can_be_filled(gap, Checked(night, answer, had_at=evening))
    # What the vendor does not know is not asked for because of a gap.
    unknown = Checked(evening, "UnknownSymbol")
    assert not is_due(Want(call, Priority.NORMAL, unknown, is_lacking=True), night)


def test_of_a_gap_the_sessions_are_told_apart_whose_rows_were_rejected():
    gap = Gap("A", Place.INSIDE, date(2026, 11, 6), date(2026, 11, 9), 2)
    labels = {"A": ["2026-11-05", "2026-11-06", "2026-11-06", "never"], "B": ["2026-11-09"]}
    assert count_rejected(gap, labels) == 1
    assert count_rejected(gap, {}) == 0


def test_rows_are_lost_where_there_are_fewer_than_a_load_left():
    noted = {"WHOLE": 5, "MORE": 5, "LESS": 5, "NOTHING": 5, "UNCOUNTED": None}
    stored = {"WHOLE": 5, "MORE": 6, "LESS": 3, "UNCOUNTED": 1, "NEVER LOADED": 1}
    assert find_lost(noted, stored) == {"LESS": 2, "NOTHING": 5}


def test_a_gap_is_told_in_words():
    one = Gap("A", Place.INSIDE, LAST, LAST, 1)
    assert one.describe() == "the session of 2026-11-20 is missing between bars"
    more = Gap("A", Place.AFTER, CLOSED[-3], LAST, 3)
    assert more.describe() == (
        "3 sessions are missing after the last bar, 2026-11-18 to 2026-11-20"
    )


def changes(**than):
    return Changes(**{"file": 7, "inserted": 1000, "updated": 10, "deleted": 100, **than})


@pytest.mark.parametrize(
    ("now", "more", "are_explained"),
    [
        (changes(), 0, True),
        (changes(inserted=1005), 5, True),
        (changes(inserted=1105, deleted=200), 5, True),  # a ticker built anew
        (changes(inserted=1105, deleted=200, updated=60), 5, True),
        (changes(deleted=103), 0, False),  # by hand
        (changes(inserted=1005, deleted=103), 5, False),  # a load, and by hand
        (changes(inserted=1005), 0, False),  # rolled back, or nobody knows of it
        (changes(updated=11), 0, False),  # a row may be another ticker's now
        (changes(file=8), 0, False),  # emptied, or restored
        (changes(inserted=950, deleted=50), 0, False),  # a crash, after which it began anew
    ],
)
def test_what_changed_in_a_table_is_that_rows_came_by_loads_or_is_not_explained(
    now, more, are_explained
):
    assert now.are_explained(changes(), more) is are_explained
