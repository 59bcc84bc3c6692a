"""The bucket's sensor under the platform's own daemon, which is killed while somebody uploads."""

import gzip
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import psutil
import psycopg
import pytest
from outside import s3_client

from stocks_assets.domain.bronze_key import BronzeKey, content_hash
from tests.integration.test_arrivals import weekly
from tests.integration.test_command_line import CommandLine, end

TICKERS = ["A", "BF/B", "IBM", "MSFT"]
OBJECTS = 60
START = datetime(2026, 3, 4, 21, 30, tzinfo=UTC)
# Two minutes do on two free cores; a run that was not submitted would hold objects for five more.
SECONDS = 480


@pytest.fixture
def command(tmp_path) -> Iterator[CommandLine]:
    """A home with everything running."""
    command = CommandLine(tmp_path / "home", {})
    try:
        command.succeed("up", "--detach")
        command.succeed("tickers", "add", *TICKERS)
        yield command
    finally:
        end(command)


def upload(status: dict, keys: list[str]) -> None:
    """Put objects of all tickers, some of one second and some late, each with another close."""
    chance = random.Random(3)
    s3 = s3_client(
        status["s3_endpoint_url"], status["aws_access_key_id"], status["aws_secret_access_key"]
    )
    for number in range(OBJECTS):
        late = timedelta(days=3 if number % 10 == 9 else 0)
        body = weekly(number + 1)
        key = BronzeKey(
            "weekly_bars",
            chance.choice(TICKERS),
            START + timedelta(seconds=number // 4) - late,
            content_hash(body),
        )
        s3.put_object(Bucket=status["bucket"], Key=str(key), Body=gzip.compress(body, mtime=0))
        keys.append(str(key))
        time.sleep(0.5)
    s3.close()


def wait_until(holds: Callable[[], bool], deadline: float) -> None:
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_each_object_is_loaded_once_though_the_daemon_is_killed_as_it_asks_and_as_runs_work(
    command,
):
    status, keys = command.status(), list[str]()
    deadline = time.monotonic() + SECONDS
    uploading = threading.Thread(target=upload, args=(status, keys))

    def kill_the_daemon_when(holds: Callable[[], bool]) -> None:
        daemon = psutil.Process(command.running()["daemon"])
        wait_until(holds, deadline)
        daemon.kill()

    with psycopg.connect(status["database_url"], autocommit=True) as books:

        def count(of: str) -> int:
            return books.execute(f"select count(*) from ops.object_loads where {of}").fetchone()[0]

        uploading.start()
        try:
            # A tick has noted that it asks for a run; the daemon has not, or just now.
            kill_the_daemon_when(lambda: count("requests > 0") > 0)
            command.succeed("up", "--detach")
            # A run is at work, and the rest comes meanwhile.
            kill_the_daemon_when(lambda: count("loaded_at is not null") > 0)
        finally:
            uploading.join()
        command.succeed("up", "--detach")
        wait_until(lambda: count("loaded_at is not null") == len(keys), deadline)
        loads = dict(books.execute("select bronze_key, loads from ops.object_loads").fetchall())
        stored = dict(books.execute("select ticker, bronze_key from silver.weekly_bars").fetchall())
    assert len(keys) == OBJECTS
    assert loads == dict.fromkeys(keys, 1)
    assert stored == {BronzeKey.parse(key).ticker: key for key in sorted(keys)}
