"""Objects whose keys were noted as other texts than the bucket has are forgotten."""

from alembic import op

revision = "0014"
down_revision = "0013"

SQL = """
-- Of keys dated before the year 1000, which are found again and reported.
delete from bronze.objects where key ~ '^bronze/[^/]+/[0-9]{1,3}-';
delete from ops.object_loads where bronze_key ~ '^bronze/[^/]+/[0-9]{1,3}-';
"""


def upgrade() -> None:
    """Forget what stands for no object."""
    op.execute(SQL)
