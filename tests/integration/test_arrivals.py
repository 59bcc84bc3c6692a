"""Objects that anybody puts into the bucket, on real servers, through the sensor."""

import gzip
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import alembic.command
import alembic.config
import dagster as dg
import pytest
import sqlalchemy
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from stocks_assets.adapters import migrations, silver
from stocks_assets.adapters.arrivals import NEVER, Arrivals
from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.object_store import ObjectStore
from stocks_assets.adapters.universe_file import UniverseFile
from stocks_assets.defs.arrivals import arrivals_sensor, find_busy
from stocks_assets.defs.batch import DEFER_ASSET_EVENTS
from stocks_assets.defs.jobs import LOAD
from stocks_assets.defs.partitions import RANGE_END, RANGE_START, tickers_of_run
from stocks_assets.defs.universe import Roster, universe
from stocks_assets.domain.bronze_key import BronzeKey, content_hash
from stocks_assets.domain.datasets import MARKET
from stocks_assets.domain.payloads import SILVER_TABLES
from tests.integration.test_inbox import Person, person_at

TODAY = datetime(2026, 3, 4, 21, 30, tzinfo=UTC)
WEEKLY = SILVER_TABLES["weekly_bars"]


def weekly(*closes, until="2026-02-27"):
    """A payload of weekly bars, the newest last; each close tells it from others."""
    last = datetime.fromisoformat(until)
    bars = {
        f"{last - timedelta(weeks=len(closes) - 1 - number):%Y-%m-%d}": {
            "1. open": "10",
            "2. high": "1000000",
            "3. low": "1",
            "4. close": str(close),
            "5. adjusted close": str(close),
            "6. volume": "5",
            "7. dividend amount": "0",
        }
        for number, close in enumerate(closes)
    }
    newest_first = dict(reversed(bars.items()))
    return json.dumps({"Meta Data": {}, "Weekly Adjusted Time Series": newest_first}).encode()


@dataclass
class Outsider:
    """Somebody with an S3 client of their own, who knows what a key looks like."""

    person: Person
    keys: list[str] = field(default_factory=list)

    def put(self, ticker="IBM", at=TODAY, body=None, *, packed=True, dataset="weekly_bars"):
        body = body if body is not None else weekly(len(self.keys) + 1)
        key = str(BronzeKey(dataset, ticker, at, content_hash(body)))
        self.person.put(key, gzip.compress(body, mtime=0) if packed else body)
        self.keys.append(key)
        return key


@pytest.fixture
def outsider(servers, store) -> Iterator[Outsider]:
    person = person_at(servers, store)
    yield Outsider(person)
    person.client.close()


