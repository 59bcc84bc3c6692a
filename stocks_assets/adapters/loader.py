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

SCHEMA = "silver"
_STAGING_PREFIX = f"{SCHEMA}_stg_"
_POLARS_TYPES: Mapping[str, pl.DataType] = {
    "text": pl.String(),
    "date": pl.Date(),
    "boolean": pl.Boolean(),
    "bigint": pl.Int64(),
    "double precision": pl.Float64(),
    "timestamp with time zone": pl.Datetime("us", "UTC"),
}


def upsert(
    warehouse: Warehouse,
    table: str,
    frame: pl.DataFrame,
    primary_key: Sequence[str],
    *,
    whole_tickers: Sequence[str] = (),
) -> None:
    """Merge `frame` into `silver.<table>` by its key; a row that says nothing new stays as it is.

    A row says nothing new if its `row_version` is what is stored, or each of its values where the
    table has no such column. The frame has each column of the table, in its type, and no key twice.
    Of `whole_tickers` the frame has all rows there are: those stored beyond them are deleted, so
    that histories of two payloads do not mix. One load runs at a time.

    Raises:
        TypeError: the frame's columns are not the table's.
    """
    folder = Path(tempfile.mkdtemp(prefix="stocks-load-"))
    try:
        with warehouse.lock("silver load"):
            if not frame.is_empty():
                _sweep_staging(warehouse)
                rows = _as_arrow(warehouse, table, frame.sort(primary_key))
                _run(warehouse, table, rows, primary_key, folder)
            if whole_tickers:
                _delete_beyond(warehouse, table, frame, primary_key, whole_tickers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _delete_beyond(
    warehouse: Warehouse,
    table: str,
    frame: pl.DataFrame,
    primary_key: Sequence[str],
    tickers: Sequence[str],
) -> None:
    """Delete what is stored of `tickers` and is not in `frame`; the key is more than the ticker.

    After the merge each row of the frame is stored, so equal counts say that nothing else is.
    """
    given = dict(frame.group_by("ticker").len().iter_rows())
    name = Identifier(SCHEMA, table)
    with warehouse.connect() as connection:
        stored = connection.execute(
            SQL("select ticker, count(*) from {} where ticker = any(%s) group by 1").format(name),
            (list(tickers),),
        ).fetchall()
        rest = [column for column in primary_key if column != "ticker"]
        statement = SQL(
            "delete from {table} stored where ticker = %s and not exists (select from "
            "unnest({arrays}) as given ({columns}) where ({stored}) = ({given}))"
        ).format(
            table=name,
            arrays=SQL(", ").join(
                SQL("%s::date[]" if frame.schema[column] == pl.Date else "%s::text[]")
                for column in rest
            ),
            columns=SQL(", ").join(map(Identifier, rest)),
            stored=SQL(", ").join(Identifier("stored", column) for column in rest),
            given=SQL(", ").join(Identifier("given", column) for column in rest),
        )
        for ticker in [ticker for ticker, count in stored if count > given.get(ticker, 0)]:
            keys = frame.filter(pl.col("ticker") == ticker)
            connection.execute(statement, (ticker, *(keys[column].to_list() for column in rest)))


def _run(
    warehouse: Warehouse, table: str, rows: pa.Table, primary_key: Sequence[str], folder: Path
) -> None:
    load = uuid.uuid4().hex[:12]
    staging = f"{_STAGING_PREFIX}{load}"
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
        dataset_name=SCHEMA,
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


def _sweep_staging(warehouse: Warehouse) -> None:
    """Drop what killed loads left; the lock says that none is running."""
    with warehouse.connect() as connection:
        schemas = connection.execute(
            "select nspname from pg_namespace where starts_with(nspname, %s)", (_STAGING_PREFIX,)
        ).fetchall()
        for (schema,) in schemas:
            connection.execute(SQL("drop schema {} cascade").format(Identifier(schema)))


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


def _as_arrow(warehouse: Warehouse, table: str, frame: pl.DataFrame) -> pa.Table:
    """Return `frame` with the table's own types and its NOT NULLs.

    Raises:
        TypeError: the columns are not the table's.
    """
    with warehouse.connect() as connection:
        columns = connection.execute(
            "select column_name, data_type, is_nullable = 'YES' from information_schema.columns "
            "where table_schema = %s and table_name = %s",
            (SCHEMA, table),
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
            f"a frame for {SCHEMA}.{table} does not fit: "
            f"missing {missing}, not in the table {extra}, of another type {wrong}"
        )
    rows = frame.to_arrow()
    fields = [field.with_nullable(nullable[field.name]) for field in rows.schema]
    return rows.cast(pa.schema(fields))
