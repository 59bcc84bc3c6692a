"""500 tickers, a vendor that refuses and breaks at random, and processes that are killed at random."""

import itertools
import multiprocessing
import random
import re
import time
from datetime import timedelta

import pytest
from vendor import KEY, REFUSALS, Vendor, cut, drip, drop, hang, page, reset, say, send, small

from stocks_assets.adapters.bronze import BronzeStore, Waiting
from stocks_assets.adapters.budget import CallBudget, Rates
from stocks_assets.adapters.object_store import ObjectStore
from stocks_assets.adapters.planning import make_plan
from stocks_assets.adapters.sources.alpha_vantage import AlphaVantageSource
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.bronze_key import BronzeKey, content_hash
from stocks_assets.domain.datasets import DATASETS, LISTINGS, MARKET, WEEKLY_BARS, Call

PER_SECOND, PER_DAY = 60, 500
SHARES = 3
KILLS = 8
MOMENT = r"20\d\d-\d\d-\d\d \d\d:\d\d UTC"

# Processes start from one that has these, and are there within a fraction of a second.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["stocks_assets.adapters.bronze", "stocks_assets.adapters.planning", "pytest"]
)


def refresh(world, tickers, report) -> None:
    """Refresh `tickers` once, in a process of its own, and report how it went."""
    warehouse = Warehouse(world["database_url"])
    source = open_source(warehouse, world["vendor_url"])
    with ObjectStore(world["s3"], world["bucket"]) as store:
        plan = make_plan(source, warehouse, tickers, intraday_months=0)
        calls = plan.of(WEEKLY_BARS.name)
        ingested = BronzeStore(store, warehouse).ingest(source, WEEKLY_BARS, calls, threads=4)
        waiting = [result.reason for _, result in ingested if isinstance(result, Waiting)]
    source.close()
    due = {call.ticker for call in (*plan.calls, *plan.waiting)}
    report.send({"plan": plan.describe(), "due": due, "waiting": waiting})


def open_source(warehouse, url):
    budget = CallBudget(warehouse, KEY, Rates(per_second=PER_SECOND, per_day=PER_DAY))
    return AlphaVantageSource(
        KEY, premium=False, url=url, budget=budget, retry_wait=0.01, timeout=0.6, deadline=0.8
    )


# Each way in which a ticker can be bad for good: what the vendor answers, the outcome, its reason.
BAD = {
    "unknown": (REFUSALS["unknown symbol"], "UnknownSymbol", "does not know"),
    "empty object": (b"{}", "Malformed", "has no 'Weekly"),
    "empty series": (b'{"Weekly Adjusted Time Series": {}}', "Unavailable", "an empty 'Weekly"),
    "premium endpoint": (REFUSALS["premium endpoint"], "PremiumOnly", "needs a premium key"),
    "premium parameter": (REFUSALS["premium parameter"], "PremiumOnly", "needs a premium key"),
    "bad key": (REFUSALS["bad key"], "BadKey", "the key is invalid"),
    "demo key": (REFUSALS["demo key"], "BadKey", "the demo key"),
    "burst": (REFUSALS["burst"], "BurstLimited", "faster than the key allows"),
    "429": (say(b"", 429), "BurstLimited", "HTTP status 429"),
    "500": (page(500), "TransportFailed", "HTTP status 500"),
    "404": (page(404), "Malformed", "HTTP status 404"),
    "page": (page(), "Malformed", "no JSON object"),
    "truncated": (b'{"Meta Data": {"1. Info', "Malformed", "no JSON object"),
    "another dataset": (b'{"Time Series (Daily)": {"x": {}}}', "Malformed", "Time Series (Daily)"),
    "another charset": (b'{"Meta Data": "\xe9"}', "Malformed", "not in UTF-8"),
    "too large": (send(b"", Content_Length="99999999999"), "Malformed", "over 64 MiB"),
    "damaged gzip": (send(b"\x1f\x8b??", Content_Encoding="gzip"), "TransportFailed", "Decoding"),
    "dropped": (drop, "TransportFailed", "RemoteProtocolError"),
    "cut": (cut, "TransportFailed", "RemoteProtocolError"),
    "reset": (reset, "TransportFailed", "ReadError"),
    "hangs": (hang, "TransportFailed", "ReadTimeout"),
    "drips": (drip(b"HTTP/1.1 200 OK\r\n" * 99, 0.05), "TransportFailed", "within 0.8 s"),
}
# What is tried again within the same fetch, and what ends it, so that another run has to mend it.
BRIEF = [
    *(REFUSALS["burst"], REFUSALS["legacy burst"], say(b"", 429), say(b"", 429, Retry_After="0"))
    * 3,
    *(page(500), say(b"", 503), drop, reset, cut, BAD["damaged gzip"][0]) * 3,
    *(hang, BAD["drips"][0]),
]
ENDING = [page(), b"", b"{}", b'{"Meta Data": {"1', BAD["another dataset"][0], REFUSALS["bad key"]]


