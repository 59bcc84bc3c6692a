"""Gold as Parquet in a bucket: an object for each table and ticker, or for a table as a whole.

An object is written when its content is another one, and put in place by one request: a reader
finds the old content or the new. What may have changed is told by the log that gold's models keep
of their own changes, so tickers that nothing happened to are not even read.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Literal, Self

import adbc_driver_postgresql.dbapi
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError, ClientError
from psycopg.rows import class_row
from psycopg.sql import SQL, Composable, Composed, Identifier
from psycopg.sql import Literal as Value

from stocks_assets.adapters.object_store import Entry, ObjectStore
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.exports import ExportedTable, ExportKey, exported_tables
from stocks_assets.errors import SettingsError, StackError

_THREADS = 4
_KEPT_IN_MEMORY = 32 * 1024**2
_NOTED_AT_ONCE = 200
Outcome = Literal["written", "unchanged", "removed"]


@dataclass(frozen=True, slots=True)
class Exported:
    """What came of an object: its rows, its size in bytes, and the hash of its content."""

    key: ExportKey
    outcome: Outcome
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Note:
    """What is noted of an object that was written."""

    key: str
    table_name: str
    ticker: str | None
    sha256: str
    etag: str
    row_count: int
    size_bytes: int
    change_id: int
    built_by: str


@dataclass(slots=True)
class ChangeLog:
    """What gold's models have noted of their changes, as of the change `newest`.

    Of changes up to `forgotten` nothing can be told any more.
    """

    newest: int = 0
    forgotten: int = 0
    last: dict[tuple[str, str | None], int] = field(default_factory=dict)
    models: frozenset[str] = frozenset()

    def may_differ(self, model: str, ticker: str | None, since: int) -> bool:
        """Tell whether rows of `ticker` may be others than after the change `since`."""
        if model not in self.models or since < self.forgotten:
            return True
        return max(self.last.get((model, ticker), 0), self.last.get((model, None), 0)) > since

    @classmethod
    def read(cls, warehouse: Warehouse) -> Self:
        """Return the log as it is between two runs of dbt; within one, changes come out of turn."""
        with warehouse.lock("dbt"), warehouse.connect() as connection:
            if connection.execute("select to_regclass('ops.gold_offsets')").fetchone() == (None,):
                return cls()
            row = connection.execute(
                "select newest, coalesce((select min(change_id) - 1 from ops.gold_changes), newest)"
                " from coalesce(pg_sequence_last_value("
                "pg_get_serial_sequence('ops.gold_changes', 'change_id')::regclass), 0) newest"
            ).fetchone()
            assert row is not None
            changes = connection.execute(
                "select model, ticker, max(change_id) from ops.gold_changes group by 1, 2"
            ).fetchall()
            models = connection.execute("select model from ops.gold_offsets").fetchall()
        last = {(model, ticker): change_id for model, ticker, change_id in changes}
        newest, forgotten = row
        return cls(newest, forgotten, last, frozenset(model for (model,) in models))


@dataclass(frozen=True, slots=True)
class _Task:
    """Rows that are to be in an object, what is noted of it, and what the bucket has there."""

    table: ExportedTable
    key: ExportKey
    note: _Note | None
    entry: Entry | None
    is_gone: bool

    @property
    def is_ours(self) -> bool:
        """Tell whether the bucket has what was noted."""
        return bool(self.note and self.entry and self.note.etag == self.entry.etag)


@dataclass(frozen=True, slots=True)
class _State:
    """What an export goes by."""

    bucket: str
    log: ChangeLog
    built_by: str
    only_changed: bool

    def has(self, task: _Task) -> bool:
        """Tell whether the object is known, unread, to be what it should be."""
        note = task.note
        return (
            self.only_changed
            and note is not None
            and task.is_ours
            and note.built_by == self.built_by
            and not self.log.may_differ(task.table.changes_of, note.ticker, note.change_id)
        )

    def renewed(self, note: _Note) -> _Note:
        """Return `note`, true as of now."""
        return replace(note, change_id=self.log.newest, built_by=self.built_by)


class Curated:
    """The bucket with gold's tables for whoever reads files."""

    def __init__(self, store: ObjectStore, warehouse: Warehouse) -> None:
        self._store = store
        self._warehouse = warehouse

    @property
    def store(self) -> ObjectStore:
        """The bucket."""
        return self._store

    def export(
        self,
        tables: Sequence[ExportedTable],
        tickers: Sequence[str] | None,
        *,
        built_by: str,
        only_changed: bool = True,
    ) -> Iterator[Exported]:
        """Bring the objects of `tables` up to date and yield what came of each, by ticker.

        `tickers` are those of the tables that have an object for each; None is all that these have
        rows of. `built_by` is the version of the models. Unless `only_changed`, what the log says
        nothing of is read and compared too. An object of a ticker that has no rows any more is
        removed, if it was written from this database and is as it was written.

        Raises:
            StackError: a table is not there, or the bucket cannot be used.
        """
        names = [f"{table.schema}.{table.name}" for table in tables]
        if missing := self._warehouse.missing_relations(names):
            raise StackError(f"there is no {', no '.join(missing)} yet; make it: stocks refresh")
        try:
            self._store.ensure_bucket()
            bucket = self._store.identity()
            with self._warehouse.lock(f"export {bucket}"):
                log = ChangeLog.read(self._warehouse)
                state = _State(bucket, log, built_by, only_changed)
                tasks = [task for table in tables for task in self._tasks(state, table, tickers)]
                places = {ticker: place for place, ticker in enumerate(tickers or ())}
                tasks.sort(key=lambda t: (places.get(t.key.ticker or "", -1), t.key.ticker or ""))
                yield from self._work_off(state, tasks)
        except (ClientError, BotoCoreError) as error:
            raise StackError(f"bucket {self._store.bucket!r} cannot be written: {error}") from error

    def _tasks(
        self, state: "_State", table: ExportedTable, tickers: Sequence[str] | None
    ) -> Iterator["_Task"]:
        """Yield what there is to do, or was done already, for each object of `table`."""
        notes = self._notes(state.bucket, table)
        prefix = f"{table.schema}/{table.name}/"
        entries = {entry.key: entry for entry in self._store.entries(prefix)}

        def task(ticker: str | None, *, is_gone: bool = False) -> _Task:
            key = table.key(ticker)
            return _Task(table, key, notes.get(str(key)), entries.get(str(key)), is_gone)

        if not table.is_per_ticker:
            yield task(None)
            return
        present = self._tickers(table)
        for ticker in present if tickers is None else tickers:
            if ticker in present:
                yield task(ticker)
        known = {note.ticker for note in notes.values() if note.ticker}
        scope = known if tickers is None else known & set(tickers)
        for ticker in sorted(scope - present.keys()):
            yield task(ticker, is_gone=True)

    def _tickers(self, table: ExportedTable) -> dict[str, None]:
        """Return the tickers that the table has rows of, by jumping from one to the next."""
        relation = Identifier(*table.tickers_in)
        statement = SQL(
            "with recursive jumps as ("
            "(select ticker from {0} order by ticker limit 1) union all "
            "select (select ticker from {0} where ticker > jumps.ticker order by ticker limit 1) "
            "from jumps where jumps.ticker is not null) "
            "select ticker from jumps where ticker is not null"
        ).format(relation)
        with self._warehouse.connect() as connection:
            return {ticker: None for (ticker,) in connection.execute(statement)}

    def _notes(self, bucket: str, table: ExportedTable) -> Mapping[str, _Note]:
        with (
            self._warehouse.connect() as connection,
            connection.cursor(row_factory=class_row(_Note)) as cursor,
        ):
            notes = cursor.execute(
                "select key, table_name, ticker, sha256, etag, row_count, size_bytes, change_id, "
                "built_by from ops.exported_objects where bucket = %s and table_name = %s",
                (bucket, f"{table.schema}.{table.name}"),
            )
            return {note.key: note for note in notes}

    def _work_off(self, state: _State, tasks: Sequence[_Task]) -> Iterator[Exported]:
        with _connections(self._warehouse.database_url) as free:
            work = partial(self._do, state, free)
            pool = ThreadPoolExecutor(_THREADS)
            try:
                done = zip(tasks, pool.map(work, tasks), strict=True)
                while part := list(islice(done, _NOTED_AT_ONCE)):
                    self._note(state.bucket, part)
                    for task, note in part:
                        yield _exported(task, note)
            finally:
                pool.shutdown(cancel_futures=True)

    def _do(self, state: _State, free: "SimpleQueue[Any]", task: _Task) -> _Note | None:
        """Make the object of `task` right and return what to note of it; None if it is gone."""
        note, ticker = task.note, task.key.ticker
        if task.is_gone:
            self._remove(task)
            return None
        if note is not None and state.has(task):
            return state.renewed(note)
        with SpooledTemporaryFile(max_size=_KEPT_IN_MEMORY) as file:
            connection = free.get()
            try:
                rows = _copy_rows(connection, task.table, ticker, file)
            except (adbc_driver_postgresql.dbapi.Error, OSError) as error:
                raise StackError(f"{task.key} cannot be written: {error}") from error
            finally:
                free.put(connection)
            if rows == 0 and ticker is not None:
                self._remove(task)
                return None
            size = file.tell()
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if note is not None and task.is_ours and note.sha256 == sha256:
                return state.renewed(note)
            file.seek(0)
            etag = self._store.put_file(str(task.key), file, {"sha256": sha256})
        table = f"{task.table.schema}.{task.table.name}"
        content = (sha256, etag, rows, size)
        return _Note(str(task.key), table, ticker, *content, state.log.newest, state.built_by)

    def _remove(self, task: _Task) -> None:
        if task.is_ours and task.entry is not None:
            self._store.remove(task.entry)

    def _note(self, bucket: str, done: Sequence[tuple[_Task, _Note | None]]) -> None:
        notes = [note for _, note in done if note]
        gone = [str(task.key) for task, note in done if note is None]
        with self._warehouse.connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                "delete from ops.exported_objects where bucket = %s and key = any(%s)",
                (bucket, gone),
            )
            cursor.executemany(
                "insert into ops.exported_objects (bucket, key, table_name, ticker, sha256, etag, "
                "row_count, size_bytes, change_id, built_by) "
                "values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict (bucket, key) "
                "do update set sha256 = excluded.sha256, etag = excluded.etag, "
                "row_count = excluded.row_count, size_bytes = excluded.size_bytes, "
                "change_id = excluded.change_id, built_by = excluded.built_by, "
                "exported_at = case when exported_objects.etag = excluded.etag "
                "then exported_objects.exported_at else excluded.exported_at end",
                [
                    (
                        *(bucket, note.key, note.table_name, note.ticker, note.sha256, note.etag),
                        *(note.row_count, note.size_bytes, note.change_id, note.built_by),
                    )
                    for note in notes
                ],
            )


