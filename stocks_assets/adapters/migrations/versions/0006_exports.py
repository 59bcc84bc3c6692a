"""What was exported: which object holds which rows, and up to which change of gold."""

from alembic import op

revision = "0006"
down_revision = "0005"

SQL = """
create table ops.exported_objects (
    bucket text not null,
    key text not null,
    table_name text not null,
    ticker text,
    sha256 text not null,
    etag text not null,
    row_count bigint not null,
    size_bytes bigint not null,
    change_id bigint not null,
    built_by text not null,
    exported_at timestamptz not null default clock_timestamp(),
    primary key (bucket, key)
);
comment on table ops.exported_objects is 'One row per object written to a bucket, which is told by its identity: the rows in it are those that the table had after change_id of ops.gold_changes.';
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(SQL)
