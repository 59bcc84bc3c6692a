import json
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import psutil
import pytest

from stocks_assets.errors import StackError
from stocks_assets.stack import home as homes
from stocks_assets.stack import processes, secrets
from stocks_assets.stack.lock import held

SLEEP = [sys.executable, "-c", "import time; time.sleep(100)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('deaf', flush=True); time.sleep(100)",
]
# A parent and a child in a session of its own, which no signal to the parent's group reaches.
FAMILY = [
    sys.executable,
    "-c",
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'],"
    " start_new_session=True)\n"
    "print(child.pid, flush=True); time.sleep(100)",
]


@pytest.fixture
def home(tmp_path):
    homes.prepare(tmp_path)
    yield tmp_path
    processes.stop(tmp_path, "it", timeout=0)


def start(home, argv, **more):
    return processes.start(home, "it", argv, env=dict(os.environ), **more)


def first_line(home):
    log = processes.log_path(home, "it")
    for _ in range(500):
        if "\n" in (said := log.read_text()):
            return said.splitlines()[0]
        time.sleep(0.02)
    raise AssertionError("the process said nothing")


def test_a_process_runs_in_its_own_session_until_it_is_stopped(home):
    record = start(home, SLEEP, ports={"http": 80})
    assert processes.read(home, "it") == record
    assert record.ports == {"http": 80}
    assert os.getsid(record.pid) == record.pid
    assert processes.stop(home, "it")
    assert not psutil.pid_exists(record.pid)
    assert not processes.is_running(home, "it")
    assert not processes.stop(home, "it")


def test_a_second_start_gives_the_running_process(home):
    assert start(home, SLEEP).pid == start(home, SLEEP).pid


def test_a_process_outlives_the_one_that_started_it(home):
    starter = (
        "import os, sys; from pathlib import Path; from stocks_assets.stack import processes\n"
        f"processes.start(Path(sys.argv[1]), 'it', {SLEEP!r}, env=dict(os.environ))\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", starter, home], check=False)
    assert processes.is_running(home, "it")


def test_a_process_that_ignores_the_request_is_killed(home):
    record = start(home, STUBBORN)
    assert first_line(home) == "deaf"
    processes.stop(home, "it", timeout=0.1)
    assert not psutil.pid_exists(record.pid)


def test_children_end_with_their_parent(home):
    start(home, FAMILY)
    child = psutil.Process(int(first_line(home)))
    processes.stop(home, "it")
    assert not processes.is_alive(child)


@pytest.mark.parametrize("next_step", ["start", "stop"])
def test_children_of_a_killed_parent_are_swept(home, next_step):
    record = start(home, FAMILY)
    child = psutil.Process(int(first_line(home)))
    os.kill(record.pid, signal.SIGKILL)
    while processes.is_running(home, "it"):
        time.sleep(0.01)
    start(home, SLEEP) if next_step == "start" else processes.stop(home, "it")
    assert not processes.is_alive(child)


def test_a_process_whose_record_was_lost_is_ended_before_another_is_started(home):
    lost = psutil.Process(start(home, SLEEP).pid)
    processes.forget(home, "it")
    start(home, SLEEP)
    assert not processes.is_alive(lost)


def test_a_pid_that_went_to_another_program_is_not_taken_for_ours(home):
    record = start(home, SLEEP)
    processes.stop(home, "it")
    stranger = subprocess.Popen(SLEEP)
    try:
        stale = {**asdict(record), "pid": stranger.pid, "create_time": record.create_time - 60}
        (home / "run" / "it.json").write_text(json.dumps(stale))
        assert processes.read(home, "it") is None
        assert not processes.stop(home, "it")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_damaged_record_counts_as_none(home):
    start(home, SLEEP)
    (home / "run" / "it.json").write_text("{")
    assert processes.read(home, "it") is None


def test_the_last_words_are_those_of_this_start(home):
    start(home, [sys.executable, "-c", "print('ERROR: old')"])
    while processes.is_running(home, "it"):
        time.sleep(0.01)
    record = start(home, [sys.executable, "-c", "print('FATAL: no space\\nbye')"])
    while processes.is_running(home, "it"):
        time.sleep(0.01)
    assert processes.last_words(home, record) == "FATAL: no space"


def test_a_log_that_has_grown_large_is_set_aside_at_the_next_start(home, monkeypatch):
    monkeypatch.setattr(processes, "_LOG_LIMIT", 3)
    processes.log_path(home, "it").write_text("long")
    assert start(home, SLEEP).log_start == 0
    assert (home / "logs" / "it.log.1").read_text() == "long"


def test_concurrent_first_starts_agree_on_the_secrets_and_only_the_owner_may_read_them(home):
    with ThreadPoolExecutor(8) as pool:
        agreed = set(pool.map(secrets.load_or_create, [home] * 8))
    assert len(agreed) == 1
    assert stat.S_IMODE(secrets.path(home).stat().st_mode) == 0o600
    assert agreed.pop().database_password not in repr(secrets.load(home))


def test_damaged_secrets_are_reported_and_not_replaced(home):
    secrets.path(home).write_text("{}")
    with pytest.raises(StackError, match=r"secrets\.json.* damaged"):
        secrets.load_or_create(home)
    assert secrets.path(home).read_text() == "{}"


def test_a_lock_that_is_not_given_back_is_reported(home):
    with (
        held(home, "it"),
        pytest.raises(StackError, match="another command"),
        held(home, "it", 0.1),
    ):
        pass


def test_a_home_that_is_a_file_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="choose another home folder"):
        homes.prepare(tmp_path / "file" / "home")
    with pytest.raises(StackError, match="choose another home folder"):
        homes.prepare(tmp_path / "file")
