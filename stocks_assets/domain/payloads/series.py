"""Time series as the vendor writes them: an object of bars by label, every number a string.

A sound series is decoded straight into columns of numbers. One that is not, be it that a text is no
number or a label is given twice, is read with care as texts, so that what is wrong with one bar
costs no other. Both come to the same values.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import polars as pl

from stocks_assets.domain.payloads.reading import (
    JsonObject,
    Raw,
    place,
    read_json,
    text_frame,
    unreadable,
)

_META = "Meta Data"
_WHOLE = frozenset({"5. volume", "6. volume"})
_BigInt = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


@dataclass(frozen=True, slots=True)
class Series:
    """The bars of one payload.

    `frame` has row_number, dataset, `label` and a column for each field that was asked for, null
    where a bar has it not: numbers, or texts where one of them is no number. `meta` has the texts
    that the payload says about itself, by their names.
    """

    frame: pl.DataFrame
    raw: Raw
    meta: Mapping[str, str]

    @property
    def is_sound(self) -> bool:
        """Whether it was read quickly: each label once, and nothing but numbers."""
        return not isinstance(self.frame.schema["open"], pl.String)


def read_series(source: str, body: bytes, data_key: str, fields: Mapping[str, str]) -> Series:
    """Read the series under `data_key`; `fields` are the vendor's fields by the names they get.

    Raises:
        PayloadError: there is no such series.
    """
    return read_quickly(source, body, data_key, fields) or read_with_care(
        source, body, data_key, fields
    )


def read_quickly(
    source: str, body: bytes, data_key: str, fields: Mapping[str, str]
) -> Series | None:
    """Read a series that is sound in all its bars; return None of any other."""
    decoder, columns = _decoder(data_key, tuple(fields.items()))
    try:
        document = decoder.decode(body)
    except (ValueError, RecursionError):
        return None
    labels, bars, meta = list(document.series), list(document.series.values()), document.meta
    # A label that is given twice shows in nothing but the number of objects. (Taking the braces out
    # is five times as fast as counting them.)
    braces = len(body) - len(body.replace(b"{", b""))
    if braces != len(bars) + 2 + (meta is not None):
        return None
    frame = pl.DataFrame(
        [
            pl.Series("label", labels, dtype=pl.String),
            *(pl.Series(name, list(map(get, bars)), dtype=type_) for name, get, type_ in columns),
        ]
    )
    return Series(
        place(frame, source),
        lambda: read_with_care(source, body, data_key, fields).raw(),
        meta or {},
    )


def read_with_care(source: str, body: bytes, data_key: str, fields: Mapping[str, str]) -> Series:
    """Read a series of which any bar may be damaged.

    Raises:
        PayloadError: there is no such series.
    """
    document = read_json(body, source)
    series = document.get(data_key)
    if not isinstance(series, JsonObject):
        raise unreadable(source, f"it has no object {data_key!r}")
    rows = [
        {**(bar if isinstance(bar, dict) else {"bar": bar}), "label": label}
        for label, bar in series.pairs
    ]
    meta = document.get(_META)
    texts = meta.items() if isinstance(meta, dict) else ()
    frame = text_frame(source, rows, {"label": "label", **fields})
    return Series(frame, lambda: rows, {n: text for n, text in texts if isinstance(text, str)})


_Column = tuple[str, Callable[[Any], float | int | None], type[pl.DataType]]


@cache
def _decoder(
    data_key: str, fields: tuple[tuple[str, str], ...]
) -> tuple[msgspec.json.Decoder[Any], list[_Column]]:
    """Return what decodes a sound series, and how each column is taken from its bars."""
    bar: Any = msgspec.defstruct(
        "Bar",
        [(name, _BigInt if field in _WHOLE else float, None) for name, field in fields],
        rename=dict(fields),
        gc=False,
    )
    document = msgspec.defstruct(
        "Document",
        [("series", dict[str, bar]), ("meta", dict[str, str] | None, None)],
        rename={"series": data_key, "meta": _META},
    )
    columns: list[_Column] = [
        (name, attrgetter(name), pl.Int64 if field in _WHOLE else pl.Float64)
        for name, field in fields
    ]
    return msgspec.json.Decoder(document, strict=False), columns
