"""What a good row of each silver table is: types, keys and rules, stated once.

Prices are in the currency of the listing, as traded; volumes in shares.
"""

from datetime import date

import dataframely as dy
import polars as pl

STILL_LISTED = date(9999, 12, 31)
NOT_STORED = ("reading", "row_number", "dataset", "as_of", "is_session", "is_readable")
"""Columns that tie a row to its payload, or that a rule holds it against."""
KEY_RULES = (
    "primary_key",
    "session_is_not_in_the_future",
    "session_is_in_the_calendar",
    "ex_date_is_in_the_calendar",
    "ex_date_is_at_most_a_year_ahead",
)
"""Rules that a row breaks by its key: it may well be another row's, with a damaged date."""


class PayloadRow(dy.Schema):
    """A row of a payload.

    `reading` numbers the readings that are checked together, `row_number` the rows of each;
    `dataset` is the input that the row stands in. `as_of` is the day of the check, in UTC.
    """

    reading = dy.UInt32(nullable=False)
    row_number = dy.UInt32(nullable=False)
    dataset = dy.String(nullable=False)
    as_of = dy.Date(nullable=False)
    ticker = dy.String(nullable=False, primary_key=True)


class Bar(PayloadRow):
    """Open, high, low, close and volume of some period; each kind has a `session_date`."""

    open = dy.Float64(nullable=False, min_exclusive=0)
    high = dy.Float64(nullable=False, min_exclusive=0)
    low = dy.Float64(nullable=False, min_exclusive=0)
    close = dy.Float64(nullable=False, min_exclusive=0)
    volume = dy.Int64(nullable=False, min=0)

    @dy.rule()
    def high_is_not_below_low(cls) -> pl.Expr:
        """Hold the high against the low."""
        return pl.col("high") >= pl.col("low")

    @dy.rule()
    def open_and_close_lie_between_low_and_high(cls) -> pl.Expr:
        """Hold the range against the prices in it."""
        return pl.min_horizontal("open", "close").ge(pl.col("low")) & pl.max_horizontal(
            "open", "close"
        ).le(pl.col("high"))

    @dy.rule()
    def session_is_not_in_the_future(cls) -> pl.Expr:
        """Hold the date against today's."""
        return pl.col("session_date") <= pl.col("as_of")


class SessionBar(Bar):
    """A bar of a session, or of a part of one."""

    is_session = dy.Bool(nullable=False)

    @dy.rule()
    def session_is_in_the_calendar(cls) -> pl.Expr:
        """Ask for a day on which the ticker's exchange opens, where its calendar is known."""
        return pl.col("is_session")


class WeeklyBars(SessionBar):
    """One row per ticker and week."""

    week_start = dy.Date(nullable=False, primary_key=True)
    session_date = dy.Date(nullable=False)
    adjusted_close = dy.Float64(nullable=False, min=0)
    dividend_amount = dy.Float64(nullable=False, min=0)
    is_complete = dy.Bool(nullable=False)


class MonthlyBars(SessionBar):
    """One row per ticker and month."""

    month_start = dy.Date(nullable=False, primary_key=True)
    session_date = dy.Date(nullable=False)
    adjusted_close = dy.Float64(nullable=False, min=0)
    dividend_amount = dy.Float64(nullable=False, min=0)
    is_complete = dy.Bool(nullable=False)


class DailyBars(SessionBar):
    """One row per ticker and trading session."""

    session_date = dy.Date(nullable=False, primary_key=True)
    adjusted_close = dy.Float64(nullable=True, min=0)
    dividend_amount = dy.Float64(nullable=True, min=0)
    split_coefficient = dy.Float64(nullable=True, min_exclusive=0)


class IntradayBars(SessionBar):
    """One row per ticker and five minutes of a session; `session_date` is the day in New York."""

    starts_at = dy.Datetime(nullable=False, primary_key=True, time_unit="us", time_zone="UTC")
    session_date = dy.Date(nullable=False)


class ReadableRow(PayloadRow):
    """A row of which not all has to be given, but what is given has to be a value."""

    is_readable = dy.Bool(nullable=False)

    @dy.rule()
    def what_is_given_can_be_read(cls) -> pl.Expr:
        """Ask for a value, or one of the vendor's ways to say that there is none."""
        return pl.col("is_readable")


class CorporateActions(ReadableRow):
    """One row per ticker, ex-date and kind of action. An ex-date may well be in the future."""

    is_session = dy.Bool(nullable=False)
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

    @dy.rule()
    def ex_date_is_in_the_calendar(cls) -> pl.Expr:
        """Ask for a day on which the ticker's exchange opens, where its calendar is known."""
        return pl.col("is_session")

    @dy.rule()
    def ex_date_is_at_most_a_year_ahead(cls) -> pl.Expr:
        """Take no date that is announced so early."""
        return pl.col("ex_date") <= pl.col("as_of").dt.offset_by("1y")

    @dy.rule()
    def action_inside_a_bar_is_not_in_the_future(cls) -> pl.Expr:
        """Take no action from a bar that cannot have traded yet."""
        is_in_bar = pl.col("dataset").str.contains("^(dropped_)?daily_bars")
        return ~is_in_bar | (pl.col("ex_date") <= pl.col("as_of"))


class Listings(ReadableRow):
    """One row per listing of a security: a ticker, and until when the security had it.

    `delisted_on` is 9999-12-31 while it is listed.
    """

    delisted_on = dy.Date(nullable=False, primary_key=True)
    company_name = dy.String(nullable=True)
    exchange = dy.String(nullable=True)
    asset_type = dy.String(nullable=True)
    listed_on = dy.Date(nullable=True)
    status = dy.String(nullable=False)

    @dy.rule()
    def status_is_that_of_the_list(cls) -> pl.Expr:
        """Hold the status against the list that the row stands in."""
        return pl.format("listings/{}", "status") == pl.col("dataset")

    @dy.rule()
    def only_what_is_listed_has_no_end(cls) -> pl.Expr:
        """Hold the status against the end."""
        return (pl.col("status") == "active") == (pl.col("delisted_on") == STILL_LISTED)


class Companies(ReadableRow):
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
