"""What the vendor was asked for and when, and until when it wants to be left alone."""

from alembic import op

revision = "0002"
down_revision = "0001"

SQL = """
create table ops.fetches (
    dataset text not null,
    ticker text not null,
    checked_at timestamptz not null,
    outcome text not null,
    reason text,
    primary key (dataset, ticker)
);
comment on table ops.fetches is 'One row per dataset and ticker: when the source was last asked, and what came of it.';

create table ops.priorities (
    ticker text primary key,
    priority text not null check (priority in ('high', 'normal', 'low'))
);
comment on table ops.priorities is 'One row per ticker whose priority was set; the others are normal.';

create table ops.vendor_pauses (
    key_digest text primary key,
    paused_until timestamptz not null
);
comment on table ops.vendor_pauses is 'One row per API key for which the vendor said that its day is spent.';
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(SQL)
