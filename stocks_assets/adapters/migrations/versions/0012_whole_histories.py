"""When a whole history was last had, so that the newest rows alone can be asked for in between."""

from alembic import op

revision = "0012"
down_revision = "0011"

COLUMN = """
alter table ops.fetches add column whole_at timestamptz;
comment on column ops.fetches.whole_at is 'When the call was last answered with all that it can give: the newest rows alone may have come since.';
"""


def upgrade() -> None:
    """Add it; what was had before is asked for once more as a whole."""
    op.execute(COLUMN)