@dataclass
class Watch:
    """The sensor, tick by tick, and the load job run as it asks."""

    world: object
    registers: bool = False
    cursor: str | None = None

    def tick(self, *, is_kept=True):
        """Tick as the daemon does; what is not kept is that of a tick that was killed."""
        roster = Roster(self.world.warehouse, UniverseFile(Path("no-such-file")))
        # As in production, each tick has a connection of its own.
        with ObjectStore(self.world.store._location, self.world.store.bucket) as store:
            context = dg.build_sensor_context(
                instance=self.world.instance,
                cursor=self.cursor,
                resources={
                    "bronze": BronzeStore(store, self.world.warehouse),
                    "warehouse": self.world.warehouse,
                    "roster": roster,
                },
            )
            result = arrivals_sensor(registers_unknown=self.registers)(context)
        if is_kept:
            self.cursor = result.cursor
        return result

    def asked(self):
        """The tickers of as few runs as a tick can ask for; None if it asks for none."""
        requests = self.tick().run_requests
        if not requests:
            return None
        parts = [run.run_config["resources"]["batch"]["config"]["tickers"] for run in requests]
        tickers = [ticker for part in parts for ticker in part]
        assert len(parts) == -(-len(tickers) // 500)
        return tickers

    def load(self, tickers):
        """What the load job does for silver's weekly bars."""
        bronze = BronzeStore(self.world.store, self.world.warehouse)
        return list(silver.load(bronze, self.world.warehouse, WEEKLY, tickers, only_stale=True))


@pytest.fixture
def watch(world):
    return Watch(world)


def loads(world):
    return dict(
        world.query(
            "select bronze_key, loads from ops.object_loads where loaded_at is not null"
        ).iter_rows()
    )


def test_new_objects_of_many_tickers_become_one_run_of_exactly_those(watch, world, outsider):
    world.add("A", "IBM", "MSFT", "ZZ")
    assert watch.asked() is None
    for ticker in ("MSFT", "A"):
        outsider.put(ticker)
    (request,) = watch.tick().run_requests
    assert request.run_config["resources"]["batch"]["config"]["tickers"] == ["A", "MSFT"]
    assert request.tags[DEFER_ASSET_EVENTS] == "true"
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("A", "ZZ")
    watch.load(["A", "MSFT"])
    assert watch.asked() is None
    assert loads(world) == dict.fromkeys(outsider.keys, 1)


def test_a_run_that_loads_nothing_is_asked_for_again_under_another_key(watch, world, outsider):
    world.add("IBM")
    outsider.put()
    (first,) = watch.tick().run_requests
    (second,) = watch.tick().run_requests
    assert first.run_key != second.run_key
    # From the third time on, after a pause.
    result = watch.tick()
    assert result.run_requests == []
    assert (
        "1 tickers wait, as their last run has not loaded them" in result.skip_reason.skip_message
    )
    outsider.put(at=TODAY + timedelta(seconds=1))
    assert watch.asked() == ["IBM"]


def test_objects_of_one_second_and_late_ones_are_not_missed(watch, world, outsider):
    world.add("A", "IBM", "ZZ")
    outsider.put("IBM", TODAY.replace(microsecond=500_000))
    watch.asked()
    watch.load(["IBM"])
    for at in (TODAY, TODAY.replace(microsecond=500_000), TODAY - timedelta(hours=5)):
        outsider.put("A", at)
        assert watch.asked() == ["A"]
        watch.load(["A"])
    outsider.put("ZZ", TODAY - timedelta(days=400))
    assert watch.asked() == ["ZZ"]


def test_more_than_a_thousand_objects_are_found_by_one_tick(watch, world, outsider):
    tickers = [f"T{number}" for number in range(1100)]
    world.add(*tickers)
    body = weekly(1)
    for ticker in tickers:
        outsider.put(ticker, body=body)
    assert watch.asked() == sorted(tickers)
    with world.warehouse.connect() as connection:
        connection.execute("update ops.object_loads set loaded_at = now()")
    outsider.put("T7", TODAY - timedelta(minutes=1), body)
    assert watch.asked() == ["T7"]
    assert world.query("select key from bronze.objects where etag is null").is_empty()


def test_a_lost_index_and_lost_sweeps_come_back_and_nothing_is_loaded_again(watch, world, outsider):
    world.add("IBM")
    outsider.put()
    watch.asked()
    watch.load(["IBM"])
    with world.warehouse.connect() as connection:
        connection.execute("truncate bronze.objects, bronze.sweeps")
    assert watch.asked() is None
    outsider.put(at=TODAY - timedelta(days=9))
    assert watch.asked() == ["IBM"]


def test_a_late_object_takes_its_place_in_the_history(watch, world, outsider):
    """Silver says the same, whichever object came first."""
    world.add("IBM", "MSFT")
    early, middle, late = (weekly(10, close) for close in (20, 30, 40))
    times = [TODAY + timedelta(days=number) for number in range(3)]
    for body, at in zip((early, middle, late), times, strict=True):
        outsider.put("IBM", at, body)
    watch.load(["IBM"])
    for body, at in zip((early, late, middle), (times[0], times[2], times[1]), strict=True):
        outsider.put("MSFT", at, body)
        assert watch.asked() == ["MSFT"]
        watch.load(["MSFT"])
    assert loads(world) == dict.fromkeys(outsider.keys, 1)
    for statement in (
        "select week_start, close, known_at from silver.weekly_bars where ticker = '{}' order by 1",
        "select superseded_at, known_at, old_row->>'close', class from silver.superseded_rows "
        "where ticker = '{}' order by 1",
    ):
        in_order = world.query(statement.format("IBM"))
        assert in_order.height == 2
        assert world.query(statement.format("MSFT")).equals(in_order)


def test_an_overwritten_object_is_reported_and_loaded_again(watch, world, outsider):
    world.add("IBM")
    key = outsider.put(body=weekly(10, 20))
    watch.asked()
    watch.load(["IBM"])
    outsider.person.put(key, gzip.compress(weekly(10, 25)))
    result = watch.tick()
    assert len(result.run_requests) == 1
    (observation,) = result.asset_events
    (row,) = observation.metadata["some_objects"].records
    assert "overwritten: its ETag was" in row.data["reason"]
    watch.load(["IBM"])
    assert world.query("select close from silver.weekly_bars order by week_start")[
        "close"
    ].to_list() == [10, 25]
    assert loads(world) == {key: 2}
    assert watch.tick().asset_events == []


def test_the_same_object_put_again_is_not_loaded_again(watch, world, outsider):
    world.add("IBM")
    outsider.put(body=weekly(1))
    watch.asked()
    watch.load(["IBM"])
    outsider.put(body=weekly(1))
    assert watch.asked() is None


def test_keys_that_cannot_be_read_are_reported_once(watch, world, outsider):
    for key in ("bronze/prices/x.csv", "bronze/notes.txt", "bronze/weekly_bars/2026-03-04/x.json"):
        outsider.person.put(key, b"x")
    outsider.put("IBM", datetime.now(UTC) + timedelta(days=3))
    outsider.put("IBM", datetime(1, 1, 1, tzinfo=UTC))
    (observation,) = watch.tick().asset_events
    assert observation.metadata["objects_to_look_at"].value == 5
    reasons = {
        row.data["key"]: row.data["reason"] for row in observation.metadata["some_objects"].records
    }
    assert "there is no dataset 'prices'" in reasons["bronze/prices/"]
    assert "is not a bronze key" in reasons["bronze/notes.txt"]
    assert "is not a bronze key" in reasons["bronze/weekly_bars/2026-03-04/x.json"]
    assert "dated more than a day ahead" in reasons[outsider.keys[0]]
    assert "dated before 1970" in reasons[outsider.keys[1]]
    result = watch.tick()
    assert result.asset_events == []
    assert result.run_requests == []


def test_more_than_a_thousand_strays_hide_no_dataset_and_are_all_reported(watch, world, outsider):
    world.add("IBM")
    strays = {f"bronze/A{number:04}.csv" for number in range(1001)}
    folders = {f"bronze/A{number:04}/" for number in range(0, 1001, 500)}
    for key in sorted(strays):
        outsider.person.put(key, b"x")
    for folder in folders:
        outsider.person.put(f"{folder}x.csv", b"x")
    outsider.put("IBM")
    result = watch.tick()
    assert len(result.run_requests) == 1
    (first,) = result.asset_events
    (second,) = watch.tick().asset_events
    told = [one.metadata["objects_to_look_at"].value for one in (first, second)]
    assert sum(told) == len(strays) + len(folders)
    assert set(world.query("select key from bronze.notices")["key"]) == strays | folders
    assert [watch.tick().asset_events for _ in range(3)] == [[], [], []]


def test_what_a_tick_found_that_was_killed_is_told_by_the_next(watch, world, outsider):
    world.add("IBM")

    def told(*, is_kept=True):
        (observation,) = watch.tick(is_kept=is_kept).asset_events
        objects = observation.metadata["objects_to_look_at"].value
        return objects, observation.metadata["some_tickers"].value

    outsider.person.put("bronze/notes.txt", b"x")
    outsider.put("NEW")
    assert told(is_kept=False) == (1, ["NEW"])
    assert told(is_kept=False) == (1, ["NEW"])
    assert told() == (1, ["NEW"])
    assert watch.tick().asset_events == []
    outsider.person.put("bronze/more.txt", b"x")
    outsider.put("OTHER")
    assert told(is_kept=False) == (1, ["OTHER"])
    assert told() == (1, ["OTHER"])
    assert watch.tick(is_kept=False).asset_events == []
    assert watch.tick().asset_events == []
    # A sensor that is reset does not know what was told.
    watch.cursor = None
    assert told() == (2, ["NEW", "OTHER"])
    assert watch.tick().asset_events == []


@pytest.mark.parametrize("ticker", ["BF/B", "BRK.B", "BF-B", "0700.HK"])
def test_tickers_may_be_written_oddly(watch, world, outsider, ticker):
    world.add(ticker)
    outsider.put(ticker)
    assert watch.asked() == [ticker]
    (loaded,) = watch.load([ticker])
    assert loaded.load.row_count == 1


def test_a_ticker_outside_the_universe_is_reported_once_and_loaded_when_it_is_in(
    watch, world, outsider
):
    world.add("IBM")
    outsider.put("NEW")
    result = watch.tick()
    assert result.run_requests == []
    (observation,) = result.asset_events
    assert observation.metadata["some_tickers"].value == ["NEW"]
    assert watch.tick().asset_events == []
    outsider.put("IBM")
    assert watch.asked() == ["IBM"]
    world.add("NEW")
    watch.load(["IBM"])
    assert watch.asked() == ["NEW"]


def test_a_ticker_outside_the_universe_joins_it_if_the_setting_says_so(world, outsider):
    watch = Watch(world, registers=True)
    outsider.put("NEW")
    assert watch.asked() == ["NEW"]
    assert universe(world.instance) == ["NEW"]


def test_tickers_that_were_reported_join_the_universe_once_the_setting_is_switched_on(
    watch, world, outsider
):
    outsider.put("NEW")
    assert watch.asked() is None
    watch.registers = True
    assert watch.asked() == ["NEW"]
    assert universe(world.instance) == ["NEW"]


def test_a_damaged_object_is_refused_once_and_costs_the_others_nothing(watch, world, outsider):
    world.add("IBM", "MSFT")
    damaged = outsider.put("IBM", packed=False)
    outsider.put("MSFT")
    assert watch.asked() == ["IBM", "MSFT"]
    failed, loaded = sorted(watch.load(["IBM", "MSFT"]), key=lambda result: result.ticker)
    assert "Not a gzipped file" in failed.reason
    assert isinstance(loaded, silver.Loaded)
    assert watch.asked() is None
    assert world.query("select bronze_key from ops.refused_objects").item() == damaged
    # The next one is loaded, and the damaged one is none of its business.
    outsider.put("IBM", TODAY + timedelta(days=1))
    assert watch.asked() == ["IBM"]
    watch.load(["IBM"])
    outsider.put("IBM", TODAY + timedelta(hours=1))
    assert watch.asked() == ["IBM"]
    (late,) = watch.load(["IBM"])
    assert isinstance(late, silver.Loaded)
    assert watch.asked() is None


def test_an_object_that_is_damaged_after_it_was_loaded_is_asked_for_once(watch, world, outsider):
    world.add("IBM")
    key = outsider.put("IBM")
    assert watch.asked() == ["IBM"]
    watch.load(["IBM"])
    world.store._client.put_object(Bucket=world.store.bucket, Key=key, Body=b"garbage")
    assert watch.asked() == ["IBM"]
    (failed,) = watch.load(["IBM"])
    assert "Not a gzipped file" in failed.reason
    assert watch.asked() is None
    assert watch.asked() is None


def test_a_store_that_does_not_answer_is_no_fault_of_the_object(watch, world, outsider):
    world.add("IBM")
    outsider.put()
    watch.asked()

    class Silent(BronzeStore):
        def read(self, key):
            raise TimeoutError(f"no answer about {key}")

    silent = Silent(world.store, world.warehouse)
    (failed,) = silver.load(silent, world.warehouse, WEEKLY, ["IBM"], only_stale=True)
    assert failed.reason.startswith("no answer")
    assert watch.asked() == ["IBM"]
    watch.load(["IBM"])
    assert loads(world) == dict.fromkeys(outsider.keys, 1)


def test_objects_of_the_market_are_loaded_without_any_ticker(watch, outsider):
    key = "bronze/listings/2026-03-04/213000.000000_~_active_0123456789abcdef.csv.gz"
    outsider.person.put(key, b"x")
    (request,) = watch.tick().run_requests
    assert request.asset_selection == [dg.AssetKey(["silver", "listings"])]


def rows_read(warehouse, table):
    """How many rows of a table were ever read, as the server counts."""
    with warehouse.connect() as connection:
        (read,) = connection.execute(
            "select seq_tup_read + idx_tup_fetch from pg_stat_user_tables "
            "where relid = %s::regclass",
            (table,),
        ).fetchone()
    return read


def test_a_quiet_tick_reads_nothing_of_what_strangers_have_and_was_told(warehouse):
    books, strangers = Arrivals(warehouse), 20_000
    members = [f"T{number}" for number in range(500)]
    with warehouse.connect() as connection:
        for line in (
            "insert into ops.object_loads (table_name, bronze_key, ticker) "
            "select 'weekly_bars', n, 'S' || n %% 500 from generate_series(1, %s) n",
            # What was loaded was never told of.
            "insert into ops.object_loads (table_name, bronze_key, ticker, loaded_at) "
            "select 'weekly_bars', -n, 'T' || n %% 500, now() from generate_series(1, %s) n",
            "insert into bronze.notices (key, etag, reason) "
            "select n, '', 'no key' from generate_series(1, %s) n",
        ):
            connection.execute(line, (strangers,))
    found = books.unloaded(members, registers=False, told_until=NEVER)
    assert sum(one.objects for one in found) == strangers
    notices, told_until = books.tell([one.ticker for one in found], told_until=NEVER)
    assert len(notices) == strangers
    with warehouse.connect() as connection:
        connection.execute("analyze ops.object_loads, bronze.notices")
    tables = ("ops.object_loads", "bronze.notices")
    before = [rows_read(warehouse, table) for table in tables]
    assert books.unloaded(members, registers=False, told_until=told_until) == []
    assert books.tell([], told_until=told_until)[0] == []
    assert [rows_read(warehouse, table) for table in tables] == before
    # One that is a member by now has its objects loaded, though they were told of.
    (one,) = books.unloaded([*members, "S7"], registers=False, told_until=told_until)
    assert (one.ticker, one.objects) == ("S7", strangers // 500)


def run_at_work(world, status, tickers, job=LOAD, selection=None):
    config = {"resources": {"batch": {"config": {"tickers": tickers}}}}
    keys = None if selection is None else {dg.AssetKey(name.split("/")) for name in selection}
    run = dg.DagsterRun(job_name=job, run_config=config, status=status, asset_selection=keys)
    return world.instance.add_run(run)


def test_what_a_run_of_the_project_will_load_is_left_to_it(watch, world, outsider):
    world.add("IBM", "MSFT")
    run = run_at_work(world, dg.DagsterRunStatus.NOT_STARTED, ["IBM"], job="refresh")
    outsider.put("IBM")
    outsider.put("MSFT")
    assert watch.asked() == ["MSFT"]
    world.instance.report_run_canceled(run)
    watch.load(["MSFT"])
    assert watch.asked() == ["IBM"]


def test_while_a_load_is_at_work_what_is_new_waits_and_a_dead_one_holds_up_nothing(
    watch, world, outsider, warehouse
):
    world.add("IBM", "MSFT")
    run = run_at_work(world, dg.DagsterRunStatus.STARTED, ["IBM"])
    outsider.put("MSFT")
    result = watch.tick()
    assert "1 tickers wait for runs at work" in result.skip_reason.skip_message
    assert warehouse.living([run.run_id, "another"]) == set()
    with warehouse.alive(run.run_id):
        assert warehouse.living([run.run_id, "another"]) == {run.run_id}
    world.instance.report_run_failed(run)
    assert watch.asked() == ["MSFT"]


def test_a_run_that_was_created_and_never_submitted_holds_up_nothing(world, warehouse):
    run_at_work(world, dg.DagsterRunStatus.NOT_STARTED, ["IBM"])
    now = datetime.now(UTC)
    assert find_busy(world.instance, warehouse, ["IBM"], now) == ({"IBM", MARKET}, True)
    later = now + timedelta(minutes=10)
    assert find_busy(world.instance, warehouse, ["IBM"], later) == (set(), False)


@pytest.mark.parametrize(
    ("job", "selection", "busy"),
    [
        ("refresh", None, {"IBM", MARKET}),
        # As in the process of `stocks refresh`.
        ("refresh", (), {"IBM", MARKET}),
        ("refresh", ["silver/weekly_bars", "silver/listings"], {"IBM", MARKET}),
        ("__ASSET_JOB", None, {"IBM", MARKET}),
        ("__ASSET_JOB", ["bronze/weekly_bars"], {"IBM"}),
        ("__ASSET_JOB", ["gold/fct_weekly_prices", "silver/weekly_bars"], {"IBM"}),
        ("__ASSET_JOB", ["gold/fct_weekly_prices"], set()),
        ("export", None, set()),
        ("export", ["curated/by_ticker"], set()),
    ],
)
def test_busy_is_what_runs_at_work_fetch_or_load(world, warehouse, job, selection, busy):
    run_at_work(world, dg.DagsterRunStatus.STARTED, ["IBM"], job, selection)
    now = datetime.now(UTC)
    assert find_busy(world.instance, warehouse, ["IBM"], now) == (busy, False)


def test_a_run_of_checks_alone_loads_nothing(world, warehouse):
    checks = frozenset([dg.AssetCheckKey(dg.AssetKey(["silver", "weekly_bars"]), "rules")])
    for job in ("__ASSET_JOB", "prove_gold"):
        run = dg.DagsterRun(
            job_name=job,
            tags={"dagster/partition": "IBM"},
            status=dg.DagsterRunStatus.STARTED,
            asset_check_selection=checks,
        )
        world.instance.add_run(run)
    now = datetime.now(UTC)
    assert find_busy(world.instance, warehouse, ["IBM"], now) == (set(), False)


def test_an_export_at_work_holds_up_nothing(watch, world, outsider):
    world.add("IBM")
    run_at_work(world, dg.DagsterRunStatus.STARTED, ["IBM"], "export")
    outsider.put("IBM")
    assert watch.asked() == ["IBM"]


def test_objects_of_the_market_are_left_to_the_refresh_that_fetched_them(watch, world, outsider):
    run = run_at_work(world, dg.DagsterRunStatus.STARTED, [], "refresh")
    key = "bronze/listings/2026-03-04/213000.000000_~_active_0123456789abcdef.csv.gz"
    outsider.person.put(key, b"x")
    assert watch.tick().run_requests == []
    world.instance.report_run_canceled(run)
    assert len(watch.tick().run_requests) == 1


@pytest.mark.parametrize(
    ("selection", "is_held"),
    [(["bronze/weekly_bars", "silver/weekly_bars"], True), (["curated/by_ticker"], False)],
)
def test_a_backfill_that_loads_is_seen_however_many_were_asked_for_since(
    world, warehouse, selection, is_held
):
    for number in range(40):
        world.instance.add_backfill(
            PartitionBackfill(
                f"backfill{number}",
                BulkActionStatus.COMPLETED_SUCCESS if number else BulkActionStatus.REQUESTED,
                from_failure=False,
                tags={},
                backfill_timestamp=time.time(),
                asset_selection=[dg.AssetKey(name.split("/")) for name in selection],
            )
        )
    now = datetime.now(UTC)
    assert find_busy(world.instance, warehouse, ["IBM"], now) == (set(), is_held)


def test_the_tickers_of_a_run_are_those_of_its_config_or_its_partitions():
    members = ["A", "B", "C", "D"]
    config = {"resources": {"batch": {"config": {"tickers": ["D", "A"]}}}}
    span = {RANGE_START: "B", RANGE_END: "C"}
    assert tickers_of_run(span, config, members) == ["D", "A"]
    assert tickers_of_run(span, {}, members) == ["B", "C"]
    assert tickers_of_run({"dagster/partition": "A"}, {}, members) == ["A"]
    assert tickers_of_run({RANGE_START: "B", RANGE_END: "GONE"}, {}, members) == []
    assert tickers_of_run({}, {}, members) == []


def make_anew(warehouse, version):
    """The empty tables of a version."""
    with warehouse.connect() as connection:
        connection.execute("drop schema bronze, silver, ops cascade")
        connection.execute("create schema ops")
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    url = f"postgresql+psycopg://{warehouse.database_url.partition('://')[2]}"
    with sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool).connect() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, version)
        connection.commit()


