"""Silver loads against the fastest way PostgreSQL has: COPY, then INSERT .. ON CONFLICT.

    make bench-silver                                   # all of it: 500 tickers of 6,300 sessions
    make bench-silver ARGS="--tickers 50 --sizes"       # a short look: no growth

All write the same rows into tables of the same form, with the same keys and checks, on the same
server, which is started for it in a temporary folder. What is ours, and naive dlt, runs in a
process of its own for each load, so that what is used for the first time is paid for each time.

- `backfill`: objects are read from the S3 server, unpacked, decoded, checked, compared and loaded.
- `daily`: 100 sessions a ticker, one of them new. Its ratio is that of the merge, from checked
  frames to committed rows, with all that dlt costs at its first use but its import, which is
  reported beside it. `whole` is what a user waits for, from the listing of objects on.
- `one`: the whole history of one new ticker.
- `naive`: dlt as its tutorial has it, dicts and one load a ticker, for some of the tickers.
- `growth`: the daily merge with more and more rows of other tickers in the table.

The COPY side gets its rows as text in memory. Ratios are shares of its rate. Of each, the best of
some runs counts. A table goes to the terminal, a plot to benchmarks/out/, and the last line is one
JSON object.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path

import matplotlib as mpl
import polars as pl
import psycopg

from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.object_store import ObjectStore, S3Location
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.calendar import sessions
from stocks_assets.domain.datasets import DAILY_BARS, Call
from stocks_assets.domain.outcomes import classify
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.domain.sample_market import SampleMarket
from stocks_assets.stack.embedded import EmbeddedStack

mpl.use("agg")
from matplotlib import pyplot as plt

MARKET = SampleMarket(first_session=date(2001, 10, 1))
DAYS = sessions(date(2001, 10, 1), date(2026, 11, 20))
HISTORY, WINDOW = 6_300, 100
TABLE = SILVER_TABLES["daily_bars"]
COLUMNS = [*TABLE.columns, "row_version", "bronze_key", "load_id", "loaded_at", "known_at"]
LOAD = Path(__file__).parent / "silver_load.py"
PLOT = Path(__file__).parent / "out" / "bench_silver.png"
BUCKET = "bench"


class Market(SampleSource):
    """Sells daily bars as they were traded: all there are, or the newest 100 sessions."""

    def __init__(self, days: int, outputsize: str) -> None:
        """Let so many days of `DAYS` be over."""
        super().__init__(MARKET, lambda: DAYS[days - 1])
        self._outputsize = outputsize

    def fetch(self, dataset, ticker, _part="", **_how):
        endpoint = dataset.endpoints[1]
        body = self._market.reply(
            endpoint.function, ticker, self._last_session(), outputsize=self._outputsize
        )
        return classify(endpoint, body)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--tickers", type=int, default=500)
    arguments.add_argument("--naive", type=int, default=10, help="tickers loaded naively")
    arguments.add_argument("--repeat", type=int, default=2, help="runs, of which the best counts")
    arguments.add_argument(
        "--sizes", type=int, nargs="*", default=[12, 30], help="millions of rows to grow to"
    )
    options = arguments.parse_args()
    # A few more for those that the market lists later or delists, one for a load of its own.
    candidates = (t for t in MARKET.tickers(options.tickers * 2 + 20) if is_old(t))
    tickers = [ticker for ticker, _ in zip(candidates, range(options.tickers + 1), strict=False)]
    with tempfile.TemporaryDirectory() as folder:
        stack = EmbeddedStack(Path(folder), postgres_port=None, s3_port=None)
        try:
            bench = Bench(stack.start(), Path(folder) / "naive", options.repeat)
            result = bench.run(tickers[:-1], tickers[-1], tickers[: options.naive], options.sizes)
        finally:
            stack.stop()
    report(result)


def is_old(ticker: str) -> bool:
    """Tell whether the ticker traded on the first and on the last day."""
    reply = MARKET.reply("TIME_SERIES_WEEKLY_ADJUSTED", ticker, DAYS[HISTORY + 20])
    return b"2001-10-05" in reply and str(DAYS[HISTORY + 20]).encode() in reply


class Bench:
    """The servers, and how often each load is made."""

    def __init__(self, endpoints, folder: Path, repeat: int) -> None:
        self.repeat = repeat
        self.warehouse = Warehouse(endpoints.database_url)
        self.warehouse.migrate()
        s3 = (
            endpoints.s3_endpoint_url,
            endpoints.aws_access_key_id,
            endpoints.aws_secret_access_key,
        )
        store = ObjectStore(S3Location(*s3), BUCKET)
        store.ensure_bucket()
        self.bronze = BronzeStore(store, self.warehouse)
        self.job = {
            "database_url": endpoints.database_url,
            "s3": s3,
            "bucket": BUCKET,
            "folder": str(folder),
        }
        self.megabytes: list[float] = []
        self.days = HISTORY

    def run(self, tickers, one, naive, sizes) -> dict[str, object]:
        self.fetch([*tickers, one], "full")
        self.say(f"{len(tickers) + 1} whole histories are stored")
        naively = self.load(naive, is_naive=True)
        backfill, raw_backfill = self.backfill(tickers)
        one_ticker = self.load([one])
        with self.warehouse.connect() as connection:
            connection.execute("delete from silver.daily_bars where ticker = %s", (one,))
        self.vacuum()
        growth = {}
        there = len(tickers) * HISTORY
        for size in [0, *(size * 1_000_000 for size in sizes)]:
            if size > there:
                self.fill(size - there)
                there = size
            days = [self.daily(tickers) for _ in range(self.repeat + 1)]
            growth[there] = {
                name: min(day[name] for day in days)
                for name in ("merge_seconds", "seconds", "process_seconds", "raw_seconds")
            }
            self.say(f"a day onto {there:,} rows: {growth[there]}")
        first, last = growth[min(growth)], growth[max(growth)]
        rows = len(tickers) * HISTORY
        imports = self.dlt_import()
        return {
            "tickers": len(tickers),
            "backfill_rows": rows,
            "backfill_seconds": backfill,
            "raw_backfill_seconds": raw_backfill,
            "backfill_krows_per_second": rows / backfill / 1000,
            "raw_krows_per_second": rows / raw_backfill / 1000,
            "daily_rows": len(tickers) * WINDOW,
            "daily_merge_seconds": first["merge_seconds"],
            "daily_whole_seconds": first["seconds"],
            "daily_process_seconds": first["process_seconds"],
            "raw_daily_seconds": first["raw_seconds"],
            "dlt_import_seconds": imports,
            "daily_ratio_with_import": first["raw_seconds"] / (first["merge_seconds"] + imports),
            "one_ticker_merge_seconds": one_ticker["merge_seconds"],
            "one_ticker_seconds": one_ticker["seconds"],
            "naive_tickers": len(naive),
            "naive_krows_per_second": naively["rows"] / naively["seconds"] / 1000,
            "daily_merge_seconds_by_rows": {n: g["merge_seconds"] for n, g in growth.items()},
            "backfill_ratio": raw_backfill / backfill,
            "daily_ratio": first["raw_seconds"] / first["merge_seconds"],
            "naive_speedup": rows / backfill / (naively["rows"] / naively["seconds"]),
            "peak_rss_mb": max(self.megabytes),
            "growth_3m_to_30m": last["merge_seconds"] / first["merge_seconds"],
        }

    def say(self, text: str) -> None:
        print(f"{time.perf_counter():8.0f} s  {text}", file=sys.stderr)

    def fetch(self, tickers, outputsize: str) -> None:
        source = Market(self.days, outputsize)
        calls = [Call(DAILY_BARS.name, ticker) for ticker in tickers]
        for _ in self.bronze.ingest(source, DAILY_BARS, calls, threads=4):
            pass

    def load(self, tickers, *, is_naive: bool = False) -> dict[str, float]:
        """Load what is stored in a process of its own."""
        self.checkpoint()
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, LOAD],
            input=json.dumps(self.job | {"tickers": tickers, "is_naive": is_naive}),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        figures = json.loads(done.stdout.splitlines()[-1])
        figures["process_seconds"] = time.perf_counter() - started
        if not is_naive:
            self.megabytes.append(figures["megabytes"])
        return figures

    def backfill(self, tickers) -> tuple[float, float]:
        """Return the seconds of the best whole load, and of the best COPY of the same rows."""
        ours, raw = [], []
        for _ in range(self.repeat):
            self.forget()
            ours.append(self.load(tickers)["seconds"])
            self.say(f"backfill: {ours[-1]:.2f} s, {self.megabytes[-1]:.0f} MB")
        rows = self.rows()
        assert rows.height == len(tickers) * HISTORY
        for _ in range(self.repeat):
            with self.warehouse.connect() as connection:
                connection.execute("drop table if exists silver.raw")
                connection.execute("create table silver.raw (like silver.daily_bars including all)")
            raw.append(self.copy_and_insert(rows))
            self.say(f"COPY and INSERT .. ON CONFLICT: {raw[-1]:.2f} s")
        return min(ours), min(raw)

    def daily(self, tickers) -> dict[str, float]:
        """Load the next day, both ways."""
        self.days += 1
        self.fetch(tickers, "compact")
        day = self.load(tickers)
        assert day["rows"] == len(tickers) * WINDOW
        newest = self.rows(since=DAYS[self.days - WINDOW], tickers=tickers)
        assert newest.height == len(tickers) * WINDOW
        return day | {"raw_seconds": self.copy_and_insert(newest)}

    def dlt_import(self) -> float:
        clock = "import time; t = time.perf_counter(); import dlt; print(time.perf_counter() - t)"
        runs = [
            float(subprocess.check_output([sys.executable, "-c", clock], text=True))
            for _ in range(3)
        ]
        return min(runs)

    def forget(self) -> None:
        """Let silver be empty, and all objects be yet to load."""
        with self.warehouse.connect() as connection:
            connection.execute("truncate silver.daily_bars, ops.silver_loads")
            connection.execute(
                "update ops.object_loads set loaded_at = null, loads = 0 "
                "where table_name = 'daily_bars'"
            )

    def fill(self, count: int) -> None:
        """Add `count` rows of other tickers, as copies of those that are there."""
        columns = ", ".join(COLUMNS)
        copied = columns.replace("ticker", "ticker || '.' || copy || '.' || %(count)s", 1)
        with self.warehouse.connect() as connection:
            (there,) = connection.execute(
                "select count(*) from silver.daily_bars where ticker !~ '[.]'"
            ).fetchone()
            connection.execute(
                f"insert into silver.daily_bars ({columns}) select {copied} from silver.daily_bars,"
                " generate_series(1, %(copies)s) as copy where ticker !~ '[.]' limit %(count)s",
                {"count": count, "copies": count // there + 1},
            )
        self.vacuum()

    def vacuum(self) -> None:
        with psycopg.connect(self.warehouse.database_url, autocommit=True) as connection:
            connection.execute("vacuum analyze silver.daily_bars")

    def checkpoint(self) -> None:
        """Let no load pay for what others wrote."""
        with psycopg.connect(self.warehouse.database_url, autocommit=True) as connection:
            connection.execute("checkpoint")

    def rows(self, since=date.min, tickers=None) -> pl.DataFrame:
        """Return rows of silver as PostgreSQL prints them."""
        buffer = io.BytesIO()
        with self.warehouse.connect() as connection, connection.cursor() as cursor:
            wanted = "" if tickers is None else " and ticker = any(%(tickers)s)"
            with cursor.copy(
                f"copy (select {', '.join(COLUMNS)} from silver.daily_bars "
                f"where session_date >= %(since)s{wanted} order by 1, 2) "
                "to stdout (format csv, header)",
                {"since": max(since, date(1900, 1, 1)), "tickers": tickers},
            ) as copy:
                for block in copy:
                    buffer.write(block)
        buffer.seek(0)
        return pl.read_csv(buffer, infer_schema=False)

    def copy_and_insert(self, rows) -> float:
        """Load `rows` as fast as PostgreSQL takes them, and return the seconds that it takes."""
        text = rows.write_csv(include_header=False, separator="\t", null_value="\\N").encode()
        columns = ", ".join(COLUMNS)
        updates = ", ".join(
            f"{name} = excluded.{name}" for name in COLUMNS if name not in TABLE.primary_key
        )
        self.checkpoint()
        started = time.perf_counter()
        with self.warehouse.connect() as connection:
            connection.execute(
                f"create unlogged table silver.staged as select {columns} from silver.raw "
                "with no data"
            )
            with connection.cursor().copy(f"copy silver.staged ({columns}) from stdin") as copy:
                copy.write(text)
            connection.execute(
                f"insert into silver.raw ({columns}) select {columns} from silver.staged "
                f"on conflict ({', '.join(TABLE.primary_key)}) do update set {updates}"
            )
            connection.execute("drop table silver.staged")
        return time.perf_counter() - started


def report(result) -> None:
    for name, value in result.items():
        shown = f"{value:>14,.2f}" if isinstance(value, float) else f"{value!s:>14}"
        print(f"{name:<28}{shown}")
    plot(result)
    print(f"# {datetime.now(UTC):%Y-%m-%d}; the plot is in {PLOT.relative_to(PLOT.parents[2])}")
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}))


def plot(result) -> None:
    figure, (rates, daily, growth) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    rates.bar(
        ["COPY + ON CONFLICT", "silver, end to end", "naive dlt"],
        [result[f"{name}_krows_per_second"] for name in ("raw", "backfill", "naive")],
        color=["grey", "tab:blue", "tab:red"],
    )
    rates.set(title=f"Backfill of {result['backfill_rows']:,} rows", ylabel="1,000 rows a second")
    parts = {
        "COPY + ON CONFLICT": "raw_daily_seconds",
        "merge": "daily_merge_seconds",
        "whole": "daily_whole_seconds",
        "process": "daily_process_seconds",
    }
    daily.bar(
        list(parts),
        [result[name] for name in parts.values()],
        color=["grey", *["tab:blue"] * 3],
    )
    daily.set(title=f"A day of {result['daily_rows']:,} rows", ylabel="seconds")
    by_rows = result["daily_merge_seconds_by_rows"]
    growth.plot([rows / 1e6 for rows in by_rows], list(by_rows.values()), "o-")
    growth.set(title="The day's merge in a growing table", xlabel="million rows", ylabel="seconds")
    growth.set_ylim(bottom=0)
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=120)


if __name__ == "__main__":
    main()
