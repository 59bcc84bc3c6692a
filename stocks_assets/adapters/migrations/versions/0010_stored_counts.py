"""How many rows a table had of a ticker after its last load, so that lost ones are seen."""

from alembic import op

revision = "0010"
down_revision = "0009"

TABLES = (
    "weekly_bars",
    "monthly_bars",
    "daily_bars",
    "intraday_bars",
    "corporate_actions",
    "companies",
)

COLUMN = """
alter table ops.silver_loads add column stored_count integer;
comment on column ops.silver_loads.row_count is 'Rows in those objects.';
comment on column ops.silver_loads.stored_count is 'Rows that the table had of the ticker after the load.';
"""

# Rows that are lost already are not missed.
COUNTS = "".join(
    f"""
update ops.silver_loads loads set stored_count = held.count
from (select ticker, count(*) from silver.{table} group by ticker) held
where loads.table_name = '{table}' and loads.ticker = held.ticker;
"""
    for table in TABLES
)


def upgrade() -> None:
    """Add it, and count what is there."""
    op.execute(COLUMN + COUNTS)
