"""Bars: daily, weekly and monthly ones, and those of five minutes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import lru_cache
from typing import Literal

import polars as pl

from stocks_assets.domain import calendar, datasets, schemas
from stocks_assets.domain.payloads.dropped import dropped_bars
from stocks_assets.domain.payloads.merging import merge
from stocks_assets.domain.payloads.reading import (
    Day,
    Payloads,
    Reading,
    day,
    number,
    number_if_given,
    unreadable,
    whole_number,
)
from stocks_assets.domain.payloads.series import Series, read_series
from stocks_assets.domain.recent import Standing, standing_of
from stocks_assets.errors import PayloadError

_PRICES = {"open": "1. open", "high": "2. high", "low": "3. low", "close": "4. close"}
_ADJUSTED = _PRICES | {
    "adjusted_close": "5. adjusted close",
    "volume": "6. volume",
    "dividend_amount": "7. dividend amount",
}
_DAILY = _ADJUSTED | {"raw_volume": "5. volume", "split_coefficient": "8. split coefficient"}
_INTRADAY = _PRICES | {"volume": "5. volume"}
_COMPACT_ROWS = 100
_ZONE = "6. Time Zone"

# Made once: that takes as long as to work them out for a payload.
_COMMON_VALUES = (pl.col("row_number", "dataset"), *(number(name) for name in _PRICES))
_PERIOD_VALUES = (
    *_COMMON_VALUES,
    day("label").alias("session_date"),
    number("adjusted_close"),
    whole_number("volume"),
    number("dividend_amount"),
)
_DAILY_VALUES = (
    *_COMMON_VALUES,
    day("label").alias("session_date"),
    whole_number(pl.coalesce("volume", "raw_volume")).alias("volume"),
)
_GIVEN_WITH_ADJUSTED = ("adjusted_close", "dividend_amount", "split_coefficient")
_IS_ADJUSTED = pl.any_horizontal(pl.col(*_GIVEN_WITH_ADJUSTED, "volume").is_not_null())
_VENDORS_VALUES = (
    *_DAILY_VALUES,
    *(number_if_given(name, is_given=_IS_ADJUSTED) for name in _GIVEN_WITH_ADJUSTED),
)
_FILES_VALUES = (*_DAILY_VALUES, *(number_if_given(name) for name in _GIVEN_WITH_ADJUSTED))
_INTRADAY_VALUES = (*_COMMON_VALUES, whole_number("volume"))
_FIRST_DAY, _LAST_DAY = date(1960, 1, 1), date(2049, 12, 31)
_WEEK_START = day("label").dt.truncate("1w").alias("week_start")
_MONTH_START = day("label").dt.truncate("1mo").alias("month_start")
_DAY_IN_NEW_YORK = pl.col("starts_at").dt.convert_time_zone(calendar.NEW_YORK.key).dt.date()


def read_weekly_bars(ticker: str, payloads: Payloads, _day: Day) -> Reading:
    """Read TIME_SERIES_WEEKLY_ADJUSTED for `schemas.WeeklyBars`.

    The week is the one that holds the label, so that a running week keeps its key when the label
    moves to the next session.
    """
    return _read_periods(ticker, payloads, datasets.WEEKLY_BARS, _WEEK_START, "1w")


def read_monthly_bars(ticker: str, payloads: Payloads, _day: Day) -> Reading:
    """Read TIME_SERIES_MONTHLY_ADJUSTED for `schemas.MonthlyBars`, keyed as weekly bars are."""
    return _read_periods(ticker, payloads, datasets.MONTHLY_BARS, _MONTH_START, "1mo")


def read_daily_bars(ticker: str, payloads: Payloads, today: Day) -> Reading:
    """Read TIME_SERIES_DAILY or TIME_SERIES_DAILY_ADJUSTED, and files, for `schemas.DailyBars`.

    A bar of the vendor's that has any field of the adjusted endpoint has to have all of them.
    Of the good bars of a session the first in the order of `daily_sources` counts; the others are
    left out, and so is the vendor's of a session that was not over: what is stored of it stays.

    Raises:
        PayloadError: a payload cannot be read, or there is none.
    """
    sources = daily_sources(payloads)
    if not sources:
        raise PayloadError(f"no payload with daily bars of {ticker}")
    readings = [
        Reading(
            source.series.frame.select(pl.lit(ticker).alias("ticker"), *source.values),
            source.series.raw,
            is_whole=source.is_whole,
            fills=source.fills,
        )
        for source in sources
    ]
    is_running = (pl.col("dataset") == datasets.DAILY_BARS.name) & pl.col(
        "session_date"
    ).is_between(today.over, today.as_of, closed="right").fill_null(value=False)
    running = pl.concat(reading.frame.filter(is_running) for reading in readings)
    if len(readings) > 1:
        reading = merge(schemas.DailyBars, readings, ~is_running)
    else:
        reading = replace(readings[0], frame=readings[0].frame.filter(~is_running))
    if running.is_empty():
        return reading
    return replace(reading, unread=running.select("ticker", "session_date", "dataset"))


@dataclass(frozen=True, slots=True)
class DailySource:
    """Daily bars as they are written, by the vendor or in a file that fills or overrides its."""

    standing: Literal["override", "vendor", "fill"]
    series: Series

    @property
    def values(self) -> Sequence[pl.Expr]:
        """What `schemas.DailyBars` has beside the ticker."""
        return _VENDORS_VALUES if self.standing == "vendor" else _FILES_VALUES

    @property
    def fills(self) -> frozenset[str]:
        """Their input, if it fills what the vendor has not."""
        names = self.series.frame["dataset"].head(1) if self.standing == "fill" else ()
        return frozenset(names)

    @property
    def is_adjusted(self) -> bool:
        """Whether they are of an endpoint that gives adjusted closes, dividends and splits."""
        frame = self.series.frame
        return frame["adjusted_close"].null_count() < frame.height

    @property
    def is_whole(self) -> bool:
        """Whether they are the whole history.

        The vendor says so. Where it says nothing, those of the adjusted endpoint are, which alone
        is asked for whole histories, but for as many as a compact reply has.
        """
        if self.standing != "vendor" or self.series.frame.is_empty():
            return False
        says_full = _says_full(self.series, "4")
        if says_full is not None:
            return says_full
        return self.is_adjusted and self.series.frame.height != _COMPACT_ROWS


def daily_sources(payloads: Payloads) -> list[DailySource]:
    """Return all that gives daily bars, the strongest first.

    Raises:
        PayloadError: a payload cannot be read.
    """
    sources = [
        DailySource(file.precedence, Series(file.frame, file.raw, {}))
        for file in dropped_bars(payloads)
    ]
    if datasets.DAILY_BARS.name in payloads:
        series = _read(datasets.DAILY_BARS, datasets.DAILY_BARS.name, payloads, _DAILY)
        sources.append(DailySource("vendor", series))
    return sorted(sources, key=lambda source: ("override", "vendor", "fill").index(source.standing))


def standing_of_reply(body: bytes, stored: pl.DataFrame) -> Standing:
    """Compare a reply that has the newest daily bars with the newest stored ones.

    `stored` has a ticker's rows of the columns of `schemas.DailyBars` that are not its key, and
    the session, with the oldest first.
    """
    name = datasets.DAILY_BARS.name
    try:
        frame = _read(datasets.DAILY_BARS, name, {name: body}, _DAILY).frame
    except PayloadError:
        return Standing.RESTATED
    given = frame.select(*_VENDORS_VALUES).drop("row_number", "dataset")
    return standing_of(given, stored)


def read_intraday_bars(ticker: str, payloads: Payloads, _day: Day) -> Reading:
    """Read TIME_SERIES_INTRADAY, a payload a month, for `schemas.IntradayBars`.

    The labels are times of the zone that the payload names, in its month. One payload is the whole
    of its month if the vendor says so.
    """
    months = {
        source: _read(datasets.INTRADAY_BARS, source, payloads, _INTRADAY) for source in payloads
    }
    frame = pl.concat(
        series.frame.select(
            pl.lit(ticker).alias("ticker"),
            _moment(source, series.meta.get(_ZONE)).alias("starts_at"),
            *_INTRADAY_VALUES,
        )
        for source, series in months.items()
    )
    return Reading(
        frame.with_columns(
            pl.int_range(pl.len(), dtype=pl.UInt32).alias("row_number"),
            _DAY_IN_NEW_YORK.alias("session_date"),
        ),
        lambda: [row for series in months.values() for row in series.raw()],
        is_whole=len(months) == 1 and all(_says_full(series, "5") for series in months.values()),
        within=_month(min(months)) if len(months) == 1 else None,
    )


def _says_full(series: Series, place: str) -> bool | None:
    """Tell whether a payload says that it is full, None where it says nothing."""
    size = series.meta.get(f"{place}. Output Size", "").strip().lower()
    return size.startswith("full") if size.startswith(("full", "compact")) else None


def _month(source: str) -> tuple[datetime, datetime]:
    """The beginning of the month of `source`, such as intraday_bars/2024-03, and of the next."""
    year, month = map(int, source.rpartition("/")[2].split("-"))
    start = datetime(year, month, 1, tzinfo=calendar.NEW_YORK)
    return start, datetime(year + month // 12, month % 12 + 1, 1, tzinfo=calendar.NEW_YORK)


def _read_periods(
    ticker: str, payloads: Payloads, dataset: datasets.Dataset, start: pl.Expr, length: str
) -> Reading:
    series = _read(dataset, dataset.name, payloads, _ADJUSTED)
    return Reading(
        series.frame.select(
            pl.lit(ticker).alias("ticker"),
            start,
            *_PERIOD_VALUES,
            # By the calendar; the check adds when the payload came, and which later bars are sound.
            is_complete=(day("label") >= _last_sessions(start, length)).fill_null(value=False),
        ),
        series.raw,
        is_whole=not series.frame.is_empty(),
    )


def _read(
    dataset: datasets.Dataset, source: str, payloads: Payloads, fields: dict[str, str]
) -> Series:
    return read_series(source, payloads[source], dataset.endpoints[0].data_key, fields)


def _last_sessions(start: pl.Expr, length: str) -> pl.Expr:
    """The last session of each period that begins at `start`; null where the calendar has none."""
    starts, sessions = _periods(length)
    return start.replace_strict(starts, sessions, default=None, return_dtype=pl.Date)


@lru_cache(maxsize=2)
def _periods(length: str) -> tuple[pl.Series, pl.Series]:
    sessions = pl.Series("session", calendar.sessions(_FIRST_DAY, _LAST_DAY), dtype=pl.Date)
    periods = (
        sessions.to_frame()
        .group_by(pl.col("session").dt.truncate(length).alias("start"))
        .agg(pl.col("session").max())
    )
    return periods["start"], periods["session"]


def _moment(source: str, zone: str | None) -> pl.Expr:
    """The moment of a label in UTC, null where it is none of the month or clocks make it two."""
    try:
        pl.Series(dtype=pl.Datetime).dt.replace_time_zone(zone or "none")
    except pl.exceptions.ComputeError as error:
        raise unreadable(source, f"its time zone {zone!r} is none") from error
    label = pl.col("label")
    naive = label.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False)
    return (
        pl.when(
            label.str.contains(r"^[12]\d{3}-\d\d-\d\d \d\d:\d\d:[0-5]\d$")
            & label.str.starts_with(f"{source.rpartition('/')[2]}-")
        )
        .then(naive)
        .dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
        .dt.convert_time_zone("UTC")
    )
