"""Readings held against their table's schema: the good rows, and what is wrong with the others."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache

import dataframely as dy
import polars as pl

from stocks_assets.domain import calendar
from stocks_assets.domain.payloads.reading import Day, Reading, storable
from stocks_assets.domain.schemas import KEY_RULES, NOT_STORED

_FIRST_KNOWN_SESSION = date(1960, 1, 1)
# Three letters name an exchange elsewhere (.LON, .TRT, .SHH), fewer a class of shares.
_LISTED_ELSEWHERE = r"\.[A-Z]{3}$"
# Of these it is known that they never open at weekends; .BSE does.
_CLOSED_AT_WEEKENDS = r"\.(LON|TRT|DEX|SHH|SHZ)$"
_SATURDAY = 6
_KEY_RULE = "primary_key"
_REJECTED = {"dataset": pl.String(), "row_values": pl.String(), "rules": pl.List(pl.String())}


@dataclass(frozen=True, slots=True)
class Shaped:
    """The rows of one ticker's payloads, or of the market's.

    `rows` has the columns of the table's schema, no key twice, in no given order; `rejected` has
    `row_values` (the raw row as JSON) and `rules` (names of the rules that it breaks). Both have
    `dataset`, the input of each row, and the columns of the key, null where a rejected row has none
    that can be read. `is_whole` tells whether the payload has the whole history: then what it has
    not is not, but for what daily bars told of under other keys than `told_by_bars`, if it has any.
    `left_out` counts rows that are neither, as another one of their key counts. `unread` has keys
    of which the payload says something that is not taken, as it cannot be read, or as the session
    was not over; `fills` are the inputs that give way to whatever the vendor has said; `within`
    bounds the history that is whole.
    """

    rows: pl.DataFrame
    rejected: pl.DataFrame
    is_whole: bool = True
    left_out: int = 0
    told_by_bars: pl.DataFrame | None = None
    unread: pl.DataFrame | None = None
    fills: frozenset[str] = frozenset()
    within: tuple[datetime, datetime] | None = None

    def doubtful_keys(self, ticker: str) -> pl.DataFrame:
        """Return the keys under which rejected rows, or `unread`, may have said something sound.

        With the `dataset` that they stand in, null where it is none that lists what it has.

        Null are those that may be of any row: where it is the key that breaks a rule, or where a
        row stands under the key of another.
        """
        key = [name for name in self.rejected.columns if name not in _REJECTED]
        is_astray = pl.col("rules").list.set_intersection(list(KEY_RULES)).list.len() > 0
        keys = self.rejected.select(
            "ticker",
            *(pl.when(~is_astray).then(name).alias(name) for name in key[1:2]),
            *key[2:],
            "dataset",
        )
        if self.unread is not None:
            keys = pl.concat([keys, self.unread], how="diagonal")
        if not self.left_out:
            return keys
        return pl.concat([keys, pl.DataFrame({"ticker": [ticker]})], how="diagonal")


def check(
    schema: type[dy.Schema], readings: Sequence[Reading], days: Sequence[Day]
) -> list[Shaped]:
    """Tell the good rows of each reading from those that break a rule of `schema` on its day.

    All are checked in one go, as a check takes milliseconds however few rows it has.
    """
    if not readings:
        return []
    together = pl.concat(
        reading.frame.with_columns(
            pl.lit(number, dtype=pl.UInt32).alias("reading"), pl.lit(day.as_of).alias("as_of")
        )
        for number, (reading, day) in enumerate(zip(readings, days, strict=True))
    )
    last = max(day.as_of for day in days)
    checked = schema.filter(_with_circumstances(together, schema, last))
    good: pl.DataFrame = checked.result
    rejected: dict[int, pl.DataFrame] = {}
    if len(checked.failure):
        settled, bad = _settle(schema, checked.failure, together)
        good = pl.concat([good, settled])
        rejected = _by_reading(bad)
    if "is_complete" in good.columns:
        good = good.with_columns(is_complete=_is_complete(schema, days))
    stored = [name for name in schema.column_names() if name not in NOT_STORED]
    good = good.select(*stored, "dataset", "reading")
    rows = _by_reading(good)
    nothing = good.clear().drop("reading")
    key = schema.primary_key()
    nothing_rejected = pl.DataFrame(schema=_REJECTED | {name: good.schema[name] for name in key})
    return [
        Shaped(
            rows.get(number, nothing),
            _with_raw_values(rejected[number], reading, key)
            if number in rejected
            else nothing_rejected,
            reading.is_whole,
            reading.frame.height
            - sum(part[number].height for part in (rows, rejected) if number in part),
            reading.told_by_bars,
            reading.unread,
            reading.fills,
            reading.within,
        )
        for number, reading in enumerate(readings)
    ]


def _is_complete(schema: type[dy.Schema], days: Sequence[Day]) -> pl.Expr:
    """Tell whether a period is over: by the calendar, which is New York's, or by a later bar."""
    start = pl.col(schema.primary_key()[1])
    over = pl.lit(pl.Series([day.over for day in days], dtype=pl.Date)).gather(pl.col("reading"))
    is_last = pl.col("is_complete") & (pl.col("session_date") <= over)
    is_followed = start < start.max().over("reading")
    return (is_last & ~pl.col("ticker").str.contains(_LISTED_ELSEWHERE)) | is_followed


