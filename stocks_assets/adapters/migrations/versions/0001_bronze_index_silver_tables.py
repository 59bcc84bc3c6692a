"""The index of bronze objects, the silver tables, and what runs leave behind."""

from alembic import op

revision = "0001"
down_revision = None

# row_version is a hash of the business columns: a load rewrites just the rows where it differs.
PROVENANCE = """
    row_version bigint not null,
    bronze_key text not null,
    load_id text not null,
    loaded_at timestamptz not null,"""

SQL = f"""
create schema bronze;
comment on schema bronze is 'What the bucket holds: an index that can be rebuilt from a listing.';
create schema silver;
comment on schema silver is 'Typed tables, one row a business key, loaded from bronze objects.';

create table bronze.objects (
    key text primary key,
    dataset text not null,
    ticker text not null,
    fetched_at timestamptz not null,
    content_hash text not null
);
comment on table bronze.objects is 'One row per bronze object: a reply of the vendor, kept as it came.';
create index on bronze.objects (dataset, ticker, fetched_at desc);
create index on bronze.objects (dataset, fetched_at desc);

create table bronze.indexed_bucket (
    identity text not null,
    only_row boolean primary key default true check (only_row)
);
comment on table bronze.indexed_bucket is 'The one bucket that bronze.objects speaks of.';

create table silver.weekly_bars (
    ticker text not null,
    week_start date not null check (extract(isodow from week_start) = 1),
    session_date date not null check (session_date between week_start and week_start + 6),
    open double precision not null,
    high double precision not null,
    low double precision not null,
    close double precision not null,
    adjusted_close double precision not null,
    volume bigint not null,
    dividend_amount double precision not null,{PROVENANCE}
    primary key (ticker, week_start)
);
comment on table silver.weekly_bars is 'One row per ticker and week, raw prices as traded.';
comment on column silver.weekly_bars.week_start is 'Monday of the week: the key, which does not move while the week runs.';
comment on column silver.weekly_bars.session_date is 'The last session of the week so far, the vendor''s label.';
comment on column silver.weekly_bars.adjusted_close is 'Close adjusted by the vendor for dividends and splits, as of the reply.';

create table silver.daily_bars (
    ticker text not null,
    session_date date not null,
    open double precision not null,
    high double precision not null,
    low double precision not null,
    close double precision not null,
    adjusted_close double precision,
    volume bigint not null,
    dividend_amount double precision,
    split_coefficient double precision,{PROVENANCE}
    primary key (ticker, session_date)
);
comment on table silver.daily_bars is 'One row per ticker and trading session, raw prices as traded.';
comment on column silver.daily_bars.adjusted_close is 'Null where the endpoint of the key does not give it.';

create table silver.corporate_actions (
    ticker text not null,
    ex_date date not null,
    action_type text not null check (action_type in ('dividend', 'split')),
    dividend_amount double precision check (dividend_amount > 0),
    split_ratio double precision check (split_ratio > 0),
    declaration_date date,
    record_date date,
    payment_date date,{PROVENANCE}
    primary key (ticker, ex_date, action_type),
    check ((action_type = 'dividend') = (dividend_amount is not null)),
    check ((action_type = 'split') = (split_ratio is not null))
);
comment on table silver.corporate_actions is 'One row per ticker, ex-date and kind of action.';
comment on column silver.corporate_actions.dividend_amount is 'Cash per share after that day''s split.';
comment on column silver.corporate_actions.split_ratio is 'New shares per old share: 2 for a 2:1 split, 0.125 for a 1:8 reverse split.';

create table silver.companies (
    ticker text primary key,
    company_name text not null,
    description text,
    asset_type text,
    exchange text,
    currency text,
    country text,
    sector text,
    industry text,
    cik text,
    official_site text,
    fiscal_year_end text,
    latest_quarter date,
    market_capitalization bigint,
    shares_outstanding bigint,
    revenue_ttm bigint,
    ebitda bigint,
    eps double precision,
    pe_ratio double precision,
    book_value double precision,
    dividend_per_share double precision,
    dividend_yield double precision,
    profit_margin double precision,
    beta double precision,
    dividend_date date,
    ex_dividend_date date,{PROVENANCE.rstrip(",")}
);
comment on table silver.companies is 'One row per ticker: the company behind it, as the vendor last described it.';

create table silver.exchange_calendar (
    calendar_date date primary key,
    is_session boolean not null,
    is_early_close boolean not null,
    holiday_name text,
    opens_at timestamptz,
    closes_at timestamptz
);
comment on table silver.exchange_calendar is 'One row per calendar date: whether the New York Stock Exchange trades, and when.';

create table silver.rejected_rows (
    bronze_key text not null,
    table_name text not null,
    ticker text not null,
    row_values jsonb not null,
    rules text[] not null,
    rejected_at timestamptz not null default now()
);
comment on table silver.rejected_rows is 'One row per row of a payload that broke a rule and was left out of its table.';
create index on silver.rejected_rows (table_name, ticker);

create table ops.silver_loads (
    table_name text not null,
    ticker text not null,
    bronze_keys text[] not null,
    row_count integer not null,
    rejected_count integer not null,
    first_date date,
    last_date date,
    loaded_at timestamptz not null default clock_timestamp(),
    primary key (table_name, ticker)
);
comment on table ops.silver_loads is 'One row per silver table and ticker: the objects its rows were last loaded from.';

create table ops.gold_builds (
    ticker text primary key,
    built_at timestamptz not null,
    built_by text not null
);
comment on table ops.gold_builds is 'One row per ticker: gold holds all that silver had at built_at.';
comment on column ops.gold_builds.built_by is 'Digest of the dbt project that built it.';

create table ops.batches (
    batch_id text not null,
    ticker text not null,
    created_at timestamptz not null default now(),
    primary key (batch_id, ticker)
);
comment on table ops.batches is 'One row per ticker of a dbt run: the tickers that its incremental models rebuild.';

create table ops.failures (
    run_id text not null,
    asset text not null,
    ticker text not null,
    reason text not null,
    failed_at timestamptz not null default clock_timestamp(),
    primary key (run_id, asset, ticker)
);
comment on table ops.failures is 'One row per ticker that an asset failed for in a run, and why.';
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(SQL)