class Trouble:
    """What the vendor answers: faults of each ticker first, then its data, or never its data."""

    def __init__(self, rng: random.Random) -> None:
        tickers = [f"T{number:03}" for number in range(500)]
        self.tickers = rng.sample(tickers, len(tickers))
        self.bad = dict(zip(rng.sample(tickers, len(BAD)), BAD.values(), strict=True))
        self.good = sorted(set(tickers) - set(self.bad))
        self.faults = {
            ticker: rng.choices(BRIEF, k=rng.choice([0] * 14 + [1, 1, 1, 2, 2, 5]))
            + rng.choices(ENDING, k=rng.choice([0] * 9 + [1]))
            for ticker in self.good
        }
        self.spent_at = 200

    def __call__(self, asked):
        if asked.function == "LISTING_STATUS":
            return small(asked)
        self.spent_at -= 1
        if not self.spent_at:
            # Someone else has used the key today.
            return REFUSALS["day quota"]
        if asked.symbol in self.bad:
            return self.bad[asked.symbol][0]
        faults = self.faults[asked.symbol]
        return faults.pop() if faults else small(asked)


class Fleet:
    """Processes that refresh a share of the tickers each, over and over until nothing is due."""

    def __init__(self, tickers, bad, world) -> None:
        self._world = world
        self._bad = set(bad)
        self._running = {}
        self.shares = {number: tickers[number::SHARES] for number in range(SHARES)}
        self.waiting = {}
        self.done = set()

    def start(self) -> None:
        for share in self.shares.keys() - self._running.keys() - self.waiting.keys() - self.done:
            self._running[share] = self.refresh(share)

    def refresh(self, share):
        """Return a process that refreshes `share`, and where it reports."""
        receiver, sender = PROCESSES.Pipe(duplex=False)
        arguments = (self._world, self.shares[share], sender)
        process = PROCESSES.Process(target=refresh, args=arguments)
        process.start()
        sender.close()
        return process, receiver

    def kill_one(self, rng: random.Random) -> bool:
        """Kill one that has not ended by itself; tell whether there was one."""
        alive = [share for share, (process, _) in self._running.items() if process.is_alive()]
        if not alive:
            return False
        process, receiver = self._running.pop(rng.choice(alive))
        process.kill()
        process.join()
        receiver.close()
        return process.exitcode < 0

    def reap(self) -> None:
        """Take note of those that have ended by themselves, all of them well."""
        for share, (process, receiver) in list(self._running.items()):
            if process.is_alive():
                continue
            report = outcome_of(process, receiver)
            del self._running[share]
            if report["waiting"] or report["plan"].startswith("no call is left"):
                self.waiting[share] = report
            elif report["due"] <= self._bad:
                self.done.add(share)

    @property
    def is_at_rest(self) -> bool:
        return not self._running

    def stop(self) -> None:
        for process, _ in self._running.values():
            process.kill()


def outcome_of(process, receiver):
    process.join()
    assert process.exitcode == 0
    with receiver:
        return receiver.recv()


@pytest.fixture
def vendor():
    with Vendor() as server:
        yield server


def counted(warehouse, sql):
    """Return rows of the table that the budget counts in, which the key's digest names."""
    with warehouse.connect() as connection:
        (table,) = connection.execute(
            "select tablename from pg_tables where tablename like 'ratelimit%'"
        ).fetchone()
        cursor = connection.execute(sql.format(table=f'ops."{table}"'))
        return cursor.fetchall() if cursor.description else []


def nothing_but(warehouse, dataset, tickers):
    """Let it be known that the vendor has nothing but `dataset` of `tickers`."""
    others = [name for name, other in DATASETS.items() if not other.is_of_market]
    others.remove(dataset.name)
    with warehouse.connect() as connection:
        connection.execute(
            "insert into ops.fetches (dataset, ticker, checked_at, outcome) "
            "select dataset, ticker, now(), 'Unavailable' "
            "from unnest(%s::text[]) dataset, unnest(%s::text[]) ticker",
            (others, tickers),
        )