def _exported(task: _Task, note: _Note | None) -> Exported:
    if note is None:
        return Exported(task.key, "removed" if task.note else "unchanged", 0, 0, "")
    same = task.is_ours and task.note is not None and task.note.sha256 == note.sha256
    outcome: Outcome = "unchanged" if same else "written"
    return Exported(task.key, outcome, note.row_count, note.size_bytes, note.sha256)


@contextmanager
def _connections(database_url: str) -> Iterator["SimpleQueue[Any]"]:
    """Yield connections for as many threads as there are; each is taken and put back."""
    free: SimpleQueue[Any] = SimpleQueue()
    with ExitStack() as opened:
        for _ in range(_THREADS):
            connection = adbc_driver_postgresql.dbapi.connect(database_url, autocommit=True)
            free.put(opened.enter_context(connection))
        yield free


def _copy_rows(
    connection: Any,  # noqa: ANN401 # the driver has no types
    table: ExportedTable,
    ticker: str | None,
    file: IO[bytes],
) -> int:
    """Write the rows as Parquet, always in the same order, and return how many they are."""
    rows = 0
    with connection.cursor() as cursor:
        cursor.execute(_select(table, ticker).as_string(None))
        reader = cursor.fetch_record_batch()
        texts = [one.name for one in reader.schema if pa.types.is_string(one.type)]
        with pq.ParquetWriter(
            file, reader.schema, compression="zstd", use_dictionary=texts
        ) as writer:
            for batch in reader:
                writer.write_batch(batch)
                rows += batch.num_rows
    return rows


