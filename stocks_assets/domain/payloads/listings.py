"""Listings: the securities of the market, listed and delisted."""

import polars as pl

from stocks_assets.domain import datasets
from stocks_assets.domain.payloads.reading import (
    Day,
    Payloads,
    Reading,
    day,
    is_readable,
    text,
    unreadable,
)
from stocks_assets.domain.schemas import STILL_LISTED
from stocks_assets.domain.tickers import parse_ticker
from stocks_assets.errors import InvalidTickerError

_FIELDS = tuple(datasets.LISTINGS.endpoints[0].data_key.split(","))
_NULLS = ("null", "", "0000-00-00")


def read_listings(_market: str, payloads: Payloads, _day: Day) -> Reading:
    """Read the lists of LISTING_STATUS, an input each, for `schemas.Listings`."""
    lists = pl.concat(_read_list(source, body) for source, body in payloads.items())
    status = text("status", _NULLS).str.to_lowercase()
    frame = lists.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("row_number"),
        pl.col("dataset"),
        pl.Series("ticker", [_ticker(symbol) for symbol in lists["symbol"]], dtype=pl.String),
        pl.when(status == "active")
        .then(pl.lit(STILL_LISTED))
        .otherwise(day("delistingDate"))
        .alias("delisted_on"),
        text("name", _NULLS).alias("company_name"),
        text("exchange", _NULLS),
        text("assetType", _NULLS).alias("asset_type"),
        day("ipoDate").alias("listed_on"),
        status.alias("status"),
        is_readable({"ipoDate": day("ipoDate")}, _NULLS),
    )
    wanted = {f"{datasets.LISTINGS.name}/{part}" for part in datasets.LISTINGS.parts}
    return Reading(
        frame,
        lambda: lists.select(_FIELDS).to_dicts(),
        is_whole=payloads.keys() == wanted and lists["dataset"].n_unique() == len(wanted),
    )


def _read_list(source: str, body: bytes) -> pl.DataFrame:
    """Return the lines of a list as texts, and its name as `dataset`.

    A line with too many fields loses the last ones, and its status with them, which fails it.
    """
    try:
        lines = pl.read_csv(body, infer_schema=False, truncate_ragged_lines=True)
    except pl.exceptions.PolarsError as error:
        raise unreadable(source, str(error).splitlines()[0]) from error
    if missing := [field for field in _FIELDS if field not in lines.columns]:
        raise unreadable(source, f"it has no column {', '.join(missing)}")
    is_blank = pl.all_horizontal(pl.col(_FIELDS).is_null())
    return lines.select(_FIELDS).filter(~is_blank).with_columns(pl.lit(source).alias("dataset"))


def _ticker(symbol: str | None) -> str | None:
    if symbol is None or symbol in _NULLS:
        return None
    try:
        return parse_ticker(symbol)
    except InvalidTickerError:
        return None
