"""What the store said that it wrote: where the next look at the bucket begins."""

from alembic import op

revision = "0011"
down_revision = "0010"

SQL = """
create table bronze.hints (
    key text primary key,
    noticed_at timestamptz not null default clock_timestamp()
);
comment on table bronze.hints is 'One row per key that an event of the store named and nobody has looked at yet: a hint where to list, and no more.';
comment on column bronze.hints.key is 'What is there, a listing says.';
comment on column bronze.hints.noticed_at is 'When the event came.';
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(SQL)
