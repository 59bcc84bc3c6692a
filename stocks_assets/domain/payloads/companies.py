"""Companies: what the vendor says about the one behind a ticker."""

import polars as pl

from stocks_assets.domain import datasets
from stocks_assets.domain.payloads.reading import (
    Day,
    Payloads,
    Reading,
    day,
    is_readable,
    number,
    read_json,
    text,
    text_frame,
    whole_number,
)

_NULLS = ("None", "-", "null", "", "0000-00-00")
_TEXTS = {
    "company_name": "Name",
    "description": "Description",
    "asset_type": "AssetType",
    "exchange": "Exchange",
    "currency": "Currency",
    "country": "Country",
    "sector": "Sector",
    "industry": "Industry",
    "cik": "CIK",
    "official_site": "OfficialSite",
    "fiscal_year_end": "FiscalYearEnd",
}
_DATES = {
    "latest_quarter": "LatestQuarter",
    "dividend_date": "DividendDate",
    "ex_dividend_date": "ExDividendDate",
}
_AMOUNTS = {
    "market_capitalization": "MarketCapitalization",
    "shares_outstanding": "SharesOutstanding",
    "revenue_ttm": "RevenueTTM",
    "ebitda": "EBITDA",
}
_RATIOS = {
    "eps": "EPS",
    "pe_ratio": "PERatio",
    "book_value": "BookValue",
    "dividend_per_share": "DividendPerShare",
    "dividend_yield": "DividendYield",
    "profit_margin": "ProfitMargin",
    "beta": "Beta",
}


_VALUES = {
    **{field: day(field) for field in _DATES},
    **{field: whole_number(field) for field in _AMOUNTS},
    **{field: number(field) for field in _RATIOS},
}
# Made once: that takes as long as to work them out for a payload.
_COLUMNS = (
    *(text(field, _NULLS) for field in _TEXTS),
    *_VALUES.values(),
    is_readable(_VALUES, _NULLS),
)


def read_companies(ticker: str, payloads: Payloads, _day: Day) -> Reading:
    """Read OVERVIEW for `schemas.Companies`: one row."""
    name = datasets.COMPANIES.name
    overview = [read_json(payloads[name], name)]
    frame = text_frame(name, overview, _TEXTS | _DATES | _AMOUNTS | _RATIOS).select(
        pl.col("row_number"),
        pl.col("dataset"),
        pl.lit(ticker).alias("ticker"),
        *_COLUMNS,
    )
    return Reading(frame, lambda: overview)
