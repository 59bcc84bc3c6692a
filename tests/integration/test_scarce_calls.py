"""A refresh on a key with few calls, against a server that counts them."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import dagster as dg
import pytest
from vendor import KEY, REFUSALS, Vendor, sample_market

from stocks_assets.adapters.bronze import BronzeStore, Stored, Waiting
from stocks_assets.adapters.budget import CallBudget, Rates
from stocks_assets.adapters.planning import calls_for
from stocks_assets.adapters.sources.alpha_vantage import AlphaVantageSource
from stocks_assets.adapters.warehouse import lock_number
from stocks_assets.domain.datasets import DATASETS, WEEKLY_BARS, Call
from stocks_assets.domain.sample_market import SampleMarket

MARKET = SampleMarket()


@pytest.fixture
def vendor():
    with Vendor(sample_market(MARKET)) as server:
        yield server


def sells(vendor, count):
    """Let the vendor refuse all calls after the first `count`."""
    sold = vendor.answer
    vendor.answer = lambda asked: (
        sold(asked) if len(vendor.calls) <= count else REFUSALS["day quota"]
    )


def source(vendor, warehouse, per_day):
    budget = CallBudget(warehouse, KEY, Rates(per_second=100, per_day=per_day))
    return AlphaVantageSource(KEY, premium=False, url=vendor.url, budget=budget, retry_wait=0.01)


def all_calls(tickers):
    """Return how many calls a free key needs for all there is of `tickers` and the market."""
    return sum(
        len(list(calls_for(dataset, tickers, datetime.now(UTC), 0)))
        for dataset in DATASETS.values()
        if not dataset.is_premium
    )


def test_a_refresh_makes_the_calls_of_the_day_and_the_next_goes_on_where_it_stopped(world, vendor):
    tickers = MARKET.tickers(4)
    world.add(*tickers)
    first = source(vendor, world.warehouse, per_day=6)
    result = world.refresh(first, tickers)
    first.close()
    assert result.success
    assert len(vendor.calls) == len({str(call.query) for call in vendor.calls}) == 6
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
    assert len(vendor.calls) == len({str(call.query) for call in vendor.calls})
    assert len(vendor.calls) == all_calls(tickers)
    assert world.materialized("gold/fct_daily_prices") == set(tickers)

    third = source(vendor, world.warehouse, per_day=25)
    assert world.refresh(third, tickers).success
    third.close()
    assert len(vendor.calls) == all_calls(tickers)


def test_a_vendor_that_says_the_day_is_spent_is_left_alone_and_nothing_is_red(world, vendor):
    sells(vendor, 3)
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


def test_a_refresh_without_a_call_left_is_not_red_and_says_when_to_come_back(world, vendor):
    tickers = MARKET.tickers(2)
    world.add(*tickers)
    calls = source(vendor, world.warehouse, per_day=2)
    with CallBudget(world.warehouse, KEY, Rates(per_second=100, per_day=2)) as another_process:
        assert [another_process.take() for _ in range(2)] == [None, None]
        frees_at = another_process.allowance().frees_at
    result = world.refresh(calls, tickers, layers=("bronze",))
    calls.close()
    assert result.success
    assert vendor.calls == []
    assert world.objects() == []
    log = " ".join(entry.user_message for entry in world.instance.all_logs(result.run_id))
    assert f"no call is left before {frees_at:%Y-%m-%d %H:%M} UTC" in log
    observed = world.instance.fetch_observations(dg.AssetKey(["bronze", "weekly_bars"]), limit=1)
    metadata = observed.records[0].asset_observation.metadata
    assert (metadata["calls_now"].value, metadata["calls_left_today"].value) == (0, 0)
    assert metadata["done_by"].value >= frees_at.timestamp()


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
    assert [function for function, symbol in vendor.asked() if symbol == "NOPE"] == [
        "OVERVIEW",
        "TIME_SERIES_DAILY",
    ]
    reasons = [failure.reason for failure in world.warehouse.failures(result.run_id)]
    assert len(reasons) == 1
    (kept,) = world.store.keys_after("quarantine/", "")
    assert kept in reasons[0]
    assert b"Invalid API call" in world.store.get(kept)


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
from stocks_assets.domain.datasets import WEEKLY_BARS, Call
warehouse = Warehouse({world.warehouse.database_url!r})
location = S3Location({servers.s3_endpoint_url!r}, {servers.aws_access_key_id!r}, {servers.aws_secret_access_key!r})
bronze = BronzeStore(ObjectStore(location, {store.bucket!r}), warehouse)
budget = CallBudget(warehouse, {KEY!r}, Rates(per_second=4, per_day=25))
source = AlphaVantageSource({KEY!r}, premium=False, url={vendor.url!r}, budget=budget)
calls = [Call("weekly_bars", ticker) for ticker in {tickers!r}]
for _ in bronze.ingest(source, WEEKLY_BARS, calls, threads=4):
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
    later = {symbol for function, symbol in vendor.asked()[made:] if "WEEKLY" in function}
    assert world.materialized("bronze/weekly_bars") >= later


def test_two_fetches_of_the_same_tickers_at_once_make_each_call_once(world, vendor, store):
    calls = [Call("weekly_bars", ticker) for ticker in MARKET.tickers(20)]
    asking = source(vendor, world.warehouse, per_day=100)
    decided_at = datetime.now(UTC)

    def fetch(_):
        bronze = BronzeStore(store, world.warehouse)
        return list(bronze.ingest(asking, WEEKLY_BARS, calls, threads=4, decided_at=decided_at))

    with ThreadPoolExecutor(2) as pool:
        results = [result for part in pool.map(fetch, range(2)) for _, result in part]
    asking.close()
    assert len(vendor.calls) == len(world.objects()) == 20
    assert sum(isinstance(result, Stored) for result in results) == 20
    assert sum(isinstance(result, Waiting) for result in results) == 20


def test_who_waits_for_the_call_of_another_run_makes_it_where_that_has_died(world, vendor):
    (ticker,) = MARKET.tickers(1)
    asking = source(vendor, world.warehouse, per_day=100)
    number = lock_number(f"fetch weekly_bars {ticker} ")

    def waits_for_it():
        with world.warehouse.connect() as connection:
            return connection.execute(
                "select from pg_locks where locktype = 'advisory' and not granted"
            ).fetchone()

    def fetch():
        calls = [Call("weekly_bars", ticker)]
        return list(world.bronze.ingest(asking, WEEKLY_BARS, calls, threads=1, waits=True))

    with ThreadPoolExecutor(1) as pool:
        with world.warehouse.connect() as another:
            another.execute("select pg_advisory_lock(%s)", (number,))
            fetched = pool.submit(fetch)
            while waits_for_it() is None and not fetched.done():
                time.sleep(0.02)
            assert vendor.calls == []
        ((_, result),) = fetched.result()
    asking.close()
    assert isinstance(result, Stored)
    assert len(vendor.calls) == 1
