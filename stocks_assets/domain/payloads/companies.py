"""Companies: what the vendor says about the one behind a ticker."""

import polars as pl

from stocks_assets.domain import datasets
from stocks_assets.domain.payloads.reading import (
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


def read_companies(ticker: str, payloads: Payloads) -> Reading:
    """Read OVERVIEW for `schemas.Companies`: one row."""
    values = {
        **{field: day(field) for field in _DATES},
        **{field: whole_number(field) for field in _AMOUNTS},
        **{field: number(field) for field in _RATIOS},
    }
    name = datasets.COMPANIES.name
    overview = [read_json(payloads[name], name)]
    frame = text_frame(name, overview, _TEXTS | _DATES | _AMOUNTS | _RATIOS).select(
        pl.col("row_number"),
        pl.col("dataset"),
        pl.lit(ticker).alias("ticker"),
        *(text(field, _NULLS) for field in _TEXTS),
        *values.values(),
        is_readable(values, _NULLS),
    )
    return Reading(frame, lambda: overview)
