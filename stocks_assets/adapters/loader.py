"""Frames into PostgreSQL tables, through dlt: COPY into a staging schema, then one MERGE.

What dlt 1.31 needs of its caller, each learnt from a load that went wrong:
- ADBC writes binary without casting, so a frame's types are held against the table's first.
- A primary key hint makes no index, so the table and its key are there before.
- A staging schema or pipelines folder that two loads share loses rows: each load has its own.
- Duplicate keys fail the MERGE: the frames come deduplicated, sorted by key.
"""

import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import dlt
import polars as pl
import pyarrow as pa
from dlt.common.schema.typing import TUpsertStrategyDict
from psycopg.sql import SQL, Identifier

from stocks_assets.adapters.warehouse import Warehouse

_POLARS_TYPES: Mapping[str, pl.DataType] = {
    "text": pl.String(),
    "date": pl.Date(),
    "boolean": pl.Boolean(),
    "bigint": pl.Int64(),
    "double precision": pl.Float64(),
    "timestamp with time zone": pl.Datetime("us", "UTC"),
}


def merge(
    warehouse: Warehouse,
    schema: str,
    table: str,
    frame: pl.DataFrame,
    primary_key: Sequence[str],
) -> None:
    """Merge `frame` into `<schema>.<table>` by its key. The caller lets one merge run at a time.

    The frame has each column of the table, in its type, and no key twice. A row that says nothing
    new stays as it is: its `row_version` is what is stored, or each of its values where the table
    has no such column.

    Raises:
        TypeError: the frame's columns are not the table's.
    """
    if frame.is_empty():
        return
    folder = Path(tempfile.mkdtemp(prefix="stocks-load-"))
    try:
        _sweep_staging(warehouse, schema)
        rows = _as_arrow(warehouse, schema, table, frame.sort(primary_key))
        _run(warehouse, f"{schema}.{table}", rows, primary_key, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(
    warehouse: Warehouse, target: str, rows: pa.Table, primary_key: Sequence[str], folder: Path
) -> None:
    schema, table = target.split(".")
    load = uuid.uuid4().hex[:12]
    staging = f"{_staging_prefix(schema)}{load}"
    # Without this dlt asks the destination for a schema and a state that we do not keep there.
    dlt.config["restore_from_destination"] = False
    dlt.config["runtime.dlthub_telemetry"] = False
    dlt.config["runtime.log_level"] = "CRITICAL"  # what fails is raised
    dlt.config["normalize.workers"] = 1
    pipeline = dlt.pipeline(
        pipeline_name=f"load_{load}",
        pipelines_dir=str(folder),
        destination=dlt.destinations.postgres(
            _credentials(warehouse), staging_dataset_name_layout=staging
        ),
        dataset_name=schema,
    )
    disposition: TUpsertStrategyDict = {
        "disposition": "merge",
        "strategy": "upsert",
        "skip_unchanged_rows": True,
    }
    if "row_version" in rows.column_names:
        disposition["row_version_column_name"] = "row_version"
    resource = dlt.resource(
        rows,
        name=table,
        primary_key=list(primary_key),
        write_disposition=disposition,
    )
    pipeline.run(resource, loader_file_format="parquet").raise_on_failed_jobs()
    with warehouse.connect() as connection:
        connection.execute(SQL("drop schema if exists {} cascade").format(Identifier(staging)))


def _staging_prefix(schema: str) -> str:
    return f"{schema}_stg_"


def _sweep_staging(warehouse: Warehouse, schema: str) -> None:
    """Drop what killed loads left; the lock says that none is running."""
    with warehouse.connect() as connection:
        schemas = connection.execute(
            "select nspname from pg_namespace where starts_with(nspname, %s)",
            (_staging_prefix(schema),),
        ).fetchall()
        for (name,) in schemas:
            connection.execute(SQL("drop schema {} cascade").format(Identifier(name)))


def _credentials(warehouse: Warehouse) -> dict[str, object]:
    """Return what dlt asks for, as libpq resolved it; a server may well want no password."""
    with warehouse.connect() as connection:
        info = connection.info
        return {
            "database": info.dbname,
            "username": info.user,
            "password": info.password or "none",
            "host": info.host,
            "port": info.port,
            "query": {
                name: value
                for name, value in info.get_parameters().items()
                if name in ("sslmode", "sslrootcert", "sslcert", "sslkey")
            },
        }


def _as_arrow(warehouse: Warehouse, schema: str, table: str, frame: pl.DataFrame) -> pa.Table:
    """Return `frame` with the table's own types and its NOT NULLs.

    Raises:
        TypeError: the columns are not the table's.
    """
    with warehouse.connect() as connection:
        columns = connection.execute(
            "select column_name, data_type, is_nullable = 'YES' from information_schema.columns "
            "where table_schema = %s and table_name = %s and is_generated = 'NEVER'",
            (schema, table),
        ).fetchall()
    nullable = {name: is_nullable for name, _, is_nullable in columns}
    expected = {name: _POLARS_TYPES[data_type] for name, data_type, _ in columns}
    if expected != dict(frame.schema):
        missing = sorted(expected.keys() - frame.schema.keys())
        extra = sorted(frame.schema.keys() - expected.keys())
        wrong = [
            f"{name} is {frame.schema[name]}, not {expected[name]}"
            for name in sorted(expected.keys() & frame.schema.keys())
            if frame.schema[name] != expected[name]
        ]
        raise TypeError(
            f"a frame for {schema}.{table} does not fit: "
            f"missing {missing}, not in the table {extra}, of another type {wrong}"
        )
    rows = frame.to_arrow()
    fields = [field.with_nullable(nullable[field.name]) for field in rows.schema]
    return rows.cast(pa.schema(fields))
