"""Stand-ins for silver tables that gold reads and that are made elsewhere: listings, months."""

from alembic import op

revision = "0003"
down_revision = "0002"

PROVENANCE = """
    row_version bigint not null,
    bronze_key text not null,
    load_id text not null,
    loaded_at timestamptz not null,"""

SQL = f"""
create table silver.listings (
    ticker text not null,
    delisted_on date not null,
    company_name text,
    exchange text,
    asset_type text,
    listed_on date,
    status text not null check (status in ('active', 'delisted')),{PROVENANCE}
    primary key (ticker, delisted_on)
);
create table silver.monthly_bars (
    ticker text not null,
    month_start date not null,
    session_date date not null,
    open double precision not null,
    high double precision not null,
    low double precision not null,
    close double precision not null,
    adjusted_close double precision not null,
    volume bigint not null,
    dividend_amount double precision not null,{PROVENANCE}
    primary key (ticker, month_start)
);
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(SQL)
