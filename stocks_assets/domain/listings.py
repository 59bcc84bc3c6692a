"""What the market's listings say of a ticker that is gone.

A frame of listings has ticker, delisted_on, company_name, asset_type, listed_on and status, as
`schemas.Listings` has them.
"""

from datetime import date

import polars as pl

_SECURITY = ["name", "listed_on", "asset_type"]


def successors(listings: pl.DataFrame) -> dict[str, str]:
    """Return the active ticker of each security whose delisted ticker is gone.

    A security is known by company name, day of listing and kind, whatever the name's case and
    punctuation. Where one of them is not given, or more than one ticker would do on either side,
    nothing is said.
    """
    securities = listings.with_columns(
        pl.col("company_name")
        .str.to_lowercase()
        .str.replace_all(r"[^\p{L}\p{N}]+", " ")
        .str.strip_chars()
        .alias("name")
    )
    renamed = _sole_tickers(_gone(securities)).join(
        _sole_tickers(securities.filter(pl.col("status") == "active")),
        on=_SECURITY,
        suffix="_now",
    )
    sole = renamed.filter(pl.col("ticker").is_unique())
    return dict(sole.select("ticker", "ticker_now").sort("ticker").iter_rows())


def delisted_since(listings: pl.DataFrame) -> dict[str, date]:
    """Return when each ticker was last delisted that is listed no more.

    Nothing is said as long as the list of what is active is not there.
    """
    if listings.filter(pl.col("status") == "active").is_empty():
        return {}
    last = _gone(listings).group_by("ticker").agg(pl.col("delisted_on").max())
    return dict(last.sort("ticker").iter_rows())


def listed_since(listings: pl.DataFrame) -> dict[str, date]:
    """Return the first day of the listing of each ticker that is listed, where it is given."""
    active = listings.filter(pl.col("status") == "active").drop_nulls("listed_on")
    return dict(active.select("ticker", "listed_on").sort("ticker").iter_rows())


def _gone(listings: pl.DataFrame) -> pl.DataFrame:
    is_active = pl.col("status") == "active"
    return listings.join(listings.filter(is_active), on="ticker", how="anti")


def _sole_tickers(securities: pl.DataFrame) -> pl.DataFrame:
    """Return the securities that have a single ticker among `securities`."""
    tickers = securities.select("ticker", *_SECURITY).drop_nulls().unique()
    return tickers.filter(pl.struct(_SECURITY).is_unique())
