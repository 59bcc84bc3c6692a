"""The sensor against an outside S3 client, while everything is killed and restarted at random.

An outsider uploads objects of many tickers, with skewed clocks and keys that come late. Meanwhile
processes that load are killed, and so are the sensor, PostgreSQL and the S3 server. In the end each
object has been loaded exactly once. Prints what it measured, and one JSON object as its last line.
"""

import argparse
import gzip
import json
import multiprocessing
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import dagster as dg
import psutil
from botocore.config import Config

from stocks_assets.adapters import silver
from stocks_assets.adapters.arrivals import NEVER, Arrivals
from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.object_store import ObjectStore, S3Location
from stocks_assets.adapters.universe_file import UniverseFile
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.defs.arrivals import arrivals_sensor
from stocks_assets.defs.partitions import TICKERS
from stocks_assets.defs.universe import Roster
from stocks_assets.domain.bronze_key import BronzeKey, content_hash
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.stack.embedded import EmbeddedStack

TABLE = SILVER_TABLES["weekly_bars"]
BUCKET = "bench"
START = datetime(2026, 3, 4, 21, 30, tzinfo=UTC)
# Of a hundred objects, so many are dated minutes to days before others that came earlier.
LATE = 3
KILLED = 0.4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--tickers", type=int, default=500)
    parser.add_argument("--kills", type=int, default=12, help="of processes at work, at least")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", nargs=2, help="internal: tick and load in this process")
    options = parser.parse_args()
    if options.work:
        work(Path(options.work[0]), Path(options.work[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        stack = EmbeddedStack(Path(folder), postgres_port=None, s3_port=None)
        try:
            report(measure(stack, Path(folder), options))
        finally:
            stack.stop()


def measure(stack, folder, options):
    where = folder / "where.json"
    write_where(stack.start(), where)
    warehouse, _ = opened(where)
    warehouse.migrate()
    chance = random.Random(options.seed)
    tickers = [f"T{number}" for number in range(options.tickers)]
    (folder / "tickers.json").write_text(json.dumps(tickers))
    ticks = folder / "ticks.jsonl"
    ticks.touch()
    keys = folder / "keys.txt"
    upload = multiprocessing.get_context("spawn").Process(
        target=outsider, args=(where, keys, tickers, options.objects, options.seed)
    )
    started = time.perf_counter()
    upload.start()
    kills = Counter()
    # Then a worker is left alone until it finds nothing to do.
    while True:
        is_last = not upload.is_alive() and kills["worker"] >= options.kills
        worker = subprocess.Popen([sys.executable, __file__, "--work", str(where), str(ticks)])
        try:
            if is_last:
                if worker.wait() == 0:
                    break
                continue
            wait_for_a_tick(worker, ticks)
            time.sleep(chance.uniform(0, 10))
            if chance.random() < KILLED:
                what = chance.choice(["postgres", "seaweedfs"])
                kills[what] += 1
                kill_server(stack, what)
            kills["worker"] += worker.poll() is None
        finally:
            worker.kill()
            worker.wait()
        write_where(stack.start(), where)
    seconds = time.perf_counter() - started
    made = [json.loads(line) for line in ticks.read_text().splitlines()]
    return {
        "objects": options.objects,
        "tickers": options.tickers,
        "ticks": len(made),
        "list_calls": sum(tick["calls"] for tick in made),
        "list_calls_of_a_quiet_tick": made[-1]["calls"],
        "quiet_tick_seconds": made[-1]["seconds"],
        "kills": dict(kills),
        "seconds": seconds,
        **verdict(where, keys, options),
    }


def wait_for_a_tick(worker, ticks) -> None:
    before = ticks.stat().st_size
    while worker.poll() is None and ticks.stat().st_size == before:
        time.sleep(0.05)


def verdict(where, keys, options):
    """Compare what the outsider put there with what was loaded, and how often."""
    warehouse, _ = opened(where)
    put = keys.read_text().split()
    with warehouse.connect() as connection:
        loads = dict(
            connection.execute(
                "select bronze_key, loads from ops.object_loads where loaded_at is not null"
            ).fetchall()
        )
        stored = dict(
            connection.execute("select ticker, bronze_key from silver.weekly_bars").fetchall()
        )
    newest: dict[str, str] = {}
    for key in put:
        ticker = BronzeKey.parse(key).ticker
        newest[ticker] = max(newest.get(ticker, key), key)
    once = sum(loads.get(key) == 1 for key in put)
    return {
        "missed": sum(key not in loads for key in put),
        "processed_twice": sum(count > 1 for count in loads.values()),
        "processed_once": once == len(put) == options.objects and stored == newest,
    }


def outsider(where, keys, tickers, count, seed) -> None:
    """Upload as a client does that knows nothing of the platform and tries again if need be."""
    chance = random.Random(seed + 1)
    with keys.open("a") as put:
        for number in range(count):
            late = timedelta(minutes=chance.randint(1, 4000) if chance.randrange(100) < LATE else 0)
            # Many objects share a second; some are dated ahead.
            at = START + timedelta(seconds=number // 20 + chance.choice([0, 0, 0, 7])) - late
            body = payload(number)
            key = str(BronzeKey("weekly_bars", chance.choice(tickers), at, content_hash(body)))
            put_until_it_is_in(where, key, gzip.compress(body, mtime=0))
            put.write(f"{key}\n")


def put_until_it_is_in(where, key, body) -> None:
    while True:
        try:
            client(where).put_object(Bucket=BUCKET, Key=key, Body=body)
        except Exception:  # noqa: BLE001 # the server was killed
            CLIENTS.clear()
            time.sleep(0.2)
        else:
            return


CLIENTS = {}


def client(where):
    if BUCKET not in CLIENTS:
        said = json.loads(where.read_text())
        CLIENTS[BUCKET] = boto3.client(
            "s3",
            endpoint_url=said["s3"][0],
            aws_access_key_id=said["s3"][1],
            aws_secret_access_key=said["s3"][2],
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=5),
        )
    return CLIENTS[BUCKET]


def payload(number) -> bytes:
    """One weekly bar, whose volume tells the object from others."""
    bar = {
        "1. open": "10",
        "2. high": "12",
        "3. low": "9",
        "4. close": "11",
        "5. adjusted close": "11",
        "6. volume": str(number),
        "7. dividend amount": "0",
    }
    return json.dumps(
        {"Meta Data": {}, "Weekly Adjusted Time Series": {"2026-02-27": bar}}
    ).encode()


def work(where, ticks) -> None:
    """Tick, and load what a tick asks for, until ten ticks have found nothing new."""
    warehouse, store = opened(where)
    tickers = json.loads((where.parent / "tickers.json").read_text())
    bronze = BronzeStore(store, warehouse)
    roster = Roster(warehouse, UniverseFile(where.parent / "no-universe.yaml"))
    sensor = arrivals_sensor(registers_unknown=False)
    quiet = 0
    with dg.DagsterInstance.ephemeral() as instance, ticks.open("a") as log:
        instance.add_dynamic_partitions(str(TICKERS.name), tickers)
        while quiet < 10:
            # A worker stands for many minutes of a platform: it does not wait after failed runs.
            with warehouse.connect() as connection:
                connection.execute(
                    "update ops.object_loads set requested_at = null where loaded_at is null"
                )
            started = time.perf_counter()
            calls = Calls(location_of(where), BUCKET)
            context = dg.build_sensor_context(
                instance=instance,
                resources={
                    "bronze": BronzeStore(calls, warehouse),
                    "warehouse": warehouse,
                    "roster": roster,
                },
            )
            asked = sensor(context).run_requests
            seconds = time.perf_counter() - started
            log.write(json.dumps({"calls": calls.made, "seconds": seconds}) + "\n")
            log.flush()
            quiet = 0 if asked else quiet + 1
            for request in asked:
                batch = request.run_config["resources"]["batch"]["config"]["tickers"]
                list(silver.load(bronze, warehouse, TABLE, batch, only_stale=True))
    assert not Arrivals(warehouse).unloaded(tickers, registers=False, told_until=NEVER)


class Calls(ObjectStore):
    """Counts the calls that list."""

    made = 0

    def page(self, prefix, after):
        self.made += 1
        return super().page(prefix, after)

    def below(self, prefix, after):
        self.made += 1
        return super().below(prefix, after)


def kill_server(stack, what) -> None:
    for status in stack.status():
        if status.name == what and status.pid is not None:
            psutil.Process(status.pid).kill()


def write_where(endpoints, where) -> None:
    s3 = [
        endpoints.s3_endpoint_url,
        endpoints.aws_access_key_id,
        endpoints.aws_secret_access_key,
    ]
    where.write_text(json.dumps({"database_url": endpoints.database_url, "s3": s3}))


def opened(where):
    said = json.loads(where.read_text())
    store = ObjectStore(location_of(where), BUCKET)
    store.ensure_bucket()
    return Warehouse(said["database_url"]), store


def location_of(where):
    return S3Location(*json.loads(where.read_text())["s3"])


def report(result) -> None:
    for name, value in result.items():
        print(
            f"{name:<28}{value:>16.2f}" if isinstance(value, float) else f"{name:<28}{value!s:>16}"
        )
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}))


if __name__ == "__main__":
    main()
