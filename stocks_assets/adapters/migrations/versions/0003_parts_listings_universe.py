"""Datasets in parts, monthly and intraday bars, the market's listings, and the universe's file."""

from alembic import op

revision = "0003"
down_revision = "0002"

PROVENANCE = """
    row_version bigint not null,
    bronze_key text not null,
    load_id text not null,
    loaded_at timestamptz not null,"""

SQL = f"""
alter table bronze.objects add column part text not null default '';
comment on column bronze.objects.ticker is 'Empty for a dataset of the whole market.';
comment on column bronze.objects.part is 'What the object has of its dataset, such as the month 2024-03; empty: all of it.';
drop index bronze.objects_dataset_ticker_fetched_at_idx;
create index on bronze.objects (dataset, ticker, part, fetched_at desc);

alter table ops.fetches add column part text not null default '';
alter table ops.fetches drop constraint fetches_pkey;
alter table ops.fetches add primary key (dataset, ticker, part);
alter table ops.fetches add column had_at timestamptz, add column failures integer not null default 0;
update ops.fetches set had_at = checked_at where outcome = 'Data';
comment on column ops.fetches.had_at is 'When the call was last answered with data.';
comment on column ops.fetches.failures is 'How often it has failed since.';
comment on table ops.fetches is 'One row per dataset, ticker and part: when the source was last asked, and what came of it.';

create table silver.monthly_bars (
    ticker text not null,
    month_start date not null check (extract(day from month_start) = 1),
    session_date date not null check (date_trunc('month', session_date::timestamp) = month_start),
    open double precision not null,
    high double precision not null,
    low double precision not null,
    close double precision not null,
    adjusted_close double precision not null,
    volume bigint not null,
    dividend_amount double precision not null,{PROVENANCE}
    primary key (ticker, month_start)
);
comment on table silver.monthly_bars is 'One row per ticker and month, raw prices as traded.';
comment on column silver.monthly_bars.month_start is 'First of the month: the key, which does not move while the month runs.';
comment on column silver.monthly_bars.session_date is 'The last session of the month so far, the vendor''s label.';
comment on column silver.monthly_bars.adjusted_close is 'Close adjusted by the vendor for dividends and splits, as of the reply.';

create table silver.intraday_bars (
    ticker text not null,
    starts_at timestamptz not null,
    session_date date not null,
    open double precision not null,
    high double precision not null,
    low double precision not null,
    close double precision not null,
    volume bigint not null,{PROVENANCE}
    primary key (ticker, starts_at)
);
comment on table silver.intraday_bars is 'One row per ticker and five minutes of a session, raw prices as traded.';
comment on column silver.intraday_bars.session_date is 'The day in New York.';

create table silver.listings (
    ticker text not null,
    delisted_on date not null,
    company_name text,
    exchange text,
    asset_type text,
    listed_on date,
    status text not null check (status in ('active', 'delisted')),{PROVENANCE}
    primary key (ticker, delisted_on),
    check ((status = 'active') = (delisted_on = '9999-12-31'))
);
comment on table silver.listings is 'One row per listing of a security: a ticker, from when on and until when it had it.';
comment on column silver.listings.delisted_on is '9999-12-31 while it is listed.';
comment on column silver.listings.listed_on is 'The vendor''s ipoDate, where it gives one.';

create table ops.universe_file (
    ticker text primary key
);
comment on table ops.universe_file is 'The tickers that the universe''s file named when it was last applied.';
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(SQL)
