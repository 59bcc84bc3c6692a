"""Frames into PostgreSQL tables, through dlt: COPY into a staging schema, then one MERGE.

What dlt 1.31 needs of its caller, each learnt from a load that went wrong:
- ADBC writes binary without casting, so a frame's types are held against the table's first.
- A primary key hint makes no index, so the table and its key are there before.
- A staging schema or pipelines folder that two loads share loses rows: each load has its own.
- Duplicate keys fail the MERGE: the frames come deduplicated, sorted by key.
"""

import gc
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Self

import dlt
import polars as pl
import pyarrow as pa
from dlt.common.schema.typing import TUpsertStrategyDict
from psycopg.sql import SQL, Identifier

from stocks_assets.adapters.warehouse import Warehouse, where

# A load of more rows is copied in parts, at the same time.
_ROWS_PER_COPY = 100_000
_ROWS_UNTIL_COLLECTED = 250_000
_POLARS_TYPES: Mapping[str, pl.DataType] = {
    "text": pl.String(),
    "date": pl.Date(),
    "boolean": pl.Boolean(),
    "bigint": pl.Int64(),
    "double precision": pl.Float64(),
    "timestamp with time zone": pl.Datetime("us", "UTC"),
}


class Loader:
    """Merges frames into one table, many in turn; what it needs of dlt is made once."""

    # Rows that all loaders of the process have merged since Python last looked for cycles.
    _uncollected = 0

    def __init__(
        self, warehouse: Warehouse, schema: str, table: str, primary_key: Sequence[str]
    ) -> None:
        self._warehouse = warehouse
        self._schema = schema
        self._table = table
        self._primary_key = list(primary_key)
        self._opened = ExitStack()
        self._pipeline: dlt.Pipeline | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def merge(self, frame: pl.DataFrame) -> None:
        """Merge `frame` into the table by its key; merges at the same time have no key in common.

        The frame has each column of the table, in its type, and no key twice. A row that says
        nothing new stays as it is: its `row_version` is what is stored, or each of its values
        where the table has no such column.

        Raises:
            TypeError: the frame's columns are not the table's.
        """
        if frame.is_empty():
            return
        rows = _as_arrow(self._warehouse, self._schema, self._table, frame.sort(self._primary_key))
        disposition: TUpsertStrategyDict = {
            "disposition": "merge",
            "strategy": "upsert",
            "skip_unchanged_rows": True,
        }
        if "row_version" in rows.column_names:
            disposition["row_version_column_name"] = "row_version"
        resource = dlt.resource(
            # Each part is copied on a connection of its own.
            iter(
                rows.slice(start, _ROWS_PER_COPY) for start in range(0, len(rows), _ROWS_PER_COPY)
            ),
            name=self._table,
            primary_key=self._primary_key,
            write_disposition=disposition,
        )
        try:
            pipeline = self._pipeline = self._pipeline or self._open()
            with self._alone_at_first():
                pipeline.run(resource, loader_file_format="parquet").raise_on_failed_jobs()
        except BaseException:
            # What the pipeline has of a load that failed would go ahead of the next one.
            self._close()
            raise
        finally:
            Loader._uncollected += len(rows)
            if Loader._uncollected >= _ROWS_UNTIL_COLLECTED:
                # Cycles of dlt's hold the rows, and Python does not see how large they are.
                Loader._uncollected = 0
                del rows, resource
                gc.collect()

    def _open(self) -> dlt.Pipeline:
        """Make a pipeline with a folder and a staging table that no other load has."""
        staging = f"{_staging_prefix(self._schema)}{uuid.uuid4().hex[:12]}"
        folder = _folder(self._warehouse) / staging
        _sweep(self._warehouse, self._schema)
        # Held as long as schema and folder are in use, so that nobody sweeps them.
        self._opened.enter_context(self._warehouse.lock(staging))
        self._opened.callback(shutil.rmtree, folder, ignore_errors=True)
        self._opened.callback(_drop_schema, self._warehouse, staging)
        columns = writable_columns(self._warehouse, self._schema, self._table)
        with self._warehouse.connect() as connection:
            connection.execute(SQL("create schema {}").format(Identifier(staging)))
            # Nothing of it is to outlive a crash; logged, it would cost twice as much to write.
            connection.execute(
                SQL("create unlogged table {} as select {} from {} with no data").format(
                    Identifier(staging, self._table),
                    SQL(", ").join(map(Identifier, columns)),
                    Identifier(self._schema, self._table),
                )
            )
        # Without this dlt asks the destination for a schema and a state that we do not keep there.
        dlt.config["restore_from_destination"] = False
        dlt.config["runtime.dlthub_telemetry"] = False
        dlt.config["runtime.log_level"] = "CRITICAL"  # what fails is raised
        dlt.config["normalize.workers"] = 1
        # Repeated after a crash of the server, it would merge what recovery has left of the
        # unlogged table, which is nothing, and call that done.
        dlt.config["load.raise_on_max_retries"] = 1
        dlt.config["data_writer.file_max_items"] = _ROWS_PER_COPY
        return dlt.pipeline(
            pipeline_name=staging,
            pipelines_dir=str(folder),
            destination=dlt.destinations.postgres(
                _credentials(self._warehouse), staging_dataset_name_layout=staging
            ),
            dataset_name=self._schema,
        )

    @contextmanager
    def _alone_at_first(self) -> Iterator[None]:
        """Let one load at a time make dlt's own tables in the schema."""
        with self._warehouse.connect() as connection:
            there = connection.execute(
                "select to_regclass(%s) is not null", (f"{self._schema}._dlt_loads",)
            ).fetchone()
        with nullcontext() if there == (True,) else self._warehouse.lock(f"{self._schema} dlt"):
            yield

    def _close(self) -> None:
        self._pipeline = None
        self._opened.close()


