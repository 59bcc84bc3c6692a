"""PostgreSQL: connections, migrations, locks, and the tables that runs keep their books in."""

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import adbc_driver_postgresql.dbapi
import alembic.command
import alembic.config
import polars as pl
import psycopg
import sqlalchemy
from alembic.script import ScriptDirectory
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import scalar_row
from psycopg.sql import SQL, Composed, Identifier, Literal
from psycopg_pool import ConnectionPool

from stocks_assets.domain.arrivals import READERS
from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.datasets import DAILY_BARS, Call
from stocks_assets.domain.gaps import Changes, Holding
from stocks_assets.domain.planner import Checked, Priority
from stocks_assets.errors import StackError

# More parts of a lock than that are held as the whole: PostgreSQL keeps locks in shared memory. The
# tickers of a run are 500 at most, and a few more where policies keep runs of layers apart.
PARTS_OF_A_LOCK = 600
# How often a session is asked for that holds a lock whose loss matters.
_SECONDS_BETWEEN_LOOKS = 5
# A call waits up to 15 minutes for the budget, then for the vendor.
_LONGEST_CALL = "20min"
_log = logging.getLogger(__name__)
# A close that is more than so many times that of the bar before, or less than its part, and in how
# many of the newest bars it is looked for. Few shares move so far in a day, and all of splits but
# the smallest do.
_LEAP, _LEAPS_IN = 1.4, 10
_MIGRATIONS = Path(__file__).parent / "migrations"
_LISTINGS: Mapping[str, pl.DataType] = {
    "ticker": pl.String(),
    "delisted_on": pl.Date(),
    "company_name": pl.String(),
    "exchange": pl.String(),
    "asset_type": pl.String(),
    "listed_on": pl.Date(),
    "status": pl.String(),
}


Reader = Callable[[Composed], pl.DataFrame]


@dataclass(frozen=True, slots=True)
class SilverLoad:
    """What a silver table was loaded with of a ticker, and from which objects.

    `row_count` rows were in those; `stored_count` is how many the table had afterwards, with what
    older objects told, and None where it was not counted.
    """

    ticker: str
    bronze_keys: list[str]
    row_count: int
    rejected_count: int
    first_date: date | None
    last_date: date | None
    stored_count: int | None = None


@dataclass(frozen=True, slots=True)
class Rejections:
    """How many rows a table took and did not, the latter by rule, and objects it took nothing of.

    A refused object is (ticker, bronze key, reason); those count whose refusal stands.
    """

    loaded: int
    rejected: int
    by_rule: list[tuple[str, int]]
    refused: list[tuple[str, str, str]]


class Refusal(NamedTuple):
    """An object that a table took nothing of, and why."""

    ticker: str
    table_name: str
    refused_at: datetime
    reason: str
    bronze_key: str


class RejectedRow(NamedTuple):
    """A row of an object that broke `rules`; its raw values are JSON."""

    ticker: str
    bronze_key: str
    row_values: str
    rules: list[str]


@dataclass(frozen=True, slots=True)
class Failure:
    """A ticker that an asset failed for in a run, and why."""

    asset: str
    ticker: str
    reason: str


@dataclass(frozen=True, slots=True)
class CountedBars:
    """Daily bars as last counted: of each ticker, and when it had been loaded by then.

    `changes` are what the server had counted of the table before; `counted_at` tells one count
    from another.
    """

    counted_at: datetime
    changes: Changes
    holdings: Mapping[str, Holding]
    loaded_at: Mapping[str, datetime | None]


@dataclass(frozen=True, slots=True)
class TableSummary:
    """How much a table holds, of how many tickers, and up to when."""

    table: str
    rows: int
    tickers: int | None
    latest: date | None


@dataclass(frozen=True, slots=True)
class Watched:
    """How a ticker stands: raw close, returns over a week and a year, closes of recent weeks."""

    ticker: str
    company_name: str
    session_date: date
    close: float
    week_return: float | None
    year_return: float | None
    closes: list[float]


