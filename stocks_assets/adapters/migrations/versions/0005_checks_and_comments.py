"""Silver's remaining checks, a comment on each of its columns, and events apart from other columns."""

from alembic import op

revision = "0005"
down_revision = "0004"

# Above all numbers is infinity, and above that, for PostgreSQL, what is no number at all. Rows that
# loads wrote before these checks were checked by the schemas alike.
PRICES = "".join(
    f"""
alter table silver.{table} drop constraint {replaced}, add constraint prices_are_sound check (
    low > 0 and open between low and high and close between low and high and high < 'infinity'
    and volume >= 0);
"""
    for table, replaced in (
        ("weekly_bars", "weekly_bars_check1"),
        ("monthly_bars", "monthly_bars_check1"),
        ("daily_bars", "daily_bars_check"),
        ("intraday_bars", "intraday_bars_check"),
    )
)

ADJUSTED = "".join(
    f"""
alter table silver.{table}
    add constraint adjusted_close_is_sound
        check (adjusted_close >= 0 and adjusted_close < 'infinity'),
    add constraint dividend_amount_is_sound
        check (dividend_amount >= 0 and dividend_amount < 'infinity');
"""
    for table in ("weekly_bars", "monthly_bars", "daily_bars")
)

CHECKS = """
alter table silver.daily_bars add constraint split_coefficient_is_sound
    check (split_coefficient > 0 and split_coefficient < 'infinity');
alter table silver.intraday_bars add constraint session_date_is_the_day_in_new_york
    check (session_date = (starts_at at time zone 'America/New_York')::date);
alter table silver.corporate_actions add constraint amounts_are_finite
    check (dividend_amount < 'infinity' and split_ratio is null
        or split_ratio < 'infinity' and dividend_amount is null);
alter table silver.exchange_calendar
    add constraint sessions_open_and_close check (
        is_session = (opens_at is not null) and is_session = (closes_at is not null)
        and (opens_at < closes_at) is not false),
    add constraint only_sessions_close_early check (is_session or not is_early_close),
    add constraint holidays_have_no_session check (holiday_name is null or not is_session);
alter table silver.rejected_rows
    add constraint a_rule_is_broken check (cardinality(rules) > 0);
alter table silver.superseded_rows
    add constraint class_is_known check (class in
        ('running period', 'other columns', 'vendor correction', 'rounding', 'removed')),
    add constraint only_what_is_removed_has_no_new_row
        check ((class = 'removed') = (new_row is null));
alter table silver.restated_closes
    add constraint class_is_known check (class in
        ('dividend', 'split', 'dividend and split', 'rounding', 'vendor correction')),
    add constraint each_key_has_both_values check (
        cardinality(keys) > 0 and cardinality(keys) = cardinality(old_values)
        and cardinality(keys) = cardinality(new_values));
"""

