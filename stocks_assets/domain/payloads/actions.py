"""Corporate actions: splits and dividends, from their own datasets and from daily bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import polars as pl

from stocks_assets.domain import datasets
from stocks_assets.domain.payloads.bars import DailySource, daily_sources
from stocks_assets.domain.payloads.dropped import dropped_actions
from stocks_assets.domain.payloads.reading import (
    Day,
    Payloads,
    Raw,
    Reading,
    day,
    is_readable,
    number,
    read_json,
    text_frame,
    unreadable,
)
from stocks_assets.errors import PayloadError

_FURTHER_DATES = ("declaration_date", "record_date", "payment_date")
_NO_DATE = pl.lit(None, dtype=pl.Date)
_NULLS = ("None", "-", "null", "", "0000-00-00")
_LISTS = (datasets.SPLITS.name, datasets.DIVIDENDS.name)
_SPLIT = {"ex_date": "effective_date", "amount": "split_factor"}
_DIVIDEND = {"ex_date": "ex_dividend_date", "amount": "amount"} | {
    name: name for name in _FURTHER_DATES
}


def read_corporate_actions(ticker: str, payloads: Payloads, _day: Day) -> Reading:
    """Read SPLITS, DIVIDENDS, files and what daily bars say for `schemas.CorporateActions`.

    Where an action stands in its own dataset and in the daily bars, its own dataset counts; the
    vendor's counts before a file that fills, and a file that overrides before the vendor's. A
    regular and a special dividend can share an ex-date: they add up. The same line twice counts
    once, with or without all of its dates. Of different splits on one ex-date the first counts.

    Raises:
        PayloadError: a payload cannot be read, or there is none.
    """
    bars = daily_sources(payloads)
    parts = _from_files(payloads) + _from_vendor(payloads) + _inside_daily_bars(bars)
    parts.sort(key=lambda part: ("override", "vendor", "fill").index(part.standing))
    if not parts:
        raise PayloadError(f"no payload with corporate actions of {ticker}")
    actions = _one_an_ex_date(
        pl.concat(part.frame.with_columns(part=pl.lit(n)) for n, part in enumerate(parts))
    )
    places = actions.select("part", "row_number").rows()

    def raw() -> list[Mapping[str, Any]]:
        written = [part.raw() for part in parts]
        return [written[part][row] for part, row in places]

    is_dividend = pl.col("action_type") == "dividend"
    frame = actions.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("row_number"),
        pl.col("dataset"),
        pl.lit(ticker).alias("ticker"),
        pl.col("ex_date", "action_type"),
        pl.when(is_dividend).then("amount").alias("dividend_amount"),
        pl.when(~is_dividend).then("amount").alias("split_ratio"),
        pl.col(_FURTHER_DATES),
        pl.col("is_readable"),
    )
    return Reading(
        frame,
        raw,
        told_by_bars=_told_by_bars(ticker, bars),
        unread=_unread_in_bars(ticker, bars),
        fills=frozenset(
            name for part in parts if part.standing == "fill" for name in part.frame["dataset"]
        ),
    )


@dataclass(frozen=True, slots=True)
class _Lines:
    """Actions as one payload lists them; `frame` has the columns of `_as_lines`."""

    standing: Literal["override", "vendor", "fill"]
    frame: pl.DataFrame
    raw: Raw


def _from_files(payloads: Payloads) -> list[_Lines]:
    return [
        _Lines(
            file.precedence,
            _as_lines(file.frame, pl.col("action_type"), "ex_date", "amount"),
            file.raw,
        )
        for file in dropped_actions(payloads)
    ]


def _from_vendor(payloads: Payloads) -> list[_Lines]:
    events = (
        (datasets.SPLITS, "split", _SPLIT),
        (datasets.DIVIDENDS, "dividend", _DIVIDEND),
    )
    return [
        _events(dataset, payloads, action_type, fields)
        for dataset, action_type, fields in events
        if dataset.name in payloads
    ]


def _events(
    dataset: datasets.Dataset, payloads: Payloads, action_type: str, fields: Mapping[str, str]
) -> _Lines:
    rows = read_json(payloads[dataset.name], dataset.name).get("data")
    if not isinstance(rows, list):
        raise unreadable(dataset.name, "it has no list 'data'")
    events = [row if isinstance(row, dict) else {"event": row} for row in rows]
    frame = text_frame(dataset.name, events, fields)
    lines = _as_lines(frame, pl.lit(action_type), "ex_date", "amount")
    return _Lines("vendor", lines, lambda: events)


_IN_BARS = (
    ("dividend", "dividend_amount", number("dividend_amount") >= 0, 0),
    ("split", "split_coefficient", number("split_coefficient") > 0, 1),
)
"""Kinds of action, the fields that bars have for them, what is sound there, and what is none."""


def _told_by_bars(ticker: str, sources: Sequence[DailySource]) -> pl.DataFrame | None:
    """Return the keys of which the vendor's daily bars say whether there was an action.

    None is all: a whole history of adjusted bars leaves nothing out.
    """
    bars = [source for source in sources if source.standing == "vendor"]
    if all(source.is_whole and source.is_adjusted for source in bars):
        return None
    (source,) = bars
    return pl.concat(
        _keys(ticker, source.series.frame.filter(is_sound), action_type)
        for action_type, _, is_sound, _ in _IN_BARS
    )


def _unread_in_bars(ticker: str, sources: Sequence[DailySource]) -> pl.DataFrame | None:
    """Return the keys of which bars say something that cannot be read, or is said otherwise too.

    Such bars are rejected as bars.
    """
    found = []
    for source in sources:
        has_to_say = source.standing == "vendor" and source.is_adjusted
        bars = source.series.frame
        is_unread = bars.select(
            (
                (pl.col(field).is_not_null() | pl.lit(has_to_say))
                & ~is_sound.fill_null(value=False)
            ).alias(action_type)
            | _is_contested(source, field)
            for action_type, field, is_sound, _ in _IN_BARS
        )
        found += [
            _keys(ticker, bars.filter(unread), unread.name) for unread in is_unread if unread.any()
        ]
    return pl.concat(found) if found else None


def _is_contested(source: DailySource, field: str) -> pl.Expr:
    """Tell of bars whether others under the same label say something else in `field`."""
    if source.series.is_sound:
        return pl.lit(value=False)
    return pl.col(field).n_unique().over("label") > 1


def _keys(ticker: str, bars: pl.DataFrame, action_type: str) -> pl.DataFrame:
    return bars.select(
        pl.lit(ticker).alias("ticker"),
        day("label").alias("ex_date"),
        pl.lit(action_type).alias("action_type"),
    )


def _inside_daily_bars(sources: Sequence[DailySource]) -> list[_Lines]:
    """Return what bars say; of a session, the strongest that says whether there was an action."""
    found = []
    for action_type, field, is_sound, none in _IN_BARS:
        for place, source in enumerate(sources):
            is_action = is_sound & (number(field) != none) & ~_is_contested(source, field)
            bars = source.series.frame.filter(is_action)
            for stronger in sources[:place]:
                says = stronger.series.frame.filter(number(field).is_not_null())
                bars = bars.join(says, on="label", how="anti", maintain_order="left")
            lines = _as_lines(bars, pl.lit(action_type), "label", field)
            found.append(_Lines(source.standing, lines, source.series.raw))
    return found


def _as_lines(frame: pl.DataFrame, action_type: pl.Expr, date: str, amount: str) -> pl.DataFrame:
    further = tuple(name for name in _FURTHER_DATES if name in frame.columns)
    is_text = frame.schema[amount] == pl.String
    return frame.select(
        pl.col("row_number"),
        pl.col("dataset"),
        action_type.alias("action_type"),
        *_line_values(date, amount, further, is_text),
    )


@cache
def _line_values(
    date: str, amount: str, further: tuple[str, ...], is_text: bool
) -> tuple[pl.Expr, ...]:
    dates = {name: day(name) for name in further}
    return (
        day(date).alias("ex_date"),
        number(amount).alias("amount"),
        *(dates.get(name, _NO_DATE).alias(name) for name in _FURTHER_DATES),
        is_readable({amount: number(amount)} | dates, _NULLS)
        if is_text
        else pl.lit(value=True).alias("is_readable"),
    )


def _one_an_ex_date(lines: pl.DataFrame) -> pl.DataFrame:
    """Return one row an action; lines that are none stay as they are.

    Of a session, the first part that says something counts. Where it gives different splits, all of
    them are returned. What a list of the vendor's says and cannot be read, no later part says.
    """
    has_key = pl.col("ex_date").is_not_null() & pl.col("action_type").is_not_null()
    is_action = (has_key & (pl.col("amount") > 0) & pl.col("is_readable")).fill_null(value=False)
    actions, rest = lines.filter(is_action), lines.filter(~is_action)
    if actions.select("dataset", "action_type", "ex_date").is_duplicated().any():
        actions = _without_repetitions(actions)
    is_first = pl.col("part") == pl.col("part").min().over("action_type", "ex_date")
    actions = actions.filter(is_first)
    unread = rest.filter(has_key & ~pl.col("is_readable") & pl.col("dataset").is_in(_LISTS))
    if not unread.is_empty():
        until = unread.group_by("action_type", "ex_date").agg(pl.col("part").min().alias("until"))
        actions = actions.join(
            until, on=["action_type", "ex_date"], how="left", maintain_order="left"
        ).filter((pl.col("part") <= pl.col("until")).fill_null(value=True))
    return pl.concat([actions.select(lines.columns), rest])


def _without_repetitions(actions: pl.DataFrame) -> pl.DataFrame:
    """Return each action of a payload once, and dividends of one ex-date as their sum.

    Lines with one amount are several actions where their further dates contradict each other.
    """
    first = (pl.col("part", "row_number").first(), pl.col("is_readable").first())
    given = [pl.col(name).drop_nulls() for name in _FURTHER_DATES]
    of_session = ["dataset", "action_type", "ex_date"]
    alike = actions.group_by(*of_session, "amount", maintain_order=True).agg(
        *first,
        *(dates.first() for dates in given),
        pl.max_horizontal(1, *(dates.n_unique() for dates in given)).alias("times"),
    )
    is_dividend = pl.col("action_type") == "dividend"
    dividends = (
        alike.filter(is_dividend)
        .group_by(of_session, maintain_order=True)
        .agg(
            *first,
            pl.col(_FURTHER_DATES).first(),
            (pl.col("amount") * pl.col("times")).sum(),
        )
    )
    return pl.concat([dividends, alike.filter(~is_dividend).select(dividends.columns)])