class Warehouse:
    """The database that holds silver, gold and the books about them.

    `models_url` is for the role that dbt works as; it is the same role where none is named.
    """

    def __init__(self, database_url: str, models_url: str | None = None) -> None:
        self.database_url = database_url
        self.models_url = models_url or database_url

    def __repr__(self) -> str:
        return f"Warehouse({where(self.database_url)!r})"

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection]:
        """Yield a connection whose work is committed when the block ends well.

        Raises:
            StackError: no connection can be made.
        """
        with connect(self.database_url) as connection:
            yield connection

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Yield a function that returns what a statement selects, fetched in columns.

        Raises:
            StackError: no connection can be made.
        """
        with self.connect():
            pass  # its errors are ours
        with adbc_driver_postgresql.dbapi.connect(self.database_url, autocommit=True) as connection:
            yield lambda statement: pl.read_database(statement.as_string(None), connection)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock `name`, which one process at a time can have; it ends with the process."""
        with self._session() as connection:
            connection.execute("select pg_advisory_lock(%s)", (lock_number(name),))
            yield

    @contextmanager
    def locks(self, name: str, parts: Iterable[str]) -> Iterator[None]:
        """Hold `parts` of the lock `name`: who has it whole excludes all, others their parts.

        Each part is a lock in PostgreSQL's memory, which has room for some thousands; of more than
        600 the whole is held.
        """
        numbers = sorted({lock_number(f"{name} {part}") for part in parts})
        if len(numbers) > PARTS_OF_A_LOCK:
            with self.lock(name):
                yield
            return
        with self._session() as connection:
            connection.execute("select pg_advisory_lock_shared(%s)", (lock_number(name),))
            # All take them in one order, so none waits for another that waits for it.
            connection.execute(
                "select pg_advisory_lock(number) from unnest(%s::bigint[]) as number", (numbers,)
            )
            yield

    def await_writers(self, schema: str, table: str) -> None:
        """Wait until all transactions that write to a table now have ended.

        The server may still be at work on what a client sent that has been killed since.
        """
        with self.connect() as connection:
            connection.execute(SQL("lock table {} in share mode").format(Identifier(schema, table)))

    @contextmanager
    def lock_if_free(
        self, name: str, *, on_loss: Callable[[], None] | None = None
    ) -> Iterator[bool]:
        """Hold the lock `name` if nobody has it; yields whether it is held.

        It is lost with its session, as when the server is started again: a thread calls `on_loss`
        within seconds, within a minute where the network does not answer.
        """
        with self._session() as connection:
            row = connection.execute("select pg_try_advisory_lock(%s)", (lock_number(name),))
            is_held = row.fetchone() == (True,)
            if not is_held or on_loss is None:
                yield is_held
                return
            with _watched(connection, on_loss):
                yield is_held

    @contextmanager
    def _session(self) -> Iterator[psycopg.Connection]:
        """Yield a connection for a lock, which either side soon ends if the other is gone."""
        with connect(self.database_url, autocommit=True, tcp_user_timeout=30_000) as connection:
            connection.execute(
                "set tcp_keepalives_idle = 20; set tcp_keepalives_interval = 10; "
                "set tcp_keepalives_count = 3"
            )
            yield connection

    @contextmanager
    def alive(self, run_id: str) -> Iterator[None]:
        """Hold what tells that a process of a run lives; it ends with the process."""
        # Shared: the steps of a run may be processes of their own.
        with self._session() as connection:
            connection.execute(
                "select pg_advisory_lock_shared(%s)", (lock_number(f"run {run_id}"),)
            )
            yield

    def living(self, run_ids: Iterable[str]) -> set[str]:
        """Return those of `run_ids` of which a process holds `alive`."""
        names = {f"run {run_id}": run_id for run_id in run_ids}
        return {names[name] for name in self.held(names)}

    def held(self, names: Iterable[str]) -> set[str]:
        """Return those locks of `names` that any process holds."""
        numbers = {lock_number(name): name for name in names}
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            held = cursor.execute(
                "select (classid::bigint << 32) | objid::bigint from pg_locks "
                "where locktype = 'advisory' and objsubid = 1 and granted "
                "and database = (select oid from pg_database where datname = current_database())"
            ).fetchall()
        return {numbers[number] for number in held if number in numbers}

    def migrate(self) -> None:
        """Bring the tables to the newest version."""
        config = alembic.config.Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        engine = sqlalchemy.create_engine(
            f"postgresql+psycopg://{self.database_url.partition('://')[2]}",
            poolclass=sqlalchemy.NullPool,
        )
        with self.lock("migrations"), engine.connect() as connection:
            connection.execute(sqlalchemy.text("create schema if not exists ops"))
            connection.commit()
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")
            connection.commit()

    def require_tables(self) -> None:
        """Insist that the tables are those of this version.

        Raises:
            StackError: they are not there, or older or newer.
        """
        config = alembic.config.Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        newest = ScriptDirectory.from_config(config).get_current_head()
        with self.connect() as connection:
            there = connection.execute("select to_regclass('ops.schema_version')").fetchone()
            found = there != (None,) and (
                connection.execute("select version_num from ops.schema_version").fetchone()
            )
        if found != (newest,):
            raise StackError(
                f"the tables in {self} are not those of this version; with STOCKS_DATABASE_URL, "
                "the URL of their owner, run: stocks prepare"
            )

    # The index of bronze objects

    def index_bucket(self, identity: str) -> None:
        """Let the index speak of the bucket `identity`; what it knew of another is forgotten."""
        with self.connect() as connection:
            connection.execute("lock table bronze.indexed_bucket in exclusive mode")
            known = connection.execute("select identity from bronze.indexed_bucket").fetchone()
            if known != (identity,):
                connection.execute(
                    "truncate bronze.objects, bronze.notices, bronze.sweeps, bronze.hints, "
                    "ops.object_loads, bronze.indexed_bucket, ops.fetches"
                )
                connection.execute(
                    "insert into bronze.indexed_bucket (identity) values (%s)", (identity,)
                )

    def index(self, keys: Iterable[BronzeKey]) -> None:
        """Note the objects `keys`; those already noted stay as they are."""
        with self.connect() as connection, connection.cursor() as cursor:
            index_objects(cursor, [(key, None) for key in keys])

    def newest_objects(
        self, datasets: Sequence[str], tickers: Sequence[str]
    ) -> dict[Call, BronzeKey]:
        """Return the newest object of each of `tickers`, `datasets` and parts that has one."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            keys = cursor.execute(
                SQL("{} select key from newest").format(_NEWEST),
                {"datasets": list(datasets), "tickers": list(tickers)},
            ).fetchall()
        parsed = (BronzeKey.parse(key) for key in keys)
        return {key.call: key for key in parsed}

    def objects(self, datasets: Sequence[str], tickers: Sequence[str]) -> list[BronzeKey]:
        """Return all objects of `datasets` and `tickers`, the oldest first."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            keys = cursor.execute(
                "select key from bronze.objects where dataset = any(%s) and ticker = any(%s) "
                "order by fetched_at, key",
                (list(datasets), list(tickers)),
            ).fetchall()
        return [BronzeKey.parse(key) for key in keys]

    # What the source was asked for

    @contextmanager
    def fetch_journal(self, threads: int, decided_at: datetime) -> Iterator["FetchJournal"]:
        """Yield where `threads` note fetches that were decided on at that time, each at once."""
        with ConnectionPool(
            self.database_url,
            min_size=1,
            max_size=2 * threads,
            kwargs={"autocommit": True, "options": "-c timezone=UTC"},
            open=True,
        ) as pool:
            yield FetchJournal(pool, decided_at)

    def unavailable(self, dataset: str, tickers: Sequence[str]) -> set[str]:
        """Return those of `tickers` that the source, when last asked, had nothing of."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return set(
                cursor.execute(
                    "select ticker from ops.fetches where dataset = %s and ticker = any(%s) "
                    "group by ticker having bool_and(outcome = 'Unavailable')",
                    (dataset, list(tickers)),
                ).fetchall()
            )

    def fetches(self, dataset: str | None = None) -> dict[Call, Checked]:
        """Return when each call, of `dataset` if given, was last made, and what came of it."""
        with self.connect() as connection:
            rows = connection.execute(
                "select dataset, ticker, part, checked_at, outcome, had_at, failures, whole_at "
                "from ops.fetches where %(dataset)s::text is null or dataset = %(dataset)s",
                {"dataset": dataset},
            ).fetchall()
        return {Call(*row[:3]): Checked(*row[3:]) for row in rows}

    def calls_ended_as(self, dataset: str, outcome: str) -> set[Call]:
        """Return the calls of `dataset` whose last outcome was of this kind."""
        with self.connect() as connection:
            rows = connection.execute(
                "select dataset, ticker, part from ops.fetches where dataset = %s and outcome = %s",
                (dataset, outcome),
            ).fetchall()
        return {Call(*row) for row in rows}

    def note_lost(self, keys: Sequence[str], outcome: str) -> None:
        """Note that these objects are gone or damaged: calls of which they were the newest are due.

        Nothing is noted of objects that no call brought.
        """
        with self.connect() as connection:
            connection.execute(
                "update ops.fetches set outcome = %s, reason = 'its object is gone or damaged: ' "
                "|| lost.key from bronze.objects lost where lost.key = any(%s) "
                "and fetches.dataset = lost.dataset and fetches.ticker = lost.ticker "
                "and fetches.part = lost.part and not exists (select from bronze.objects newer "
                "  where newer.dataset = lost.dataset and newer.ticker = lost.ticker "
                "  and newer.part = lost.part and newer.fetched_at > lost.fetched_at)",
                (outcome, list(keys)),
            )

    def twins(self, key: BronzeKey) -> list[BronzeKey]:
        """Return the other objects of the same call with the same content, the newest first."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            keys = cursor.execute(
                "select key from bronze.objects where dataset = %s and ticker = %s and part = %s "
                "and content_hash = %s and key <> %s order by fetched_at desc",
                (key.dataset, key.ticker, key.part, key.content_hash, str(key)),
            ).fetchall()
        return [BronzeKey.parse(one) for one in keys]

    def noted_since(self, dataset: str, moment: datetime) -> dict[Call, tuple[str, str]]:
        """Return the calls of `dataset` made at or after `moment`: kind of outcome and reason."""
        with self.connect() as connection:
            rows = connection.execute(
                "select dataset, ticker, part, outcome, coalesce(reason, outcome) from ops.fetches "
                "where dataset = %s and checked_at >= %s",
                (dataset, moment),
            ).fetchall()
        return {Call(*row[:3]): (row[3], row[4]) for row in rows}

    def listings(self) -> pl.DataFrame:
        """Return `silver.listings`: ticker, company_name, exchange, asset_type, dates, status."""
        with self.connect() as connection:
            return pl.read_database(
                "select ticker, delisted_on, company_name, exchange, asset_type, listed_on, status "
                "from silver.listings",
                connection,
                schema_overrides=_LISTINGS,
            )

    def set_priority(self, tickers: Sequence[str], priority: Priority) -> None:
        """Set how much `tickers` matter where calls are scarce."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.executemany(
                "insert into ops.priorities (ticker, priority) values (%s, %s) "
                "on conflict (ticker) do update set priority = excluded.priority",
                [(ticker, str(priority)) for ticker in tickers],
            )

    def priorities(self) -> dict[str, Priority]:
        """Return the priorities that were set; a ticker without one is normal."""
        with self.connect() as connection:
            rows = connection.execute("select ticker, priority from ops.priorities").fetchall()
        return {ticker: Priority(priority) for ticker, priority in rows}

    def forget_priorities(self, tickers: Sequence[str]) -> None:
        """Let `tickers` be normal again."""
        with self.connect() as connection:
            connection.execute(
                "delete from ops.priorities where ticker = any(%s)", (list(tickers),)
            )

    # What the universe's file named

    def named_by_file(self) -> set[str]:
        """Return the tickers that the universe's file named when it was last applied."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return set(cursor.execute("select ticker from ops.universe_file").fetchall())

    def note_named_by_file(self, tickers: Iterable[str]) -> None:
        """Note the tickers that the universe's file names, in place of those noted before."""
        named = list(tickers)
        with self.connect() as connection:
            connection.execute("delete from ops.universe_file where ticker <> all(%s)", (named,))
            connection.execute(
                "insert into ops.universe_file (ticker) select unnest(%s::text[]) "
                "on conflict do nothing",
                (named,),
            )

    # What silver was loaded from

    def silver_loads(self, table: str, tickers: Sequence[str]) -> dict[str, SilverLoad]:
        """Return the last load of `table` of each of `tickers` that has one."""
        with self.connect() as connection:
            rows = connection.execute(
                "select ticker, bronze_keys, row_count, rejected_count, first_date, last_date, "
                "stored_count from ops.silver_loads where table_name = %s and ticker = any(%s)",
                (table, list(tickers)),
            ).fetchall()
        return {row[0]: SilverLoad(*row) for row in rows}

    def rejections(self, table: str) -> Rejections:
        """Return what silver `table` did not take of the objects that it is loaded from."""
        with self.connect() as connection:
            loaded = connection.execute(
                SQL(
                    "select coalesce(sum(greatest(row_count, stored_count)), 0), "
                    "(select count(*) {}) "
                    "from ops.silver_loads where table_name = %(table)s"
                ).format(_REJECTED),
                {"table": table},
            ).fetchone()
            by_rule = connection.execute(
                SQL(
                    "select rule, count(*) from (select rules {}) as rejected, "
                    "unnest(rules) as rule group by 1 order by 2 desc, 1"
                ).format(_REJECTED),
                {"table": table},
            ).fetchall()
        assert loaded is not None
        refused = [(one.ticker, one.bronze_key, one.reason) for one in self.refusals(table=table)]
        return Rejections(int(loaded[0]), int(loaded[1]), by_rule, refused)

    def refusals(
        self, *, table: str | None = None, tickers: Sequence[str] | None = None
    ) -> list[Refusal]:
        """Return the refusals that stand, newest first: of one table, of some tickers, or all."""
        with self.connect() as connection:
            rows = connection.execute(
                "select refused.ticker, refused.table_name, refused.refused_at, refused.reason, "
                "refused.bronze_key, coalesce(loads.bronze_keys, '{}') "
                "from ops.refused_objects refused left join ops.silver_loads loads "
                "on loads.table_name = refused.table_name and loads.ticker = refused.ticker "
                "where (%(table)s::text is null or refused.table_name = %(table)s) "
                "and (%(tickers)s::text[] is null or refused.ticker = any(%(tickers)s)) "
                "order by refused.refused_at desc, refused.bronze_key",
                {"table": table, "tickers": None if tickers is None else list(tickers)},
            ).fetchall()
        return [
            Refusal(*row)
            for *row, loaded in rows
            if not BronzeKey.parse(row[-1]).is_made_up_for_by(map(BronzeKey.parse, loaded))
        ]

    def rejected_labels(self, table: str) -> dict[str, list[str]]:
        """Return, by ticker, the vendor's labels of the bars that `rejections` counts."""
        with self.connect() as connection:
            return dict(
                connection.execute(
                    SQL(
                        "select ticker, array_agg(row_values ->> 'label') {} "
                        "and row_values ->> 'label' is not null group by 1"
                    ).format(_REJECTED),
                    {"table": table},
                ).fetchall()
            )

    def record_refused_objects(
        self, table: str, refused: Sequence[tuple[str, str, str]], began_at: datetime
    ) -> None:
        """Note that `table` took nothing of objects read since then: (ticker, key, reason)."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.executemany(
                "insert into ops.refused_objects (table_name, ticker, bronze_key, reason) "
                "values (%s, %s, %s, %s) on conflict (table_name, bronze_key) do update "
                "set reason = excluded.reason, refused_at = excluded.refused_at",
                [(table, *line) for line in refused],
            )
        self.ask_no_more(table, [key for _, key, _ in refused], began_at)

    def ask_no_more(self, table: str, keys: Sequence[str], began_at: datetime) -> None:
        """Note that loading objects read since then again would bring `table` nothing."""
        with self.connect() as connection:
            connection.execute(
                "update ops.object_loads set is_refused = true where table_name = %s "
                "and bronze_key = any(%s) and loaded_at is null "
                "and (overwritten_at is null or overwritten_at < %s)",
                (table, list(keys), began_at),
            )

    def refused_objects(self, table: str) -> dict[str, str]:
        """Return the keys of the objects that `table` has taken nothing from, and why."""
        with self.connect() as connection:
            rows = connection.execute(
                "select bronze_key, reason from ops.refused_objects where table_name = %s", (table,)
            ).fetchall()
        return dict(rows)

    def record_silver_loads(
        self,
        table: str,
        loads: Iterable[SilverLoad],
        rejected_rows: Iterable[RejectedRow],
        read: Iterable[str],
        began_at: datetime,
    ) -> None:
        """Note `loads` of `table`, and the rejected rows of the objects `read` since `began_at`."""
        loads, read = list(loads), list(read)
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.executemany(
                "insert into ops.silver_loads (table_name, ticker, bronze_keys, row_count, "
                "rejected_count, first_date, last_date, stored_count) "
                "values (%s, %s, %s, %s, %s, %s, %s, %s) "
                "on conflict (table_name, ticker) do update set "
                "bronze_keys = excluded.bronze_keys, row_count = excluded.row_count, "
                "rejected_count = excluded.rejected_count, first_date = excluded.first_date, "
                "last_date = excluded.last_date, stored_count = excluded.stored_count, "
                "loaded_at = clock_timestamp()",
                [
                    (
                        table,
                        load.ticker,
                        load.bronze_keys,
                        load.row_count,
                        load.rejected_count,
                        load.first_date,
                        load.last_date,
                        load.stored_count,
                    )
                    for load in loads
                ],
            )
            taken = (table, list(read))
            cursor.execute(
                "delete from ops.refused_objects where table_name = %s and bronze_key = any(%s)",
                taken,
            )
            cursor.execute(
                "delete from silver.rejected_rows where table_name = %s and bronze_key = any(%s)",
                taken,
            )
            _note_loaded(cursor, table, read, began_at)
            cursor.executemany(
                "insert into silver.rejected_rows (table_name, ticker, bronze_key, row_values, "
                "rules) values (%s, %s, %s, %s, %s)",
                [(table, *row) for row in rejected_rows],
            )

    # Which objects silver has loaded

    def now(self) -> datetime:
        """Return the time by the database's clock, which orders what several processes note."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            moment: datetime | None = cursor.execute("select clock_timestamp()").fetchone()
        assert moment is not None
        return moment

    def was_loaded(self, table: str, key: str) -> bool:
        """Tell whether `table` was ever loaded from the object `key`."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return bool(
                cursor.execute(
                    "select exists (select from ops.object_loads where table_name = %s "
                    "and bronze_key = %s and loads > 0)",
                    (table, key),
                ).fetchone()
            )

    def tickers_with_late_objects(self, table: str, tickers: Sequence[str]) -> set[str]:
        """Return those of `tickers` with objects that `table` has to load and has gone past.

        They came after newer ones had been loaded, or were overwritten.
        """
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return set(
                cursor.execute(
                    "select distinct waiting.ticker from ops.object_loads waiting "
                    "join ops.silver_loads done using (table_name, ticker) "
                    "join bronze.objects objects on objects.key = waiting.bronze_key "
                    "where table_name = %s and waiting.ticker = any(%s) "
                    "and waiting.loaded_at is null and not waiting.is_refused "
                    "and objects.fetched_at <= (select max(fetched_at) from bronze.objects "
                    "  where key = any(done.bronze_keys))",
                    (table, list(tickers)),
                ).fetchall()
            )

    # Which tickers gold is behind for

    def tickers_behind_in_gold(self, tickers: Sequence[str], built_by: str) -> list[str]:
        """Return those of `tickers` that have newer silver, or gold of another project."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute(
                "select distinct ticker from ops.silver_loads left join ops.gold_builds "
                "using (ticker) where ticker = any(%s) "
                "and (built_at is null or loaded_at > built_at or built_by <> %s) "
                "order by ticker",
                (list(tickers), built_by),
            ).fetchall()

    def tickers_in_gold(self, built_by: str) -> list[str]:
        """Return the tickers that all of gold was built for by the project `built_by`."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute(
                "select ticker from ops.gold_builds where built_by = %s and built_at > 'epoch'",
                (built_by,),
            ).fetchall()

    def silver_tickers(self) -> list[str]:
        """Return the tickers that silver has been loaded for."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute(
                "select distinct ticker from ops.silver_loads where ticker <> '' order by ticker"
            ).fetchall()

    def not_in_gold(self, tickers: Sequence[str]) -> list[str]:
        """Return those of `tickers` that gold knows no company of, where it has companies."""
        if not tickers or self.missing_relations(["gold.dim_company"]):
            return []
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute(
                "select unnest(%s::text[]) except select ticker from gold.dim_company order by 1",
                (list(tickers),),
            ).fetchall()

    def gold_was_built_otherwise(self, built_by: str) -> bool:
        """Tell whether a ticker's gold was built by another project than `built_by`."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return bool(
                cursor.execute(
                    "select exists (select from ops.gold_builds where built_by <> %s)", (built_by,)
                ).fetchone()
            )

    def missing_relations(self, names: Sequence[str]) -> list[str]:
        """Return those of `names`, such as gold.dim_date, that are no table or view."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute(
                "select name from unnest(%s::text[]) name where to_regclass(name) is null",
                (list(names),),
            ).fetchall()

    def gold_lacks_calendar(self) -> bool:
        """Tell whether `gold.dim_date` is missing or differs from silver's calendar."""
        if self.missing_relations(["gold.dim_date"]):
            return True
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return bool(
                cursor.execute(
                    "with silver as (select calendar_date, is_session, is_early_close, "
                    "holiday_name, opens_at, closes_at from silver.exchange_calendar), "
                    "gold as (select date_day, is_session, is_early_close, holiday_name, opens_at, "
                    "closes_at from gold.dim_date) "
                    "select exists (table silver except all table gold) "
                    "or exists (table gold except all table silver)"
                ).fetchone()
            )

    def forget_passed_tests(self) -> None:
        """Have dbt's tests look at all rows the next time, whatever they have passed before."""
        if not self.missing_relations(["ops.gold_passed_tests"]):
            with connect(self.models_url) as connection:
                connection.execute("delete from ops.gold_passed_tests")

    def tickers_listed_otherwise(self) -> list[str]:
        """Return the tickers whose listings differ from their rows in `gold.dim_security`."""
        if self.missing_relations(["gold.dim_security", "staging.int_securities"]):
            return self.silver_tickers()
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute(
                "with silver as (select ticker, security_key, valid_to, listed_on, delisted_on, "
                "status, bronze_key from staging.int_securities), "
                "gold as (select ticker, security_key, valid_to, listed_on, delisted_on, status, "
                "bronze_key from gold.dim_security where status <> 'unknown') "
                "select ticker from (table silver except all table gold) missing "
                "union select ticker from (table gold except all table silver) other "
                "order by ticker"
            ).fetchall()

    def newest_gold_change(self) -> int | None:
        """Return the number of the newest change that gold's models have noted, if any."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            if cursor.execute("select to_regclass('ops.gold_changes')").fetchone() is None:
                return None
            return cursor.execute("select max(change_id) from ops.gold_changes").fetchone()

    @contextmanager
    def gold_batch(
        self, batch_id: str, tickers: Sequence[str], *, built_by: str, is_whole: bool = True
    ) -> Iterator[None]:
        """Put `tickers` down as the batch `batch_id` for the block that builds gold for them.

        When it ends well, gold is up to date for them, up to the block's start, as the project
        `built_by` has it. Where it builds just a part of gold, they stay as old as they were; of
        those that had nothing it is kept which project gave them something.
        """
        with self.connect() as connection, connection.cursor() as cursor:
            started_at = cursor.execute("select clock_timestamp()").fetchone()
            assert started_at is not None
            cursor.execute("delete from ops.batches where created_at < now() - interval '2 days'")
            cursor.executemany(
                "insert into ops.batches (batch_id, ticker) values (%s, %s) on conflict do nothing",
                [(batch_id, ticker) for ticker in tickers],
            )
        yield
        upto, as_before = (
            (started_at[0], "update set built_at = excluded.built_at, built_by = excluded.built_by")
            if is_whole
            else ("epoch", "nothing")
        )
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.executemany(
                SQL(
                    "insert into ops.gold_builds (ticker, built_at, built_by) values (%s, %s, %s) "
                    "on conflict (ticker) do "
                )
                + SQL(as_before),
                [(ticker, upto, built_by) for ticker in tickers],
            )

    # Failures

    def record_failures(self, run_id: str, failures: Iterable[Failure]) -> None:
        """Note what failed in a run."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.executemany(
                "insert into ops.failures (run_id, asset, ticker, reason) values (%s, %s, %s, %s) "
                "on conflict (run_id, asset, ticker) do update set reason = excluded.reason",
                [(run_id, failure.asset, failure.ticker, failure.reason) for failure in failures],
            )

    def failures(self, run_id: str) -> list[Failure]:
        """Return what failed in a run, by asset and ticker."""
        with self.connect() as connection:
            rows = connection.execute(
                "select asset, ticker, reason from ops.failures where run_id = %s order by 1, 2",
                (run_id,),
            ).fetchall()
        return [Failure(*row) for row in rows]

    # What failed or is missing

    def holdings(self, tickers: Sequence[str]) -> list[Holding]:
        """Return what `silver.daily_bars` holds of each of `tickers` that has bars.

        All bars are counted, in the index: seconds for tens of millions.
        """
        # Ticker by ticker there is nothing to compare from row to row.
        with self.connect() as connection:
            rows = connection.execute(
                "select ticker, first, last, count from unnest(%s::text[]) as asked (ticker) "
                "cross join lateral (select min(session_date) as first, "
                "  max(session_date) as last, count(*) as count from silver.daily_bars as bars "
                "  where bars.ticker = asked.ticker) as found where count > 0 order by 1",
                (sorted(set(tickers)),),
            ).fetchall()
        return [Holding(*row) for row in rows]

    def newest_bars(self, tickers: Sequence[str], count: int) -> dict[str, pl.DataFrame]:
        """Return the newest `count` daily bars that the vendor gave of each of `tickers`.

        The oldest first, without the ticker; who has none is left out.
        """
        with self.reader() as read:
            bars = read(
                SQL(
                    "select asked.ticker, found.* from unnest({tickers}::text[]) as asked (ticker) "
                    "cross join lateral (select session_date, open, high, low, close, volume, "
                    "  adjusted_close, dividend_amount, split_coefficient "
                    "  from silver.daily_bars as bars where bars.ticker = asked.ticker "
                    "  and starts_with(bronze_key, {vendors}) "
                    "  order by session_date desc limit {count}) as found"
                ).format(
                    tickers=Literal(list(tickers)),
                    vendors=Literal(BronzeKey.prefix(DAILY_BARS.name)),
                    count=count,
                )
            )
        parts = bars.sort("ticker", "session_date").partition_by("ticker", as_dict=True)
        return {str(ticker): part.drop("ticker") for (ticker,), part in parts.items()}

    def unexplained_leaps(self, tickers: Sequence[str]) -> dict[str, date]:
        """Return the newest of the last sessions at which a close leapt without a known split.

        Tickers that have none are left out.
        """
        with self.connect() as connection:
            rows = connection.execute(
                "select asked.ticker, max(leaps.session_date) "
                "from unnest(%(tickers)s::text[]) as asked (ticker) cross join lateral ("
                "  select bars.session_date, bars.close, "
                "    lag(bars.close) over by_session as before, "
                "    lag(bars.session_date) over by_session as since "
                "  from (select session_date, close from silver.daily_bars "
                "    where ticker = asked.ticker "
                "    order by session_date desc limit %(bars)s) as bars "
                "  window by_session as (order by bars.session_date)) as leaps "
                "where not leaps.close between leaps.before / %(leap)s and leaps.before * %(leap)s "
                "and not exists (select from silver.corporate_actions as actions "
                "  where actions.ticker = asked.ticker and actions.action_type = 'split' "
                "  and actions.ex_date > leaps.since and actions.ex_date <= leaps.session_date) "
                "group by asked.ticker",
                {"tickers": list(tickers), "bars": _LEAPS_IN, "leap": _LEAP},
            ).fetchall()
        return dict(rows)

    def changes_of_bars(self) -> Changes | None:
        """Return what the server has counted of `silver.daily_bars`; None where it does not count.

        It learns of a change when the session that made it ends or is idle for some seconds.
        """
        with self.connect() as connection:
            row = connection.execute(
                "select pg_relation_filenode(relid), n_tup_ins, n_tup_upd, n_tup_del "
                "from pg_stat_all_tables where relid = 'silver.daily_bars'::regclass "
                "and current_setting('track_counts')::boolean "
                "and pg_relation_filenode(relid) is not null"
            ).fetchone()
        return None if row is None else Changes(*row)

    def loads_of_bars(self) -> dict[str, datetime]:
        """Return when each ticker's daily bars were last loaded."""
        with self.connect() as connection:
            return dict(
                connection.execute(
                    "select ticker, loaded_at from ops.silver_loads where table_name = 'daily_bars'"
                ).fetchall()
            )

    def counted_bars(self) -> CountedBars | None:
        """Return the daily bars as last counted."""
        with self.connect() as connection:
            rows = connection.execute(
                "select counted_at, table_file, inserted, updated, deleted, "
                "ticker, first_date, last_date, bars, loaded_at "
                "from ops.bar_changes left join ops.bar_counts on true"
            ).fetchall()
        if not rows:
            return None
        counted_at, *changes = rows[0][:5]
        of_tickers = [row[5:] for row in rows if row[5] is not None]
        return CountedBars(
            counted_at,
            Changes(*changes),
            {ticker: Holding(ticker, *held) for ticker, *held, _ in of_tickers if held[-1]},
            {ticker: loaded_at for ticker, *_, loaded_at in of_tickers},
        )

    def note_counted_bars(
        self,
        changes: Changes,
        holdings: Mapping[str, Holding],
        loaded_at: Mapping[str, datetime | None],
        *,
        since: datetime | None,
    ) -> None:
        """Note `holdings` of the tickers in `loaded_at`, counted after the server told `changes`.

        Those that have none hold nothing. The count before was made at `since`; where somebody has
        noted another one meanwhile, that one stays.
        """
        values = (changes.file, changes.inserted, changes.updated, changes.deleted)
        held = [(ticker, holdings.get(ticker), at) for ticker, at in loaded_at.items()]
        with self.connect() as connection:
            if since is None:
                noted = connection.execute(
                    "insert into ops.bar_changes (table_file, inserted, updated, deleted) "
                    "values (%s, %s, %s, %s) on conflict do nothing",
                    values,
                )
            else:
                noted = connection.execute(
                    "update ops.bar_changes set counted_at = clock_timestamp(), table_file = %s, "
                    "inserted = %s, updated = %s, deleted = %s where counted_at = %s",
                    (*values, since),
                )
            if not noted.rowcount:
                return
            connection.execute(
                "insert into ops.bar_counts select * from unnest(%s::text[], %s::date[], "
                "%s::date[], %s::integer[], %s::timestamptz[]) on conflict (ticker) do update set "
                "first_date = excluded.first_date, last_date = excluded.last_date, "
                "bars = excluded.bars, loaded_at = excluded.loaded_at",
                (
                    [ticker for ticker, _, _ in held],
                    [one and one.first for _, one, _ in held],
                    [one and one.last for _, one, _ in held],
                    [one.count if one else 0 for _, one, _ in held],
                    [at for _, _, at in held],
                ),
            )

    def newest_sessions(self, relation: str, tickers: Sequence[str]) -> dict[str, date]:
        """Return the newest `session_date` of each of `tickers` that `relation` has, if any."""
        if self.missing_relations([relation]):
            return {}
        statement = SQL(
            "select ticker, newest from unnest(%s::text[]) as asked (ticker) cross join lateral "
            "(select max(session_date) as newest from {} as bars where bars.ticker = asked.ticker) "
            "as found where newest is not null"
        ).format(Identifier(*relation.split(".")))
        with self.connect() as connection:
            return dict(connection.execute(statement, (list(tickers),)).fetchall())

    def stored_sessions(self, tickers: Sequence[str]) -> dict[str, list[date]]:
        """Return the dates of the daily bars of `tickers`, oldest first."""
        with self.connect() as connection:
            rows = connection.execute(
                "select ticker, array_agg(session_date order by session_date) "
                "from silver.daily_bars where ticker = any(%s) group by 1",
                (list(tickers),),
            ).fetchall()
        return dict(rows)

    def failed_fetches(self) -> dict[Call, str]:
        """Return the calls that failed when they were last made, and why."""
        with self.connect() as connection:
            rows = connection.execute(
                "select dataset, ticker, part, coalesce(reason, outcome) from ops.fetches "
                "where outcome not in ('Data', 'Unavailable')"
            ).fetchall()
        return {Call(*call): reason for *call, reason in rows}

    def tickers_behind_in_silver(
        self, tickers: Sequence[str], inputs: Iterable[tuple[str, str]]
    ) -> dict[str, list[str]]:
        """Return, for each of `tickers` that has one, the tables without its newest objects.

        An object that the table has refused is not missed: to load it again brings nothing.
        `inputs` are (table, dataset): which tables are loaded from which datasets.
        """
        tables, datasets = zip(*inputs, strict=True)
        with self.connect() as connection:
            return dict(
                connection.execute(
                    SQL(
                        "{} select ticker, array_agg(distinct table_name order by table_name) "
                        "from newest join unnest(%(tables)s::text[], %(inputs)s::text[]) "
                        "  as i (table_name, dataset) using (dataset) "
                        "left join ops.silver_loads using (table_name, ticker) "
                        "where (key = any(bronze_keys)) is not true "
                        "and not exists (select from ops.object_loads loads "
                        "  where loads.bronze_key = key and loads.table_name = i.table_name "
                        "  and loads.is_refused) group by 1"
                    ).format(_NEWEST),
                    {
                        "tickers": sorted(set(tickers)),
                        "datasets": sorted(set(datasets)),
                        "tables": list(tables),
                        "inputs": list(datasets),
                    },
                ).fetchall()
            )

    def last_successes(self, tickers: Sequence[str]) -> dict[tuple[str, str], datetime]:
        """Return when each (ticker, dataset) last had data from the source."""
        with self.connect() as connection:
            rows = connection.execute(
                "select ticker, dataset, max(had_at) from ("
                "  select ticker, dataset, checked_at as had_at from ops.fetches"
                "  where outcome = 'Data' union all"
                "  select ticker, dataset, fetched_at from bronze.objects) had "
                "where ticker = any(%s) group by 1, 2",
                (list(tickers),),
            ).fetchall()
        return {(ticker, dataset): at for ticker, dataset, at in rows}

    def last_failures(self, tickers: Sequence[str]) -> dict[str, tuple[datetime, Failure]]:
        """Return when each of `tickers` that ever failed last did so, and how."""
        with self.connect() as connection:
            rows = connection.execute(
                "select distinct on (ticker) failed_at, asset, ticker, reason from ops.failures "
                "where ticker = any(%s) order by ticker, failed_at desc",
                (list(tickers),),
            ).fetchall()
        return {failure[1]: (at, Failure(*failure)) for at, *failure in rows}

    # What a person wants to know

    def summary(self) -> list[TableSummary]:
        """Return how much each silver table and gold model holds."""
        with self.connect() as connection:
            tables = connection.execute(
                "select table_schema, table_name, array_agg(column_name::text) "
                "from information_schema.columns join information_schema.tables "
                "using (table_schema, table_name) where table_schema in ('silver', 'gold') "
                "and table_type = 'BASE TABLE' and table_name !~ '^_dlt' "
                "and table_name <> all(%s) group by 1, 2 order by 1 desc, 2",
                (list(_BOOKS),),
            ).fetchall()
            lines = []
            for schema, table, columns in tables:
                dated = next((name for name in _LATEST if name in columns), None)
                found = connection.execute(
                    SQL("select count(*), {}, {} from {}").format(
                        SQL("count(distinct ticker)") if "ticker" in columns else SQL("null"),
                        SQL("max({})").format(Identifier(dated)) if dated else SQL("null"),
                        Identifier(schema, table),
                    )
                ).fetchone()
                assert found is not None
                lines.append(TableSummary(f"{schema}.{table}", *found))
            return lines

    def watchlist(self, limit: int) -> list[Watched]:
        """Return how the first `limit` tickers stand, in their order, from gold."""
        with self.connect() as connection:
            rows = connection.execute(
                "select ticker, company_name, session_date, close, simple_return_1w, "
                "simple_return_1y, coalesce(recent_adjusted_closes, '{}') "
                "from gold.mart_latest_prices order by ticker limit %s",
                (limit,),
            ).fetchall()
        return [Watched(*row) for row in rows]


