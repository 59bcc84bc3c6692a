"""`stocks` as people and scripts run it: a process with an environment, output and an exit status.

The homes are temporary; every one is stopped at the end, and nothing of it may still run.
"""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import grpc
import httpx
import polars as pl
import psutil
import psycopg
import pytest
from outside import s3_client
from psycopg import sql

from stocks_assets.defs.jobs import refresh_run
from stocks_assets.defs.partitions import tickers_of_tags
from stocks_assets.domain.sample_market import SampleMarket
from stocks_assets.stack.embedded import Endpoints

STOCKS = Path(sys.executable).with_name("stocks")
TABLES = {
    "silver": {"companies", "corporate_actions", "daily_bars", "exchange_calendar", "weekly_bars"},
    "gold": {
        "dim_company",
        "dim_company_history",
        "dim_date",
        "dim_security",
        "fct_corporate_actions",
        "fct_daily_prices",
        "fct_monthly_prices",
        "fct_weekly_prices",
        "mart_latest_prices",
        "mart_market_breadth",
    },
}
SECRET = "s3cret-of-mine"
SERVICES = ["postgres", "seaweedfs", "code-location", "webserver", "daemon"]
# Holds the platform as a long command does: says so, waits for a line, uses it, ends.
HOLD = (
    "from stocks_assets.platform import Platform\n"
    "with Platform.from_settings().headless() as headless:\n"
    "    print('ready', flush=True); input(); print(headless.tickers(), flush=True)"
)


