"""What a good row of each silver table is: types, keys and rules, stated once.

`row_number` is the row's place in its payload; it ties a rejected row to its raw values and is not
stored. Prices are in the currency of the listing, as traded; volumes in shares.
"""

import dataframely as dy
import polars as pl


class PayloadRow(dy.Schema):
    """A row of a payload."""

    row_number = dy.UInt32(nullable=False)
    ticker = dy.String(nullable=False, primary_key=True)


class Bar(PayloadRow):
    """Open, high, low, close and volume of some period."""

    open = dy.Float64(nullable=False, min_exclusive=0)
    high = dy.Float64(nullable=False, min_exclusive=0)
    low = dy.Float64(nullable=False, min_exclusive=0)
    close = dy.Float64(nullable=False, min_exclusive=0)
    volume = dy.Int64(nullable=False, min=0)

    @dy.rule()
    def high_is_not_below_low(cls) -> pl.Expr:
        """Hold the high against the low."""
        return pl.col("high") >= pl.col("low")


class WeeklyBars(Bar):
    """One row per ticker and week."""

    week_start = dy.Date(nullable=False, primary_key=True)
    session_date = dy.Date(nullable=False)
    adjusted_close = dy.Float64(nullable=False)
    dividend_amount = dy.Float64(nullable=False, min=0)


class DailyBars(Bar):
    """One row per ticker and trading session."""

    session_date = dy.Date(nullable=False, primary_key=True)
    adjusted_close = dy.Float64(nullable=True)
    dividend_amount = dy.Float64(nullable=True, min=0)
    split_coefficient = dy.Float64(nullable=True, min_exclusive=0)


class CorporateActions(PayloadRow):
    """One row per ticker, ex-date and kind of action."""

    ex_date = dy.Date(nullable=False, primary_key=True)
    action_type = dy.String(nullable=False, primary_key=True)
    dividend_amount = dy.Float64(nullable=True, min_exclusive=0)
    split_ratio = dy.Float64(nullable=True, min_exclusive=0)
    declaration_date = dy.Date(nullable=True)
    record_date = dy.Date(nullable=True)
    payment_date = dy.Date(nullable=True)

    @dy.rule()
    def amount_is_given(cls) -> pl.Expr:
        """Ask for the amount that the kind of action has."""
        return (
            pl.when(pl.col("action_type") == "dividend")
            .then(pl.col("dividend_amount").is_not_null())
            .otherwise(pl.col("split_ratio").is_not_null())
        )


class Companies(PayloadRow):
    """One row per ticker: the company behind it. Amounts of money are in `currency`."""

    company_name = dy.String(nullable=False)
    description = dy.String(nullable=True)
    asset_type = dy.String(nullable=True)
    exchange = dy.String(nullable=True)
    currency = dy.String(nullable=True)
    country = dy.String(nullable=True)
    sector = dy.String(nullable=True)
    industry = dy.String(nullable=True)
    cik = dy.String(nullable=True)
    official_site = dy.String(nullable=True)
    fiscal_year_end = dy.String(nullable=True)
    latest_quarter = dy.Date(nullable=True)
    market_capitalization = dy.Int64(nullable=True)
    shares_outstanding = dy.Int64(nullable=True)
    revenue_ttm = dy.Int64(nullable=True)
    ebitda = dy.Int64(nullable=True)
    eps = dy.Float64(nullable=True)
    pe_ratio = dy.Float64(nullable=True)
    book_value = dy.Float64(nullable=True)
    dividend_per_share = dy.Float64(nullable=True)
    dividend_yield = dy.Float64(nullable=True)
    profit_margin = dy.Float64(nullable=True)
    beta = dy.Float64(nullable=True)
    dividend_date = dy.Date(nullable=True)
    ex_dividend_date = dy.Date(nullable=True)