# The newest object of each dataset, ticker and part that has one: the index is asked for one after
# the other, so it costs as much as there are of those, however many objects came before.
_NEWEST = SQL(
    "with recursive known (dataset, ticker, part) as ("
    "  select dataset, ticker, (select min(part) from bronze.objects objects"
    "    where objects.dataset = datasets.dataset and objects.ticker = tickers.ticker)"
    "  from unnest(%(datasets)s::text[]) as datasets (dataset)"
    "  cross join unnest(%(tickers)s::text[]) as tickers (ticker)"
    "  union all"
    "  select dataset, ticker, (select min(part) from bronze.objects objects"
    "    where objects.dataset = known.dataset and objects.ticker = known.ticker"
    "    and objects.part > known.part)"
    "  from known where part is not null), "
    "newest as (select dataset, ticker, part, key from known cross join lateral ("
    "  select key from bronze.objects objects where objects.dataset = known.dataset"
    "    and objects.ticker = known.ticker and objects.part = known.part"
    "  order by fetched_at desc, key desc limit 1) as last where part is not null)"
)
# The rejected rows of the objects that a table is loaded from.
_REJECTED = SQL(
    "from silver.rejected_rows rejected where table_name = %(table)s "
    "and exists (select from ops.silver_loads loads where loads.table_name = rejected.table_name "
    "and loads.ticker = rejected.ticker and rejected.bronze_key = any(loads.bronze_keys))"
)
# The column that dates a table's rows, where it has one of these. Calendars go to next year.
_LATEST = ("session_date", "ex_date")
# Of silver, what is not its content.
_BOOKS = ("rejected_rows", "superseded_rows", "restated_closes")


