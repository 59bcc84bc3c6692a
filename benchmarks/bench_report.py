"""What the market report costs, and the pictures in the UI.

Fills silver with random walks (100 tickers x 6,300 sessions by default) on servers of its own in a
temporary folder, builds gold, and times: a report in one file and one in files of few tickers, from
the warehouse to the bucket; the chart of each ticker's bars; the headline tables of each. The last
line is one JSON object.
"""

import argparse
import json
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path

from bench_gold import LAST_SESSION, build, copy, fill, postmaster_of, settle

from stocks_assets.adapters.charts import CHARTED, bar_charts
from stocks_assets.adapters.headlines import ticker_headlines
from stocks_assets.adapters.object_store import ObjectStore, S3Location
from stocks_assets.adapters.report.storing import Reports
from stocks_assets.adapters.warehouse import Warehouse, ensure_database
from stocks_assets.domain.calendar import exchange_calendar_frame, sessions
from stocks_assets.domain.headlines import PER_TICKER
from stocks_assets.domain.report import INDEX
from stocks_assets.stack.embedded import EmbeddedStack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tickers", type=int, default=100)
    parser.add_argument("--sessions", type=int, default=6300)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-report-") as folder:
        stack = EmbeddedStack(Path(folder))
        try:
            found = stack.start()
            assert found.database_url
            assert found.s3_endpoint_url
            ensure_database(found.database_url)
            warehouse = Warehouse(found.database_url)
            warehouse.migrate()
            keys = (found.aws_access_key_id, found.aws_secret_access_key)
            with ObjectStore(S3Location(found.s3_endpoint_url, *keys), "bench") as store:
                print(json.dumps(measure(warehouse, store, asked.tickers, asked.sessions)))
        finally:
            stack.stop()


def measure(warehouse: Warehouse, store: ObjectStore, tickers: int, count: int) -> dict[str, float]:
    names = [f"T{number:04}" for number in range(tickers)]
    days = sessions(date(1999, 11, 1), LAST_SESSION)[-count - 1 :]
    with warehouse.connect() as connection:
        copy(connection, "exchange_calendar", exchange_calendar_frame(days[0], date(2027, 12, 31)))
        fill(connection, names, days)
    build(warehouse, postmaster_of(warehouse), names, "--full-refresh")
    settle(warehouse)
    result: dict[str, float] = {"tickers": tickers, "sessions": count}
    now = datetime.now(UTC)
    for label, reports in {
        "one_file": Reports(store, in_one_file=tickers),
        "many_files": Reports(store, in_one_file=1, per_file=min(100, max(1, tickers // 4))),
    }.items():
        started = time.perf_counter()
        report = reports.make(warehouse, now, keep=1)
        assert report is not None
        result[f"{label}_seconds"] = round(time.perf_counter() - started, 2)
        result[f"{label}_megabytes"] = round(report.size / 1e6, 2)
        result[f"{label}_index_megabytes"] = round(report.files[INDEX]["bytes"] / 1e6, 2)
        result[f"{label}_files"] = len(report.files)
    for table in CHARTED:
        with bar_charts(warehouse, table) as chart:
            started = time.perf_counter()
            sizes = [len(chart(name) or "") for name in names]
            spent = time.perf_counter() - started
        result[f"chart_{table}_ms"] = round(1000 * spent / tickers, 2)
        result[f"chart_{table}_bytes"] = round(sum(sizes) / tickers)
    started = time.perf_counter()
    made = [ticker_headlines(warehouse, model, names) for model in PER_TICKER]
    result["headlines_ms_per_ticker_and_mart"] = round(
        1000 * (time.perf_counter() - started) / tickers / len(PER_TICKER), 2
    )
    result["headline_bytes"] = round(
        sum(len(text) for tables in made for text in tables.values()) / tickers / len(PER_TICKER)
    )
    return result


if __name__ == "__main__":
    main()
