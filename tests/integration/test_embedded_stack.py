"""The embedded servers, started and ended in every way that people and machines know."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import boto3
import httpx
import psutil
import psycopg
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from stocks_assets.errors import StackError
from stocks_assets.stack import home as homes
from stocks_assets.stack import ports, processes, secrets
from stocks_assets.stack.embedded import EmbeddedStack
from stocks_assets.stack.seaweedfs import _PORTS, EmbeddedS3

START = (
    "import sys, time; from pathlib import Path\n"
    "from stocks_assets.stack.embedded import EmbeddedStack\n"
    "EmbeddedStack(Path(sys.argv[1])).start(); print('ready', flush=True); time.sleep(100)"
)


def choose_other_ports(home):
    """The usual ports stay free for whoever works on this machine meanwhile."""
    ports.remember(home, "postgres", {"postgres": ports.choose_port(None)})
    taken = set()
    for _ in _PORTS:
        taken.add(ports.choose_port(None, taken))
    ports.remember(home, "seaweedfs", dict(zip(_PORTS, taken, strict=True)))


def processes_of(home):
    """Every process that works in the home folder or names it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            said = " ".join([process.cwd(), *process.cmdline()])
            if str(home) in said and process.pid != os.getpid() and processes.is_alive(process):
                found.append(process)
    return found


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "my home"
    homes.prepare(home)
    choose_other_ports(home)
    yield home
    EmbeddedStack(home).stop()
    assert processes_of(home) == []


@pytest.fixture
def stack(home):
    return EmbeddedStack(home)


def s3(endpoints):
    return boto3.client(
        "s3",
        endpoint_url=endpoints.s3_endpoint_url,
        aws_access_key_id=endpoints.aws_access_key_id,
        aws_secret_access_key=endpoints.aws_secret_access_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}),
    )