class FetchJournal:
    """Notes what the source was asked for and which object it came to. For several threads."""

    def __init__(self, pool: ConnectionPool, decided_at: datetime) -> None:
        self._pool = pool
        self._decided_at = decided_at

    @contextmanager
    def only_one(self, call: Call, *, waits: bool = False) -> Iterator[bool]:
        """Keep others, in other processes too, from making `call`.

        Yields False where one of them is making it, or has made it since it was decided on. Who
        waits is told when the other's call has ended, or its process; if that takes too long,
        False.
        """
        number = lock_number(f"fetch {call.dataset} {call.ticker} {call.part}")
        with self._pool.connection() as connection:
            if not (_lock_soon if waits else _lock_now)(connection, number):
                yield False
                return
            try:
                yield self._made(connection, call) is None
            finally:
                connection.execute("select pg_advisory_unlock(%s)", (number,))

    def made(self, call: Call) -> tuple[str, str] | None:
        """Return kind of outcome and reason of `call`, if it was made since it was decided on."""
        with self._pool.connection() as connection:
            return self._made(connection, call)

    def _made(self, connection: psycopg.Connection, call: Call) -> tuple[str, str] | None:
        return connection.execute(
            "select outcome, coalesce(reason, outcome) from ops.fetches "
            "where dataset = %s and ticker = %s and part = %s and checked_at > %s",
            (call.dataset, call.ticker, call.part, self._decided_at),
        ).fetchone()

    def note(
        self,
        call: Call,
        outcome: str,
        reason: str | None,
        key: BronzeKey | None,
        *,
        is_whole: bool = True,
    ) -> None:
        """Note that `call` was made just now, what came of it, and the new object, if any.

        `is_whole` tells that more was asked for than the newest rows.
        """
        has_data = outcome == "Data"
        with self._pool.connection() as connection, connection.transaction():
            connection.execute(
                "insert into ops.fetches "
                "(dataset, ticker, part, checked_at, outcome, reason, had_at, whole_at, failures) "
                "values (%s, %s, %s, clock_timestamp(), %s, %s, "
                "case when %s then clock_timestamp() end, "
                "case when %s then clock_timestamp() end, %s) "
                "on conflict (dataset, ticker, part) do update set "
                "checked_at = excluded.checked_at, outcome = excluded.outcome, "
                "reason = excluded.reason, had_at = coalesce(excluded.had_at, fetches.had_at), "
                "whole_at = coalesce(excluded.whole_at, fetches.whole_at), "
                "failures = excluded.failures * (fetches.failures + 1)",
                (
                    *(call.dataset, call.ticker, call.part, outcome, reason),
                    *(has_data, has_data and is_whole),
                    int(outcome not in ("Data", "Unavailable")),
                ),
            )
            if key is not None:
                index_objects(connection.cursor(), [(key, None)])


