"""What the database says of a table or view: its columns, and how many rows it has."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Identifier

from stocks_assets.adapters.warehouse import Warehouse


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view: names and types of its columns; a view's rows are not counted."""

    columns: Sequence[tuple[str, str]]
    rows: int | None


def describe(warehouse: Warehouse, schema: str, name: str) -> Relation:
    """Return what `schema`.`name` is like now; no columns if it is not there."""
    with warehouse.connect() as connection:
        columns = connection.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute "
            "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum",
            (f"{schema}.{name}",),
        ).fetchall()
        is_table = connection.execute(
            "select from pg_tables where schemaname = %s and tablename = %s", (schema, name)
        ).fetchone()
        counted = (
            is_table is not None
            and connection.execute(
                SQL("select count(*) from {}").format(Identifier(schema, name))
            ).fetchone()
        )
    return Relation(columns, counted[0] if counted else None)
