"""PostgreSQL: connections, migrations, locks, and the tables that runs keep their books in."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from urllib.parse import urlsplit

import alembic.command
import alembic.config
import psycopg
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import scalar_row
from psycopg.sql import SQL, Identifier

from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.planner import Checked, Priority
from stocks_assets.errors import StackError

_MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class SilverLoad:
    """What a silver table holds of a ticker, and which objects it was loaded from."""

    ticker: str
    bronze_keys: list[str]
    row_count: int
    rejected_count: int
    first_date: date | None
    last_date: date | None


@dataclass(frozen=True, slots=True)
class Failure:
    """A ticker that an asset failed for in a run, and why."""

    asset: str
    ticker: str
    reason: str


@dataclass(frozen=True, slots=True)
class TableSummary:
    """How much a table holds, of how many tickers, and up to when."""

    table: str
    rows: int
    tickers: int | None
    latest: date | None


@dataclass(frozen=True, slots=True)
class Watched:
    """How a ticker stands: raw close, returns over the last week and 52 weeks, recent closes."""

    ticker: str
    company_name: str
    session_date: date
    close: float
    week_return: float | None
    year_return: float | None
    closes: list[float]


class Warehouse:
    """The database that holds silver, gold and the books about them."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url

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
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock `name`, which one process at a time can have; it ends with the process."""
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        with connect(self.database_url, autocommit=True) as connection:
            connection.execute("select pg_advisory_lock(%s)", (number,))
            yield

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

    # The index of bronze objects

    def index_bucket(self, identity: str) -> None:
        """Let the index speak of the bucket `identity`; what it knew of another is forgotten."""
        with self.connect() as connection:
            connection.execute("lock table bronze.indexed_bucket in exclusive mode")
            known = connection.execute("select identity from bronze.indexed_bucket").fetchone()
            if known != (identity,):
                connection.execute("truncate bronze.objects, bronze.indexed_bucket, ops.fetches")
                connection.execute(
                    "insert into bronze.indexed_bucket (identity) values (%s)", (identity,)
                )

    def newest_object_at(self, dataset: str) -> datetime | None:
        """Return when the newest known object of `dataset` was fetched."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute(
                "select max(fetched_at) from bronze.objects where dataset = %s", (dataset,)
            ).fetchone()

    def index(self, keys: Iterable[BronzeKey]) -> None:
        """Note the objects `keys`; those already noted stay as they are."""
        with self.connect() as connection, connection.cursor() as cursor:
            _index(cursor, keys)

    def newest_objects(self, dataset: str, tickers: Sequence[str]) -> dict[str, BronzeKey]:
        """Return the newest object of `dataset` of each of `tickers` that has one."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            keys = cursor.execute(
                "select distinct on (ticker) key from bronze.objects "
                "where dataset = %s and ticker = any(%s) "
                "order by ticker, fetched_at desc, key desc",
                (dataset, list(tickers)),
            ).fetchall()
        parsed = (BronzeKey.parse(key) for key in keys)
        return {key.ticker: key for key in parsed}

    # What the source was asked for

    @contextmanager
    def fetch_journal(self) -> Iterator["FetchJournal"]:
        """Yield where fetches are noted one by one, each for good at once."""
        with connect(self.database_url, autocommit=True) as connection:
            yield FetchJournal(connection)

    def unavailable(self, dataset: str, tickers: Sequence[str]) -> set[str]:
        """Return those of `tickers` that the source, when last asked, had nothing of."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return set(
                cursor.execute(
                    "select ticker from ops.fetches where dataset = %s and ticker = any(%s) "
                    "and outcome = 'Unavailable'",
                    (dataset, list(tickers)),
                ).fetchall()
            )

    def fetches(self) -> dict[tuple[str, str], Checked]:
        """Return when each (dataset, ticker) was last asked for, and what came of it."""
        with self.connect() as connection:
            rows = connection.execute(
                "select dataset, ticker, checked_at, outcome from ops.fetches"
            ).fetchall()
        return {(dataset, ticker): Checked(at, outcome) for dataset, ticker, at, outcome in rows}

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

    # What silver was loaded from

    def silver_loads(self, table: str, tickers: Sequence[str]) -> dict[str, SilverLoad]:
        """Return the last load of `table` of each of `tickers` that has one."""
        with self.connect() as connection:
            rows = connection.execute(
                "select ticker, bronze_keys, row_count, rejected_count, first_date, last_date "
                "from ops.silver_loads where table_name = %s and ticker = any(%s)",
                (table, list(tickers)),
            ).fetchall()
        return {row[0]: SilverLoad(*row) for row in rows}

    def record_silver_loads(
        self,
        table: str,
        loads: Iterable[SilverLoad],
        rejected_rows: Iterable[tuple[str, str, str, list[str]]],
    ) -> None:
        """Note `loads` of `table`, with the rejected rows of their objects.

        A rejected row is (ticker, bronze key, raw values as JSON, rules).
        """
        loads = list(loads)
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.executemany(
                "insert into ops.silver_loads (table_name, ticker, bronze_keys, row_count, "
                "rejected_count, first_date, last_date) values (%s, %s, %s, %s, %s, %s, %s) "
                "on conflict (table_name, ticker) do update set "
                "bronze_keys = excluded.bronze_keys, row_count = excluded.row_count, "
                "rejected_count = excluded.rejected_count, first_date = excluded.first_date, "
                "last_date = excluded.last_date, loaded_at = clock_timestamp()",
                [
                    (
                        table,
                        load.ticker,
                        load.bronze_keys,
                        load.row_count,
                        load.rejected_count,
                        load.first_date,
                        load.last_date,
                    )
                    for load in loads
                ],
            )
            keys = [key for load in loads for key in load.bronze_keys]
            cursor.execute(
                "delete from silver.rejected_rows where table_name = %s and bronze_key = any(%s)",
                (table, keys),
            )
            cursor.executemany(
                "insert into silver.rejected_rows (table_name, ticker, bronze_key, row_values, "
                "rules) values (%s, %s, %s, %s, %s)",
                [(table, *row) for row in rejected_rows],
            )

    # Which tickers gold is behind for

    def tickers_behind_in_gold(self, tickers: Sequence[str], built_by: str) -> list[str]:
        """Return those of `tickers` that have newer silver, or gold of another project."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute(
                "select distinct ticker from ops.silver_loads left join ops.gold_builds "
                "using (ticker) where ticker = any(%s) and (built_at is null "
                "or loaded_at > built_at or built_by <> %s) order by ticker",
                (list(tickers), built_by),
            ).fetchall()

    def silver_tickers(self) -> list[str]:
        """Return the tickers that silver has been loaded for."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute(
                "select distinct ticker from ops.silver_loads order by ticker"
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
        """Tell whether `gold.dim_date` is not there or ends before silver's calendar does."""
        with self.connect() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            if cursor.execute("select to_regclass('gold.dim_date')").fetchone() is None:
                return True
            return bool(
                cursor.execute(
                    "select (select max(calendar_date) from silver.exchange_calendar) "
                    "is distinct from (select max(date_day) from gold.dim_date)"
                ).fetchone()
            )

    @contextmanager
    def gold_batch(
        self, batch_id: str, tickers: Sequence[str], *, built_by: str | None
    ) -> Iterator[None]:
        """Put `tickers` down as the batch `batch_id` for the block that builds gold for them.

        When it ends well, gold is up to date for them, up to the block's start, as the project
        `built_by` has it; None for a block that builds just a part of gold.
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
        if built_by is None:
            return
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.executemany(
                "insert into ops.gold_builds (ticker, built_at, built_by) values (%s, %s, %s) "
                "on conflict (ticker) do update "
                "set built_at = excluded.built_at, built_by = excluded.built_by",
                [(ticker, started_at[0], built_by) for ticker in tickers],
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

    # What a person wants to know

    def summary(self) -> list[TableSummary]:
        """Return how much each silver table and gold model holds."""
        with self.connect() as connection:
            tables = connection.execute(
                "select table_schema, table_name, array_agg(column_name::text) "
                "from information_schema.columns join information_schema.tables "
                "using (table_schema, table_name) where table_schema in ('silver', 'gold') "
                "and table_type = 'BASE TABLE' and table_name !~ '^_dlt' "
                "and table_name <> 'rejected_rows' group by 1, 2 order by 1 desc, 2"
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
        """Return the newest weekly bars of the first `limit` tickers, from gold."""
        with self.connect() as connection:
            rows = connection.execute(
                "select ticker, company_name, session_date, close, week_return, year_return, closes"
                " from ("
                "  select ticker, array_agg(adjusted_close order by week_start) as closes"
                "  from (select *, row_number() over newest as age from gold.agg_weekly_prices"
                "        window newest as (partition by ticker order by week_start desc)) weeks"
                "  where age <= 20 group by ticker) recent "
                "join lateral (select session_date, close, simple_return_1w as week_return"
                "  from gold.fct_weekly_prices w where w.ticker = recent.ticker"
                "  order by week_start desc limit 1) last on true "
                "left join lateral (select closes[array_upper(closes, 1)] / adjusted_close - 1"
                "  as year_return from gold.agg_weekly_prices y where y.ticker = recent.ticker"
                "  order by week_start desc offset 52 limit 1) year on true "
                "join gold.dim_company using (ticker) order by ticker limit %s",
                (limit,),
            ).fetchall()
        return [Watched(*row) for row in rows]


# The column that dates a table's rows, where it has one of these. Calendars go to next year.
_LATEST = ("session_date", "ex_date")


class FetchJournal:
    """Notes what the source was asked for and which object it came to."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def note(
        self, dataset: str, ticker: str, outcome: str, reason: str | None, key: BronzeKey | None
    ) -> None:
        """Note that `dataset` of `ticker` was asked for just now, and the new object, if any."""
        with self._connection.transaction():
            self._connection.execute(
                "insert into ops.fetches (dataset, ticker, checked_at, outcome, reason) "
                "values (%s, %s, clock_timestamp(), %s, %s) "
                "on conflict (dataset, ticker) do update set checked_at = excluded.checked_at, "
                "outcome = excluded.outcome, reason = excluded.reason",
                (dataset, ticker, outcome, reason),
            )
            if key is not None:
                _index(self._connection.cursor(), [key])


def _index(cursor: psycopg.Cursor, keys: Iterable[BronzeKey]) -> None:
    cursor.executemany(
        "insert into bronze.objects (key, dataset, ticker, fetched_at, content_hash) "
        "values (%s, %s, %s, %s, %s) on conflict do nothing",
        [(str(key), key.dataset, key.ticker, key.fetched_at, key.content_hash) for key in keys],
    )


def where(database_url: str) -> str:
    """Return a database URL as one may show it: without user and password."""
    parts = urlsplit(database_url)
    return f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"


@contextmanager
def connect(database_url: str, *, autocommit: bool = False) -> Iterator[psycopg.Connection]:
    """Yield a connection; its work is committed when the block ends well.

    Raises:
        StackError: no connection can be made.
    """
    try:
        connection = psycopg.connect(
            database_url,
            autocommit=autocommit,
            connect_timeout=10,
            application_name="stocks_assets",
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