def write_something(endpoints):
    with psycopg.connect(endpoints.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    client = s3(endpoints)
    client.create_bucket(Bucket="kept")
    for number in range(20):
        client.put_object(Bucket="kept", Key=f"a/{number}", Body=b"x" * 40_000)


def assert_it_is_there(endpoints):
    with psycopg.connect(endpoints.database_url) as connection:
        assert connection.execute("SELECT one FROM kept").fetchall() == [(1,)]
    client = s3(endpoints)
    for number in range(20):
        body = client.get_object(Bucket="kept", Key=f"a/{number}")["Body"]
        assert len(body.read()) == 40_000
    client.put_object(Bucket="kept", Key="new", Body=b"x")


def kill(*pids):
    for pid in pids:
        process = psutil.Process(pid)
        process.kill()
        while processes.is_alive(process):
            time.sleep(0.01)


def pids(stack):
    return [status.pid for status in stack.status()]


def test_second_start_finds_the_running_servers_and_starts_nothing(stack, home):
    endpoints = stack.start()
    before = pids(stack)
    said = []
    assert EmbeddedStack(home).start(said.append) == endpoints
    assert EmbeddedStack(home).endpoints() == endpoints
    assert pids(stack) == before
    assert all("runs already" in line for line in said)
    assert len(said) == 2
    # Nor when the record is lost: the server itself tells.
    processes.forget(home, "postgres")
    assert stack.start() == endpoints
    assert pids(stack) == before

    assert stack.stop() == ["postgres", "seaweedfs"]
    assert stack.stop() == []
    assert stack.endpoints() is None
    assert [status.running for status in stack.status()] == [False, False]


def test_an_s3_server_of_a_version_that_knew_one_user_is_started_again(stack, home, monkeypatch):
    arguments, environment = EmbeddedS3._arguments, EmbeddedS3._environment

    def old_arguments(self, chosen):
        return [one for one in arguments(self, chosen) if not one.startswith("-s3.config=")]

    def old_environment(self, keys):
        names = {
            "AWS_ACCESS_KEY_ID": keys.s3_access_key_id,
            "AWS_SECRET_ACCESS_KEY": keys.s3_secret_access_key,
        }
        return environment(self, keys) | names

    with monkeypatch.context() as older:
        older.setattr(EmbeddedS3, "_arguments", old_arguments)
        older.setattr(EmbeddedS3, "_environment", old_environment)
        endpoints = stack.start()
        before = pids(stack)
        client = s3(endpoints)
        client.create_bucket(Bucket="stocks-raw")
        client.put_object(Bucket="stocks-raw", Key="bronze/x", Body=b"kept")
    (home / "secrets.s3.json").unlink()
    endpoints = stack.start()
    postgres, seaweedfs = pids(stack)
    assert (postgres, seaweedfs != before[1]) == (before[0], True)
    pipeline = replace(
        endpoints,
        aws_access_key_id=endpoints.pipeline_key_id,
        aws_secret_access_key=endpoints.pipeline_secret_key,
    )
    kept = s3(pipeline).get_object(Bucket="stocks-raw", Key="bronze/x")["Body"]
    assert kept.read() == b"kept"


def test_both_databases_are_there_and_text_and_time_are_what_they_are_elsewhere(home):
    endpoints = EmbeddedStack(home, s3=False).start()
    with psycopg.connect(endpoints.dagster_database_url) as connection:
        assert connection.info.dbname == "dagster"
    with psycopg.connect(endpoints.database_url) as connection:
        settings = {
            name: connection.execute(f"SHOW {name}").fetchone()[0]
            for name in ("server_encoding", "timezone", "fsync", "data_checksums")
        }
    assert settings == {
        "server_encoding": "UTF8",
        "timezone": "UTC",
        "fsync": "on",
        "data_checksums": "on",
    }
    wrong = endpoints.database_url.replace("stocks:", "stocks:wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_what_was_written_outlives_the_killing_of_both_servers(stack, home):
    endpoints = stack.start()
    write_something(endpoints)
    kill(*pids(stack))
    assert stack.endpoints() is None
    again = stack.start()
    assert again == endpoints
    assert_it_is_there(again)

    # And a change of every port, when others have taken them meanwhile.
    stack.stop()
    choose_other_ports(home)
    moved = stack.start()
    assert moved.s3_endpoint_url != endpoints.s3_endpoint_url
    assert_it_is_there(moved)


def test_a_query_that_outlived_a_killed_server_does_not_stand_in_the_way(home):
    stack = EmbeddedStack(home, s3=False)
    endpoints = stack.start()

    def count_for_ever():
        with (
            suppress(psycopg.OperationalError),
            psycopg.connect(endpoints.database_url, application_name="endless") as connection,
        ):
            connection.execute("SELECT count(*) FROM generate_series(1, 10000000000)")

    thread = threading.Thread(target=count_for_ever)
    thread.start()
    with psycopg.connect(endpoints.database_url, autocommit=True) as connection:
        running = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT count%'"
        while not (row := connection.execute(running).fetchone()):
            time.sleep(0.02)
    orphan = psutil.Process(row[0])
    kill(*pids(stack))
    assert processes.is_alive(orphan)
    assert stack.start() == endpoints
    assert not processes.is_alive(orphan)
    thread.join()


def test_two_starts_at_once_start_each_server_once(stack, home):
    with ThreadPoolExecutor() as pool:
        here = pool.submit(EmbeddedStack(home).start)
        there = subprocess.Popen([sys.executable, "-c", START, home], stdout=subprocess.PIPE)
        assert there.stdout.readline() == b"ready\n"
        there.kill()
        there.communicate()
        assert here.result() == stack.endpoints()
    assert len([p for p in processes_of(home) if "mini" in p.cmdline()]) == 1
    postmasters = [p for p in processes_of(home) if str(home / "postgres") in p.cmdline()]
    assert [p.pid for p in postmasters] == [stack.status()[0].pid]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_the_servers_outlive_the_command_that_started_them(stack, home, end):
    command = subprocess.Popen(
        [sys.executable, "-c", START, home],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    assert command.stdout.readline() == b"ready\n"
    os.killpg(command.pid, end)
    command.communicate()
    time.sleep(0.2)
    assert all(status.running for status in stack.status())


@pytest.mark.parametrize("seconds", [0.1, 0.5])
def test_a_first_start_that_is_killed_at_any_moment_can_be_repeated(stack, home, seconds):
    command = subprocess.Popen([sys.executable, "-c", START, home], stdout=subprocess.DEVNULL)
    while not any(home.glob("postgres*")):
        time.sleep(0.005)
    time.sleep(seconds)
    command.kill()
    command.communicate()
    write_something(stack.start())
    assert not list(home.glob("postgres.new-*"))


def test_a_home_far_down_works(tmp_path):
    home = tmp_path / ("a" * 60) / ("b" * 60) / "home"
    homes.prepare(home)
    choose_other_ports(home)
    stack = EmbeddedStack(home)
    try:
        write_something(stack.start())
    finally:
        stack.stop()
    assert processes_of(home) == []


def test_only_this_machine_is_listened_to_and_only_the_keys_open_the_objects(stack, home):
    endpoints = stack.start()
    write_something(endpoints)
    listening = [
        connection.laddr
        for process in processes_of(home)
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    chosen = processes.read(home, "seaweedfs").ports
    database = processes.read(home, "postgres").ports["postgres"]
    assert {address.port for address in listening} == {database, *chosen.values()}

    with httpx.Client() as anybody:
        filer, master, volume, s3_server = (
            f"http://127.0.0.1:{chosen[name]}"
            for name in ("filer.port", "master.port", "volume.port", "s3.port")
        )
        for method, url in (
            ("PUT", f"{filer}/buckets/kept/evil"),
            ("POST", f"{filer}/buckets/kept/evil"),
            ("DELETE", f"{filer}/buckets/kept/a/0"),
            ("GET", f"{filer}/buckets/kept/a/0"),
            ("GET", f"{master}/dir/assign"),
            ("GET", f"{master}/col/delete?collection=kept"),
            ("POST", f"{master}/submit"),
            ("PUT", f"{volume}/1,0000000101"),
            ("DELETE", f"{volume}/1,0000000101"),
            ("GET", f"{volume}/1,0000000101"),
            ("PUT", f"{s3_server}/kept/evil"),
            ("GET", f"{s3_server}/kept/a/0"),
        ):
            assert anybody.request(method, url, content=b"x").status_code in {400, 401, 403, 404}
    assert_it_is_there(endpoints)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3(endpoints).put_object(Bucket="kept", Key="a/0", Body=b"y", IfNoneMatch="*")


def test_no_secret_is_seen_from_outside(stack, home):
    endpoints = stack.start()
    kept = secrets.load(home)
    values = [kept.database_password, kept.s3_secret_access_key, kept.s3_signing_key]
    texts = [repr(endpoints), repr(stack.status()), repr(kept)]
    texts += [" ".join(process.cmdline()) for process in processes_of(home)]
    texts += [path.read_text() for path in (home / "logs").iterdir()]
    texts += [path.read_text() for path in (home / "run").glob("*.json")]
    assert not [value for value in values for text in texts if value in text]
    assert (home / ".gitignore").read_text() == "*\n"
    assert home.stat().st_mode & 0o066 == 0


def test_a_port_that_was_asked_for_and_is_taken_is_reported(home):
    stack = EmbeddedStack(home, s3=False)
    taken = int(stack.start().database_url.rsplit(":", 1)[1].split("/")[0])
    other = home.parent / "other"
    with pytest.raises(StackError, match=f"port {taken} is taken by .*PostgreSQL"):
        EmbeddedStack(other, s3=False, postgres_port=taken).start()
    with pytest.raises(StackError, match=f"port {taken} is taken by .*S3"):
        EmbeddedStack(other, postgres=False, s3_port=taken).start()


def test_a_server_left_out_is_neither_started_nor_stopped(stack, home):
    endpoints = EmbeddedStack(home, postgres=False).start()
    assert endpoints.database_url is None
    assert [status.running for status in stack.status()] == [False, True]
    assert EmbeddedStack(home, s3=False).stop() == []
    assert [status.running for status in stack.status()] == [False, True]
    assert EmbeddedStack(home, postgres=False, s3=False).endpoints() is not None


def test_a_server_that_dies_at_start_is_reported_with_its_own_words(stack, home):
    stack.start()
    stack.stop()
    (home / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(
        StackError, match=r"did not start: .*incompatible.*postgres\.log"
    ) as failure:
        stack.start()
    assert not re.search(r"\n", str(failure.value))


def test_secrets_that_do_not_fit_the_data_are_reported(stack, home):
    stack.start()
    stack.stop()
    secrets.path(home).unlink()
    with pytest.raises(StackError, match=r"password.*secrets\.json"):
        EmbeddedStack(home, s3=False).start()


def test_a_home_that_cannot_be_made_is_reported(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(StackError, match="choose another home folder"):
        EmbeddedStack(Path(file)).start()
    assert EmbeddedStack(tmp_path / "nowhere").endpoints() is None
    assert EmbeddedStack(tmp_path / "nowhere").stop() == []
    assert not (tmp_path / "nowhere").exists()
