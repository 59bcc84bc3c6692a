"""Frames into PostgreSQL tables, through dlt: one COPY, or COPY into staging and one MERGE.

What dlt 1.31 needs of its caller, each learnt from a load that went wrong:
- ADBC writes binary without casting, so a frame's types are held against the table's first.
- A primary key hint makes no index, so the table and its key are there before.
- A staging schema or pipelines folder that two loads share loses rows: each load has its own.
- Duplicate keys fail the MERGE: the frames come deduplicated, sorted by key.
"""

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Self

import dlt
import polars as pl
import pyarrow as pa
from dlt.common.schema.typing import TUpsertStrategyDict, TWriteDispositionDict
from psycopg.sql import SQL, Identifier

from stocks_assets.adapters.warehouse import Warehouse, where

# Type of each column, and whether it may be null.
_Fields = Mapping[str, tuple[pl.DataType, bool]]
_POLARS_TYPES: Mapping[str, pl.DataType] = {
    "text": pl.String(),
    "date": pl.Date(),
    "boolean": pl.Boolean(),
    "bigint": pl.Int64(),
    "double precision": pl.Float64(),
    "timestamp with time zone": pl.Datetime("us", "UTC"),
}


class Loader:
    """Loads frames into one table, many in turn; what it needs of dlt is made once."""

    def __init__(
        self, warehouse: Warehouse, schema: str, table: str, primary_key: Sequence[str]
    ) -> None:
        self._warehouse = warehouse
        self._schema = schema
        self._table = table
        self._primary_key = list(primary_key)
        self._opened = ExitStack()
        self._fields: _Fields = {}
        self._pipelines: dict[str, dlt.Pipeline] = {}
        self._thread: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def prepare(self) -> None:
        """Begin to make what an append needs, which the first one then waits for.

        What fails of it fails again there.
        """
        self._dlt().submit(self._make_ready, "append")

    def merge(self, frame: pl.DataFrame) -> None:
        """Merge `frame` into the table by its key; merges at the same time have no key in common.

        The frame has each column of the table, in its type, and no key twice. A row that says
        nothing new stays as it is: its `row_version` is what is stored, or each of its values
        where the table has no such column.

        Raises:
            TypeError: the frame's columns are not the table's.
        """
        disposition: TUpsertStrategyDict = {
            "disposition": "merge",
            "strategy": "upsert",
            "skip_unchanged_rows": True,
        }
        if "row_version" in frame.columns:
            disposition["row_version_column_name"] = "row_version"
        self._load(frame, disposition)

    def append(self, frame: pl.DataFrame) -> None:
        """Add `frame`, whose keys the table has not, in one COPY: all of it is added, or nothing.

        It costs half of what a merge costs, which copies every row twice. The frame has each
        column of the table, in its type, and no key twice.

        Raises:
            TypeError: the frame's columns are not the table's.
        """
        self._load(frame, {"disposition": "append"})

    def _load(self, frame: pl.DataFrame, disposition: TWriteDispositionDict) -> None:
        if frame.is_empty():
            return
        if not self._fields:
            self._fields = _fields(self._warehouse, self._schema, self._table)
        name = f"{self._schema}.{self._table}"
        rows = [_as_arrow(frame.sort(self._primary_key), self._fields, name)]
        try:
            self._dlt().submit(self._run, rows, disposition).result()
        except BaseException:
            # What the pipeline has of a load that failed would go ahead of the next one.
            self._close()
            raise

    def _dlt(self) -> ThreadPoolExecutor:
        """Return the thread that dlt runs in."""
        if self._thread is None:
            self._thread = self._opened.enter_context(
                ThreadPoolExecutor(1, thread_name_prefix=f"dlt-{self._table}")
            )
        return self._thread

    def _make_ready(self, kind: str) -> dlt.Pipeline:
        if kind not in self._pipelines:
            self._pipelines[kind] = self._open(kind)
        return self._pipelines[kind]

    def _run(self, rows: list[pa.Table], disposition: TWriteDispositionDict) -> None:
        """Take the rows out of the list and load them.

        dlt looks for settings by catching exceptions; their tracebacks keep all frames up to here,
        and what these hold, until Python looks for cycles. So no frame is to hold the rows.
        """
        pipeline = self._make_ready(disposition["disposition"])
        resource = dlt.resource(
            _taken_from(rows),
            name=self._table,
            primary_key=self._primary_key,
            write_disposition=disposition,
        )
        with self._alone_at_first() if pipeline.first_run else nullcontext():
            done = pipeline.run(resource, loader_file_format="parquet")
        done.raise_on_failed_jobs()

    def _open(self, kind: str) -> dlt.Pipeline:
        """Make a pipeline with a folder and, to merge, a staging table that no other load has."""
        name = f"{_staging_prefix(self._schema)}{uuid.uuid4().hex[:12]}"
        folder = _folder(self._warehouse) / name
        if not self._pipelines:
            _sweep(self._warehouse, self._schema)
        # Held as long as schema and folder are in use, so that nobody sweeps them.
        self._opened.enter_context(self._warehouse.lock(name))
        self._opened.callback(_remove, folder)
        if kind == "merge":
            self._make_staging_table(name)
        # Without this dlt asks the destination for a schema and a state that we do not keep there.
        dlt.config["restore_from_destination"] = False
        dlt.config["runtime.dlthub_telemetry"] = False
        dlt.config["runtime.log_level"] = "CRITICAL"  # what fails is raised
        dlt.config["normalize.workers"] = 1
        # Repeated after a crash of the server, it would merge what recovery has left of the
        # unlogged table, which is nothing, and call that done.
        dlt.config["load.raise_on_max_retries"] = 1
        return dlt.pipeline(
            pipeline_name=name,
            pipelines_dir=str(folder),
            destination=dlt.destinations.postgres(
                _credentials(self._warehouse), staging_dataset_name_layout=name
            ),
            dataset_name=self._schema,
        )

    def _make_staging_table(self, schema: str) -> None:
        self._opened.callback(_drop_schema, self._warehouse, schema)
        columns = writable_columns(self._warehouse, self._schema, self._table)
        with self._warehouse.connect() as connection:
            connection.execute(SQL("create schema {}").format(Identifier(schema)))
            # Nothing of it is to outlive a crash; logged, it would cost twice as much to write.
            connection.execute(
                SQL("create unlogged table {} as select {} from {} with no data").format(
                    Identifier(schema, self._table),
                    SQL(", ").join(map(Identifier, columns)),
                    Identifier(self._schema, self._table),
                )
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
        self._pipelines.clear()
        self._thread = None
        self._opened.close()


def _taken_from(rows: list[pa.Table]) -> Iterator[pa.Table]:
    while rows:
        yield rows.pop()


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
                _remove(folder / name)


def _remove(folder: Path) -> None:
    """Remove a load's folder, and the one of all loads when it was the last."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()


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


def _fields(warehouse: Warehouse, schema: str, table: str) -> _Fields:
    with warehouse.connect() as connection:
        columns = connection.execute(
            "select column_name, data_type, is_nullable = 'YES' from information_schema.columns "
            "where table_schema = %s and table_name = %s and is_generated = 'NEVER'",
            (schema, table),
        ).fetchall()
    return {
        name: (_POLARS_TYPES[data_type], is_nullable) for name, data_type, is_nullable in columns
    }


def _as_arrow(frame: pl.DataFrame, fields: _Fields, table: str) -> pa.Table:
    """Return `frame` with the table's own types and its NOT NULLs.

    Raises:
        TypeError: the columns are not the table's.
    """
    expected = {name: type_ for name, (type_, _) in fields.items()}
    if expected != dict(frame.schema):
        missing = sorted(expected.keys() - frame.schema.keys())
        extra = sorted(frame.schema.keys() - expected.keys())
        wrong = [
            f"{name} is {frame.schema[name]}, not {expected[name]}"
            for name in sorted(expected.keys() & frame.schema.keys())
            if frame.schema[name] != expected[name]
        ]
        raise TypeError(
            f"a frame for {table} does not fit: "
            f"missing {missing}, not in the table {extra}, of another type {wrong}"
        )
    rows = frame.to_arrow()
    return rows.cast(pa.schema([f.with_nullable(fields[f.name][1]) for f in rows.schema]))
