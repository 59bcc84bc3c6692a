"""A small silver market that tests change as they like, and dbt on top of it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import psycopg
from psycopg.sql import SQL, Identifier

from stocks_assets.adapters.dbt_project import (
    PROJECT_DIR,
    dbt_environment,
    ensure_manifest,
)
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.calendar import exchange_calendar_frame

DAILY = {
    "ticker": pl.String,
    "session_date": pl.Date,
    "open": pl.Float64,
    "high": pl.Float64,
    "low": pl.Float64,
    "close": pl.Float64,
    "adjusted_close": pl.Float64,
    "volume": pl.Int64,
    "dividend_amount": pl.Float64,
    "split_coefficient": pl.Float64,
}
ACTIONS = {
    "ticker": pl.String,
    "ex_date": pl.Date,
    "action_type": pl.String,
    "dividend_amount": pl.Float64,
    "split_ratio": pl.Float64,
}
IN_A_LIST, IN_BARS = "bronze/splits/test", "bronze/daily_bars/test"
KEYS = {
    "daily_bars": ("ticker", "session_date"),
    "weekly_bars": ("ticker", "week_start"),
    "monthly_bars": ("ticker", "month_start"),
    "corporate_actions": ("ticker", "ex_date", "action_type"),
    "companies": ("ticker",),
    "listings": ("ticker", "delisted_on"),
}


@dataclass
class Silver:
    """Silver tables that follow frames: rows that say nothing new stay as they were loaded."""

    warehouse: Warehouse
    loads: int = 0
    stored: dict[str, pl.DataFrame] = field(default_factory=dict)

    def calendar(self, first: date, last: date, closed: Sequence[date] = ()) -> None:
        """Make the exchange's calendar that of the days from `first` to `last`, without `closed`."""
        frame = exchange_calendar_frame(first, last)
        is_closed = pl.col("calendar_date").is_in(list(closed))
        frame = frame.with_columns(
            pl.when(~is_closed).then(name).otherwise(otherwise).alias(name)
            for name, otherwise in {
                "is_session": False,
                "is_early_close": False,
                "opens_at": None,
                "closes_at": None,
            }.items()
        )
        with self.warehouse.connect() as connection:
            connection.execute("delete from silver.exchange_calendar")
            _copy(connection, "exchange_calendar", frame)

    def load(self, table: str, frame: pl.DataFrame) -> None:
        """Make `table` hold the rows of `frame`, as a load of whole histories would."""
        self.loads += 1
        key = list(KEYS[table])
        values = [name for name in frame.columns if name not in key]
        wanted = frame.with_columns(
            pl.struct(values).hash(seed=0).reinterpret(signed=True).alias("row_version")
        )
        before = self.stored.get(table)
        known = wanted.head(0) if before is None else before
        changed = wanted.join(known, on=[*key, "row_version"], how="anti", nulls_equal=True)
        gone = known.join(wanted, on=[*key, "row_version"], how="anti", nulls_equal=True)
        self.stored[table] = wanted
        with self.warehouse.connect() as connection:
            for row in gone.select(key).iter_rows():
                connection.execute(
                    SQL("delete from {} where {}").format(
                        Identifier("silver", table),
                        SQL(" and ").join(SQL("{} = %s").format(Identifier(k)) for k in key),
                    ),
                    row,
                )
            loaded = changed.with_columns(
                pl.col("bronze_key")
                if "bronze_key" in frame.columns
                else pl.lit(f"bronze/test/{self.loads:04}").alias("bronze_key"),
                pl.lit("test").alias("load_id"),
                pl.lit(datetime.now(UTC)).alias("loaded_at"),
                pl.lit(datetime(2026, 1, 1, tzinfo=UTC)).alias("known_at"),
            )
            _copy(connection, table, loaded)


def longer_bars(daily: pl.DataFrame, key: str, period: str) -> pl.DataFrame:
    """Weekly or monthly bars as the vendor makes them of daily ones, which have its adjusted close."""
    return (
        daily.filter(pl.col("adjusted_close").is_not_null())
        .sort("ticker", "session_date")
        .with_columns(pl.col("session_date").dt.truncate(period).alias(key))
        .group_by("ticker", key, maintain_order=True)
        .agg(
            pl.col("session_date").last(),
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close", "adjusted_close").last(),
            pl.col("volume").sum(),
            pl.col("dividend_amount").fill_null(0).sum(),
        )
        .with_columns((pl.col(key) < pl.col(key).max().over("ticker")).alias("is_complete"))
    )


