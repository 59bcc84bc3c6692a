"""A refresh on a key with few calls, against a server that counts them."""

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qsl, urlsplit

import dagster as dg
import pytest

from stocks_assets.adapters.budget import CallBudget, Rates
from stocks_assets.adapters.sources.alpha_vantage import AlphaVantageSource
from stocks_assets.domain.sample_market import SampleMarket

MARKET = SampleMarket()
KEY = "THE0KEY0OF0MINE"
QUOTA = {
    "Information": f"We have detected your API key as {KEY} and our standard API rate limit is 25 "
    "requests per day. Please subscribe to any of the premium plans"
}


class Vendor(ThreadingHTTPServer):
    """Sells the sample market, `sells` calls in all, and counts what it was asked."""

    daemon_threads = True

    def __init__(self, last_session):
        super().__init__(("127.0.0.1", 0), Answer)
        self.last_session = last_session
        self.sells = None
        self.calls = []
        self.lock = Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/query"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        query = dict(parse_qsl(urlsplit(self.path).query))
        with self.server.lock:
            self.server.calls.append((query["function"], query["symbol"]))
            spent = self.server.sells is not None and len(self.server.calls) > self.server.sells
        if spent:
            body = json.dumps(QUOTA).encode()
        else:
            body = MARKET.reply(
                query["function"],
                query["symbol"],
                self.server.last_session,
                outputsize=query.get("outputsize", "compact"),
            )
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def vendor():
    from datetime import UTC, datetime

    from stocks_assets.domain.calendar import last_closed_session

    server = Vendor(last_closed_session(datetime.now(UTC)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def source(vendor, warehouse, per_day):
    budget = CallBudget(warehouse, KEY, Rates(per_second=100, per_day=per_day))
    return AlphaVantageSource(KEY, premium=False, url=vendor.url, budget=budget, retry_wait=0.01)


def test_a_refresh_makes_the_calls_of_the_day_and_the_next_goes_on_where_it_stopped(world, vendor):
    tickers = MARKET.tickers(4)
    world.add(*tickers)
    first = source(vendor, world.warehouse, per_day=6)
    result = world.refresh(first, tickers)
    first.close()
    assert result.success
    assert len(vendor.calls) == len(set(vendor.calls)) == 6
    assert len(world.objects()) == 6
    observed = world.instance.fetch_observations(dg.AssetKey(["bronze", "weekly_bars"]), limit=1)
    metadata = observed.records[0].asset_observation.metadata
    assert metadata["calls_waiting"].value + metadata["calls_now"].value >= 14

    # The day after: the window is free again, and what is still fresh is not asked for.
    with world.warehouse.connect() as connection:
        (table,) = connection.execute(
            "select tablename from pg_tables where tablename like 'ratelimit%'"
        ).fetchone()
        connection.execute(f'delete from ops."{table}"')
    second = source(vendor, world.warehouse, per_day=25)
    assert world.refresh(second, tickers).success
    second.close()
    assert len(vendor.calls) == len(set(vendor.calls)) == 4 * 5
    assert world.materialized("gold/fct_daily_prices") == set(tickers)

    third = source(vendor, world.warehouse, per_day=25)
    assert world.refresh(third, tickers).success
    third.close()
    assert len(vendor.calls) == 4 * 5


def test_a_vendor_that_says_the_day_is_spent_is_left_alone_and_nothing_is_red(world, vendor):
    vendor.sells = 3
    tickers = MARKET.tickers(4)
    world.add(*tickers)
    calls = source(vendor, world.warehouse, per_day=25)
    result = world.refresh(calls, tickers, layers=("bronze",))
    again = world.refresh(calls, tickers, layers=("bronze",))
    calls.close()
    assert result.success
    assert again.success
    assert len(vendor.calls) == 4
    assert world.warehouse.failures(result.run_id) == []
    assert len(world.objects()) == 3


def test_an_unknown_ticker_is_not_asked_for_twice_and_its_refusal_is_kept_apart_without_the_key(
    world, vendor
):
    tickers = [MARKET.tickers(1)[0], "NOPE"]
    world.add(*tickers)
    calls = source(vendor, world.warehouse, per_day=25)
    result = world.refresh(calls, tickers)
    calls.close()
    assert not result.success
    # An empty overview tells nothing; the first refusal speaks for the other datasets.
    assert [function for function, symbol in vendor.calls if symbol == "NOPE"] == [
        "OVERVIEW",
        "TIME_SERIES_DAILY",
    ]
    reasons = [failure.reason for failure in world.warehouse.failures(result.run_id)]
    assert len(reasons) == 1
    (kept,) = world.store.keys_after("quarantine/", "")
    assert kept in reasons[0]
    assert b"Invalid API call" in world.store.get(kept)
    events = str([event.event_specific_data for event in result.all_events])
    stored = [world.store.get(key) for key in [*world.objects(), kept]]
    assert KEY not in events
    assert all(KEY.encode() not in body for body in stored)


def test_a_fetch_that_is_killed_leaves_no_call_uncounted_and_no_object_twice(
    world, vendor, store, servers
):
    """SIGKILL in the middle of a refresh's fetching; the next one does the rest."""
    tickers = MARKET.tickers(12)
    script = f"""
from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.budget import CallBudget, Rates
from stocks_assets.adapters.object_store import ObjectStore, S3Location
from stocks_assets.adapters.sources.alpha_vantage import AlphaVantageSource
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.datasets import WEEKLY_BARS
warehouse = Warehouse({world.warehouse.database_url!r})
location = S3Location({servers.s3_endpoint_url!r}, {servers.aws_access_key_id!r}, {servers.aws_secret_access_key!r})
bronze = BronzeStore(ObjectStore(location, {store.bucket!r}), warehouse)
budget = CallBudget(warehouse, {KEY!r}, Rates(per_second=4, per_day=25))
source = AlphaVantageSource({KEY!r}, premium=False, url={vendor.url!r}, budget=budget)
for _ in bronze.ingest(source, WEEKLY_BARS, {tickers!r}, threads=4):
    pass
"""
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        while len(vendor.calls) < 5 and process.poll() is None:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    made = len(vendor.calls)
    assert 5 <= made < 12
    world.add(*tickers)
    calls = source(vendor, world.warehouse, per_day=25)
    assert calls.allowance().left <= 25 - made + 1
    world.refresh(calls, tickers, layers=("bronze",))
    calls.close()
    assert len(vendor.calls) <= 25
    weekly = [key for key in world.objects() if "/weekly_bars/" in key]
    assert len(weekly) == 12
    later = {symbol for function, symbol in vendor.calls[made:] if "WEEKLY" in function}
    assert world.materialized("bronze/weekly_bars") >= later
