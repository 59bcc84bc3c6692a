"""What gold costs: a full refresh of a big market, then the day after it.

Fills silver with random walks (500 tickers x 6,300 sessions by default) on a PostgreSQL of its own
in a temporary folder and times `dbt build`, as Dagster calls it: on the empty warehouse, which is
what dbt itself costs, for the full refresh, and after one new session for every ticker, a few of
which pay a dividend, so that the vendor restates all of their adjusted closes. What each model
takes is printed, and plotted with `--plot`. On a machine that does other work as well, the seconds
of processor time of dbt and the server say more than those of the clock. The last line is one JSON
object.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import psutil
import psycopg
from psycopg.sql import SQL, Identifier

from stocks_assets.adapters.dbt_project import DBT_EXECUTABLE, PROJECT_DIR, dbt_environment
from stocks_assets.adapters.warehouse import Warehouse, ensure_database
from stocks_assets.domain.calendar import exchange_calendar_frame, sessions
from stocks_assets.stack.embedded import EmbeddedStack

LAST_SESSION = date(2026, 11, 13)
SECTORS = ("TECHNOLOGY", "ENERGY", "UTILITIES", "HEALTHCARE", "INDUSTRIALS")
# A share of the tickers that pays a dividend on a day: four a year.
PAYING = 4 / 252
BAR_KEY = ("ticker", "session_date")
BUILD = ("--log-level-file", "none", "build", "--exclude-resource-type", "unit_test")
FULL = ("--full-refresh",)
DAY = ("--indirect-selection", "empty", "--exclude", "config.materialized:view")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tickers", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=6300)
    parser.add_argument("--home", type=Path, help="keep the servers' files in this folder")
    parser.add_argument("--plot", type=Path, help="plot the share of each model into this file")
    asked = parser.parse_args()
    with server(asked.home) as (warehouse, postmaster):
        seconds, full, daily = measure(warehouse, postmaster, asked.tickers, asked.sessions)
    if asked.plot:
        plot(full, daily, seconds, asked.plot)
    print(json.dumps(seconds))


@contextmanager
def server(home: Path | None) -> Iterator[tuple[Warehouse, psutil.Process]]:
    """Yield an empty warehouse on a PostgreSQL of its own, which ends with the block."""
    with tempfile.TemporaryDirectory(prefix="bench-gold-") as folder:
        stack = EmbeddedStack(home or Path(folder), s3=False)
        try:
            url = stack.start().database_url
            assert url
            ensure_database(url)
            warehouse = Warehouse(url)
            with warehouse.connect() as connection:
                connection.execute(
                    "drop schema if exists bronze, silver, staging, gold, ops cascade"
                )
            warehouse.migrate()
            yield warehouse, postmaster_of(warehouse)
        finally:
            stack.stop()


def postmaster_of(warehouse: Warehouse) -> psutil.Process:
    """Return the server's first process, which has the time of all that have ended."""
    with warehouse.connect() as connection:
        postmaster = psutil.Process(connection.info.backend_pid).parent()
    assert postmaster
    return postmaster


