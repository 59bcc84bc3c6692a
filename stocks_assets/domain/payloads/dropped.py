"""What files that people dropped say of a ticker, as `dropped_files.payload` keeps it in bronze."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import polars as pl

from stocks_assets.domain.datasets import DROPPED_ACTIONS, DROPPED_DAILY_BARS, Dataset
from stocks_assets.domain.dropped_files import ACTIONS, PRICES, Kind, Precedence, written_day
from stocks_assets.domain.payloads.reading import (
    Payloads,
    Raw,
    number,
    read_json,
    text_frame,
    unreadable,
)

# What people and their tools write where there is no value.
_NOTHING = ("null", "none", "nan", "n/a")
_ACTION_TYPES = {
    "dividend": "dividend",
    "cash dividend": "dividend",
    "split": "split",
    "stock split": "split",
}


@dataclass(frozen=True, slots=True)
class Dropped:
    """The rows of one file.

    `frame` has row_number, dataset and the fields as texts, dates as 2024-04-15.
    """

    precedence: Precedence
    frame: pl.DataFrame
    raw: Raw


def dropped_bars(payloads: Payloads) -> list[Dropped]:
    """Return the daily bars of files, the strongest first, with their dates as `label`.

    Raises:
        PayloadError: a payload cannot be read.
    """
    return _read(DROPPED_DAILY_BARS, PRICES, payloads, _as_bars)


def dropped_actions(payloads: Payloads) -> list[Dropped]:
    """Return the corporate actions of files, the strongest first, with one `amount` each.

    Raises:
        PayloadError: a payload cannot be read.
    """
    return _read(DROPPED_ACTIONS, ACTIONS, payloads, _as_actions)


class _Payload(msgspec.Struct, gc=False):
    precedence: Precedence
    rows: list[dict[str, str | None]]


_decoder = msgspec.json.Decoder(_Payload)


def _read(
    dataset: Dataset,
    kind: Kind,
    payloads: Payloads,
    normalized: Callable[[pl.DataFrame], pl.DataFrame],
) -> list[Dropped]:
    """Return the files of `dataset`: of equal precedence, the later in `payloads` is stronger."""
    names = [name for name in payloads if name.partition("/")[0] == dataset.name]
    fields = {field: field for field in kind.headers.values()}
    found = []
    for name in reversed(names):
        body = payloads[name]
        try:
            document = _decoder.decode(body)
        except ValueError as error:
            raise unreadable(name, str(error)) from error
        frame = text_frame(name, document.rows, fields).with_columns(_given(*fields))
        found.append(Dropped(document.precedence, normalized(frame), _raw(name, body)))
    return sorted(found, key=lambda file: file.precedence == "fill")


def _raw(name: str, body: bytes) -> Raw:
    return lambda: read_json(body, name)["rows"]


def _given(*fields: str) -> pl.Expr:
    return pl.when(~pl.col(fields).str.to_lowercase().is_in(_NOTHING)).then(pl.col(fields))


def _as_bars(frame: pl.DataFrame) -> pl.DataFrame:
    # Some write 0 where a share was not split.
    split = pl.when(number("split_coefficient") == 0).then(pl.lit("1"))
    return frame.with_columns(
        written_day("session_date").dt.to_string("%Y-%m-%d").alias("label"),
        split.otherwise("split_coefficient").alias("split_coefficient"),
        pl.lit(None, dtype=pl.String).alias("raw_volume"),
    )


def _as_actions(frame: pl.DataFrame) -> pl.DataFrame:
    kind = pl.col("action_type").str.to_lowercase().str.replace_all(r"[\s_-]+", " ")
    action_type = kind.replace_strict(_ACTION_TYPES, default=None, return_dtype=pl.String)
    own_amount = pl.when(action_type == "dividend").then("dividend_amount").otherwise("split_ratio")
    return frame.with_columns(
        *(
            pl.coalesce(written_day(field).dt.to_string("%Y-%m-%d"), field).alias(field)
            for field in ACTIONS.dates
        ),
        action_type.alias("action_type"),
        pl.coalesce(own_amount, "amount").alias("amount"),
    )
