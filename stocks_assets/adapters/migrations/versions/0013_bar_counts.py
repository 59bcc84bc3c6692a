"""The daily bars counted of each ticker, and what PostgreSQL had counted of their table by then."""

from alembic import op

revision = "0013"
down_revision = "0012"

SQL = """
create table ops.bar_counts (
    ticker text primary key,
    first_date date,
    last_date date,
    bars integer not null,
    loaded_at timestamptz
);
comment on table ops.bar_counts is 'One row per ticker: its daily bars as last counted.';
comment on column ops.bar_counts.loaded_at is 'When the load before had ended: another one has its ticker counted again.';

create table ops.bar_changes (
    only_row boolean primary key default true check (only_row),
    counted_at timestamptz not null default clock_timestamp(),
    table_file bigint not null,
    inserted bigint not null,
    updated bigint not null,
    deleted bigint not null
);
comment on table ops.bar_changes is 'What PostgreSQL had counted of silver.daily_bars when ops.bar_counts were counted.';
comment on column ops.bar_changes.table_file is 'The file of the table: another one has all tickers counted again.';
"""


def upgrade() -> None:
    """Make the tables; all is counted at the next look."""
    op.execute(SQL)
