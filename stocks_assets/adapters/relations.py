"""What the database says of a table or view: its columns, and how many rows it has."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Identifier

from stocks_assets.adapters.warehouse import Warehouse


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view: names and types of its columns, and its rows if they were counted."""

    columns: Sequence[tuple[str, str]]
    rows: int | None


def describe(
    warehouse: Warehouse, schema: str, name: str, *, counted: tuple[str, str] | None = None
) -> Relation:
    """Return what `schema`.`name` is like now; no columns if it is not there.

    Views are dear to count: `counted`, if it is a table, has the rows in their place.
    """
    rows_of = counted or (schema, name)
    with warehouse.connect() as connection:
        columns = connection.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute "
            "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum",
            (f"{schema}.{name}",),
        ).fetchall()
        is_table = connection.execute(
            "select from pg_tables where schemaname = %s and tablename = %s", rows_of
        ).fetchone()
        rows = (
            is_table is not None
            and connection.execute(
                SQL("select count(*) from {}").format(Identifier(*rows_of))
            ).fetchone()
        )
    return Relation(columns, rows[0] if rows else None)