def _note_loaded(
    cursor: psycopg.Cursor[Any], table: str, keys: Sequence[str], began_at: datetime
) -> None:
    """Note that `keys` are loaded; what was overwritten since `began_at` may not be what was read.

    It stays to be loaded.
    """
    cursor.execute(
        "insert into ops.object_loads as known (table_name, bronze_key, ticker, loads, loaded_at) "
        "select %s, key, ticker, 1, clock_timestamp() from bronze.objects where key = any(%s) "
        "on conflict (bronze_key, table_name) do update set loads = known.loads + 1, "
        "loaded_at = excluded.loaded_at, is_refused = false where known.loaded_at is null "
        "and (known.overwritten_at is null or known.overwritten_at < %s)",
        (table, list(keys), began_at),
    )


def _lock_now(connection: psycopg.Connection, number: int) -> bool:
    row = connection.execute("select pg_try_advisory_lock(%s)", (number,)).fetchone()
    return row == (True,)


def _lock_soon(connection: psycopg.Connection, number: int) -> bool:
    try:
        with connection.transaction():
            connection.execute(f"set local lock_timeout = '{_LONGEST_CALL}'")
            connection.execute("select pg_advisory_lock(%s)", (number,))
    except psycopg.errors.LockNotAvailable:
        return False
    return True


