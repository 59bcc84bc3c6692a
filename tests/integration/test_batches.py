"""Many tickers in few runs: what each way leaves behind of those that fail, and of a retry."""

import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import psycopg
import pytest
from botocore.exceptions import ClientError
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._daemon.monitoring.run_monitoring import monitor_started_run
from sqlalchemy import text

from stocks_assets.adapters.backlog import find_behind, make_backlog
from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.dbt_project import project_digest
from stocks_assets.adapters.report.storing import Reports
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.adapters.warehouse import ensure_database
from stocks_assets.defs.jobs import REFRESH, refresh_runs
from stocks_assets.defs.launch import PROCESS_TAG, Watch, WatchedRunLauncher
from stocks_assets.defs.partitions import TICKERS as PARTITIONS
from stocks_assets.defs.partitions import tags_of
from stocks_assets.defs.rebuild import REBUILD
from stocks_assets.defs.storage import prune
from stocks_assets.defs.upkeep import PRUNE
from stocks_assets.domain.datasets import Call
from stocks_assets.domain.outcomes import TransportFailed, Unavailable, UnknownSymbol
from stocks_assets.domain.planner import Allowance
from stocks_assets.domain.sample_market import SampleMarket
from stocks_assets.errors import StackError

DAY = date(2026, 11, 20)
# Short histories: what is looked at is who is done, not how much.
MARKET = SampleMarket(first_session=date(2026, 6, 1))
LAYERS = ("bronze", "silver")


def listed(count):
    known = MARKET.tickers(count * 2)
    return [t for t in known if b"Time Series" in MARKET.reply("TIME_SERIES_DAILY", t, DAY)][:count]


TICKERS = listed(40)
BROKEN = TICKERS[3::8]
DONE = [ticker for ticker in TICKERS if ticker not in BROKEN]


class Breaking(SampleSource):
    """A vendor that cannot be reached for some tickers, and counts its calls."""

    def __init__(self, broken=()):
        self.day = DAY
        super().__init__(MARKET, lambda: self.day)
        self.broken = set(broken)
        self.calls = Counter()
        self.outcome = TransportFailed("the line is dead")

    def fetch(self, dataset, ticker, part="", **how):
        self.calls[dataset.name, ticker, part] += 1
        if ticker in self.broken:
            return self.outcome
        return super().fetch(dataset, ticker, part, **how)


def metadata_by_ticker(world, asset):
    """Return the newest materialization of each partition."""
    records = world.instance.fetch_materializations(
        dg.AssetKey(asset.split("/")), limit=1000, ascending=True
    ).records
    return {record.partition_key: record.asset_materialization for record in records}


def exact(world, run_id):
    """Each of the tickers that are done has metadata of its own, and the run names the others."""
    for asset in ("bronze/daily_bars", "silver/daily_bars"):
        found = metadata_by_ticker(world, asset)
        assert set(found) == set(DONE), asset
    rows = dict(
        world.query("select ticker, count(*) as n from silver.daily_bars group by 1").iter_rows()
    )
    for ticker, materialization in metadata_by_ticker(world, "silver/daily_bars").items():
        shown = materialization.metadata
        assert shown["dagster/partition_row_count"].value == rows[ticker] > 0
        assert shown["last_session"].value == str(DAY)
        assert f"_{ticker}_" in shown["objects"].value
    for ticker, materialization in metadata_by_ticker(world, "bronze/daily_bars").items():
        assert f"_{ticker}_" in materialization.metadata["object_key"].value
    failures = world.warehouse.failures(run_id)
    assert {f.ticker for f in failures if f.asset == "bronze/daily_bars"} == set(BROKEN)
    assert all("the line is dead" in f.reason for f in failures if f.asset == "bronze/daily_bars")