def merge(
    warehouse: Warehouse,
    schema: str,
    table: str,
    frame: pl.DataFrame,
    primary_key: Sequence[str],
) -> None:
    """Merge one frame, as `Loader.merge` does."""
    with Loader(warehouse, schema, table, primary_key) as loader:
        loader.merge(frame)


def writable_columns(warehouse: Warehouse, schema: str, table: str) -> list[str]:
    """Return the columns of a table but those that PostgreSQL computes."""
    with warehouse.connect() as connection:
        rows = connection.execute(
            "select column_name from information_schema.columns where table_schema = %s "
            "and table_name = %s and is_generated = 'NEVER' order by ordinal_position",
            (schema, table),
        ).fetchall()
    return [name for (name,) in rows]


def _staging_prefix(schema: str) -> str:
    return f"{schema}_stg_"


def _folder(warehouse: Warehouse) -> Path:
    """Return where this machine keeps the pipelines' folders of loads into this database."""
    digest = hashlib.sha256(where(warehouse.database_url).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"stocks-loads-{os.getuid()}-{digest}"


def _sweep(warehouse: Warehouse, schema: str) -> None:
    """Remove what killed loads left: the locks of those that run are held."""
    prefix, folder = _staging_prefix(schema), _folder(warehouse)
    with warehouse.connect() as connection:
        schemas = connection.execute(
            "select nspname from pg_namespace where starts_with(nspname, %s)", (prefix,)
        ).fetchall()
    left = {name for (name,) in schemas} | {path.name for path in folder.glob(f"{prefix}*")}
    for name in left:
        with warehouse.lock_if_free(name) as is_free:
            if is_free:
                _drop_schema(warehouse, name)
                shutil.rmtree(folder / name, ignore_errors=True)


def _drop_schema(warehouse: Warehouse, name: str) -> None:
    with warehouse.connect() as connection:
        connection.execute(SQL("drop schema if exists {} cascade").format(Identifier(name)))


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
