"""A store that pushes its events: real SeaweedFS, the real web server, the sensor's next tick."""

import gzip
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import httpx
import psycopg
import pytest
from conftest import World
from outside import s3_client

from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.hook import PATH
from stocks_assets.adapters.object_store import ObjectStore, S3Location
from stocks_assets.adapters.warehouse import index_objects
from stocks_assets.domain.arrivals import TAIL
from stocks_assets.domain.bronze_key import BronzeKey, content_hash
from stocks_assets.stack import secrets
from stocks_assets.stack.seaweedfs import EmbeddedS3
from tests.integration.test_arrivals import Watch, weekly
from tests.integration.test_doors import HINTER, prepare

TOKEN, PASSWORD = "a-token-of-the-store", "a-password-of-mine"
BUCKET = "stocks-raw"
NOW = datetime.now(UTC).replace(microsecond=0)
# Years before the last days, and so for the sweep over all of the dataset alone.
LATE = NOW - timedelta(days=2_000)
SECONDS = 30


@dataclass(frozen=True)
class Hook:
    """The web server's route for events, as stores know it."""

    url: str

    def post(self, body: str | bytes, token: str = TOKEN) -> int:
        headers = {"authorization": f"Bearer {token}", "host": "webserver:3000"}
        posted = httpx.post(self.url, content=body, headers=headers, trust_env=False)
        return posted.status_code


@pytest.fixture(scope="module")
def hook(servers, tmp_path_factory) -> Iterator[Hook]:
    """The web server of the project, with the right to leave hints and no other in the warehouse."""
    home = tmp_path_factory.mktemp("webserver")
    (home / "workspace.yaml").write_text("load_from: []\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = servers.database_url.rpartition("@")[2].rpartition("/")[0]
    arguments = ["-h", "127.0.0.1", "-p", str(port), "-w", str(home / "workspace.yaml")]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "stocks_assets.defs.webserver", *arguments],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "DAGSTER_HOME": str(home),
                "STOCKS_HOME": str(home / "stocks"),
                "STOCKS_ENV_FILE": os.devnull,
                "STOCKS_UI_PASSWORD": PASSWORD,
                "STOCKS_BUCKET": BUCKET,
                "STOCKS_BUCKET_EVENTS_TOKEN": TOKEN,
                "STOCKS_BUCKET_EVENTS_DATABASE_URL": f"postgresql://{HINTER}:it%2Fs@{address}/test",
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 90
        while not answers(f"http://127.0.0.1:{port}/server_info"):
            assert server.poll() is None, (home / "log").read_text()
            assert time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.2)
        yield Hook(f"http://127.0.0.1:{port}{PATH}")
    finally:
        server.terminate()
        server.wait(30)
    assert TOKEN not in (home / "log").read_text()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def seaweedfs(hook, tmp_path_factory) -> Iterator[S3Location]:
    """The embedded server with a `notification.toml` in its folder, as people would write it."""
    home = tmp_path_factory.mktemp("pushing")
    folder = home / "seaweedfs"
    folder.mkdir(mode=0o700)
    (folder / "notification.toml").write_text(
        "[notification.webhook]\n"
        "enabled = true\n"
        f'endpoint = "{hook.url}"\n'
        f'bearer_token = "{TOKEN}"\n'
        'event_types = ["create", "update"]\n'
        f'path_prefixes = ["/buckets/{BUCKET}/bronze"]\n'
    )
    server = EmbeddedS3(home)
    try:
        url = server.start()
        keys = secrets.load(home)
        location = S3Location(url, keys.s3_access_key_id, keys.s3_secret_access_key)
        with ObjectStore(location, BUCKET) as store:
            store.ensure_bucket()
        yield location
    finally:
        server.stop()


def key(ticker: str, at: datetime, body: bytes = b"") -> BronzeKey:
    return BronzeKey("weekly_bars", ticker, at, content_hash(body))


@pytest.fixture
def watch(world, warehouse, seaweedfs) -> Iterator[Watch]:
    """The sensor on that bucket: more is known than a tick lists, and no sweep over all is due."""
    prepare(warehouse)
    world.add("A", "IBM", "MSFT")
    with ObjectStore(seaweedfs, BUCKET) as store:
        bronze = BronzeStore(store, warehouse)
        watch = Watch(World(world.instance, warehouse, store, bronze))
        # A bucket that is new to the index lets it begin anew.
        watch.tick()
        with warehouse.connect() as connection, connection.cursor() as cursor:
            keys = [key("A", NOW - timedelta(minutes=number)) for number in range(TAIL + 10)]
            index_objects(cursor, [(one, None) for one in keys])
            cursor.execute(
                "update ops.object_loads set loaded_at = now(), loads = 1; "
                "update bronze.sweeps set position = null, ended_at = now()"
            )
        assert watch.asked() is None
        yield watch


def put(location: S3Location, one: BronzeKey, body: bytes) -> None:
    """Put an object there, as somebody with an S3 client of their own."""
    client = s3_client(location.endpoint_url, location.access_key_id, location.secret_access_key)
    client.put_object(Bucket=BUCKET, Key=str(one), Body=gzip.compress(body, mtime=0))
    client.close()