@dataclass(frozen=True)
class CommandLine:
    """The command line with a home of its own and nothing of the developer's environment."""

    home: Path
    more: dict[str, str]

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home.parent),
            "COLUMNS": "200",
            "STOCKS_ENV_FILE": os.devnull,
            "STOCKS_UNIVERSE_FILE": os.devnull,
            "STOCKS_HOME": str(self.home),
            **self.more,
            **more,
        }

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [STOCKS, *arguments],
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def succeed(self, *arguments: str, **more: str) -> str:
        done = self.run(*arguments, **more)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def refuse(self, *arguments: str, **more: str) -> str:
        """Return the one line on standard error of a command that cannot work."""
        done = self.run(*arguments, **more)
        lines = done.stderr.splitlines()
        assert (done.returncode, len(lines)) == (1, 1), done.stderr
        assert lines[0].startswith("error: ")
        assert SECRET not in done.stdout + done.stderr
        return lines[0]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return self.spawn(STOCKS, *arguments)

    def hold(self) -> subprocess.Popen[str]:
        return self.spawn(sys.executable, "-c", HOLD)

    def spawn(self, *arguments: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            arguments,
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    def status(self) -> dict:
        return json.loads(self.succeed("status", "--json"))

    def running(self) -> dict[str, int]:
        services = self.status()["services"]
        assert [service["name"] for service in services] == SERVICES
        return {service["name"]: service["pid"] for service in services if service["running"]}

    def processes(self) -> list[list[str]]:
        """Return the command lines of what runs for this home, marked as the project marks it."""
        found = []
        for process in self.family():
            with suppress(psutil.Error, OSError):
                found.append(process.cmdline())
        return found

    def family(self) -> list[psutil.Process]:
        """Return what runs for this home, marked as the project marks it."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                mark = process.environ().get("STOCKS_STACK_PROCESS", "")
                if mark.startswith(f"{self.home.resolve()}:") or self._works_here(process):
                    found.append(process)
        return found

    def _works_here(self, process: psutil.Process) -> bool:
        return Path(process.cwd()).is_relative_to(self.home.resolve())


def services(command: CommandLine) -> list[list[str]]:
    """Return what runs, but for PostgreSQL's own processes, which come and go with connections."""
    return [line for line in command.processes() if not line or not line[0].startswith("postgres:")]


def end(command: CommandLine) -> None:
    command.run("down")
    assert command.processes() == []


@pytest.fixture
def command(tmp_path: Path) -> Iterator[CommandLine]:
    """A home where nothing was ever started."""
    command = CommandLine(tmp_path / "my home", {})
    yield command
    end(command)


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """A home for commands that are to start nothing."""
    command = CommandLine(tmp_path_factory.mktemp("idle") / "home", {})
    yield command
    end(command)


@pytest.fixture(scope="module")
def demonstrated(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[CommandLine, str, list[list[str]]]]:
    """A home after its first demo, what that printed, and what it left running."""
    command = CommandLine(tmp_path_factory.mktemp("demo") / "home", {})
    try:
        said = command.succeed("demo", "--tickers", "2", "--no-ui")
        yield command, said, command.processes()
    finally:
        end(command)


@pytest.fixture
def served(demonstrated) -> CommandLine:
    """The home of the demo with everything running."""
    command = demonstrated[0]
    command.succeed("up", "--detach")
    return command


@pytest.fixture
def outside(servers: Endpoints, tmp_path: Path) -> Iterator[CommandLine]:
    """A home without any server of its own: the settings name others, with a new database."""
    name = f"outside_{os.getpid()}_{time.monotonic_ns()}"
    command = CommandLine(
        tmp_path / "home",
        {
            "STOCKS_DATABASE_URL": beside(servers, name),
            "STOCKS_S3_ENDPOINT_URL": servers.s3_endpoint_url,
            "STOCKS_BUCKET": name.replace("_", "-"),
            "AWS_ACCESS_KEY_ID": servers.aws_access_key_id,
            "AWS_SECRET_ACCESS_KEY": servers.aws_secret_access_key,
        },
    )
    yield command
    assert command.processes() == []
    assert "nothing was running" in command.succeed("down")


def beside(servers: Endpoints, database: str, *, user: str = "", host: str = "") -> str:
    """Return the URL of another database of the server, perhaps for somebody else."""
    parts = urlsplit(servers.database_url)
    credentials, _, address = parts.netloc.rpartition("@")
    netloc = f"{user or credentials}@{host or address}"
    return parts._replace(netloc=netloc, path=f"/{database}").geturl()


def nobody_listens_at() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def contents(command: CommandLine) -> tuple[dict[str, list], list[tuple]]:
    """Return each row with the transaction that wrote it, and each object with its time.

    Where the sensor on the bucket stands is left out: it moves by itself.
    """
    status = command.status()
    tables = {}
    with psycopg.connect(status["database_url"]) as connection:
        names = connection.execute(
            "select schemaname, tablename from pg_tables where schemaname in "
            "('bronze', 'silver', 'gold') and tablename !~ '^_dlt' and tablename <> 'sweeps' "
            "order by 1, 2"
        ).fetchall()
        for schema, table in names:
            tables[f"{schema}.{table}"] = connection.execute(
                sql.SQL("select xmin::text, t::text from {} t order by 2").format(
                    sql.Identifier(schema, table)
                )
            ).fetchall()
    s3 = s3_client(
        status["s3_endpoint_url"], status["aws_access_key_id"], status["aws_secret_access_key"]
    )
    listing = s3.list_objects_v2(Bucket=status["bucket"])
    s3.close()
    assert not listing["IsTruncated"]
    return tables, [
        (entry["Key"], entry["ETag"], entry["LastModified"]) for entry in listing["Contents"]
    ]


def graphql(command: CommandLine, query: str, **variables: object) -> dict:
    reply = httpx.post(
        f"{command.status()['ui_url']}/graphql",
        json={"query": query, "variables": variables},
        timeout=60,
        trust_env=False,
    ).raise_for_status()
    assert "errors" not in reply.json(), reply.json()["errors"]
    return reply.json()["data"]


def launch_refresh(command: CommandLine, *tickers: str, assets: Sequence[str] = ()) -> str:
    """Launch a refresh as the UI does, of all assets or of some, and return the id of its run."""
    run_config, tags = refresh_run(tickers, command.succeed("tickers", "list").split())
    return graphql(
        command,
        "mutation ($p: ExecutionParams!) {launchRun(executionParams: $p) "
        "{__typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}}}",
        p={
            "selector": {
                "repositoryName": "__repository__",
                "repositoryLocationName": "stocks_assets",
                "jobName": "refresh",
                "assetSelection": [{"path": asset.split("/")} for asset in assets] or None,
            },
            "runConfigData": run_config,
            "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
        },
    )["launchRun"]["run"]["runId"]


# The demo


def test_a_demo_shows_its_tables_and_tickers_and_leaves_nothing_running(demonstrated):
    _, said, left_running = demonstrated
    for schema, tables in TABLES.items():
        for table in tables:
            assert re.search(rf"^{schema}\.{table} +[\d,]*[1-9]", said, re.MULTILINE)
    tickers = SampleMarket().tickers(2)
    for ticker in tickers:
        assert re.search(rf"^{ticker} .*\d\.\d\d .*%", said, re.MULTILINE)
    assert "All 2 tickers are up to date" in said
    assert left_running == []


def test_a_second_demo_writes_no_object_and_no_row(served):
    before, running = contents(served), served.running()
    assert set(before[0]) >= {f"{schema}.{t}" for schema, ts in TABLES.items() for t in ts}
    # Six datasets of two tickers, and the two lists of the market.
    assert sum(key.startswith("bronze/") for key, *_ in before[1]) == 2 * 6 + 2
    said = served.succeed("demo", "--tickers", "2", "--no-ui")
    assert "2 tickers, 0 of them new" in said
    assert contents(served) == before
    assert served.running() == running


# Doors


def listening(command: CommandLine) -> set[tuple[str, int]]:
    """Return where the processes of the home, and those that they have started, listen."""
    family = set(command.family())
    connections = []
    for process in list(family):
        with suppress(psutil.NoSuchProcess):
            family.update(process.children(recursive=True))
    for process in family:
        with suppress(psutil.NoSuchProcess):  # such as one of a connection to PostgreSQL
            connections += process.net_connections(kind="inet")
    return {
        (connection.laddr.ip, connection.laddr.port)
        for connection in connections
        if connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM
    }


def says_over_tls(port: int, certificate: Path | None) -> bytes:
    """Return the first that a gRPC server says to a client, with a certificate or without one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if certificate:
        context.load_cert_chain(certificate / "parts.pem", certificate / "parts.key")
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain) as client,
    ):
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        return client.recv(100)


def test_all_that_listens_is_on_loopback_and_changes_nothing_without_a_password(served):
    before = contents(served)
    found = listening(served)
    assert {address for address, _ in found} == {"127.0.0.1"}
    status = served.status()
    chosen = json.loads((served.home / "run" / "seaweedfs.json").read_text())["ports"]
    database, ui = (urlsplit(status[name]) for name in ("database_url", "ui_url"))
    # Nothing else does: the code server has a socket in the home, the daemon nothing.
    assert {port for _, port in found} == {database.port, ui.port, *chosen.values()}

    paths = ("/", "/graphql", "/stocks-raw", "/stocks-raw/bronze/evil", "/dir/assign", "/1,01")
    paths += ("/hooks/bucket",)
    asks = [
        (port, method, path)
        for port in (ui.port, *chosen.values())
        for method in ("POST", "PUT", "DELETE", "PATCH")
        for path in paths
        # A page that says how the S3 server is, whatever is asked of it.
        if (port, path) != (chosen["master.port"], "/")
    ]
    with httpx.Client(trust_env=False, timeout=10) as anybody:
        for port, method, path in asks:
            try:
                reply = anybody.request(
                    method, f"http://127.0.0.1:{port}{path}", json={"query": "{version}"}
                )
            except httpx.TransportError:
                continue  # no HTTP is spoken there
            assert reply.status_code in {400, 401, 403, 404, 405}, (port, method, path)
    grpc_ports = {port for name, port in chosen.items() if name.endswith(".grpc")}
    assert len(grpc_ports) == 5
    for port in grpc_ports:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/filer_pb.SeaweedFiler/CreateEntry")
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(OSError, match=r"certificate required|reset|EOF"):
            assert says_over_tls(port, None)
        assert says_over_tls(port, served.home / "run" / "seaweedfs.certificates")
    for user in ("stocks", "stocks_loader", "stocks_transformer", "stocks_dagster", "postgres"):
        for name in ("stocks", "dagster"):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(f"postgresql://{user}@127.0.0.1:{database.port}/{name}")
    assert contents(served) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_nobody_else_on_the_machine_reaches_the_code_server_or_the_secrets(served):
    address = next(
        service["address"]
        for service in served.status()["services"]
        if service["name"] == "code-location"
    )
    attempt = (
        "import socket, sys\nsocket.socket(socket.AF_UNIX).connect(sys.argv[1])\nopen(sys.argv[2])"
    )
    path = address.removeprefix("unix:")
    for uid, refused in ((0, False), (65534, True)):
        done = subprocess.run(
            ["/usr/bin/env", "python3", "-c", attempt, path, served.home / "secrets.json"],
            user=uid,
            env={"PATH": "/usr/bin:/bin:/usr/local/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ("PermissionError" in done.stderr) == refused, done.stderr
    open_to_others = [room.name for room in served.home.iterdir() if room.stat().st_mode & 0o077]
    assert open_to_others == []


def test_the_ui_opens_with_the_address_that_is_given_and_not_without_its_password(served):
    ui = served.status()["ui_url"]
    bare = re.sub("//.*@", "//", ui)
    query = {"query": "{version}"}
    assert httpx.post(f"{ui}/graphql", json=query, trust_env=False).status_code == 200
    assert httpx.post(f"{bare}/graphql", json=query, trust_env=False).status_code == 401
    assert httpx.get(f"{bare}/", trust_env=False).status_code == 401
    other = httpx.get(f"{ui}/", headers={"host": "evil.example"}, trust_env=False)
    assert other.status_code == 403
    logs = "".join(path.read_text() for path in (served.home / "logs").glob("*.log"))
    assert urlsplit(ui).password not in logs


# Access


def test_analysts_ask_gold_and_are_refused_all_else(demonstrated, tmp_path):
    command, *_ = demonstrated
    ticker = SampleMarket().tickers(1)[0]
    statement = f"select ticker, count(*) as bars from fct_daily_prices where ticker = '{ticker}' group by 1"
    header, row, count = command.succeed("query", statement).splitlines()
    assert header.split() == ["ticker", "bars"]
    assert row.split()[0] == ticker
    assert count == "1 row."
    numbers = "select generate_series(1, 60) as number"
    assert "The first 50 rows are shown, and there are more" in command.succeed("query", numbers)
    assert command.succeed("query", numbers, "--limit", "60").endswith("60 rows.\n")
    assert command.succeed("query", numbers, "--format", "csv", "--limit", "2") == "number\n1\n2\n"
    file, parquet = tmp_path / "bars.sql", tmp_path / "bars.parquet"
    file.write_text(statement)
    assert "Wrote 1 row to" in command.succeed("query", "-f", str(file), "-o", str(parquet))
    assert pl.read_parquet(parquet)["ticker"].to_list() == [ticker]
    assert "read-only transaction" in command.refuse("query", "delete from fct_daily_prices")
    assert "permission denied" in command.refuse("query", "select * from ops.failures")
    assert "there is no statement" in command.refuse("query")
    assert "--format" in command.refuse("query", statement, "-o", str(tmp_path / "bars.txt"))
    assert "--output" in command.refuse("query", statement, "--format", "parquet")


def test_an_export_writes_gold_once(demonstrated):
    command, *_ = demonstrated
    ticker = SampleMarket().tickers(1)[0]
    some = command.succeed("export", "fct_weekly_prices", "--tickers", ticker)
    assert re.search(r"^gold\.fct_weekly_prices +1 +1 +0 ", some, re.MULTILINE)
    assert "gold is in s3://stocks-curated/gold/." in command.succeed("export")
    assert "0 objects have changed" in command.succeed("export")
    assert "gold has no prices" in command.refuse("export", "prices")
    partly = command.run("export", "--tickers", f"{ticker},ZZZZ")
    assert partly.returncode == 3
    assert partly.stdout.endswith("Gold has no ZZZZ.\n")


def test_the_report_of_a_demo_is_a_file_to_pass_on(demonstrated, tmp_path):
    command, *_ = demonstrated
    tickers = SampleMarket().tickers(2)
    file = tmp_path / "my report.html"
    said = command.succeed("report", "--no-open", "--output", str(file), "--ticker", tickers[0])
    assert said.endswith(f"{file}\n")
    page = file.read_text()
    assert [f'data-ticker="{ticker}"' in page for ticker in tickers] == [True, True]
    # Without a screen nothing is opened, and the address is there to be taken elsewhere.
    said = command.succeed("report", "--ticker", tickers[1])
    assert re.search(rf"open file://\S+/reports/\S+/index\.html#/{tickers[1]} in one", said)
    assert "has no ticker 'NOPE'" in command.refuse("report", "--no-open", "--ticker", "NOPE")
    assert "there is no report of 2001-02-03; the 1 there are go from " in command.refuse(
        "report", "--date", "2001-02-03"
    )


# The UI


def test_the_ui_shows_one_graph_from_bronze_to_gold(served):
    ui = served.status()["ui_url"]
    assert "dagster_webserver_version" in httpx.get(f"{ui}/server_info", trust_env=False).json()
    found = graphql(
        served,
        "{workspaceOrError {... on Workspace {locationEntries {name loadStatus}}} "
        "assetNodes {assetKey {path} isPartitioned description kinds groupName "
        "owners {... on TeamAssetOwner {team}} dependencyKeys {path}}}",
    )
    assert found["workspaceOrError"]["locationEntries"] == [
        {"name": "stocks_assets", "loadStatus": "LOADED"}
    ]
    nodes = {"/".join(node["assetKey"]["path"]): node for node in found["assetNodes"]}
    for schema, tables in TABLES.items():
        assert {f"{schema}/{table}" for table in tables} <= set(nodes)
    assert {key.split("/")[0] for key in nodes} >= {"bronze", "silver", "gold"}
    for key, node in nodes.items():
        assert node["description"], key
        assert node["kinds"], key
        assert node["groupName"] != "default", key
        assert [owner["team"] for owner in node["owners"]], key

    def ancestors(key: str) -> set[str]:
        parents = {"/".join(parent["path"]) for parent in nodes[key]["dependencyKeys"]}
        return parents.union(*map(ancestors, parents))

    assert {"silver/weekly_bars", "bronze/weekly_bars"} <= ancestors("gold/fct_weekly_prices")


def test_a_second_up_starts_nothing_twice(served):
    running, processes = served.running(), sorted(services(served))
    assert list(running) == SERVICES
    said = served.succeed("up", "--detach")
    assert said.count("runs already") == 3
    assert served.running() == running
    assert sorted(services(served)) == processes


def test_an_up_with_other_settings_starts_the_ui_again_and_leaves_the_servers(served):
    before = served.running()
    said = served.succeed("up", "--detach", STOCKS_TICKERS_PER_RUN="7")
    assert "the settings have changed" in said
    after = served.running()
    assert {name for name in before if before[name] == after[name]} == {"postgres", "seaweedfs"}
    assert "the settings have changed" in served.succeed("up", "--detach")


def test_a_killed_run_does_not_hold_its_place_in_the_queue(served):
    with served.start("refresh") as killed:
        assert wait_for("bronze/", killed)
        killed.kill()
    unfinished = (
        "{runsOrError(filter: {statuses: [STARTED, STARTING]}) {... on Runs {results {runId}}}}"
    )
    assert graphql(served, unfinished)["runsOrError"]["results"]
    served.succeed("tickers", "list")
    assert graphql(served, unfinished)["runsOrError"]["results"] == []


def test_a_run_whose_process_was_killed_is_started_again_by_itself(served):
    launched = launch_refresh(served, *served.succeed("tickers", "list").split())

    def runs():
        found = graphql(
            served,
            '{runsOrError(filter: {pipelineName: "refresh"}, limit: 5) '
            "{... on Runs {results {runId rootRunId status}}}}",
        )["runsOrError"]["results"]
        return {run["runId"]: run for run in found}

    deadline = time.monotonic() + 300
    while runs()[launched]["status"] != "STARTED":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    code = psutil.Process(served.running()["code-location"])
    for process in [code, *code.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert runs()[launched]["status"] == "STARTED"
    served.succeed("up", "--detach")
    while True:
        retries = [run for run in runs().values() if run["rootRunId"] == launched]
        if any(run["status"] == "SUCCESS" for run in retries if run["runId"] != launched):
            break
        assert time.monotonic() < deadline, retries
        time.sleep(0.5)
    assert runs()[launched]["status"] == "FAILURE"


def test_the_status_for_scripts_opens_what_runs(served):
    status = served.status()
    assert status["home"] == str(served.home)
    assert all(service["running"] and service["version"] for service in status["services"])
    with psycopg.connect(status["database_url"]) as connection:
        assert connection.info.server_version // 10_000 == 18
    for_people = served.succeed("status")
    assert for_people.count("running") == len(SERVICES)
    with psycopg.connect(status["reader_url"]) as connection:
        assert connection.info.user == "stocks_reader"
        assert connection.execute("select count(*) > 0 from fct_daily_prices").fetchone() == (True,)
    assert "Analysts connect to postgresql://stocks_reader@127.0.0.1" in for_people
    for name in ("database_url", "reader_url"):
        assert urlsplit(status[name]).password not in for_people
    assert status["aws_secret_access_key"] not in for_people


def test_a_backfill_of_everything_takes_a_handful_of_runs(served):
    tickers = list(SampleMarket().tickers(12))
    served.succeed("tickers", "add", *tickers)
    nodes = graphql(served, "{assetNodes {assetKey {path} isPartitioned isMaterializable}}")
    keys = [n["assetKey"] for n in nodes["assetNodes"] if n["isPartitioned"]]
    launched = graphql(
        served,
        "mutation ($p: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $p) "
        "{__typename ... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}}}",
        p={"assetSelection": keys, "allPartitions": True, "title": "everything"},
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    backfill = ended(served, launched["backfillId"])
    assert backfill["status"] == "COMPLETED_SUCCESS"
    assert {run["status"] for run in backfill["runs"]} == {"SUCCESS"}
    assert len(backfill["runs"]) < len(tickers)
    with psycopg.connect(served.status()["database_url"]) as connection:
        done = connection.execute("select distinct ticker from gold.fct_weekly_prices").fetchall()
    assert {row[0] for row in done} == set(tickers)


def ended(served, backfill_id):
    """Wait for a backfill and return its status, its runs and their tags."""
    deadline = time.monotonic() + 1500
    while True:
        backfill = graphql(
            served,
            "query ($id: String!) {partitionBackfillOrError(backfillId: $id) "
            "{... on PartitionBackfill {status runs(limit: 50) {id status tags {key value}}}}}",
            id=backfill_id,
        )["partitionBackfillOrError"]
        if backfill["status"] not in ("REQUESTED", "IN_PROGRESS"):
            return backfill
        assert time.monotonic() < deadline, backfill
        time.sleep(1)


def statuses(served, *path):
    """Return which partitions of an asset the UI shows as materialized, failed and missing."""
    node = graphql(
        served,
        "query ($key: AssetKeyInput!) {assetNodeOrError(assetKey: $key) {... on AssetNode "
        "{assetPartitionStatuses {... on DefaultPartitionStatuses "
        "{materializedPartitions failedPartitions unmaterializedPartitions}}}}}",
        key={"path": path},
    )["assetNodeOrError"]["assetPartitionStatuses"]
    return {name.removesuffix("Partitions"): set(found) for name, found in node.items()}


def test_broken_tickers_of_a_backfill_are_failed_and_their_retry_is_one_run(served):
    known = served.succeed("tickers", "list").split()
    more = [ticker for ticker in SampleMarket().tickers(30) if ticker not in known][:2]
    broken = ["NOPE1", "NOPE2", "NOPE3"]
    served.succeed("tickers", "add", broken[0], more[0], broken[1], more[1], broken[2])
    good = [*known, *more]
    # Of two that the vendor knows, what silver is to be loaded from cannot be read.
    bucket = s3_bucket(served)
    kept = {}
    for ticker in known:
        keys = [one.key for one in bucket.objects.filter(Prefix="bronze/weekly_bars/")]
        if of_ticker := sorted(key for key in keys if f"_{ticker}_" in key):
            kept[ticker] = (of_ticker[-1], bucket.Object(of_ticker[-1]).get())
        if len(kept) == 2:
            break
    torn = sorted(kept, key=known.index)
    replies = {key: (reply["Body"].read(), reply["Metadata"]) for key, reply in kept.values()}
    for key in replies:
        bucket.put_object(Key=key, Body=b"garbage")
    launched = graphql(
        served,
        "mutation ($p: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $p) "
        "{... on LaunchBackfillSuccess {backfillId}}}",
        p={
            "assetSelection": [
                {"path": ["bronze", "weekly_bars"]},
                {"path": ["silver", "weekly_bars"]},
            ],
            "allPartitions": True,
        },
    )["launchPartitionBackfill"]
    backfill = ended(served, launched["backfillId"])
    assert backfill["status"] == "COMPLETED_FAILED"
    # The layer below went on for those that succeeded, though they are no neighbours, in one run.
    assert sorted(run["status"] for run in backfill["runs"]) == ["FAILURE", "FAILURE"]
    bronze, silver = (
        statuses(served, "bronze", "weekly_bars"),
        statuses(served, "silver", "weekly_bars"),
    )
    assert bronze["materialized"] == set(good)
    assert bronze["failed"] == set(broken)
    assert silver["failed"] >= set(torn)
    assert silver["materialized"] == set(good) - set(torn)
    assert silver["failed"] | silver["unmaterialized"] == {*broken, *torn}

    # What could not be read is there again; what the vendor does not know is not.
    for key, (body, metadata) in replies.items():
        bucket.put_object(Key=key, Body=body, Metadata=metadata)
    retried = graphql(
        served,
        "mutation ($p: ReexecutionParams!) {reexecutePartitionBackfill(reexecutionParams: $p) "
        "{__typename ... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}}}",
        p={"parentRunId": launched["backfillId"], "strategy": "FROM_FAILURE"},
    )["reexecutePartitionBackfill"]
    retry = ended(served, retried["backfillId"])
    assert {run["status"]: tickers_of(run, served) for run in retry["runs"]} == {
        "FAILURE": broken,
        "SUCCESS": torn,
    }
    assert len(retry["runs"]) == 2
    assert statuses(served, "bronze", "weekly_bars") == bronze
    assert statuses(served, "silver", "weekly_bars")["materialized"] == set(good)


def tickers_of(run, served):
    """The tickers of a run, by its tags."""
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    return tickers_of_tags(tags, served.succeed("tickers", "list").split())


def s3_bucket(served):
    status = served.status()
    return boto3.resource(
        "s3",
        endpoint_url=status["s3_endpoint_url"],
        aws_access_key_id=status["aws_access_key_id"],
        aws_secret_access_key=status["aws_secret_access_key"],
        region_name="us-east-1",
    ).Bucket(status["bucket"])


# Starting and ending


def test_what_nobody_started_has_a_status_and_can_be_stopped(tmp_path):
    command = CommandLine(tmp_path / "home", {})
    status = command.status()
    assert [status[name] for name in ("database_url", "s3_endpoint_url", "ui_url")] == [None] * 3
    assert [service["running"] for service in status["services"]] == [False] * len(SERVICES)
    assert command.succeed("status").count("stopped") == len(SERVICES)
    assert command.succeed("down") == "  nothing was running\n"
    assert not command.home.exists()


def test_up_ends_with_ctrl_c_and_survives_the_killing_of_its_terminal(command):
    up = command.start("up")
    assert wait_for("Ctrl-C stops everything", up)
    os.killpg(up.pid, signal.SIGKILL)
    up.communicate()
    running = command.running()
    assert list(running) == SERVICES

    again = command.start("up")
    assert wait_for("Ctrl-C stops everything", again)
    assert command.running() == running
    os.killpg(again.pid, signal.SIGINT)
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0
    assert "stopped: daemon, webserver, code-location, postgres, seaweedfs" in said
    assert command.processes() == []


def test_servers_run_until_the_last_command_that_needs_them_has_ended(command):
    first = command.hold()
    assert wait_for("ready", first)
    second = command.hold()
    assert wait_for("ready", second)
    assert first.communicate("\n", timeout=120) == ("[]\n", None)
    assert second.communicate("\n", timeout=120) == ("[]\n", None)
    assert command.processes() == []


def test_a_demo_that_is_interrupted_stops_what_it_started(command):
    for number in (signal.SIGINT, signal.SIGTERM):
        demo = command.start("demo", "--tickers", "1", "--no-ui")
        assert wait_for("bronze/", demo)
        os.killpg(demo.pid, number)
        said, _ = demo.communicate(timeout=120)
        assert demo.returncode == 1
        assert "it was interrupted; what it finished stays" in said
        assert command.processes() == []


def wait_for(words: str, process: subprocess.Popen[str]) -> bool:
    """Whether a line with `words` comes; not when the process ends before."""
    return any(words in line for line in process.stdout)


# The universe, and the exit status of a refresh


def test_tickers_are_added_listed_and_removed(served, tmp_path):
    known = served.succeed("tickers", "list")
    count = len(known.splitlines())
    said = served.succeed("tickers", "add", "brk.b", "BF/B", "BRK.B", "TFPC", "--priority", "high")
    assert said == (
        f"Added 3 (BRK.B, BF/B, TFPC); {count + 3} in all.\n"
        "  TFPC was renamed to TYDE: stocks tickers add TYDE\n"
    )
    file = tmp_path / "universe.csv"
    file.write_text("ticker\nBF-B\n")
    said = served.succeed("tickers", "sync", STOCKS_UNIVERSE_FILE=str(file))
    assert said == f"added 1 (BF-B); {count + 4} tickers in all\n"
    assert served.succeed("tickers", "list") == f"{known}BRK.B\nBF/B\nTFPC\nBF-B\n"
    details = served.succeed("tickers", "list", "--details")
    first = known.split()[0]
    assert re.search(rf"^{first} +normal +(\d+ (min|h) +)+active", details, re.MULTILINE)
    assert re.search(r"^TFPC +high +renamed to TYDE", details, re.MULTILINE)
    removed = ("BRK.B", "BF/B", "TFPC", "BF-B")
    said = served.succeed("tickers", "remove", "Brk.B", "bf/b", "TFPC", "BF-B", "ZZ")
    assert said == (
        "".join(f"{ticker}: removed, its data stays\n" for ticker in removed)
        + "ZZ: not in the universe\n"
    )
    line = served.refuse("refresh", known.split()[0], "zz")
    assert line == "error: not in the universe: ZZ; add them with: stocks tickers add ZZ"


def test_a_refresh_on_outside_servers_does_what_it_can_and_its_status_says_so(outside, servers):
    known = SampleMarket().tickers(1)[0]
    assert "there are no tickers yet" in outside.refuse("refresh")
    file = outside.home.parent / "universe.yaml"
    file.write_text(
        f"tickers: [{known}, NOPE, BF/B]\nlistings: [{{exchanges: [NASDAQ], at_most: 2}}]"
    )
    outside.more["STOCKS_UNIVERSE_FILE"] = str(file)
    some = outside.run("refresh")
    assert some.returncode == 3
    assert "Loading the list of securities" in some.stdout
    assert "2 of 4 tickers failed:" in some.stdout
    failures = some.stdout.split("tickers failed:")[1].strip().splitlines()
    assert {line.split(":")[0].strip() for line in failures} == {"NOPE", "BF/B"}
    with psycopg.connect(outside.more["STOCKS_DATABASE_URL"]) as connection:
        done = connection.execute("select distinct ticker from gold.fct_weekly_prices").fetchall()
        assert (known,) in done
        assert len(done) == 2
        connection.execute("delete from ops.silver_loads where ticker = %s", (known,))

    # What the vendor does not know is left alone.
    mended = outside.succeed("refresh", "--failed")
    assert re.search(rf"^  {known}: silver/companies, .* without the newest", mended, re.MULTILINE)
    assert "All 1 tickers are up to date" in mended
    assert "Nothing of 4 tickers has failed" in outside.succeed("refresh", "--failed")

    with psycopg.connect(outside.more["STOCKS_DATABASE_URL"]) as connection:
        connection.execute("drop table bronze.objects")
    none = outside.refuse("refresh", known)
    assert re.search(r'the run stopped after .*"bronze.objects" does not exist', none)

    assert outside.processes() == []
    for_people = outside.succeed("status")
    assert re.search(
        rf"^s3 +as set +{re.escape(servers.s3_endpoint_url)}", for_people, re.MULTILINE
    )
    assert re.search(r"^postgres +as set +127\.0\.0\.1:", for_people, re.MULTILINE)
    shown = json.dumps(outside.status())
    assert servers.aws_secret_access_key not in shown
    assert urlsplit(servers.database_url).password not in shown


# Silver built anew


def silver_content(command: CommandLine) -> dict[str, str]:
    """Return a hash of each silver table, but for when and by which load a row was written."""
    with psycopg.connect(command.status()["database_url"]) as connection:
        names = connection.execute(
            "select tablename from pg_tables where schemaname = 'silver' and tablename !~ '^_dlt'"
        ).fetchall()
        written = ["load_id", "loaded_at", "rejected_at"]
        return {
            name: connection.execute(
                sql.SQL(
                    "select md5(string_agg(line, '' order by line)) from "
                    "(select (to_jsonb(t) - %s::text[])::text as line from {} t) lines"
                ).format(sql.Identifier("silver", name)),
                (written,),
            ).fetchone()[0]
            for (name,) in names
        }


def test_silver_is_built_anew_by_one_command_to_the_same_content(served):
    before = silver_content(served)
    tickers = served.succeed("tickers", "list").split()
    known = tickers[0]
    with psycopg.connect(served.status()["database_url"]) as connection:
        connection.execute("delete from silver.daily_bars where session_date > '2020-01-01'")
        connection.execute("update silver.weekly_bars set volume = 0")
        connection.execute("truncate silver.companies")
    said = served.succeed("rebuild")
    assert f"Building silver anew for {len(tickers)} tickers" in said
    assert said.endswith("Done. Gold follows with the next refresh.\n")
    assert silver_content(served) == before
    assert "for 1 tickers" in served.succeed("rebuild", known.lower(), "--table", "daily_bars")
    assert silver_content(served) == before

    some = served.run("rebuild", known, "ZZ", "--table", "companies")
    assert some.returncode == 3
    assert "ZZ: it has no object in bronze for these tables (bronze)" in some.stdout
    assert "'A B' is not a ticker" in served.refuse("rebuild", "A B")
    refused = served.refuse("rebuild", "--table", "prices")
    assert "there is no silver table prices; there are listings, weekly_bars, daily_bars" in refused
    assert silver_content(served) == before


# What a developer has set for other work


def test_the_developers_own_aws_settings_and_proxy_do_not_disturb_the_embedded_store(served):
    nowhere = f"http://127.0.0.1:{nobody_listens_at()}"
    ambient = {
        "AWS_ACCESS_KEY_ID": "AMBIENT",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": SECRET,
        "AWS_PROFILE": "a-profile-that-is-not-here",
        "AWS_REGION": "eu-west-9",
        "AWS_ENDPOINT_URL": nowhere,
        "HTTP_PROXY": nowhere,
        "http_proxy": nowhere,
    }
    ticker = SampleMarket().tickers(1)[0]
    said = served.succeed("refresh", ticker.lower(), **ambient)
    assert "All 1 tickers are up to date" in said
    assert SECRET not in said


# Bad input


@pytest.mark.parametrize(
    ("arguments", "settings", "advice"),
    [
        ("status", {"STOCKS_SOURCE": "nonsense"}, "'alpha_vantage', 'replay' or 'sample'"),
        ("demo", {"STOCKS_SOURCE": "alpha_vantage"}, "needs ALPHA_VANTAGE_API_KEY; get a free key"),
        ("refresh", {"STOCKS_SOURCE": "alpha_vantage"}, "needs ALPHA_VANTAGE_API_KEY"),
        ("up --detach", {"STOCKS_SOURCE": "alpha_vantage"}, "needs ALPHA_VANTAGE_API_KEY"),
        ("refresh", {"STOCKS_SOURCE": "replay"}, "STOCKS_REPLAY_DIR= is not a folder"),
        (
            "demo --no-ui",
            {"STOCKS_SOURCE": "replay", "STOCKS_REPLAY_DIR": "/no/where"},
            "STOCKS_REPLAY_DIR=/no/where is not a folder; STOCKS_SOURCE=replay needs one with",
        ),
        ("refresh", {"STOCKS_REPLAY_VINTAGE": "notadate"}, "expected a date such as 2024-04-15"),
        ("tickers add A;B", {}, "'A;B' is not a ticker"),
        ("up", {"STOCKS_UNIVERSE_FILE": "/no/where.yaml"}, "is not there; put it there"),
        ("tickers sync", {"STOCKS_UNIVERSE_FILE": __file__}, "no YAML that can be read"),
        ("refresh ../etc", {}, "'../etc' is not a ticker"),
        ("report --ticker ../etc", {}, "'../etc' is not a ticker"),
        ("report --date yesterday", {}, "'yesterday' is no date; give one such as 2026-03-04"),
        ("tickers list", {"STOCKS_BUCKET": "A B"}, "STOCKS_BUCKET='A B' cannot be used"),
        ("up", {"STOCKS_UI_PORT": "http"}, "STOCKS_UI_PORT='http' cannot be used"),
        ("up", {"STOCKS_HOME": __file__}, "choose another home folder"),
        ("down", {"STOCKS_HOME": __file__}, "choose another home folder"),
        ("up", {"STOCKS_HOME": f"{__file__}/below"}, "choose another home folder"),
        ("down", {"STOCKS_HOME": f"{__file__}/below"}, "choose another home folder"),
        ("tickers list", {"STOCKS_S3_ENDPOINT_URL": "nonsense"}, "such as http://host:port"),
        ("tickers list", {"STOCKS_S3_ENDPOINT_URL": "http://h:port"}, "such as http://host:port"),
        *(
            ("tickers list", {"STOCKS_DATABASE_URL": url}, "expected postgresql://user:password@")
            for url in (
                f"mysql://u:{SECRET}@127.0.0.1/db",
                f"postgresql://u:{SECRET}@127.0.0.1:port/db",
                f"postgresql://u:{SECRET}@127.0.0.1",
            )
        ),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line_and_starts_nothing(
    idle, arguments, settings, advice
):
    assert advice in idle.refuse(*arguments.split(), **settings)
    assert idle.processes() == []


def test_what_the_source_lacks_does_not_keep_one_from_looking_and_stopping(idle):
    assert idle.succeed("down", STOCKS_SOURCE="alpha_vantage") == "  nothing was running\n"
    assert "stopped" in idle.succeed("status", STOCKS_SOURCE="alpha_vantage")


def test_a_busy_port_is_told_before_anything_is_started(idle):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        line = idle.refuse("up", "--detach", STOCKS_UI_PORT=str(port))
    assert f"port {port} is taken" in line
    assert "stop that or change STOCKS_UI_PORT" in line
    assert idle.processes() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_may_not_be_written_is_told(command):
    command.home.mkdir(mode=0o500)
    assert "make it writable or choose another home" in command.refuse("up", "--detach")
    command.home.chmod(0o700)


def test_a_database_that_cannot_be_used_is_told_without_its_password(outside, servers):
    def told(url: str) -> str:
        return outside.refuse("tickers", "list", STOCKS_DATABASE_URL=url)

    gone = nobody_listens_at()
    refused = told(beside(servers, "db", user=f"u:{SECRET}", host=f"127.0.0.1:{gone}"))
    assert f"no connection to PostgreSQL at 127.0.0.1:{gone}/db" in refused
    assert "check STOCKS_DATABASE_URL" in refused
    unknown_host = told(beside(servers, "db", user=f"u:{SECRET}", host="no-host.invalid"))
    assert "no connection to PostgreSQL at no-host.invalid" in unknown_host
    wrong = told(beside(servers, "stocks", user=f"stocks:{SECRET}"))
    assert "password authentication failed" in wrong

    role, database = f"weak_{os.getpid()}", f"strong_{os.getpid()}"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"create role {role} login password '{SECRET}'")
        connection.execute(f"create database {database}")
        connection.execute(f"create database {database}_dagster")
    missing = told(beside(servers, "not_there", user=f"{role}:{SECRET}"))
    assert "as an administrator run: create database not_there" in missing
    closed = told(beside(servers, database, user=f"{role}:{SECRET}"))
    assert "permission denied" in closed
    assert "the right to create schemas" in closed


def test_an_object_store_that_cannot_be_used_is_told_without_its_keys(outside, servers):
    def told(**settings: str) -> str:
        return outside.refuse("tickers", "list", **settings)

    gone = f"http://127.0.0.1:{nobody_listens_at()}"
    unreachable = told(STOCKS_S3_ENDPOINT_URL=gone)
    assert f"no S3 server answers at {gone}" in unreachable
    assert "check STOCKS_S3_ENDPOINT_URL" in unreachable
    address = urlsplit(servers.database_url).netloc.rpartition("@")[2]
    no_s3 = told(STOCKS_S3_ENDPOINT_URL=f"http://{address}")
    assert f"no S3 server answers at http://{address}" in no_s3
    wrong_secret = told(AWS_SECRET_ACCESS_KEY=SECRET)
    assert "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in wrong_secret
    wrong_key = told(AWS_ACCESS_KEY_ID="NOBODY", AWS_SECRET_ACCESS_KEY=SECRET)
    assert "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in wrong_key


def test_servers_of_its_own_are_stopped_when_an_outside_one_cannot_be_used(command):
    gone = f"http://127.0.0.1:{nobody_listens_at()}"
    keys = {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": SECRET}
    line = command.refuse("up", "--detach", STOCKS_S3_ENDPOINT_URL=gone, **keys)
    assert "no S3 server answers" in line
    assert command.processes() == []
