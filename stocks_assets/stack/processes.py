"""Background processes that outlive the command which started them.

Each runs in a session of its own, so that neither Ctrl-C nor a closed terminal reaches it, writes
to ``<home>/logs/<name>.log`` and is recorded in ``<home>/run/<name>.json``. It also carries a mark
in its environment, which its descendants inherit: by the mark they are found when the record is
lost or when the process died before them.
"""

import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from stocks_assets.stack import home as homes

_MARK = "STOCKS_STACK_PROCESS"
_LOG_LIMIT = 10 * 1024 * 1024

# Python warns of a process object that is dropped while its process runs; these run on by intent.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Record:
    """A process that was started.

    ``log_start`` is the byte of the log at which its own words begin.
    """

    name: str
    pid: int
    create_time: float
    argv: list[str]
    log_start: int
    ports: dict[str, int] = field(default_factory=dict)


def start(
    home: Path,
    name: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    ports: Mapping[str, int] | None = None,
    user: pwd.struct_passwd | None = None,
) -> Record:
    """Start a process with exactly this environment, unless it runs already.

    Raises:
        OSError: The program or the log cannot be opened.
    """
    if running := read(home, name):
        return running
    end(_marked(home, name))
    log = log_path(home, name)
    turn_over(log)
    with log.open("ab") as output:
        log_start = output.tell()
        child = subprocess.Popen(
            argv,
            env={**env, _MARK: _mark(home, name)},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )
    _children[child.pid] = child
    record = Record(
        name=name,
        pid=child.pid,
        create_time=psutil.Process(child.pid).create_time(),
        argv=list(argv),
        log_start=log_start,
        ports=dict(ports or {}),
    )
    homes.write_private(_record_path(home, name), json.dumps(asdict(record), indent=2) + "\n")
    return record


def read(home: Path, name: str) -> Record | None:
    """The record of a process that runs; None when it ended or its pid went to another one."""
    try:
        text = _record_path(home, name).read_text(encoding="utf-8")
        record = Record(**json.loads(text))
        process = psutil.Process(record.pid)
        # A clock that was set shifts the create time; the mark tells in that case.
        ours = abs(process.create_time() - record.create_time) < 1 or _has_mark(
            process, _mark(home, name)
        )
    except (OSError, ValueError, TypeError, psutil.Error):
        return None
    return record if ours and is_alive(process) else None


def is_running(home: Path, name: str) -> bool:
    """Whether the process runs."""
    return read(home, name) is not None


def listens(record: Record, port: int) -> bool:
    """Whether the process, or a descendant, is the one that listens on the port."""
    try:
        process = psutil.Process(record.pid)
        family = [process, *process.children(recursive=True)]
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for member in family
            for connection in member.net_connections(kind="tcp")
        )
    except psutil.Error:
        return False


def stop(home: Path, name: str, *, timeout: float = 15.0) -> bool:
    """End a process and all its descendants; whether there was anything to end."""
    record = read(home, name)
    main = [psutil.Process(record.pid)] if record else []
    ended = end(main, timeout=timeout)
    # Those who outlived the process, or were left behind by one that was killed.
    ended |= end(_marked(home, name))
    forget(home, name)
    return ended


def end(
    processes: Iterable[psutil.Process],
    *,
    timeout: float = 5.0,
    with_signal: signal.Signals = signal.SIGTERM,
) -> bool:
    """Ask processes to end, wait, then kill what is left of them and of their descendants.

    Only the processes themselves are asked: they may have their children to end in good order.
    """
    asked = list(processes)
    family = set(asked)
    for process in asked:
        with suppress(psutil.Error):
            family.update(process.children(recursive=True))
    for process in asked:
        with suppress(psutil.Error):
            process.send_signal(with_signal)
    _wait(asked, timeout)
    for send, seconds in ((psutil.Process.terminate, 3.0), (psutil.Process.kill, 10.0)):
        left = [process for process in family if is_alive(process)]
        for process in left:
            with suppress(psutil.Error):
                send(process)
        _wait(left, seconds)
    return bool(asked)


def forget(home: Path, name: str) -> None:
    """Remove the record."""
    _record_path(home, name).unlink(missing_ok=True)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; one that ended and waits to be reaped does not."""
    child = _children.get(process.pid)
    if child and child.poll() is not None:
        _children.pop(process.pid, None)
    try:
        # The first thread may have ended while others still hold the ports and the files.
        return process.is_running() and (
            process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
        )
    except psutil.Error:
        return False


def log_path(home: Path, name: str) -> Path:
    """Where the process writes what it has to say."""
    return home / "logs" / f"{name}.log"


def turn_over(log: Path) -> None:
    """Move a log that has grown too long to a second file, in place of the one before it."""
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))


def last_words(home: Path, record: Record) -> str:
    """The gist of what a process said since its start."""
    try:
        with log_path(home, record.name).open("rb") as file:
            file.seek(record.log_start)
            return gist(file.read().decode(errors="replace"))
    except OSError:
        return gist("")


def gist(said: str) -> str:
    """What matters of a program's output, in one line: its last complaint, else its last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    complaints = [line for line in lines if any(w in line.lower() for w in ("fatal", "error"))]
    return (complaints or lines or ["it said nothing"])[-1][:300]


def _wait(processes: Iterable[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(is_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)


def _record_path(home: Path, name: str) -> Path:
    return home / "run" / f"{name}.json"


def _mark(home: Path, name: str) -> str:
    return f"{home.resolve()}:{name}"


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(_MARK) == mark
    except (psutil.Error, OSError):
        return False


def _marked(home: Path, name: str) -> list[psutil.Process]:
    mark = _mark(home, name)
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and _has_mark(process, mark)
    ]
