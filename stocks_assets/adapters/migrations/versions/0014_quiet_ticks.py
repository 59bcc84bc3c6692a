"""Indexes by which a tick finds what people were not told of, and keys that stand for no object."""

from alembic import op

revision = "0014"
down_revision = "0013"

SQL = """
-- Of keys dated before the year 1000, which are found again and reported.
delete from bronze.objects where key ~ '^bronze/[^/]+/[0-9]{1,3}-';
delete from ops.object_loads where bronze_key ~ '^bronze/[^/]+/[0-9]{1,3}-';

drop index bronze.notices_noticed_at_idx;
create index on bronze.notices (coalesce(reported_at, 'infinity'));
create index on ops.object_loads (coalesce(reported_at, 'infinity')) where loaded_at is null and not is_refused;
-- What PostgreSQL knows of the values in an index tells it when to use it.
analyze bronze.notices, ops.object_loads;
"""


def upgrade() -> None:
    """Make the indexes, and forget what stands for no object."""
    op.execute(SQL)