class Dbt:
    """A process that runs dbt again and again on `warehouse`; importing and parsing costs once."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        # Its own: others read the manifest while this one is written.
        self.target = Path(tempfile.mkdtemp(prefix="stocks-dbt-test-"))
        parsed = ensure_manifest().with_name("partial_parse.msgpack")
        if parsed.exists():
            shutil.copy(parsed, self.target)
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _SERVER],
            cwd=PROJECT_DIR,
            env={
                **os.environ,
                "DBT_PROFILES_DIR": str(PROJECT_DIR),
                "DBT_TARGET_PATH": str(self.target),
                "DBT_LOG_PATH": str(self.target),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, tickers: Sequence[str] | None = None) -> None:
        """Run dbt, for `tickers` as a batch or for all; fails when dbt does."""
        assert self._process.stdin
        assert self._process.stdout
        batch = f"test-{os.urandom(8).hex()}"
        with (
            self.warehouse.gold_batch(batch, tickers or [], built_by="a test", is_whole=False),
            dbt_environment(self.warehouse, batch if tickers is not None else None),
        ):
            names = [name for name in os.environ if name.startswith(("DBT_", "PG"))]
            call = {
                "arguments": ["--quiet", "--no-use-colors", "--log-level-file", "none", *arguments],
                "environment": {name: os.environ[name] for name in names},
            }
            print(json.dumps(call), file=self._process.stdin, flush=True)
            failures = json.loads(self._process.stdout.readline())
        assert not failures, "\n".join(failures)

    def analysis(self, name: str) -> pl.DataFrame:
        """Run a compiled analysis."""
        path = self.target / "compiled" / "stocks" / "analyses" / f"{name}.sql"
        return query(self.warehouse, path.read_text())

    def status(self, test: str) -> str:
        """Return how a dbt test ended in the last call that ran it: pass, warn or fail."""
        results = json.loads((self.target / "run_results.json").read_bytes())["results"]
        return next(r["status"] for r in results if f".{test}." in f"{r['unique_id']}.")

    def close(self) -> None:
        with self._process:
            self._process.terminate()
        shutil.rmtree(self.target, ignore_errors=True)


_SERVER = """
import json, os, sys
from dbt.cli.main import dbtRunner
from dbt.contracts.graph.manifest import Manifest

answers, sys.stdout = sys.stdout, sys.stderr
manifest = None
for line in sys.stdin:
    call = json.loads(line)
    os.environ.update(call["environment"])
    if manifest is None:
        manifest = dbtRunner().invoke(["parse", "--quiet"]).result
    done = dbtRunner(manifest=manifest).invoke(call["arguments"])
    failures = [str(done.exception)] if done.exception else []
    for result in getattr(done.result, "results", None) or []:
        if result.status in ("error", "fail", "runtime error"):
            failures.append(f"{result.node.name}: {result.message}")
    if not done.success and not failures:
        failures.append("dbt failed")
    print(json.dumps(failures), file=answers, flush=True)
"""


def query(warehouse: Warehouse, sql: str) -> pl.DataFrame:
    with warehouse.connect() as connection:
        return pl.read_database(sql, connection, infer_schema_length=None)


def tables(warehouse: Warehouse) -> dict[str, pl.DataFrame]:
    """Every row of every table that dbt builds, in an order of its own."""
    with warehouse.connect() as connection:
        names = connection.execute(
            "select schemaname || '.' || tablename from pg_tables "
            "where schemaname in ('gold', 'staging') and tablename <> 'dim_company_history'"
        ).fetchall()
    found: Mapping[str, pl.DataFrame] = {
        name: query(warehouse, f"select * from {name}") for (name,) in names
    }
    return {
        name: frame.sort(
            [
                c
                for c in (
                    "ticker",
                    "sector",
                    "session_date",
                    "ex_date",
                    "week_start",
                    "month_start",
                    "date_day",
                    "action_type",
                    "valid_from",
                )
                if c in frame.columns
            ]
        )
        for name, frame in found.items()
    }


def _copy(connection: psycopg.Connection, table: str, frame: pl.DataFrame) -> None:
    into = SQL("copy {} ({}) from stdin (format csv)").format(
        Identifier("silver", table), SQL(", ").join(map(Identifier, frame.columns))
    )
    with connection.cursor().copy(into) as rows:
        rows.write(frame.write_csv(include_header=False).encode())