# What a payload of raw prices does not give is neither corrected nor restated by it.
EVENTS = """
create function silver.changed_columns(old_row jsonb, new_row jsonb)
returns setof text language sql immutable
begin atomic
    select changed.key
    from jsonb_each(old_row) as changed
    where new_row is null
        or (
            new_row -> changed.key is distinct from changed.value
            and not (
                changed.key in ('adjusted_close', 'dividend_amount', 'split_coefficient')
                and 'null'::jsonb in (changed.value, new_row -> changed.key)
            )
            -- An adjusted close that changes under the same close is in silver.restated_closes.
            and (
                changed.key <> 'adjusted_close'
                or new_row -> 'close' is distinct from old_row -> 'close'
            )
        );
end;
comment on function silver.changed_columns is
    'The columns of a row of silver.superseded_rows that say something else in the new row.';

create or replace view silver.restatements as
select
    table_name, ticker, restated_at, class, array['adjusted_close'] as columns,
    cardinality(keys) as rows_changed, keys[1]::text as first_key,
    keys[cardinality(keys)]::text as last_key, new_values[1] / nullif(old_values[1], 0) as factor,
    old_bronze_keys, new_bronze_key
from silver.restated_closes
union all
select
    table_name, ticker, superseded_at, class,
    array(
        select distinct changed
        from unnest(array_agg(old_row), array_agg(new_row)) as pair (old_row, new_row),
            silver.changed_columns(pair.old_row, pair.new_row) as changed
        order by changed
    ),
    count(*), min(row_key), max(row_key), null, array_agg(distinct old_bronze_key), new_bronze_key
from silver.superseded_rows
where class not in ('running period', 'other columns')
group by table_name, ticker, superseded_at, class, new_bronze_key;

create or replace view silver.restated_values as
select
    table_name, ticker, restated_at, class, period::text as row_key,
    'adjusted_close' as column_name, old_value::text as old_value, new_value::text as new_value,
    old_bronze_keys[cardinality(old_bronze_keys)] as old_bronze_key, new_bronze_key
from silver.restated_closes, unnest(keys, old_values, new_values) as line (period, old_value, new_value)
union all
select
    table_name, ticker, superseded_at, class, row_key, changed, old_row ->> changed,
    new_row ->> changed, old_bronze_key, new_bronze_key
from silver.superseded_rows, silver.changed_columns(old_row, new_row) as changed
where class not in ('running period', 'other columns');
"""