def _with_circumstances(frame: pl.DataFrame, schema: type[dy.Schema], last: date) -> pl.DataFrame:
    """Add what the rules hold a row against, where `last` is the last `as_of`."""
    columns = schema.column_names()
    if "is_session" not in columns:
        return frame
    day = pl.col("session_date" if "session_date" in columns else "ex_date")
    is_open = day.is_in(_sessions(last.year + 1))
    if "session_date" in columns:
        is_open &= day <= pl.col("as_of")
    ticker = pl.col("ticker")
    is_weekend = day.dt.weekday() >= _SATURDAY
    return frame.with_columns(
        pl.when(~ticker.str.contains(_LISTED_ELSEWHERE))
        .then(is_open)
        .otherwise(
            (day >= _FIRST_KNOWN_SESSION) & ~(is_weekend & ticker.str.contains(_CLOSED_AT_WEEKENDS))
        )
        # A day that is no date breaks another rule.
        .fill_null(value=True)
        .alias("is_session")
    )


@lru_cache(maxsize=2)
def _sessions(until_year: int) -> pl.Series:
    sessions = calendar.sessions(_FIRST_KNOWN_SESSION, date(until_year, 12, 31))
    return pl.Series([sessions], dtype=pl.List(pl.Date))


def _settle(
    schema: type[dy.Schema], failure: dy.FailureInfo, together: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows of `failure` that are good after all, and the bad ones with their `rules`.

    A row that shares its key with bad ones alone is good. Of good bars with one key those of the
    latest session count. Of what then still shares a key, the first row counts, of bars the first
    that stands in order among all that came `together`; another that says the same goes without
    notice, and one that says otherwise is bad.
    """
    columns, key = schema.column_names(), schema.primary_key()
    details = failure.details().sort("reading", "row_number")
    rules = [name for name in details.columns if name not in (*columns, _KEY_RULE)]
    broken = (pl.when(pl.col(rule) == "invalid").then(pl.lit(rule)) for rule in rules)
    failed = details.select(*columns, pl.concat_list(broken).list.drop_nulls().alias("rules"))
    is_rival = pl.col("rules").list.len() == 0
    rivals = failed.filter(is_rival)
    if "session_date" in columns:
        rivals = rivals.filter(pl.col("session_date") == pl.col("session_date").max().over(key))
        moment = "starts_at" if "starts_at" in columns else "session_date"
        rivals = _in_order_first(rivals, together, moment)
    said = [name for name in columns if name not in NOT_STORED]
    rivals = rivals.unique(said, keep="first", maintain_order=True)
    is_first = pl.struct(key).is_first_distinct()
    beaten = rivals.filter(~is_first).with_columns(pl.lit([_KEY_RULE]).alias("rules"))
    bad = pl.concat([failed.filter(~is_rival), beaten])
    return rivals.filter(is_first).select(columns), bad.sort("reading", "row_number")


def _in_order_first(rivals: pl.DataFrame, together: pl.DataFrame, moment: str) -> pl.DataFrame:
    """Put those of `rivals` last that stand on the wrong side of a neighbour in their input.

    A bar whose label is damaged stands among bars of other days.
    """
    source = ["reading", "dataset"]
    step = pl.col(moment).to_physical().cast(pl.Int64).diff().sign()
    forth = step * pl.when(step.sum() > 0).then(1).otherwise(-1)
    is_astray = (forth < 0) | (forth < 0).shift(-1).fill_null(value=False)
    placed = together.join(rivals, on=source, how="semi", maintain_order="left").select(
        "reading", "row_number", is_astray.fill_null(value=False).over(source).alias("is_astray")
    )
    return (
        rivals.join(placed, on=["reading", "row_number"])
        .sort("reading", "is_astray", "row_number")
        .drop("is_astray")
    )


def _by_reading(frame: pl.DataFrame) -> dict[int, pl.DataFrame]:
    parts = frame.partition_by("reading", include_key=False, as_dict=True)
    return {int(number): part for (number,), part in parts.items()}


def _with_raw_values(bad: pl.DataFrame, reading: Reading, key: Sequence[str]) -> pl.DataFrame:
    raw = reading.raw()
    values = [json.dumps(storable(raw[number]), ensure_ascii=False) for number in bad["row_number"]]
    return bad.select("dataset", pl.Series("row_values", values, dtype=pl.String), "rules", *key)