def _select(table: ExportedTable, ticker: str | None) -> Composed:
    where: Composable = SQL("")
    if ticker is not None:
        where = SQL("where ticker = {}").format(Value(ticker))
    order: Composable = SQL(", ").join(Identifier(name) for name in table.order_by)
    if not table.order_by:
        # A row is told from any other by all that it says.
        order = SQL("exported::text")
    return SQL("select * from {} exported {} order by {}").format(
        Identifier(table.schema, table.name), where, order
    )


def choose(manifest: Path, names: Sequence[str]) -> list[ExportedTable]:
    """Return gold's tables, as the manifest has them; of these, if there are any, those `names`.

    Raises:
        SettingsError: gold has no table of one of the names.
    """
    tables = exported_tables(json.loads(manifest.read_bytes()))
    wanted = {name.removeprefix("gold.") for name in names}
    known = {table.name for table in tables}
    if strangers := sorted(wanted - known):
        raise SettingsError(
            f"gold has no {', no '.join(strangers)}; it has: {', '.join(sorted(known))}"
        )
    return [table for table in tables if table.name in wanted or not wanted]


def totals(results: Iterable[Exported]) -> Mapping[str, dict[str, int]]:
    """Return, by table: objects, those written and removed, rows and bytes."""
    found: dict[str, dict[str, int]] = defaultdict(
        lambda: dict.fromkeys(("objects", "written", "removed", "rows", "bytes"), 0)
    )
    for result in results:
        line = found[f"{result.key.schema}.{result.key.table}"]
        line["objects"] += result.outcome != "removed"
        line["written"] += result.outcome == "written"
        line["removed"] += result.outcome == "removed"
        line["rows"] += result.rows
        line["bytes"] += result.size
    return dict(found)
