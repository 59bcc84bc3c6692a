"""A payload's rows as the vendor wrote them, and its texts as values."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import polars as pl

from stocks_assets.errors import PayloadError

Payloads = Mapping[str, bytes]
"""The newest bytes of each input: by dataset, or by `<dataset>/<part>` where it has parts."""

Raw = Callable[[], Sequence[Mapping[str, Any]]]
"""Returns the rows of a payload as the vendor wrote them."""


@dataclass(frozen=True, slots=True)
class Day:
    """What day it was when payloads came: in UTC, and the last one whose trading was over."""

    as_of: date
    over: date


_MARK = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Reading:
    """The rows of one ticker's payloads, or of the market's, not yet held against any rule.

    `frame` has the columns of the table's schema, but for those that its check adds; `raw` has the
    rows in the order of `row_number`. `is_whole` tells whether they are the whole history, from the
    first to before the second moment of `within`, if it has any. Where
    some of its rows are those that daily bars of some sessions tell of, `told_by_bars` has their
    keys: of others, daily bars say nothing. `unread` has the keys, null where they cannot be read,
    of which something is said that cannot be read and is no row. `fills` are the inputs that fill
    what the vendor has not, and has never had.
    """

    frame: pl.DataFrame
    raw: Raw
    is_whole: bool = True
    within: tuple[datetime, datetime] | None = None
    told_by_bars: pl.DataFrame | None = None
    unread: pl.DataFrame | None = None
    fills: frozenset[str] = frozenset()


class JsonObject(dict[str, Any]):
    """A JSON object. Of a name that is given twice it has the later value; `pairs` has both."""

    __slots__ = ("_given",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        # Thousands of pairs that say nothing more keep the garbage collector busy.
        self._given = pairs if len(pairs) > len(self) else None

    @property
    def pairs(self) -> list[tuple[str, Any]]:
        """Each name and value, in their order."""
        return self._given or list(self.items())


def read_json(body: bytes, source: str) -> JsonObject:
    """Return the JSON object in `body`, with its numbers as they are written.

    Raises:
        PayloadError: there is none.
    """
    try:
        document = json.loads(
            body.decode(errors="replace"),
            strict=False,
            object_pairs_hook=JsonObject,
            parse_int=str,
            parse_float=str,
            parse_constant=str,
        )
    except (ValueError, RecursionError) as error:
        raise unreadable(source, str(error)) from error
    if not isinstance(document, JsonObject):
        raise unreadable(source, "it is no JSON object")
    return document


def unreadable(source: str, why: str) -> PayloadError:
    """Return the error that says why nothing can be read of the payload of `source`."""
    return PayloadError(f"a payload of {source} cannot be read: {why}")


def text_frame(
    source: str, rows: Sequence[Mapping[str, Any]], fields: Mapping[str, str]
) -> pl.DataFrame:
    """Return a column of texts for each of `fields`, by the name it gets; see `place`.

    What a row has not is null.
    """
    columns = {
        name: [None if (value := row.get(field)) is None else str(value) for row in rows]
        for name, field in fields.items()
    }
    try:
        frame = pl.DataFrame(columns, schema=dict.fromkeys(fields, pl.String))
    except UnicodeEncodeError:
        frame = pl.DataFrame(storable(columns), schema=dict.fromkeys(fields, pl.String))
    return place(frame, source)


def place(frame: pl.DataFrame, source: str) -> pl.DataFrame:
    """Note the place of each row: row_number, and `source` as its dataset."""
    return frame.with_row_index("row_number").with_columns(pl.lit(source).alias("dataset"))


def text(field: str, nulls: Sequence[str]) -> pl.Expr:
    """The text of `field`, null where it is one of `nulls`."""
    stripped = pl.col(field).str.strip_chars().str.replace_all("\0", _MARK, literal=True)
    return pl.when(~stripped.is_in(nulls)).then(stripped)


def is_readable(values: Mapping[str, pl.Expr], nulls: Sequence[str]) -> pl.Expr:
    """Whether all of the fields that are given, and not as one of `nulls`, have their values."""
    return pl.all_horizontal(
        value.is_not_null() | text(field, nulls).is_null() for field, value in values.items()
    ).alias("is_readable")


def day(field: str) -> pl.Expr:
    """The date of `field`, null where it is none; 24-1-5 is none, though Polars would take it."""
    is_written_out = pl.col(field).str.contains(r"^[12]\d{3}-\d\d-\d\d$")
    return pl.when(is_written_out).then(pl.col(field).str.to_date("%Y-%m-%d", strict=False))


def number(field: str) -> pl.Expr:
    """The number of `field`, null where it is none or not finite."""
    parsed = pl.col(field).cast(pl.Float64, strict=False)
    return pl.when(parsed.is_finite()).then(parsed + 0.0)  # there is but one zero


def number_if_given(field: str, is_given: pl.Expr | None = None) -> pl.Expr:
    """The number of `field`, null where it is not given.

    What is given and is no number becomes NaN, which the schemas let no column have. Where
    `is_given` holds, it has to be there.
    """
    given = pl.col(field).is_not_null() if is_given is None else is_given
    return pl.when(given).then(number(field).fill_null(float("nan"))).alias(field)


def whole_number(field: str | pl.Expr) -> pl.Expr:
    """The whole number of `field`, null where it is none; rarely `123` is written `123.0`."""
    written = pl.col(field) if isinstance(field, str) else field
    parsed = written.cast(pl.Float64, strict=False)
    whole = pl.when(parsed.is_finite() & (parsed == parsed.round())).then(parsed)
    return pl.coalesce(written.cast(pl.Int64, strict=False), whole.cast(pl.Int64, strict=False))


def storable(value: Any) -> Any:  # noqa: ANN401 # whatever JSON has
    """Return `value` with marks for what PostgreSQL does not store: NUL, halves of characters."""
    if isinstance(value, dict):
        return {storable(name): storable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [storable(item) for item in value]
    if isinstance(value, str):
        return value.encode(errors="replace").decode().replace("\0", _MARK)
    return value