def test_what_an_older_index_has_that_is_no_key_is_found_again_and_reported(watch, world, outsider):
    """It was noted under a text that the bucket does not have."""
    world.add("IBM")
    make_anew(world.warehouse, "0013")
    watch.cursor = None
    good, bad = outsider.put("IBM"), outsider.put("IBM", datetime(1, 1, 1, tzinfo=UTC))
    with world.warehouse.connect() as connection:
        for key in (good, bad.replace("/0001-", "/1-")):
            connection.execute(
                "insert into bronze.objects (key, dataset, ticker, part, fetched_at, content_hash) "
                "values (%s, 'weekly_bars', 'IBM', '', '2026-03-04', 'x')",
                (key,),
            )
            connection.execute(
                "insert into ops.object_loads (table_name, bronze_key, ticker) "
                "values ('weekly_bars', %s, 'IBM')",
                (key,),
            )
    world.warehouse.migrate()
    assert world.query("select key from bronze.objects")["key"].to_list() == [good]
    (observation,) = watch.tick().asset_events
    assert observation.metadata["objects_to_look_at"].value == 1
    watch.load(["IBM"])
    assert watch.asked() is None
    assert loads(world) == {good: 1}


def test_an_older_warehouse_takes_for_loaded_what_silver_has_gone_past(warehouse):
    first, second, third = (str(key_of("IBM", number)) for number in (1, 2, 3))
    make_anew(warehouse, "0004")
    with warehouse.connect() as connection:
        for number, key in enumerate((first, second, third), start=1):
            connection.execute(
                "insert into bronze.objects (key, dataset, ticker, part, fetched_at, content_hash) "
                "values (%s, 'weekly_bars', 'IBM', '', %s, 'x')",
                (key, TODAY + timedelta(days=number)),
            )
        connection.execute(
            "insert into ops.silver_loads (table_name, ticker, bronze_keys, row_count, "
            "rejected_count) values ('weekly_bars', 'IBM', array[%s], 1, 0)",
            (second,),
        )
    warehouse.migrate()
    with warehouse.connect() as connection:
        loads = connection.execute("select bronze_key, loads from ops.object_loads").fetchall()
    assert dict(loads) == {first: 1, second: 1, third: 0}
    (unloaded,) = Arrivals(warehouse).unloaded(["IBM"], registers=False, told_until=NEVER)
    assert unloaded.objects == 1