def measure(
    warehouse: Warehouse, postmaster: psutil.Process, tickers: int, count: int
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Return the seconds of each build, and those of each node of the full and the daily one."""
    names = [f"T{number:04}" for number in range(tickers)]
    days = sessions(date(1999, 11, 1), LAST_SESSION)[-count - 1 :]
    with warehouse.connect() as connection:
        copy(connection, "exchange_calendar", exchange_calendar_frame(days[0], date(2027, 12, 31)))
    costs = partial(build, warehouse, postmaster, names)
    costs(*FULL)
    fixed_full, _ = costs(*FULL)
    fixed, _ = costs(*DAY)
    started = time.perf_counter()
    with warehouse.connect() as connection:
        tomorrow = fill(connection, names, days)
        connection.execute(
            "create table ops.bench_tomorrow as table silver.daily_bars with no data"
        )
        store_tomorrow(connection, tomorrow)
    settle(warehouse)
    print(f"filled silver in {time.perf_counter() - started:.0f} s", flush=True)
    full, full_nodes = costs(*FULL)
    report("full", full, full_nodes)
    settle(warehouse)
    paying = names[:: max(tickers // max(round(tickers * PAYING), 1), 1)]
    with warehouse.connect() as connection:
        publish_tomorrow(connection, paying)
    daily, daily_nodes = costs(*DAY)
    report("daily", daily, daily_nodes)
    share, of_processor = (
        (getattr(daily, name) - getattr(fixed, name))
        / (getattr(full, name) - getattr(fixed_full, name))
        for name in ("seconds", "processor")
    )
    print(f"a day costs {share:.1%} of a full refresh, dbt's fixed cost apart")
    seconds = {
        "tickers": tickers,
        "sessions": count,
        "paying": len(paying),
        "full_seconds": round(full.seconds, 2),
        "daily_seconds": round(daily.seconds, 2),
        "dbt_fixed_seconds": round(fixed.seconds, 2),
        "dbt_fixed_full_seconds": round(fixed_full.seconds, 2),
        "daily_share_of_full": round(share, 4),
        "full_processor_seconds": round(full.processor, 2),
        "daily_processor_seconds": round(daily.processor, 2),
        "dbt_fixed_processor_seconds": round(fixed.processor, 2),
        "daily_share_of_full_processor": round(of_processor, 4),
    }
    return seconds, full_nodes, daily_nodes


class Cost(NamedTuple):
    """What a build took by the clock, and of processor time of dbt and the server, in seconds."""

    seconds: float
    processor: float


def processor_time(postmaster: psutil.Process) -> float:
    """Return the seconds of processor time of processes that ended: of dbt, and of the server's."""
    time.sleep(0.5)  # The server takes a moment to see that its backends ended.
    ours, servers = psutil.Process().cpu_times(), postmaster.cpu_times()
    return sum(times.children_user + times.children_system for times in (ours, servers))


def build(
    warehouse: Warehouse, postmaster: psutil.Process, tickers: list[str], *options: str
) -> tuple[Cost, dict[str, float]]:
    """Run dbt for all tickers as one batch; return its cost, and the seconds of each node."""
    batch = uuid.uuid4().hex
    target = PROJECT_DIR / "target" / "bench"
    with (
        warehouse.gold_batch(batch, tickers, built_by="a benchmark"),
        dbt_environment(warehouse, batch),
    ):
        before = processor_time(postmaster)
        started = time.perf_counter()
        done = subprocess.run(
            [DBT_EXECUTABLE, "--no-use-colors", "--quiet", *BUILD, *options],
            cwd=PROJECT_DIR,
            env={
                **os.environ,
                "DBT_PROFILES_DIR": str(PROJECT_DIR),
                "DBT_TARGET_PATH": str(target),
            },
            check=False,
        )
        seconds = time.perf_counter() - started
    processor = processor_time(postmaster) - before
    if done.returncode != 0:
        raise SystemExit(f"dbt build {' '.join(options)} failed")
    took: dict[str, float] = {}
    for node in json.loads((target / "run_results.json").read_bytes())["results"]:
        kind, _, name = node["unique_id"].split(".")[:3]
        key = name if kind in ("model", "snapshot", "seed") else f"{kind}s together"
        took[key] = took.get(key, 0.0) + node["execution_time"]
    return Cost(seconds, processor), took


def report(label: str, cost: Cost, took: dict[str, float]) -> None:
    """Print what each model took, and the tests together."""
    total = sum(took.values())
    print(f"\n{label}: {cost.seconds:.1f} s; {total:.1f} s of work on several connections")
    for name, spent in sorted(took.items(), key=lambda item: -item[1]):
        if spent >= 0.005 * total:
            print(f"  {name:<34}{spent:8.2f} s {spent / total:6.1%}")
    print(flush=True)


def plot(
    full: dict[str, float], daily: dict[str, float], seconds: dict[str, float], path: Path
) -> None:
    """Draw the share of each model in the full refresh and in the day after it."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 7))
    for axis, (label, took) in zip(axes, (("full", full), ("daily", daily)), strict=True):
        total = sum(took.values())
        largest = sorted(took.items(), key=lambda item: item[1])[-18:]
        axis.barh([name for name, _ in largest], [100 * spent / total for _, spent in largest])
        axis.set(
            title=f"{label} refresh: {seconds[f'{label}_seconds']:.1f} s",
            xlabel="share of the work of all nodes, %",
        )
    figure.suptitle(f"{seconds['tickers']} tickers, {seconds['sessions']} sessions")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def settle(warehouse: Warehouse) -> None:
    """Leave the server as a night would: statistics are there and nothing is being written."""
    with psycopg.connect(warehouse.database_url, autocommit=True) as connection:
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")


def fill(connection: psycopg.Connection, tickers: list[str], days: list[date]) -> pl.DataFrame:
    """Fill silver with histories up to the last but one of `days`; return the bars of the last."""
    random = np.random.default_rng(20260701)
    last = []
    for number, ticker in enumerate(tickers):
        bars, actions = history(random, ticker, days)
        last.append(bars.tail(1))
        past = bars.head(-1)
        copy(connection, "daily_bars", stored(past, BAR_KEY))
        copy(connection, "corporate_actions", stored(actions, ("ticker", "ex_date", "action_type")))
        for table, key, period in (
            ("weekly_bars", "week_start", "1w"),
            ("monthly_bars", "month_start", "1mo"),
        ):
            copy(connection, table, stored(longer(past, key, period), ("ticker", key)))
        profile = pl.DataFrame(
            {
                "ticker": [ticker],
                "company_name": [f"Company {number}"],
                "sector": [SECTORS[number % len(SECTORS)]],
            }
        )
        copy(connection, "companies", stored(profile, ("ticker",)))
        listing = profile.select(
            "ticker",
            pl.lit(date(9999, 12, 31)).alias("delisted_on"),
            "company_name",
            pl.lit("active").alias("status"),
        )
        copy(connection, "listings", stored(listing, ("ticker", "delisted_on")))
    return pl.concat(last)


def history(
    random: np.random.Generator, ticker: str, days: list[date]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return a ticker's daily bars and corporate actions: dividends by quarter, a few splits."""
    count = len(days)
    value = 50 * np.exp(np.cumsum(random.normal(0.0003, 0.018, count)))
    split = np.ones(count)
    split[random.integers(1, count - 1, 2)] = (2.0, 3.0)
    close = np.round(value / np.cumprod(split) * 6, 2).clip(0.05)
    dividend = np.zeros(count)
    paid = np.arange(int(random.integers(5, 60)), count - 1, 63)
    dividend[paid] = np.round(close[paid] * 0.005, 4)
    step = np.append((close / (split * (close + dividend)))[1:], 1.0)
    adjusted = close * np.cumprod(step[::-1])[::-1]
    bars = pl.DataFrame(
        {
            "ticker": [ticker] * count,
            "session_date": days,
            "open": close,
            "high": np.round(close * 1.01 + 0.01, 2),
            "low": np.round(close * 0.99, 2),
            "close": close,
            "adjusted_close": adjusted,
            "volume": random.integers(100_000, 50_000_000, count),
            "dividend_amount": dividend,
            "split_coefficient": split,
        }
    )
    actions = pl.concat(
        [
            bars.filter(pl.col("dividend_amount") > 0).select(
                "ticker",
                pl.col("session_date").alias("ex_date"),
                pl.lit("dividend").alias("action_type"),
                "dividend_amount",
                pl.lit(None, dtype=pl.Float64).alias("split_ratio"),
            ),
            bars.filter(pl.col("split_coefficient") != 1).select(
                "ticker",
                pl.col("session_date").alias("ex_date"),
                pl.lit("split").alias("action_type"),
                pl.lit(None, dtype=pl.Float64).alias("dividend_amount"),
                pl.col("split_coefficient").alias("split_ratio"),
            ),
        ]
    )
    return bars, actions


def longer(bars: pl.DataFrame, key: str, period: str) -> pl.DataFrame:
    """Return weekly or monthly bars as the vendor makes them of daily ones."""
    return (
        bars.with_columns(pl.col("session_date").dt.truncate(period).alias(key))
        .group_by("ticker", key, maintain_order=True)
        .agg(
            pl.col("session_date").last(),
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close", "adjusted_close").last(),
            pl.col("volume", "dividend_amount").sum(),
        )
        .with_columns(pl.lit(True).alias("is_complete"))
    )


def stored(frame: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
    """Return `frame` with the columns that a load of silver adds."""
    values = [name for name in frame.columns if name not in key]
    return frame.with_columns(
        pl.struct(values).hash(seed=0).reinterpret(signed=True).alias("row_version"),
        pl.lit(f"bronze/bench/2026-11-13/213000_{frame['ticker'][0]}_0123456789ab.json.gz").alias(
            "bronze_key"
        )
        if frame.height
        else pl.lit("").alias("bronze_key"),
        pl.lit("bench").alias("load_id"),
        pl.lit(datetime.now(UTC)).alias("loaded_at"),
        pl.lit(datetime.now(UTC)).alias("known_at"),
    )


def copy(
    connection: psycopg.Connection, table: str, frame: pl.DataFrame, schema: str = "silver"
) -> None:
    """Copy `frame` into a table of the same columns."""
    into = SQL("copy {} ({}) from stdin (format csv)").format(
        Identifier(schema, table), SQL(", ").join(map(Identifier, frame.columns))
    )
    with connection.cursor().copy(into) as rows:
        rows.write(frame.write_csv(include_header=False).encode())


def store_tomorrow(connection: psycopg.Connection, bars: pl.DataFrame) -> None:
    """Put the next session aside, as full refresh and day share one process."""
    copy(connection, "bench_tomorrow", stored(bars, BAR_KEY), schema="ops")


def publish_tomorrow(connection: psycopg.Connection, paying: list[str]) -> None:
    """Add the next session to silver: a daily bar, and the week and month that it moves.

    The tickers `paying` have a dividend in it, with which all of their adjusted closes change.
    """
    columns = (
        "session_date, open, high, low, close, adjusted_close, volume, dividend_amount, "
        "row_version, bronze_key, load_id, loaded_at, known_at"
    )
    connection.execute(
        "update ops.bench_tomorrow set dividend_amount = close * 0.005 where ticker = any(%s)",
        (paying,),
    )
    connection.execute(
        f"insert into silver.daily_bars (ticker, split_coefficient, {columns}) "
        f"select ticker, split_coefficient, {columns} from ops.bench_tomorrow"
    )
    for table, key, unit in (
        ("weekly_bars", "week_start", "week"),
        ("monthly_bars", "month_start", "month"),
    ):
        connection.execute(
            f"insert into silver.{table} as stored (ticker, {key}, is_complete, {columns}) "
            f"select ticker, date_trunc('{unit}', session_date)::date, false, {columns} "
            f"from ops.bench_tomorrow on conflict (ticker, {key}) do update "
            "set session_date = excluded.session_date, close = excluded.close, "
            "adjusted_close = excluded.adjusted_close, row_version = excluded.row_version, "
            "high = greatest(stored.high, excluded.high), low = least(stored.low, excluded.low), "
            "volume = stored.volume + excluded.volume, "
            "dividend_amount = stored.dividend_amount + excluded.dividend_amount"
        )
    for table in ("daily_bars", "weekly_bars", "monthly_bars"):
        connection.execute(
            f"update silver.{table} set adjusted_close = adjusted_close / 1.005, "
            "row_version = row_version + 1, bronze_key = 'bronze/bench/restated.json.gz' "
            "where ticker = any(%s) and session_date < %s",
            (paying, LAST_SESSION),
        )
    connection.execute(
        "insert into silver.corporate_actions (ticker, ex_date, action_type, dividend_amount, "
        "row_version, bronze_key, load_id, loaded_at, known_at) select ticker, session_date, "
        "'dividend', dividend_amount, 1, bronze_key, load_id, loaded_at, known_at "
        "from ops.bench_tomorrow where ticker = any(%s)",
        (paying,),
    )


if __name__ == "__main__":
    main()