def a_day_later(warehouse):
    counted(warehouse, "update {table} set item_timestamp = item_timestamp - interval '1 day'")
    with warehouse.connect() as connection:
        connection.execute("update ops.vendor_pauses set paused_until = now()")


def most_within(moments, window):
    """Return the largest number of `moments` that any stretch of time as long as `window` has."""
    moments, first, most = sorted(moments), 0, 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= window:
            first += 1
        most = max(most, last - first + 1)
    return most


def test_500_tickers_are_fetched_whatever_the_vendor_does_and_whoever_is_killed(
    vendor, warehouse, bronze, store
):
    rng = random.Random(20240315)
    vendor.answer = trouble = Trouble(rng)
    # The list of securities comes first in any plan, and is no ticker's.
    market = open_source(warehouse, vendor.url)
    lists = [Call(LISTINGS.name, MARKET, part) for part in LISTINGS.parts]
    assert len(list(bronze.ingest(market, LISTINGS, lists, threads=2))) == len(vendor.calls) == 2
    market.close()
    nothing_but(warehouse, WEEKLY_BARS, trouble.tickers)

    world = {
        "database_url": warehouse.database_url,
        "s3": store._location,
        "bucket": store.bucket,
        "vendor_url": vendor.url,
    }
    fleet = Fleet(trouble.tickers, trouble.bad, world)
    nights, kills, next_kill = [0], 0, 30
    try:
        while len(fleet.done) < SHARES:
            fleet.start()
            time.sleep(0.01)
            if kills < KILLS and len(vendor.calls) >= next_kill:
                time.sleep(rng.uniform(0, 0.03))
                kills += fleet.kill_one(rng)
                next_kill = len(vendor.calls) + rng.randint(30, 70)
            fleet.reap()
            if fleet.is_at_rest and fleet.waiting:
                check_that_nobody_calls(fleet, vendor)
                nights.append(len(vendor.calls))
                a_day_later(warehouse)
                fleet.waiting.clear()
    finally:
        fleet.stop()
    nights.append(len(vendor.calls))

    assert kills == KILLS
    check_objects(store, vendor, trouble)
    check_journal(warehouse, trouble)
    check_calls(warehouse, vendor, nights, kills)


def check_that_nobody_calls(fleet, vendor):
    """A refresh without a call left ends well, calls nobody, and says when to come back."""
    reasons = [reason for report in fleet.waiting.values() for reason in report["waiting"]]
    assert all(re.search(MOMENT, reason) for reason in reasons)
    calls = len(vendor.calls)
    report = outcome_of(*fleet.refresh(next(iter(fleet.waiting))))
    assert re.match(f"no call is left before {MOMENT}; ", report["plan"])
    assert len(vendor.calls) == calls


def check_objects(store, vendor, trouble):
    """Each good ticker has one object, with what the vendor sells of it; no other has one."""
    keys = [BronzeKey.parse(key) for key in store.keys_after("bronze/weekly_bars/", "")]
    assert sorted(key.ticker for key in keys) == trouble.good
    sold = {call.symbol: small(call) for call in vendor.calls}
    assert all(key.content_hash == content_hash(sold[key.ticker]) for key in keys)


def check_journal(warehouse, trouble):
    """Each ticker is noted with what came of it, and each bad one with its reason."""
    with warehouse.connect() as connection:
        noted = {
            ticker: (outcome, reason)
            for ticker, outcome, reason in connection.execute(
                "select ticker, outcome, reason from ops.fetches where dataset = 'weekly_bars'"
            )
        }
    assert noted.keys() == set(trouble.tickers)
    assert {noted[ticker] for ticker in trouble.good} == {("Data", None)}
    for ticker, (_, outcome, words) in trouble.bad.items():
        assert noted[ticker][0] == outcome
        assert words in noted[ticker][1]


def check_calls(warehouse, vendor, nights, kills):
    """No call was made that was not counted, and no window of the budget was exceeded."""
    for evening, next_evening in itertools.pairwise(nights):
        assert next_evening - evening <= PER_DAY
    taken = [moment for (moment,) in counted(warehouse, "select item_timestamp from {table}")]
    # A process that is killed may have counted the one call that it was about to make.
    assert len(vendor.calls) <= len(taken) <= len(vendor.calls) + kills
    assert most_within(taken, timedelta(seconds=1)) <= PER_SECOND
    # Between its count and its arrival each process, and each that was killed, has one call.
    assert most_within([call.at for call in vendor.calls], 1) <= PER_SECOND + 2 * SHARES