def hints(warehouse) -> list[str]:
    with warehouse.connect() as connection:
        return [one for (one,) in connection.execute("select key from bronze.hints order by 1")]


def lose_hints(warehouse) -> None:
    with warehouse.connect() as connection:
        connection.execute("delete from bronze.hints")


def hinted(warehouse, *keys: BronzeKey) -> None:
    """Wait until the store has said that it wrote `keys`."""
    deadline = time.monotonic() + SECONDS
    while hints(warehouse) != sorted(map(str, keys)):
        assert time.monotonic() < deadline, hints(warehouse)
        time.sleep(0.1)


def test_a_late_object_that_the_store_tells_of_is_taken_up_by_the_next_tick_and_not_without(
    watch, seaweedfs, warehouse
):
    body = weekly(1)
    late = [key(ticker, LATE, body) for ticker in ("IBM", "MSFT")]
    for one in late:
        put(seaweedfs, one, body)
    hinted(warehouse, *late)
    # What the store said gets lost: the objects wait for the sweep.
    lose_hints(warehouse)
    assert watch.asked() is None
    for one in late:
        put(seaweedfs, one, body)
    hinted(warehouse, *late)
    assert watch.asked() == ["IBM", "MSFT"]
    assert hints(warehouse) == []
    watch.load(["IBM", "MSFT"])
    # The same again: said by the store, and loaded once.
    put(seaweedfs, late[1], body)
    hinted(warehouse, late[1])
    assert watch.asked() is None
    with warehouse.connect() as connection:
        loads = connection.execute(
            "select bronze_key, loads from ops.object_loads where ticker <> 'A'"
        ).fetchall()
    assert dict(loads) == {str(one): 1 for one in late}


def test_an_overwritten_old_object_that_the_store_tells_of_is_seen_by_the_next_tick(
    watch, seaweedfs, warehouse
):
    at = LATE - timedelta(days=1)
    one = key("IBM", at, weekly(2))
    put(seaweedfs, one, weekly(2))
    hinted(warehouse, one)
    assert watch.asked() == ["IBM"]
    watch.load(["IBM"])
    put(seaweedfs, one, weekly(3))
    hinted(warehouse, one)
    result = watch.tick()
    assert len(result.run_requests) == 1
    (observation,) = result.asset_events
    assert observation.metadata["objects_to_look_at"].value == 1


@pytest.mark.parametrize("form", ["MinIO", "S3"])
def test_events_as_other_stores_post_them_are_followed_too(watch, seaweedfs, warehouse, hook, form):
    body = weekly(4)
    late = key("MSFT", LATE - timedelta(days=2 if form == "S3" else 3), body)
    put(seaweedfs, late, body)
    hinted(warehouse, late)
    lose_hints(warehouse)
    object_ = {"bucket": {"name": BUCKET}, "object": {"key": quote(str(late), safe="")}}
    record = {"eventName": "s3:ObjectCreated:Put", "s3": object_}
    event = {"EventName": "s3:ObjectCreated:Put", "Key": f"{BUCKET}/{late}", "Records": [record]}
    if form == "S3":
        event = {"Records": [record | {"eventName": "ObjectCreated:Put"}]}
    for _ in range(2):
        assert hook.post(json.dumps(event)) == 204
    assert hints(warehouse) == [str(late)]
    assert watch.asked() == ["MSFT"]


def test_what_the_route_is_told_that_is_not_so_changes_nothing(watch, warehouse, hook):
    before = {name: rows(warehouse, name) for name in ("bronze.objects", "ops.object_loads")}
    nowhere = str(key("IBM", LATE - timedelta(days=9)))
    records = [
        {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": name}, "object": {"key": one}}}
        for name, one in [
            (BUCKET, nowhere),
            (BUCKET, "bronze/weekly_bars/x"),
            (BUCKET, "inbox/fill/x.csv"),
            ("another", nowhere),
        ]
    ]
    assert hook.post(json.dumps({"Records": records})) == 204
    assert hook.post(json.dumps({"Records": records}), "another-token-here") == 401
    assert hook.post(b"[" * 100_000) == 400
    assert hook.post(b"x" * 300_000) == 413
    assert hints(warehouse) == [nowhere]
    result = watch.tick()
    assert "1 keys that the store had named" in result.skip_reason.skip_message
    assert hints(warehouse) == []
    assert before == {name: rows(warehouse, name) for name in before}


def rows(warehouse, table: str) -> list:
    with warehouse.connect() as connection:
        return connection.execute(f"select * from {table} order by 1, 2").fetchall()


def test_the_web_server_says_that_it_keeps_no_hint_where_it_may_not(warehouse, hook):
    prepare(warehouse)
    with psycopg.connect(warehouse.database_url, autocommit=True) as owner:
        owner.execute(f"revoke insert on bronze.hints from {HINTER}")
    record = {"s3": {"bucket": {"name": BUCKET}, "object": {"key": str(key("IBM", LATE))}}}
    assert hook.post(json.dumps({"Records": [record]})) == 503