def lock_number(name: str) -> int:
    """Return what PostgreSQL knows the lock `name` by."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)


def index_objects(
    cursor: psycopg.Cursor[Any], objects: Sequence[tuple[BronzeKey, str | None]]
) -> None:
    """Note objects with their ETags, and that the silver tables have them to load.

    Those already noted stay as they are.
    """
    if not objects:
        return
    lines = [
        (str(key), key.dataset, key.ticker, key.part, key.fetched_at, key.content_hash, etag)
        for key, etag in objects
    ]
    cursor.execute(
        "insert into bronze.objects (key, dataset, ticker, part, fetched_at, content_hash, etag) "
        "select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[], "
        "%s::text[], %s::text[]) on conflict do nothing",
        [list(column) for column in zip(*lines, strict=True)],
    )
    reads = [(table, str(key), key.ticker) for key, _ in objects for table in READERS[key.dataset]]
    cursor.execute(
        "insert into ops.object_loads (table_name, bronze_key, ticker) "
        "select * from unnest(%s::text[], %s::text[], %s::text[]) on conflict do nothing",
        [list(column) for column in zip(*reads, strict=True)],
    )


def where(database_url: str) -> str:
    """Return a database URL as one may show it: without user and password."""
    parts = urlsplit(database_url)
    return f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"


@contextmanager
def _watched(connection: psycopg.Connection, on_loss: Callable[[], None]) -> Iterator[None]:
    """Call `on_loss` in a thread if the connection, which nobody else uses meanwhile, is lost."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                connection.execute("select 1")
            except psycopg.Error:
                _log.warning("a lock is lost with its session", exc_info=True)
                on_loss()
                return

    thread = threading.Thread(target=look, name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def connect(
    database_url: str,
    *,
    autocommit: bool = False,
    **options: Any,  # noqa: ANN401 # libpq's own
) -> Iterator[psycopg.Connection]:
    """Yield a connection; its work is committed when the block ends well.

    `options` are those of libpq.

    Raises:
        StackError: no connection can be made.
    """
    try:
        connection = psycopg.connect(
            database_url,
            autocommit=autocommit,
            connect_timeout=10,
            application_name="stocks_assets",
            **options,
        )
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise StackError(
            f"no connection to PostgreSQL at {where(database_url)}: {reason}; "
            "check STOCKS_DATABASE_URL, or start the embedded server with: stocks up"
        ) from error
    with connection:
        connection.execute("set time zone 'UTC'")
        yield connection


def ensure_database(database_url: str) -> None:
    """Make the database that `database_url` names, if its server has it not.

    Raises:
        StackError: the server cannot be reached, or the user may not make databases.
    """
    name = str(conninfo_to_dict(database_url)["dbname"])
    try:
        with psycopg.connect(database_url, connect_timeout=10):
            return
    except psycopg.OperationalError as error:
        if f'database "{name}" does not exist' not in str(error):
            with connect(database_url):
                return
    scheme, _, rest = database_url.partition("://")
    parts = urlsplit(f"{scheme}://{rest}")
    maintenance = parts._replace(path="/postgres").geturl()
    with connect(maintenance, autocommit=True) as connection:
        try:
            connection.execute(SQL("create database {}").format(Identifier(name)))
        except psycopg.errors.DuplicateDatabase:
            return
        except psycopg.errors.InsufficientPrivilege as error:
            raise StackError(
                f"database {name!r} is not there and the user may not make it; "
                f"as an administrator run: create database {name}"
            ) from error
