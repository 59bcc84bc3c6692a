"""Silver loads against the fastest way PostgreSQL has: COPY, then INSERT .. ON CONFLICT.

    make bench-silver                      # 200 tickers of 6,300 sessions
    make bench-silver ARGS="--tickers 500"

Both ways write the same rows into tables of the same form on the same server, which is started for
it in a temporary folder. `backfill` is what a user waits for: objects are read from the S3 server,
unpacked, decoded, checked, compared and merged, in a process of its own. `daily` is 100 sessions a
ticker, one of them new, as a free key's payloads are. The last line is one JSON object.
"""

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl

from stocks_assets.adapters import silver
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

MARKET = SampleMarket(first_session=date(2001, 10, 1))
DAYS = sessions(date(2001, 10, 1), date(2026, 11, 20))
LAST, NEXT = DAYS[6_299], DAYS[6_300]
TABLE = SILVER_TABLES["daily_bars"]


class Raw(SampleSource):
    """Sells daily bars as they were traded: all there are, or the newest 100 sessions."""

    outputsize = "full"

    def fetch(self, dataset, ticker, _part=""):
        endpoint = dataset.endpoints[1]
        body = self._market.reply(
            endpoint.function, ticker, self._last_session(), outputsize=self.outputsize
        )
        return classify(endpoint, body)


class Compact(Raw):
    """Sells the newest 100 sessions."""

    outputsize = "compact"


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--tickers", type=int, default=200)
    arguments.add_argument("--load", nargs=6, help="for the process that is measured")
    options = arguments.parse_args()
    if options.load:
        print(json.dumps(measured_load(*options.load)))
        return
    tickers = [t for t in MARKET.tickers(options.tickers * 2) if is_old(t)][: options.tickers]
    with tempfile.TemporaryDirectory() as folder:
        stack = EmbeddedStack(Path(folder), postgres_port=None, s3_port=None)
        try:
            endpoints = stack.start()
            report(compare(endpoints, tickers))
        finally:
            stack.stop()


def is_old(ticker: str) -> bool:
    """Tell whether the ticker traded on the first and on the last day."""
    reply = MARKET.reply("TIME_SERIES_WEEKLY_ADJUSTED", ticker, NEXT)
    return b"2001-10-05" in reply and str(NEXT).encode() in reply


def compare(endpoints, tickers) -> dict[str, object]:
    warehouse = Warehouse(endpoints.database_url)
    warehouse.migrate()
    location = (
        endpoints.s3_endpoint_url,
        endpoints.aws_access_key_id,
        endpoints.aws_secret_access_key,
    )
    store = ObjectStore(S3Location(*location), "bench")
    store.ensure_bucket()
    bronze = BronzeStore(store, warehouse)
    fetch(bronze, Raw(MARKET, lambda: LAST), tickers)
    where = [endpoints.database_url, *location, "bench"]

    backfill = in_a_process(where, tickers)
    rows = rows_of(warehouse)
    raw_backfill = copy_and_insert(warehouse, rows, "raw_daily_bars")
    fetch(bronze, Compact(MARKET, lambda: NEXT), tickers)
    daily = in_a_process(where, tickers)
    newest = rows_of(warehouse).group_by("ticker", maintain_order=True).tail(100)
    raw_daily = copy_and_insert(warehouse, newest, "raw_daily_bars")
    return {
        "tickers": len(tickers),
        "backfill_rows": rows.height,
        "backfill_seconds": backfill["seconds"],
        "raw_backfill_seconds": raw_backfill,
        "backfill_share": raw_backfill / backfill["seconds"],
        "daily_rows": newest.height,
        "daily_seconds": daily["seconds"],
        "raw_daily_seconds": raw_daily,
        "daily_share": raw_daily / daily["seconds"],
        "peak_megabytes": max(backfill["megabytes"], daily["megabytes"]),
    }


def fetch(bronze, source, tickers) -> None:
    calls = [Call(DAILY_BARS.name, ticker) for ticker in tickers]
    for _ in bronze.ingest(source, DAILY_BARS, calls, threads=4):
        pass


def in_a_process(where, tickers) -> dict[str, float]:
    command = [sys.executable, __file__, "--load", *where, ",".join(tickers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured_load(database_url, *where) -> dict[str, float]:
    *location, bucket, tickers = where
    warehouse = Warehouse(database_url)
    store = ObjectStore(S3Location(*location), bucket)
    bronze = BronzeStore(store, warehouse)
    started = time.perf_counter()
    for result in silver.load(bronze, warehouse, TABLE, tickers.split(","), only_stale=True):
        assert isinstance(result, silver.Loaded), result
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def rows_of(warehouse) -> pl.DataFrame:
    with warehouse.connect() as connection:
        columns = [*TABLE.columns, "row_version", "bronze_key", "load_id", "loaded_at", "known_at"]
        buffer = io.BytesIO()
        with connection.cursor().copy(
            f"copy (select {', '.join(columns)} from silver.daily_bars order by 1, 2) "
            "to stdout (format csv, header)"
        ) as copy:
            for block in copy:
                buffer.write(block)
    buffer.seek(0)
    return pl.read_csv(buffer, infer_schema=False)


def copy_and_insert(warehouse, rows, table) -> float:
    """Load `rows` as fast as PostgreSQL takes them, and return the seconds that it takes."""
    text = rows.write_csv(include_header=False).encode()
    columns = ", ".join(rows.columns)
    values = [name for name in rows.columns if name not in ("ticker", "session_date")]
    updates = ", ".join(f"{name} = excluded.{name}" for name in values)
    with warehouse.connect() as connection:
        connection.execute(
            f"create table if not exists silver.{table} "
            "(like silver.daily_bars including constraints including indexes)"
        )
        connection.execute(f"alter table silver.{table} drop column if exists source")
    started = time.perf_counter()
    with warehouse.connect() as connection:
        connection.execute(f"create unlogged table silver.staged (like silver.{table})")
        with connection.cursor().copy(
            f"copy silver.staged ({columns}) from stdin (format csv)"
        ) as copy:
            copy.write(text)
        connection.execute(
            f"insert into silver.{table} ({columns}) select {columns} from silver.staged "
            f"on conflict (ticker, session_date) do update set {updates}"
        )
        connection.execute("drop table silver.staged")
    return time.perf_counter() - started


def report(result) -> None:
    for name, value in result.items():
        print(
            f"{name:<24}{value:>14,.2f}" if isinstance(value, float) else f"{name:<24}{value:>14,}"
        )
    print(
        f"# {datetime.now(UTC):%Y-%m-%d}: shares are of the rate of COPY and INSERT .. ON CONFLICT"
    )
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}))


if __name__ == "__main__":
    main()