BARS = {
    "open": "First price of the {period}, in the currency of the listing.",
    "high": "Highest price of the {period}, in the currency of the listing.",
    "low": "Lowest price of the {period}, in the currency of the listing.",
    "close": "Last price of the {period}, in the currency of the listing.",
    "volume": "Shares traded in the {period}.",
}
DIVIDENDS = {
    "dividend_amount": "Cash dividends per share whose ex-dates are in the {period}, in the currency of the listing."
}
PERIODS = {
    "weekly_bars": ("week", BARS | DIVIDENDS),
    "monthly_bars": ("month", BARS | DIVIDENDS),
    "daily_bars": ("session", BARS | DIVIDENDS),
    "intraday_bars": ("five minutes", BARS),
}
COLUMNS = {
    "daily_bars": {
        "session_date": "The session.",
        "adjusted_close": "Close adjusted by the vendor for dividends and splits, or as a file has it, as of the "
        "reply; null where its endpoint does not give it. Of a ticker whose vendor rows end in null it is out of "
        "date: it is as of an older reply than the prices after it.",
        "split_coefficient": "New shares per old share, 1 without a split; null where the endpoint does not give it.",
    },
    "intraday_bars": {"starts_at": "When the five minutes begin."},
    "corporate_actions": {
        "ex_date": "First session without the dividend, or on the scale of the split; may be in the future.",
        "action_type": "dividend or split.",
        "declaration_date": "When the dividend was declared.",
        "record_date": "Whoever holds the share on this day is paid.",
        "payment_date": "When the dividend is paid.",
    },
    "listings": {
        "company_name": "Name of the security.",
        "exchange": "Exchange, as the vendor calls it.",
        "asset_type": "Stock or ETF.",
        "status": "active or delisted.",
    },
    "companies": {
        "company_name": "Name of the company.",
        "description": "What it does, in the vendor''s words.",
        "asset_type": "Kind of security, as the vendor calls it.",
        "exchange": "Exchange, as the vendor calls it.",
        "currency": "Currency of the amounts.",
        "country": "Country of the company.",
        "sector": "Sector, as the vendor calls it.",
        "industry": "Industry, as the vendor calls it.",
        "cik": "Central Index Key at the SEC.",
        "official_site": "Address of its site.",
        "fiscal_year_end": "Month in which its fiscal year ends.",
        "latest_quarter": "Last day of the newest quarter reported.",
        "market_capitalization": "Value of its shares, in currency.",
        "shares_outstanding": "Shares outstanding.",
        "revenue_ttm": "Revenue of the last four quarters, in currency.",
        "ebitda": "Earnings before interest, taxes, depreciation and amortization, in currency.",
        "eps": "Earnings per share, in currency.",
        "pe_ratio": "Price over earnings per share.",
        "book_value": "Book value per share, in currency.",
        "dividend_per_share": "Dividends per share and year, in currency.",
        "dividend_yield": "Dividends per share and year, as a share of the price.",
        "profit_margin": "Profit as a share of revenue.",
        "beta": "Beta against the market, as the vendor computes it.",
        "dividend_date": "When the last dividend announced is paid.",
        "ex_dividend_date": "Its ex-date.",
    },
    "exchange_calendar": {
        "calendar_date": "Each day from 1960 to the end of next year.",
        "is_session": "Whether the exchange opens.",
        "is_early_close": "Whether it closes earlier than on other days.",
        "holiday_name": "Why it stays shut on a weekday.",
        "opens_at": "When it opens; null without a session.",
        "closes_at": "When it closes; null without a session.",
    },
    "rejected_rows": {
        "bronze_key": "The object that the row stands in.",
        "table_name": "The silver table that did not take it.",
        "ticker": "The ticker; empty for what is of the whole market.",
        "row_values": "The row as it was written.",
        "rules": "The rules that it breaks.",
        "rejected_at": "When it was rejected.",
    },
    "superseded_rows": {
        "table_name": "The silver table.",
        "ticker": "The ticker.",
        "class": "running period, other columns (a payload of an endpoint or file that gives more or fewer of them), "
        "vendor correction, rounding or removed.",
        "old_row": "The row as it was.",
        "old_bronze_key": "The object that said so.",
        "new_bronze_key": "The object that says otherwise.",
    },
    "restated_closes": {
        "table_name": "The silver table.",
        "ticker": "The ticker.",
        "restated_at": "When the object came.",
        "class": "dividend, split, dividend and split, rounding or vendor correction.",
        "old_values": "Their adjusted closes before.",
        "new_values": "Their adjusted closes from then on.",
        "old_bronze_keys": "The objects that said the old values.",
        "new_bronze_key": "The object that said the new ones.",
    },
    "restatements": {
        "table_name": "The silver table.",
        "ticker": "The ticker.",
        "restated_at": "When the object came.",
        "class": "dividend, split, dividend and split, vendor correction, rounding or removed.",
        "columns": "The columns that say something else.",
        "rows_changed": "How many rows do.",
        "first_key": "The first of their keys beside the ticker.",
        "last_key": "The last of them.",
        "factor": "New over old adjusted close of the first key; null for other columns.",
        "old_bronze_keys": "The objects that said the old values.",
        "new_bronze_key": "The object that said the new ones.",
    },
    "restated_values": {
        "table_name": "The silver table.",
        "ticker": "The ticker.",
        "restated_at": "When the object came.",
        "class": "As in silver.restatements.",
        "row_key": "The primary key beside the ticker.",
        "column_name": "The column.",
        "old_value": "What it said.",
        "new_value": "What it says from then on; null where the row is gone.",
        "old_bronze_key": "The object that said the old value.",
        "new_bronze_key": "The object that said the new one.",
    },
}
LOADED = (
    "weekly_bars",
    "monthly_bars",
    "daily_bars",
    "intraday_bars",
    "corporate_actions",
    "companies",
    "listings",
)


def comments() -> str:
    """Return the comments on columns that have none yet, or an outdated one."""
    said = [
        (table, "ticker", "The listing''s symbol, as the vendor writes it.") for table in LOADED
    ]
    said += [
        (table, column, text.format(period=period))
        for table, (period, texts) in PERIODS.items()
        for column, text in texts.items()
    ]
    said += [
        (table, column, text) for table, texts in COLUMNS.items() for column, text in texts.items()
    ]
    return "".join(
        f"comment on column silver.{table}.{column} is '{text}';\n" for table, column, text in said
    )


def upgrade() -> None:
    """Make them."""
    op.execute(PRICES + ADJUSTED + CHECKS + EVENTS + comments())