def test_a_refresh_is_done_for_all_but_the_broken_and_the_catch_up_is_one_run_of_those(world):
    world.add(*TICKERS)
    source = Breaking(BROKEN)
    result = world.refresh(source, TICKERS, layers=LAYERS)
    exact(world, result.run_id)

    behind = find_behind(world.warehouse, TICKERS, gold_project=project_digest())
    backlog = make_backlog(source, world.warehouse, TICKERS, intraday_months=0, behind=behind)
    assert [t for t in backlog if any("the line is dead" in why for why in backlog[t])] == BROKEN
    source.broken, source.calls = set(), Counter()
    again = world.refresh(source, BROKEN, layers=LAYERS)
    assert again.success
    assert {ticker for _, ticker, _ in source.calls} - {""} == set(BROKEN)
    for asset in ("bronze/daily_bars", "silver/daily_bars"):
        assert world.materialized(asset) == set(TICKERS)


@contextmanager
def kept_in_postgres(servers, **overrides):
    """An instance of Dagster on the storage that the platform has, empty."""
    url = servers.database_url.rsplit("/", 1)[0] + "/dagster_of_batches"
    ensure_database(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop schema public cascade")
        connection.execute("create schema public")
    storage = {
        "module": "stocks_assets.defs.storage",
        "class": "PooledPostgresStorage",
        "config": {"postgres_url": url.replace("postgresql://", "postgresql+psycopg2://")},
    }
    with dg.instance_for_test(overrides={"storage": {"custom": storage}, **overrides}) as instance:
        yield instance


@dataclass(frozen=True)
class Shown:
    """The tickers of an asset as the UI counts them."""

    done: frozenset
    failed: frozenset
    in_progress: frozenset


def shown(world):
    """Return what the UI and its API show of each asset that was made of tickers."""
    graph = world.definitions(Breaking()).resolve_asset_graph()
    found = {}
    for key in sorted(graph.materializable_asset_keys):
        if not graph.get(key).is_partitioned:
            continue
        status = get_and_update_asset_status_cache_value(world.instance, key, PARTITIONS)
        if status is None:
            continue  # such as intraday bars, which nobody wants
        failed = frozenset(
            status.deserialize_failed_partition_subsets(PARTITIONS).get_partition_keys()
        )
        done = frozenset(
            status.deserialize_materialized_partition_subsets(PARTITIONS).get_partition_keys()
        )
        going = status.deserialize_in_progress_partition_subsets(PARTITIONS).get_partition_keys()
        found["/".join(key.path)] = Shown(done - failed, failed, frozenset(going))
    return found


def unsynced(world, tickers=()):
    """Return what the UI shows as behind what it is made from: of silver, of `tickers`, or whole."""
    graph = world.definitions(Breaking()).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(
        world.instance, graph, LoadingContextForTest(world.instance)
    )
    whole = [key for key in graph.materializable_asset_keys if not graph.get(key).is_partitioned]
    parted = [key for key in graph.materializable_asset_keys - {*whole} if key.path[0] == "silver"]
    wanted = [(key, ticker) for key in parted for ticker in tickers] or [(k, None) for k in whole]
    return {
        (key.path[-1], ticker)
        for key, ticker in wanted
        if resolver.get_status(key, ticker) == StaleStatus.STALE
    }


def test_a_ticker_that_worked_before_shows_as_failed_until_it_works_again(servers, world):
    tickers = TICKERS[:6]
    broken = {tickers[1], tickers[4]}
    all_done = Shown(frozenset(tickers), frozenset(), frozenset())
    with kept_in_postgres(servers) as world.instance:
        world.add(*tickers)
        source = Breaking()
        assert world.refresh(source, tickers).success
        assert set(shown(world).values()) == {all_done}

        # Whoever asks in between gets them from the cache; a day on which nothing is new.
        source.broken = broken
        for source.day in (DAY, date(2026, 11, 23)):
            result = world.refresh(source, tickers)
            assert not result.success
            if source.day == DAY:
                assert unsynced(world) == set()
            found = shown(world)
            for asset, status in found.items():
                fails = {
                    f.ticker for f in world.warehouse.failures(result.run_id) if f.asset == asset
                }
                assert status.failed == fails == (broken if "bronze/" in asset else set()), asset
                assert status.done == set(tickers) - fails
                assert not status.in_progress

        source.broken = set()
        assert world.refresh(source, tickers).success
        assert set(shown(world).values()) == {all_done}


def test_a_table_is_unsynced_where_it_is_behind_its_objects_and_not_where_they_are_as_before(
    servers, world
):
    tickers = TICKERS[:3]
    with kept_in_postgres(servers) as world.instance:
        world.add(*tickers)
        source = Breaking()
        assert world.refresh(source, tickers, layers=LAYERS).success
        assert unsynced(world, tickers) == set()
        # Asked for again by name, which writes of bronze anew; there is nothing new.
        assert world.refresh(source, tickers, layers=("bronze",)).success
        for event in world.instance.fetch_materializations(
            dg.AssetKey(["bronze", "daily_bars"]), limit=3
        ).records:
            assert event.partition_key in tickers
            world.instance.report_runless_asset_event(event.asset_materialization)
        assert unsynced(world, tickers) == set()

        source.day = date(2026, 11, 23)
        assert world.refresh(source, tickers[:2], layers=("bronze",)).success
        behind = unsynced(world, tickers)
        assert {ticker for table, ticker in behind if table == "daily_bars"} == set(tickers[:2])
        assert world.refresh(source, tickers[:2], layers=("silver",)).success
        assert unsynced(world, tickers) == set()

        # What is built anew from bronze alone is recorded as what a refresh loads.
        source.day = date(2026, 11, 24)
        assert world.refresh(source, tickers[:2], layers=("bronze",)).success
        assert {("daily_bars", ticker) for ticker in tickers[:2]} <= unsynced(world, tickers)
        shown = metadata_by_ticker(world, "silver/daily_bars")
        rebuilt = world.definitions(source).resolve_job_def(REBUILD)
        assert rebuilt.execute_in_process(instance=world.instance).success
        assert unsynced(world, tickers) == set()
        anew = metadata_by_ticker(world, "silver/daily_bars")
        for ticker in tickers[:2]:
            assert anew[ticker].metadata["last_session"].value == str(source.day)
            assert anew[ticker].metadata.keys() >= {"chart", "objects", "rejected_rows"}
        # Nothing is told of what was as it had to be: freshness is judged by what is.
        assert anew[tickers[2]] == shown[tickers[2]]
        newest = world.instance.event_log_storage.get_maximum_record_id()
        assert rebuilt.execute_in_process(instance=world.instance).success
        assert not [
            number for number, row in events_of(world).items() if number > newest and row.asset_key
        ]

        # A vendor that knows a ticker no more takes nothing from what there is of it.
        source.broken, source.outcome = {tickers[0]}, Unavailable("it is not listed")
        source.day = date(2026, 11, 25)
        assert world.refresh(source, tickers[:1], layers=LAYERS).success
        assert (
            metadata_by_ticker(world, "bronze/daily_bars")[tickers[0]].metadata["available"].value
            is False
        )
        assert unsynced(world, tickers) == set()


def events_of(world):
    """Return all of Dagster's events, as ids of what they are about."""
    with world.instance.event_log_storage.index_connection() as connection:
        rows = connection.execute(
            text("select id, run_id, dagster_event_type, asset_key, partition from event_logs")
        ).all()
        tags = connection.execute(text("select distinct event_id from asset_event_tags")).scalars()
        assert set(tags) <= {row.id for row in rows}, "tags of an event that is gone"
    return {row.id: row for row in rows}


def age(world, days):
    """Have all that there is come so many days earlier."""
    columns = {
        "event_logs": ["timestamp"],
        "asset_check_executions": ["create_timestamp"],
        "runs": ["create_timestamp", "update_timestamp"],
    }
    with world.instance.event_log_storage.index_transaction() as connection:
        for table, names in columns.items():
            changes = ", ".join(f"{name} = {name} - make_interval(days => :days)" for name in names)
            connection.execute(text(f"update {table} set {changes}"), {"days": days})


def newest_of(world, tickers):
    """Return what the UI shows of each asset and check: the last event, and its version."""
    graph = world.definitions(Breaking()).resolve_asset_graph()
    events = {}
    for key in graph.materializable_asset_keys:
        for ticker in tickers if graph.get(key).is_partitioned else [None]:
            made = world.instance.get_latest_data_version_record(key, partition_key=ticker)
            events[key, ticker] = made and (made.storage_id, made.event_log_entry)
    checks = world.instance.event_log_storage.get_latest_asset_check_execution_by_key(
        list(graph.asset_check_keys)
    )
    return events, {key: (check.run_id, check.status) for key, check in checks.items()}


def test_old_events_go_and_all_that_is_shown_of_assets_and_checks_stays(servers, world, tmp_path):
    tickers = TICKERS[:3]
    printed = tmp_path / "printed"
    compute_logs = {
        "module": "dagster.core.storage.local_compute_log_manager",
        "class": "LocalComputeLogManager",
        "config": {"base_dir": str(printed)},
    }
    with kept_in_postgres(servers, compute_logs=compute_logs) as world.instance:
        world.add(*tickers)
        source = Breaking()
        first = world.refresh(source, tickers)
        assert first.success
        # The second is of one ticker less, and the third fails at one more.
        source.day = date(2026, 11, 23)
        second = world.refresh(source, tickers[:2])
        source.day, source.broken = date(2026, 11, 24), {tickers[0]}
        third = world.refresh(source, tickers[:2])
        refresh = world.definitions(source).resolve_job_def(REFRESH)
        going = world.instance.create_run_for_job(refresh)
        world.instance.report_engine_event("it waits", going)
        # Sensors and people report without a run.
        for number in range(2):
            observation = dg.AssetObservation("quarantine", metadata={"number": number})
            world.instance.report_runless_asset_event(observation)
            # Asked for again and found as it was: the table is of the first of these events.
            as_before = metadata_by_ticker(world, "bronze/daily_bars")[tickers[2]]
            world.instance.report_runless_asset_event(as_before)
        ended = [first.run_id, second.run_id, third.run_id]
        for run_id in (*ended, going.run_id):
            (printed / run_id / "compute_logs").mkdir(parents=True, exist_ok=True)
        old = events_of(world)
        age(world, 40)
        source.broken = {tickers[1]}
        last = world.refresh(source, tickers[:2])
        (printed / last.run_id / "compute_logs").mkdir(parents=True, exist_ok=True)
        new = {number: row for number, row in events_of(world).items() if number not in old}
        before = newest_of(world, tickers), shown(world), unsynced(world, tickers)
        assert before[1]["bronze/daily_bars"].failed == {tickers[1]}
        checks = checks_told_of(world)

        pruned = world.definitions(source).resolve_job_def(PRUNE)
        assert pruned.execute_in_process(instance=world.instance).success
        kept = events_of(world)
        assert (newest_of(world, tickers), shown(world), unsynced(world, tickers)) == before
        assert new.keys() <= kept.keys()
        logs = {row.run_id for row in kept.values() if row.asset_key is None}
        assert {last.run_id, going.run_id} <= logs
        assert not {*ended} & logs
        made = [
            row
            for number, row in kept.items()
            if number in old and row.dagster_event_type == "ASSET_MATERIALIZATION"
        ]
        # Of the old events of a partition: the last where it is the last of all, and the first
        # with its version.
        assert max(Counter((row.asset_key, row.partition) for row in made).values()) <= 2
        assert {row.partition for row in made if "daily_bars" in row.asset_key} >= {tickers[2]}
        assert Counter(row.asset_key for row in kept.values())['["quarantine"]'] == 1
        assert checks_told_of(world) < checks
        left = {folder.name for folder in printed.iterdir()}
        assert {going.run_id, last.run_id} <= left
        assert not left & {*ended}

        # Again, there is nothing left to remove.
        assert prune(world.instance.event_log_storage, datetime.now(UTC) - timedelta(days=30)) == 0
        assert events_of(world).keys() == kept.keys()


def checks_told_of(world):
    with world.instance.event_log_storage.index_connection() as connection:
        return connection.execute(text("select count(*) from asset_check_executions")).scalar_one()


def refuse(world, table):
    """Have PostgreSQL take no row into a table."""
    with world.warehouse.connect() as connection:
        connection.execute(
            "create function ops.refuse() returns trigger language plpgsql "
            "as $$ begin raise 'no room'; end $$"
        )
        connection.execute(
            f"create trigger refuse before insert on {table} execute function ops.refuse()"
        )


def take_again(world):
    with world.warehouse.connect() as connection:
        connection.execute("drop function ops.refuse() cascade")


def test_what_a_step_did_not_come_to_shows_as_failed(servers, world, store):
    class Wrong(BronzeStore):
        def ingest(self, *args, **how):
            for number, one in enumerate(super().ingest(*args, **how)):
                yield one
                if number == 3:
                    raise ValueError("a mistake in the code")

    tickers = TICKERS[:6]
    all_done = Shown(frozenset(tickers), frozenset(), frozenset())
    with kept_in_postgres(servers) as world.instance:
        world.add(*tickers)
        source, bronze = Breaking(), world.bronze
        assert world.refresh(source, tickers, layers=LAYERS).success

        source.day, world.bronze = date(2026, 11, 23), Wrong(store, world.warehouse)
        assert not world.refresh(source, tickers, layers=("bronze",)).success
        status = shown(world)["bronze/daily_bars"]
        assert (len(status.done), len(status.failed)) == (4, 2)

        world.bronze = bronze
        assert world.refresh(source, tickers[:4], layers=("bronze",)).success
        refuse(world, "silver.monthly_bars")
        assert not world.refresh(source, tickers, layers=("silver",)).success
        found = shown(world)
        assert found["silver/weekly_bars"] == all_done
        assert found["silver/monthly_bars"].failed == set(tickers)

        take_again(world)
        assert world.refresh(source, tickers, layers=LAYERS).success
        assert set(shown(world).values()) == {all_done}


def test_what_gold_did_not_come_to_shows_as_failed_though_no_verdict_was_given(servers, world):
    tickers = TICKERS[:3]
    all_done = Shown(frozenset(tickers), frozenset(), frozenset())
    with kept_in_postgres(servers) as world.instance:
        world.add(*tickers)
        source = Breaking()
        assert world.refresh(source, tickers).success
        refuse(world, "gold.fct_weekly_prices")
        source.day, source.broken = date(2026, 11, 23), {tickers[0]}
        result = world.refresh(source, tickers)
        verdict = "gold__dim_company_every_ticker_is_refreshed"
        assert verdict not in {event.step_key for event in result.get_step_success_events()}
        one_failed = Shown(frozenset(tickers[1:]), frozenset(tickers[:1]), frozenset())
        found = shown(world)
        # Of the ticker that failed in bronze gold had nothing to build.
        without = Shown(frozenset(tickers[:1]), frozenset(tickers[1:]), frozenset())
        assert found["bronze/daily_bars"] == one_failed
        assert found["silver/weekly_bars"] == all_done
        assert found["gold/fct_daily_prices"] == all_done
        assert found["gold/fct_weekly_prices"] == found["gold/agg_weekly_prices"] == without
        assert found["staging/stg_weekly_bars"] == all_done

        take_again(world)
        source.broken = set()
        assert world.refresh(source, tickers).success
        assert set(shown(world).values()) == {all_done}


def test_a_backfill_is_done_for_all_but_the_broken_and_the_retry_is_one_run_of_those(world):
    world.add(*TICKERS)
    source = Breaking(BROKEN)
    spans = {"first": TICKERS[0], "last": TICKERS[-1]}
    result = world.materialize(source, "bronze/daily_bars", **spans)
    assert not result.success
    failure = next(e for e in result.all_events if e.is_step_failure).step_failure_data
    assert failure.user_failure_data.label == "intentional-failure"
    told = failure.user_failure_data.metadata["failed"].value.records
    assert {record.data["ticker"] for record in told} == set(BROKEN)

    # What comes next is asked for the tickers that succeeded, scattered as they are, in one run.
    span = tags_of(DONE, TICKERS)
    first, last = span.values()
    assert world.materialize(source, "silver/daily_bars", first=first, last=last).success
    exact(world, result.run_id)

    source.broken, source.calls = set(), Counter()
    first, last = tags_of(BROKEN, TICKERS).values()
    for asset in ("bronze/daily_bars", "silver/daily_bars"):
        assert world.materialize(source, asset, first=first, last=last).success
        assert world.materialized(asset) == set(TICKERS)
    assert {ticker for _, ticker, _ in source.calls} == set(BROKEN)
    assert set(source.calls.values()) == {1}


class Shared(Breaking):
    """A vendor whom a refresh asks for all tickers as soon as another run has made a call."""

    def __init__(self, world):
        super().__init__(BROKEN)
        self.world = world
        self.is_first = threading.Lock()

    def fetch(self, dataset, ticker, part="", **how):
        if self.is_first.acquire(blocking=False):
            calls = [Call(dataset.name, one) for one in TICKERS]
            for _ in self.world.bronze.ingest(self, dataset, calls, threads=4):
                pass
        return super().fetch(dataset, ticker, part, **how)


def test_what_a_refresh_fetches_amid_a_backfill_is_recorded_in_it_and_asked_for_once(world):
    world.add(*TICKERS)
    source = Shared(world)
    spans = {"first": TICKERS[0], "last": TICKERS[-1]}
    result = world.materialize(source, "bronze/daily_bars", **spans)
    assert source.calls == {("daily_bars", ticker, ""): 1 for ticker in TICKERS}
    found = metadata_by_ticker(world, "bronze/daily_bars")
    assert set(found) == set(DONE)
    assert all(f"_{ticker}_" in found[ticker].metadata["object_key"].value for ticker in DONE)
    failures = world.warehouse.failures(result.run_id)
    assert {failure.ticker for failure in failures} == set(BROKEN)
    assert all("the line is dead" in failure.reason for failure in failures)


class Interrupted(BronzeStore):
    """A store whose connection to PostgreSQL breaks in the middle of a dataset, so many times."""

    def __init__(self, store, warehouse, times):
        super().__init__(store, warehouse)
        self.times = times

    def ingest(self, source, dataset, calls, **how):
        for number, one in enumerate(super().ingest(source, dataset, calls, **how)):
            yield one
            if number == 3 and self.times:
                self.times -= 1
                raise psycopg.OperationalError("server closed the connection unexpectedly")


class Busy(BronzeStore):
    """A store that does not take the first reply of a ticker, as it has too much to do."""

    def __init__(self, store, warehouse, ticker):
        super().__init__(store, warehouse)
        self.ticker = ticker

    def _keep(self, outcome, call, newest):
        if call.ticker == self.ticker:
            self.ticker = None
            how = {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}
            raise ClientError(how, "PutObject")
        return super()._keep(outcome, call, newest)


class Planned(Breaking):
    """A vendor whose calls are planned, though there are enough of them."""

    def allowance(self):
        return Allowance()


@pytest.mark.parametrize("way", ["refresh", "plan", "materialize"])
@pytest.mark.parametrize("trouble", ["database", "store"])
def test_a_step_that_is_tried_again_loses_no_failure_and_repeats_no_call(
    world, store, way, trouble
):
    tickers = TICKERS[:8]
    broken, unlucky = tickers[0], tickers[1]
    world.add(*tickers)
    source = Planned([broken]) if way == "plan" else Breaking([broken])
    source.outcome = UnknownSymbol("the vendor does not know this ticker")
    if trouble == "database":
        world.bronze = Interrupted(store, world.warehouse, times=1)
    else:
        world.bronze = Busy(store, world.warehouse, unlucky)
    if way == "materialize":
        result = world.materialize(source, "bronze/daily_bars", first=tickers[0], last=tickers[-1])
        assert not result.success
    else:
        result = world.refresh(source, tickers, layers=("bronze",))
    assert sum(event.is_step_up_for_retry for event in result.all_events) == 1
    assert {failure.ticker for failure in world.warehouse.failures(result.run_id)} == {broken}
    assert world.materialized("bronze/daily_bars") == set(tickers[1:])
    # What the store did not take is asked for once more, and nothing else.
    often = [ticker for (_, ticker, _), count in source.calls.items() if count > 1]
    assert often == ([unlucky] if trouble == "store" else [])
    assert max(source.calls.values()) <= 2


def test_what_is_no_fault_of_a_server_is_not_tried_again(world, store):
    class Wrong(BronzeStore):
        def ingest(self, *_, **__):
            raise ValueError("a mistake in the code")

    world.add(*TICKERS[:2])
    world.bronze = Wrong(store, world.warehouse)
    result = world.materialize(Breaking(), "bronze/daily_bars", first=TICKERS[0])
    assert not result.success
    assert not any(event.is_step_up_for_retry for event in result.all_events)


def test_a_run_whose_process_is_killed_is_failed_whatever_started_it(warehouse):
    """As Dagster's daemon does it, and by no more than what PostgreSQL knows."""
    hold = (
        "import sys; from stocks_assets.adapters.warehouse import Warehouse\n"
        "with Warehouse(sys.argv[1]).alive(sys.argv[2]): print('held', flush=True); sys.stdin.read()"
    )
    now = [0.0]
    launcher = WatchedRunLauncher(watch=Watch(lambda: warehouse, lambda: now[0]))
    with dg.instance_for_test() as instance:
        instance._run_launcher = launcher
        run = dg.DagsterRun(
            "refresh",
            status=dg.DagsterRunStatus.STARTED,
            tags={PROCESS_TAG: "another machine 1 2"},
        )
        instance.add_run(run)

        def monitored(second):
            now[0] = second
            (record,) = instance.get_run_records()
            monitor_started_run(instance, None, record, logging.getLogger(__name__))
            return instance.get_run_by_id(run.run_id).status

        command = [sys.executable, "-c", hold, warehouse.database_url, run.run_id]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"held\n"
            assert monitored(0.0) == monitored(100.0) == dg.DagsterRunStatus.STARTED
            process.kill()
        while warehouse.living([run.run_id]):
            time.sleep(0.05)
        assert monitored(200.0) == dg.DagsterRunStatus.STARTED
        assert monitored(300.0) == dg.DagsterRunStatus.FAILURE


def test_of_the_runs_of_a_batch_just_those_make_a_report_that_leave_none_waiting(world):
    world.add(*TICKERS[:2])
    source = SampleSource(MARKET, lambda: DAY)
    job = world.definitions(source).resolve_job_def(REFRESH)
    (first, its_tags), (second, tags) = refresh_runs(
        "some day", TICKERS[:2], TICKERS[:2], at_most=1
    )
    waiting = world.instance.create_run_for_job(job, run_config=second, tags=tags)
    assert job.execute_in_process(instance=world.instance, run_config=first, tags=its_tags).success
    with pytest.raises(StackError, match="there is no report yet"):
        Reports(world.store).find()
    world.instance.delete_run(waiting.run_id)
    assert job.execute_in_process(instance=world.instance, run_config=second, tags=tags).success
    assert set(Reports(world.store).find().pages) == set(TICKERS[:2])
