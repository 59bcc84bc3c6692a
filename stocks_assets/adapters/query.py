"""A statement's rows, batch by batch: to be shown, or written as CSV, JSON or Parquet."""

import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, NoReturn, cast

import polars as pl
import psycopg
import pyarrow.parquet as pq
from psycopg import postgres
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.types.numeric import FloatLoader
from psycopg.types.string import TextLoader

from stocks_assets.adapters.warehouse import connect
from stocks_assets.domain.exports import Format
from stocks_assets.errors import QueryError

_BATCH_ROWS, _ROWS_AT_ONCE = 10_000, 500
_DTYPES: Mapping[str, pl.DataType] = {
    "bool": pl.Boolean(),
    "int2": pl.Int16(),
    "int4": pl.Int32(),
    "int8": pl.Int64(),
    "float4": pl.Float32(),
    "float8": pl.Float64(),
    "numeric": pl.Float64(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us"),
    "timestamptz": pl.Datetime("us", "UTC"),
}
_NUMBERS = ("int2", "int4", "int8", "float4", "float8", "numeric")
_BOOLEAN = "bool"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result; of two with one name the second has another one here."""

    name: str
    is_number: bool
    dtype: pl.DataType


@dataclass(frozen=True, slots=True)
class Result:
    """What a statement returns: `batches` are frames of `columns` that come as they are read."""

    columns: Sequence[Column]
    batches: Iterator[pl.DataFrame]

    @property
    def schema(self) -> pl.Schema:
        """Return names and types of the columns."""
        return pl.Schema({column.name: column.dtype for column in self.columns})


@contextmanager
def run(database_url: str, statement: str, *, as_text: bool = False) -> Iterator[Result]:
    """Yield what one `statement` returns; what is not read of it in the block is cancelled.

    Types are those that Polars has for PostgreSQL's: `numeric` is a 64-bit float, arrays are lists,
    and what Polars has no type for is text. With `as_text` all but booleans is PostgreSQL's text.

    Raises:
        QueryError: PostgreSQL refuses it, or goes away, or it returns no rows by its nature.
        StackError: no connection can be made.
    """
    if not statement.strip().strip(";"):
        raise QueryError("there is no statement")
    try:
        encoded = statement.encode()
    except UnicodeEncodeError as error:
        raise QueryError("the statement is not text in UTF-8") from error
    with connect(database_url) as connection:
        try:
            columns = _columns(connection, encoded, as_text=as_text)
            cursor = connection.cursor()
            for info in postgres.types:
                _choose_loaders(cursor, info, as_text=as_text)
            if not columns:
                _refuse(cursor, encoded)
            rows = cursor.stream(encoded, size=_ROWS_AT_ONCE)
            schema = {column.name: column.dtype for column in columns}
            with closing(cast("Generator[tuple[object, ...]]", rows)):
                yield Result(columns, _batches(rows, schema))
        except psycopg.Error as error:
            raise QueryError(explain(error, statement)) from error
        finally:
            # It ends the transaction too, which a rollback cannot once the connection is lost.
            connection.close()


def _refuse(cursor: psycopg.Cursor[tuple[object, ...]], statement: bytes) -> NoReturn:
    """Run what returns no rows, as PostgreSQL may know better what is wrong with it."""
    try:
        cursor.execute(statement)
    except psycopg.ProgrammingError as error:
        if cursor.connection.info.transaction_status is TransactionStatus.ACTIVE:
            raise QueryError(
                "COPY cannot be used here; give its SELECT alone, and --output a file for the rows"
            ) from error
        raise
    raise QueryError("the statement returns no rows")


def _batches(
    rows: Iterator[tuple[object, ...]], schema: Mapping[str, pl.DataType]
) -> Iterator[pl.DataFrame]:
    while batch := list(islice(rows, _BATCH_ROWS)):
        yield pl.DataFrame(batch, schema=schema, orient="row")


def _columns(connection: psycopg.Connection, statement: bytes, *, as_text: bool) -> list[Column]:
    """Return the columns of what `statement` returns, without running it."""
    prepared = connection.pgconn.prepare(b"", statement)
    if prepared.status != ExecStatus.COMMAND_OK:
        raise psycopg.errors.error_from_result(prepared)
    described = connection.pgconn.describe_prepared(b"")
    columns: list[Column] = []
    taken: set[str] = set()
    for number in range(described.nfields):
        name = base = (described.fname(number) or b"").decode()
        same = 1
        while name in taken:
            same += 1
            name = f"{base}_{same}"
        taken.add(name)
        oid = described.ftype(number)
        info = postgres.types.get(oid)
        kind = info.name if info else ""
        columns.append(Column(name, kind in _NUMBERS, _dtype(kind, oid, as_text=as_text)))
    return columns


def _dtype(kind: str, oid: int, *, as_text: bool) -> pl.DataType:
    info = postgres.types.get(oid)
    is_array = info is not None and oid == info.array_oid
    if as_text:
        return pl.Boolean() if kind == _BOOLEAN and not is_array else pl.String()
    dtype = _DTYPES.get(kind, pl.String())
    return pl.List(dtype) if is_array else dtype


def _choose_loaders(
    cursor: psycopg.Cursor[tuple[object, ...]],
    info: psycopg.types.TypeInfo,
    *,
    as_text: bool,
) -> None:
    """Let values of a type become what the column's type in Polars takes."""
    if as_text:
        if info.name != _BOOLEAN:
            cursor.adapters.register_loader(info.oid, TextLoader)
        if info.array_oid:
            cursor.adapters.register_loader(info.array_oid, TextLoader)
    elif info.name == "numeric":
        cursor.adapters.register_loader(info.oid, FloatLoader)
    elif info.name not in _DTYPES:
        cursor.adapters.register_loader(info.oid, TextLoader)


def explain(error: psycopg.Error, statement: str) -> str:
    """Return in one line what PostgreSQL says is wrong with `statement`, where, and its hint."""
    diag = error.diag
    said = diag.message_primary or str(error).strip() or type(error).__name__
    parts = [" ".join(said.split())]
    if diag.statement_position:
        before = statement[: int(diag.statement_position) - 1]
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        parts[0] += f" (line {line}, column {column})"
    for label, text in (("", diag.message_detail), ("hint: ", diag.message_hint)):
        if text:
            parts.append(label + " ".join(text.split()))
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        parts.append("analysts may read gold and silver, and write nothing")
    elif isinstance(error, psycopg.errors.InsufficientPrivilege):
        parts.append("analysts may read gold and silver, and nothing else")
    elif isinstance(error, psycopg.errors.QueryCanceled):
        parts.append("STOCKS_READER_TIMEOUT_SECONDS says how long a statement may run")
    return "; ".join(parts)


def limited(frames: Iterator[pl.DataFrame], limit: int) -> Iterator[pl.DataFrame]:
    """Yield the first `limit` rows of `frames`."""
    for frame in frames:
        if limit <= 0:
            return
        yield frame.head(limit)
        limit -= frame.height


def write(result: Result, form: Format, file: IO[bytes]) -> int:
    """Write `result` into `file`, a batch at a time, and return how many rows that were.

    CSV is made of text: it takes a result that was asked for `as_text`.
    """
    return _WRITERS[form](result, file)


def write_file(result: Result, form: Format, path: Path) -> int:
    """Write `result` to `path`, which is replaced when all of it is there; return the rows."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
        aside = Path(new.name)
        try:
            rows = write(result, form, new)
            new.close()
            aside.chmod(0o644)
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    return rows


def _write_csv(result: Result, file: IO[bytes]) -> int:
    pl.DataFrame(schema=result.schema).write_csv(file)
    rows = 0
    for frame in result.batches:
        frame.write_csv(file, include_header=False)
        rows += frame.height
    return rows


def _write_json(result: Result, file: IO[bytes]) -> int:
    rows = 0
    for frame in result.batches:
        lines = frame.write_ndjson().rstrip("\n").replace("\n", ",\n")
        file.write((",\n" if rows else "[\n").encode() + lines.encode())
        rows += frame.height
    file.write(b"\n]\n" if rows else b"[]\n")
    return rows


def _write_parquet(result: Result, file: IO[bytes]) -> int:
    oldest = pl.CompatLevel.oldest()
    empty = pl.DataFrame(schema=result.schema).to_arrow(compat_level=oldest)
    rows = 0
    with pq.ParquetWriter(file, empty.schema, compression="zstd") as writer:
        for frame in result.batches:
            writer.write_table(frame.to_arrow(compat_level=oldest))
            rows += frame.height
    return rows


_WRITERS: Mapping[Format, Callable[[Result, IO[bytes]], int]] = {
    Format.CSV: _write_csv,
    Format.JSON: _write_json,
    Format.PARQUET: _write_parquet,
}