def key_of(ticker, day):
    return BronzeKey("weekly_bars", ticker, TODAY + timedelta(days=day), "0123456789abcdef")


LOADER = """
import json, sys
from stocks_assets.adapters import silver
from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.object_store import ObjectStore, S3Location
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.payloads import SILVER_TABLES

url, endpoint, key, secret, bucket, tickers = sys.argv[1:]
warehouse = Warehouse(url)
bronze = BronzeStore(ObjectStore(S3Location(endpoint, key, secret), bucket), warehouse)
print("begun", flush=True)
table = SILVER_TABLES["weekly_bars"]
list(silver.load(bronze, warehouse, table, json.loads(tickers), only_stale=True))
"""


def test_objects_of_outsiders_are_loaded_once_each_while_loads_are_killed(
    watch, world, outsider, servers
):
    chance = random.Random(7)
    tickers = [f"T{number}" for number in range(30)]
    world.add(*tickers)
    where = [
        world.warehouse.database_url,
        servers.s3_endpoint_url,
        servers.aws_access_key_id,
        servers.aws_secret_access_key,
        world.store.bucket,
    ]
    kills = 0
    for round_ in range(6):
        for number in range(50):
            skew = timedelta(seconds=chance.choice([0, 0, 0, -1, 5, -40, -90_000]))
            at = TODAY + timedelta(minutes=round_) + skew
            outsider.put(tickers[number % 30], at.replace(microsecond=number))
        asked = watch.asked()
        if asked is None:
            continue
        command = [sys.executable, "-c", LOADER, *where, json.dumps(asked)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as loader:
            loader.stdout.readline()
            time.sleep(chance.uniform(0, 1.5))
            if loader.poll() is None:
                loader.kill()
                kills += 1
    assert kills
    with world.warehouse.connect() as connection:
        connection.execute("update ops.object_loads set requested_at = null")
    while asked := watch.asked():
        watch.load(asked)
    assert loads(world) == dict.fromkeys(outsider.keys, 1)
    assert len(outsider.keys) == 300
    newest = {}
    for key in map(BronzeKey.parse, outsider.keys):
        newest[key.ticker] = max(
            newest.get(key.ticker, key), key, key=lambda k: (k.fetched_at, str(k))
        )
    stored = dict(world.query("select ticker, bronze_key from silver.weekly_bars").iter_rows())
    assert stored == {ticker: str(key) for ticker, key in newest.items()}
