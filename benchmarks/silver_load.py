"""One load into silver, in a process of its own, for `bench_silver.py`: prints its figures as JSON.

Reads from standard input where the servers are, the tickers, and which way to load them.
"""

import json
import resource
import sys
import time
from pathlib import Path

import dlt

from stocks_assets.adapters import silver
from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.object_store import ObjectStore, S3Location
from stocks_assets.adapters.silver_store import SilverStore
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.datasets import DAILY_BARS
from stocks_assets.domain.payloads import SILVER_TABLES

FIELDS = {
    "open": ("1. open", float),
    "high": ("2. high", float),
    "low": ("3. low", float),
    "close": ("4. close", float),
    "volume": ("5. volume", int),
}


def main() -> None:
    job = json.load(sys.stdin)
    store = ObjectStore(S3Location(*job["s3"]), job["bucket"])
    bronze = BronzeStore(store, Warehouse(job["database_url"]))
    started = time.perf_counter()
    figures = (naive if job["is_naive"] else ours)(job, bronze)
    figures["seconds"] = time.perf_counter() - started
    figures["megabytes"] = peak_megabytes()
    print(json.dumps(figures))


def peak_megabytes() -> float:
    """Return the most memory that this process ever had."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    # On Linux this would be the parent's, where that had more when it started this process.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(job, bronze) -> dict[str, float]:
    spans = []
    merge = SilverStore.merge

    def timed_merge(*arguments, **options):
        began = time.perf_counter()
        try:
            return merge(*arguments, **options)
        finally:
            spans.append((began, time.perf_counter()))

    SilverStore.merge = timed_merge
    table, rows = SILVER_TABLES["daily_bars"], 0
    warehouse = Warehouse(job["database_url"])
    for result in silver.load(bronze, warehouse, table, job["tickers"], only_stale=True):
        assert isinstance(result, silver.Loaded), result
        rows += result.load.row_count
    # Merges run at the same time: what counts is from the first one's start to the last one's end.
    return {"rows": rows, "merge_seconds": max(map(max, spans)) - min(map(min, spans))}


def naive(job, bronze) -> dict[str, float]:
    newest = bronze.newest_of([DAILY_BARS], job["tickers"])
    rows = 0
    for ticker, objects in newest.items():
        bars = json.loads(bronze.read(objects[DAILY_BARS.name]))["Time Series (Daily)"]
        dicts = [
            {"ticker": ticker, "session_date": day}
            | {name: kind(bar[field]) for name, (field, kind) in FIELDS.items()}
            for day, bar in bars.items()
        ]
        rows += len(dicts)
        pipeline = dlt.pipeline(
            "naive",
            destination=dlt.destinations.postgres(job["database_url"]),
            dataset_name="naive",
        )
        pipeline.run(
            dicts,
            table_name="daily_bars",
            write_disposition={"disposition": "merge", "strategy": "upsert"},
            primary_key=["ticker", "session_date"],
        ).raise_on_failed_jobs()
    return {"rows": rows}


if __name__ == "__main__":
    main()
