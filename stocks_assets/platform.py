"""The whole platform on one machine: servers, Dagster's processes, and work without a UI."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urlsplit

import httpx

from stocks_assets.connections import Connections, embedded_stack, find_connections
from stocks_assets.errors import SettingsError, StackError, StocksError
from stocks_assets.settings import PROJECT_ROOT, Settings, env_file, read_settings
from stocks_assets.stack import home as homes
from stocks_assets.stack import ports, processes, secrets
from stocks_assets.stack.embedded import EmbeddedStack
from stocks_assets.stack.lock import in_use
from stocks_assets.ui import USER, ui_password

if TYPE_CHECKING:
    from stocks_assets.adapters.query import Result
    from stocks_assets.adapters.reader import Reader
    from stocks_assets.adapters.report.storing import Reports
    from stocks_assets.adapters.roles import Role
    from stocks_assets.adapters.sources.port import Source
    from stocks_assets.adapters.standings import Standing
    from stocks_assets.adapters.trace import Trace
    from stocks_assets.adapters.warehouse import Warehouse
    from stocks_assets.defs.headless import Headless
    from stocks_assets.domain.planner import Plan

Progress = Callable[[str], None]

CODE_LOCATION = "stocks_assets"
_UI_PORT = 3000
_START_SECONDS = 90
# What a Unix socket may be called at most, on the strictest of the systems.
_SOCKET_PATH_LIMIT = 103
_CODE_MODULE = ("-m", "stocks_assets.definitions")
_WEBSERVER_MODULE = "stocks_assets.defs.webserver"
_CODE, _WEBSERVER, _DAEMON = "code-location", "webserver", "daemon"
_DAGSTER = (_CODE, _WEBSERVER, _DAEMON)

_DAGSTER_YAML = """\
# Written by `stocks`; edits are lost. The URL comes from the environment, so no password is here.
storage:
  custom:
    module: stocks_assets.defs.storage
    class: PooledPostgresStorage
    config:
      postgres_url: {{env: STOCKS_DAGSTER_STORAGE_URL}}
# A tick of a schedule that fails is tried again, each minute; a sensor looks again anyway.
scheduler:
  module: dagster.core.scheduler
  class: DagsterDaemonScheduler
  config: {{max_tick_retries: 3}}
run_coordinator: {{module: stocks_assets.defs.launch, class: SettingsRunQueue}}
run_launcher: {{module: stocks_assets.defs.launch, class: SettingsRunLauncher}}
run_monitoring:
  enabled: true
  poll_interval_seconds: 15
  start_timeout_seconds: 7200
retention:
  schedule: {{purge_after_days: 90}}
  sensor:
    purge_after_days: {{skipped: 7, failure: 30, success: 90}}
# Only runs whose process is gone; steps have a policy of their own (stocks_assets/defs/retries.py).
run_retries: {{enabled: true, max_retries: {max_retries}, retry_on_asset_or_op_failure: false}}
python_logs:
  dagster_handler_config:
    handlers:
      runs: {handler}
telemetry:
  enabled: false
nux:
  enabled: false
"""
_WORKSPACE_YAML = """\
# Written by `stocks`; edits are lost.
load_from:
  - grpc_server: {{{where}, location_name: {name}}}
"""


class Service(StrEnum):
    """The processes of Dagster."""

    CODE_LOCATION = "code-location"
    WEBSERVER = "webserver"
    DAEMON = "daemon"


class Checked(StrEnum):
    """The processes that can be asked whether they work."""

    CODE_LOCATION = "code-location"
    WEBSERVER = "webserver"
    DAEMON = "daemon"
    WORKER = "worker"


class Platform:
    """What `stocks` works with: everything below one home folder, as the settings say."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._embedded = embedded_stack(settings)
        self._dagster_home = settings.home / "dagster"
        self._reader_lacks: StocksError | None = None

    @classmethod
    def from_settings(cls) -> "Platform":
        """Return the platform that the environment describes.

        Raises:
            SettingsError: a setting cannot be used.
        """
        return cls(read_settings())

    @property
    def home(self) -> Path:
        """Where all is that the project keeps on this machine."""
        return self._settings.home

    @property
    def reports_folder(self) -> Path:
        """Where `stocks report` puts what it opens."""
        return self._settings.home / "reports"

    @property
    def curated_bucket(self) -> str:
        """The bucket that gold is exported to."""
        return self._settings.curated_bucket

    @property
    def tickers_per_run(self) -> int:
        """How many tickers share a run at most."""
        return self._settings.tickers_per_run

    def up(self, progress: Progress) -> str:
        """Start what does not run yet and return the URL of the UI.

        Raises:
            StackError: something cannot be started or reached.
        """
        from stocks_assets.adapters.dbt_project import dbt_environment, ensure_manifest

        if processes.read(self._settings.home, _WEBSERVER) is None:
            self._choose_ui_port()
        with self._servers(progress) as connections, self._embedded.lock():
            warehouse = _warehouse(connections)
            with dbt_environment(warehouse, None):
                ensure_manifest()
            with self._open_headless(connections) as headless:
                for line in headless.apply_universe_file().lines():
                    progress(line)
            return self._start_dagster(connections, progress)

    def down(self, progress: Progress) -> None:
        """Stop everything that was started below the home folder."""
        with homes.working_in(self._settings.home):
            stopped = [
                name
                for name in (_DAEMON, _WEBSERVER, _CODE)
                if processes.stop(self._settings.home, name)
            ]
        stopped += EmbeddedStack(self._settings.home).stop()
        progress(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")

    def start_servers(self, progress: Progress, *, closes: bool = False) -> Connections:
        """Start the embedded servers, if any are wanted, and make ready what is kept in them.

        With `closes` nobody comes into the warehouse but its roles, as into the embedded one.

        Raises:
            StackError: a server cannot be started or reached.
        """
        from stocks_assets.adapters.object_store import ObjectStore

        self._embedded.start(progress)
        connections = find_connections(self._settings)
        _settle_environment(connections)
        self._prepare_database(connections, closes=closes)
        self._prepare_reader(connections, progress)
        buckets = [self._settings.bucket]
        if self._settings.s3_endpoint_url is None:
            # Who does the work makes none there.
            buckets.append(self._settings.curated_bucket)
        for bucket in buckets:
            with ObjectStore(connections.s3_owner, bucket) as store:
                store.ensure_bucket()
        self._write_dagster_yaml(self._run_log())
        return connections

    def _write_dagster_yaml(self, log: Path | None) -> None:
        """Write it where it says something else; runs log to the file `log`, or on the console."""
        path = self._dagster_home / "dagster.yaml"
        kind = f"RunLog, filename: {json.dumps(str(log))}" if log else "RunLines"
        handler = f"{{class: stocks_assets.defs.logs.{kind}, level: DEBUG}}"
        text = _DAGSTER_YAML.format(max_retries=3, handler=handler)
        if not _says(path, text):
            with homes.working_in(self._settings.home):
                self._dagster_home.mkdir(parents=True, exist_ok=True)
                homes.write_private(path, text)

    def _prepare_database(self, connections: Connections, *, closes: bool) -> None:
        """Make databases, tables and roles ready; who only does the work finds them made."""
        from stocks_assets.adapters.roles import Role, Roles
        from stocks_assets.adapters.warehouse import ensure_database

        if connections.owner_url is None:
            _warehouse(connections).require_tables()
            return
        ensure_database(connections.owner_url)
        _migrate(connections.owner_url)
        roles = Roles(
            connections.owner_url,
            loader=Role("STOCKS_LOADER_DATABASE_URL", connections.database_url),
            transformer=Role("STOCKS_TRANSFORMER_DATABASE_URL", connections.models_url),
            dagster=Role("STOCKS_DAGSTER_DATABASE_URL", connections.dagster_database_url),
            hinter=self._hinter(),
        )
        is_ours = self._settings.brings_database
        roles.prepare(owns_passwords=is_ours, closes=is_ours or closes)
        ensure_database(connections.dagster_database_url)

    def _hinter(self) -> "Role | None":
        """Return who notes the events of the bucket, if somebody does who is named for it."""
        from stocks_assets.adapters.roles import Role

        url = self._settings.bucket_events_database_url
        if self._settings.bucket_events_token is None or url is None:
            return None
        return Role("STOCKS_BUCKET_EVENTS_DATABASE_URL", url.get_secret_value())

    def _run_log(self) -> Path:
        """Return where runs log to."""
        log = processes.log_path(self._settings.home, "runs")
        log.parent.mkdir(exist_ok=True)
        return log

    def _reader(self) -> "Reader":
        from stocks_assets.adapters.reader import Reader

        settings = self._settings
        if settings.reader_password is not None:
            password = settings.reader_password.get_secret_value()
        else:
            password = secrets.load_or_create(settings.home).reader_password
        return Reader(settings.reader_role, password, settings.reader_timeout_seconds)

    def _prepare_reader(self, connections: Connections, progress: Progress) -> None:
        """Make ready the role for analysts; without it everything else works."""
        self._reader_lacks = None
        if connections.owner_url is None:
            return
        is_ours = self._settings.brings_database
        makers = {connections.database_url, connections.models_url} - {connections.owner_url}
        try:
            self._reader().prepare(
                connections.owner_url, owns_password=is_ours, makers=sorted(makers)
            )
        except StocksError as error:
            self._reader_lacks = error
            progress(str(error))

    @contextmanager
    def query(self, statement: str, *, as_text: bool) -> Iterator["Result"]:
        """Yield what `statement` returns to the role that may only read.

        Raises:
            StackError: a server cannot be started or reached, or the role is not there.
            QueryError: PostgreSQL refuses the statement.
        """
        from stocks_assets.adapters.query import run

        with self._servers(lambda _: None) as connections:
            if self._reader_lacks is not None:
                raise self._reader_lacks
            url = self._reader().url(connections.database_url)
            with run(url, statement, as_text=as_text) as result:
                yield result

    def export(
        self, tables: Sequence[str], tickers: Sequence[str] | None
    ) -> "tuple[Mapping[str, Mapping[str, int]], Sequence[str]]":
        """Bring gold's Parquet objects up to date and return, by table, what came of it.

        No `tables` is all of them, no `tickers` all of those tables that have an object for each.
        Returned as well are those of `tickers` that gold does not have.

        Raises:
            SettingsError: gold has no such table.
            StackError: a server cannot be started or reached, or gold is not built yet.
        """
        from stocks_assets.adapters.curated import Curated, choose, totals
        from stocks_assets.adapters.dbt_project import (
            dbt_environment,
            ensure_manifest,
            project_digest,
        )
        from stocks_assets.adapters.object_store import ObjectStore

        with self._servers(lambda _: None) as connections:
            warehouse = _warehouse(connections)
            with dbt_environment(warehouse, None):
                chosen = choose(ensure_manifest(), tables)
            with ObjectStore(connections.s3, self._settings.curated_bucket) as store:
                curated = Curated(store, warehouse)
                done = totals(curated.export(chosen, tickers, built_by=project_digest()))
                return done, warehouse.not_in_gold(tickers or ())

    @contextmanager
    def reports(self) -> "Iterator[Reports]":
        """Yield the market reports in the bucket.

        Raises:
            StackError: a server cannot be started or reached.
        """
        from stocks_assets.adapters.object_store import ObjectStore
        from stocks_assets.adapters.report.storing import Reports

        with (
            self._servers(lambda _: None) as connections,
            ObjectStore(connections.s3, self._settings.curated_bucket) as store,
        ):
            yield Reports(store)

    @contextmanager
    def headless(self, progress: Progress = lambda _: None) -> Iterator["Headless"]:
        """Yield Dagster without its UI; the servers run until the last who needs them has ended.

        What the UI was started with in the meantime keeps running.

        Raises:
            StackError: a server cannot be started or reached.
        """
        with self._servers(progress) as connections:
            from stocks_assets.adapters.dbt_project import dbt_environment, ensure_manifest

            with dbt_environment(_warehouse(connections), None):
                ensure_manifest()
            with self._open_headless(connections) as headless:
                yield headless

    @contextmanager
    def _open_headless(self, connections: Connections) -> Iterator["Headless"]:
        """Open Dagster's instance; runs whose process is gone are failed.

        They would hold their place in the queue for ever.
        """
        from stocks_assets.adapters.universe_file import UniverseFile
        from stocks_assets.defs.headless import open_headless

        os.environ.update(self._environment(connections))
        with open_headless(
            self._dagster_home,
            _warehouse(connections),
            self._settings.home / "logs",
            UniverseFile.from_settings(self._settings),
        ) as headless:
            headless.fail_dead_runs(unmarked_too=self._no_run_of_the_ui_can_live())
            yield headless

    def _no_run_of_the_ui_can_live(self) -> bool:
        """Tell whether runs of the UI would run here, and nothing that runs them does."""
        is_ours = self._settings.brings_database and self._settings.dagster_database_url is None
        # Workers do runs while the UI is down.
        runs_here = self._settings.launcher != "celery"
        home = self._settings.home
        # A daemon sees it for itself (`defs/launch.py`), once the code location is back to start
        # them again: asked for sooner, it would not try twice.
        gone = [processes.read(home, name) is None for name in (_CODE, _DAEMON)]
        return is_ours and runs_here and all(gone)

    @contextmanager
    def _servers(self, progress: Progress, *, closes: bool = False) -> Iterator[Connections]:
        """Start the servers; who leaves last stops them, unless Dagster's processes use them."""
        homes.prepare(self._settings.home)
        with in_use(self._settings.home, "stack", at_last=self._stop_unused_servers):
            yield self.start_servers(progress, closes=closes)

    def _stop_unused_servers(self) -> None:
        if not any(processes.read(self._settings.home, name) for name in _DAGSTER):
            self._embedded.stop()

    def warehouse(self) -> "Warehouse":
        """Return the warehouse, which runs."""
        return _warehouse(find_connections(self._settings))

    def require_source(self) -> None:
        """Insist that the source has what it needs.

        Raises:
            SettingsError: what the source needs is missing.
        """
        from stocks_assets.adapters.sources.build import build_source

        build_source(self._settings).close()

    def require_universe(self) -> None:
        """Insist that the universe's file, if there is one, can be read.

        Raises:
            SettingsError: it cannot, or it is not there though a setting names it.
        """
        from stocks_assets.adapters.universe_file import UniverseFile

        UniverseFile.from_settings(self._settings).read()

    def trace(self, ticker: str, day: date | None) -> "list[Trace]":
        """Return the bars of `ticker` that hold `day`, each back to the object it came from.

        Raises:
            StackError: a server cannot be started or reached.
        """
        from stocks_assets.adapters.bronze import BronzeStore
        from stocks_assets.adapters.object_store import ObjectStore
        from stocks_assets.adapters.trace import trace
        from stocks_assets.adapters.warehouse import Warehouse

        with (
            self._servers(lambda _: None) as connections,
            ObjectStore(connections.s3, self._settings.bucket) as store,
        ):
            warehouse = Warehouse(connections.database_url)
            return list(trace(BronzeStore(store, warehouse), warehouse, ticker, day))

    def plan(self, tickers: Sequence[str]) -> "Plan | None":
        """Return the plan of calls for `tickers`; None where calls cost nothing."""
        from stocks_assets.adapters.planning import make_plan

        months = self._settings.intraday_months
        with self._source() as (source, warehouse):
            return make_plan(source, warehouse, tickers, intraday_months=months)

    def backlog(self, tickers: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return those of `tickers` of which something failed or is missing, and why."""
        from stocks_assets.adapters.backlog import find_behind, make_backlog
        from stocks_assets.adapters.dbt_project import project_digest

        with self._source() as (source, warehouse):
            return make_backlog(
                source,
                warehouse,
                tickers,
                intraday_months=self._settings.intraday_months,
                behind=find_behind(warehouse, tickers, gold_project=project_digest()),
            )

    def hints(self, tickers: Sequence[str]) -> list[str]:
        """Say which of `tickers` are listed no longer, a line each."""
        from stocks_assets.adapters.standings import Listings

        listings = Listings(self.warehouse().listings())
        return [hint for ticker in tickers if (hint := listings.hint(ticker))]

    def standings(self, tickers: Sequence[str]) -> "list[Standing]":
        """Return how each of `tickers` stands."""
        from stocks_assets.adapters.standings import find_standings

        return find_standings(self.warehouse(), tickers)

    @contextmanager
    def _source(self) -> "Iterator[tuple[Source, Warehouse]]":
        from stocks_assets.adapters.sources.build import build_source

        warehouse = self.warehouse()
        source = build_source(self._settings, warehouse)
        try:
            yield source, warehouse
        finally:
            source.close()

    def prepare(self, progress: Progress, *, closes: bool) -> None:
        """Make databases, tables and bucket, for processes that something else starts.

        With `closes` nobody comes into the warehouse but its roles.
        """
        with self._servers(progress, closes=closes):
            progress("databases, tables and bucket are ready")

    def serve(self, service: Service, *, host: str, port: int | None, code: str | None) -> NoReturn:
        """Become one of Dagster's processes, for who starts each by itself.

        `host` and `port` are where it listens, if it does; `code` is where the code location does.
        Without a port that is a socket in the home, for processes that share it.

        Raises:
            StackError: a server does not run.
        """
        self._enter()
        workspace: list[str] = []
        socket_path = self._code_socket()
        if service is not Service.CODE_LOCATION:
            code_host, _, code_port = (code or "").rpartition(":")
            where = f"host: {code_host}, port: {code_port}" if code else f"socket: {socket_path}"
            # Containers share the home: each reads what was written for itself.
            workspace = ["-w", str(self._write_workspace(f"workspace-{service}", where))]
        listens = ["-h", host, "-p", str(port)] if port else ["-s", str(socket_path)]
        location = [*listens, "--location-name", CODE_LOCATION]
        page = ["-h", host, "-p", str(port or _UI_PORT)]
        arguments = {
            Service.CODE_LOCATION: ["dagster", "code-server", "start", *_CODE_MODULE, *location],
            Service.WEBSERVER: [_WEBSERVER_MODULE, *page, *workspace],
            Service.DAEMON: ["stocks_assets.defs.daemon", "run", *workspace],
        }[service]
        if service is Service.CODE_LOCATION:
            from stocks_assets.adapters.dbt_project import ensure_manifest

            ensure_manifest()
            if not port:
                # One that was killed leaves it.
                socket_path.unlink(missing_ok=True)
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", *arguments])  # noqa: S606 # our own list

    def is_healthy(self, service: Checked, *, port: int | None) -> bool:
        """Tell whether the process that `serve` or `work` became on this machine works."""
        if service is Checked.WEBSERVER:
            return _answers(f"http://127.0.0.1:{port or _UI_PORT}/server_info")
        if service is Checked.WORKER:
            from stocks_assets.defs.worker import answers

            return answers(self._settings)
        self._enter()
        listens = ["-p", str(port)] if port else ["-s", str(self._code_socket())]
        arguments = {
            Checked.CODE_LOCATION: ["dagster", "api", "grpc-health-check", *listens],
            Checked.DAEMON: ["dagster._daemon", "liveness-check"],
        }[service]
        checked = subprocess.run([sys.executable, "-m", *arguments], check=False)
        return checked.returncode == 0

    def _enter(self) -> None:
        """Set what one of Dagster's processes needs, for this one."""
        homes.prepare(self._settings.home)
        self._write_dagster_yaml(None)
        storage = self._settings.dagster_database_url
        if self._settings.brings_database and storage is not None:
            # All that the web server is told.
            os.environ.update(self._dagster_environment(storage.get_secret_value()))
        else:
            os.environ.update(self._environment(find_connections(self._settings)))

    def work(self, *, concurrency: int, name: str | None) -> None:
        """Do runs from the queue of STOCKS_CELERY_BROKER_URL, until a signal ends it.

        The servers run, here or elsewhere, and hold what `prepare` or `up` has made.

        Raises:
            SettingsError: a setting is missing, or the extra `workers` is not installed.
            StackError: a server does not run.
        """
        try:
            from stocks_assets.defs.worker import make_worker, run_worker
        except ImportError as error:
            raise SettingsError(
                f"a worker needs the extra 'workers' to be installed: {error}"
            ) from error
        from stocks_assets.adapters.dbt_project import dbt_environment, ensure_manifest

        make_worker(self._settings)
        homes.prepare(self._settings.home)
        connections = find_connections(self._settings)
        self._write_dagster_yaml(None)
        os.environ.update(self._environment(connections))
        with dbt_environment(_warehouse(connections), None):
            ensure_manifest()
        run_worker(self._settings, concurrency=concurrency, name=name)

    def listed_tickers(self, count: int | None) -> Sequence[str]:
        """Return the first `count` tickers that the source can name itself.

        Raises:
            SettingsError: what the source needs is missing.
        """
        from stocks_assets.adapters.sources.build import build_source

        source = build_source(self._settings)
        try:
            return source.listed_tickers(count)
        finally:
            source.close()

    def status(self) -> dict[str, Any]:
        """Return what runs and where; passwords only of what the project started itself."""
        elsewhere = self._elsewhere()
        services = [
            asdict(service)
            | (
                {"address": elsewhere[service.name], "version": None}
                if service.name in elsewhere
                else {}
            )
            for service in EmbeddedStack(self._settings.home).status()
        ]
        for name in _DAGSTER:
            record = processes.read(self._settings.home, name)
            port = next(iter(record.ports.values()), None) if record else None
            address = f"127.0.0.1:{port}" if port else None
            if name == _CODE and record:
                address = f"unix:{self._code_socket()}"
            services.append(
                {
                    "name": name,
                    "running": record is not None,
                    "version": version("dagster"),
                    "pid": record.pid if record else None,
                    "address": address,
                }
            )
        return {
            "home": str(self._settings.home),
            "source": self._settings.source,
            "bucket": self._settings.bucket,
            "curated_bucket": self._settings.curated_bucket,
            "ui_url": self._ui_url(),
            **self._addresses(),
            "versions": {
                "stocks-assets": version("stocks-assets"),
                "python": sys.version.split()[0],
            },
            "services": services,
            "elsewhere": sorted(elsewhere),
        }

    def _elsewhere(self) -> dict[str, str]:
        """Return where the servers are that the settings name in place of embedded ones."""
        from stocks_assets.adapters.warehouse import where

        settings = self._settings
        database_url = settings.database_url or settings.loader_database_url
        found = {}
        if database_url is not None:
            found["postgres"] = where(database_url.get_secret_value())
        if settings.s3_endpoint_url is not None:
            found["seaweedfs"] = settings.s3_endpoint_url
        return found

    def _addresses(self) -> dict[str, str | None]:
        from stocks_assets.adapters.reader import url_without_password

        endpoints = self._embedded.endpoints()
        settings = self._settings
        database_url = endpoints.database_url if endpoints else None
        reader_url = self._reader().url(database_url) if database_url else None
        outside = settings.database_url or settings.loader_database_url
        if outside is not None:
            given = outside.get_secret_value()
            database_url = _without_password(given)
            reader_url = url_without_password(given, settings.reader_role)
        return {
            "database_url": database_url,
            "reader_url": reader_url,
            "s3_endpoint_url": settings.s3_endpoint_url
            or (endpoints.s3_endpoint_url if endpoints else None),
            "aws_access_key_id": endpoints.aws_access_key_id if endpoints else None,
            "aws_secret_access_key": endpoints.aws_secret_access_key if endpoints else None,
        }

    def _ui_url(self) -> str | None:
        record = processes.read(self._settings.home, _WEBSERVER)
        return self._ui_at(record.ports["http"]) if record else None

    def _ui_at(self, port: int) -> str:
        """Return the URL that opens the UI, with its password as scripts and browsers take it."""
        password = quote(ui_password(self._settings), safe="")
        return f"http://{USER}:{password}@127.0.0.1:{port}"

    def _start_dagster(self, connections: Connections, progress: Progress) -> str:
        """Start what does not run yet of Dagster's processes; if that fails, stop it again."""
        home = self._settings.home
        missing = [name for name in _DAGSTER if processes.read(home, name) is None]
        for attempts_left in (2, 1, 0):
            try:
                return self._start_each(connections, progress)
            except BaseException as error:
                for name in reversed(missing):
                    processes.stop(home, name)
                # Somebody else was faster to take the port.
                if not attempts_left or not isinstance(error, _PortTakenError):
                    raise
        raise AssertionError

    def _start_each(self, connections: Connections, progress: Progress) -> str:
        """Start the code location, the web server and the daemon, in this order."""
        home = self._settings.home
        digest = home / "run" / "settings.digest"
        if processes.read(home, _CODE) and not _says(digest, self._settings.digest()):
            progress("the settings have changed since the UI was started: starting it again")
            for name in reversed(_DAGSTER):
                processes.stop(home, name)
        homes.write_private(digest, self._settings.digest())
        running = {name: processes.read(home, name) for name in _DAGSTER}
        web = running[_WEBSERVER]
        ui_port = web.ports["http"] if web else self._choose_ui_port()
        ports.remember(home, _WEBSERVER, {"http": ui_port})
        # A socket in a folder of one's own: over a port, anybody on the machine could start runs.
        code_socket = self._code_socket()
        if running[_CODE] is None:
            code_socket.unlink(missing_ok=True)
        workspace = self._write_workspace("workspace", f"socket: {code_socket}")
        environment = {**os.environ, **self._environment(connections)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def start(name: str, arguments: Sequence[str], **listens: int) -> processes.Record:
            return processes.start(
                home,
                name,
                [sys.executable, "-m", *arguments],
                env=environment,
                cwd=PROJECT_ROOT,
                ports=listens,
            )

        logs = ["--log-format", "json"] if self._settings.log_format == "json" else []
        location = [*logs, "-s", str(code_socket), "--location-name", CODE_LOCATION]
        code = start(
            _CODE,
            ["dagster", "code-server", "start", *_CODE_MODULE, *location],
        )
        self._wait_for(code, lambda: _accepts(code_socket))
        server = start(
            _WEBSERVER,
            [
                *(_WEBSERVER_MODULE, "-h", "127.0.0.1", *logs),
                *("-p", str(ui_port), "-w", str(workspace)),
            ],
            http=ui_port,
        )
        start(_DAEMON, ["stocks_assets.defs.daemon", "run", "-w", str(workspace), *logs])
        self._wait_for(
            server,
            # Somebody else may listen there and even give the right answers.
            lambda: (
                processes.listens(server, ui_port)
                and _answers(f"http://127.0.0.1:{ui_port}/server_info")
            ),
            port=ui_port,
        )
        url = self._ui_at(ui_port)
        progress(f"the UI {'runs already' if web else 'started'} at 127.0.0.1:{ui_port}")
        return url

    def _environment(self, connections: Connections) -> dict[str, str]:
        """Return what Dagster's processes need to find their way; all else is inherited."""
        paths = {
            "STOCKS_ENV_FILE": env_file(),
            "STOCKS_REPLAY_DIR": self._settings.replay_dir,
            "STOCKS_UNIVERSE_FILE": self._settings.universe_file,
        }
        return {
            # Absolute: the processes work in another folder than the one that they were named in.
            **{name: str(path) for name, path in paths.items() if path},
            # The definitions load a manifest, and that names the database.
            "DBT_DBNAME": urlsplit(connections.database_url).path.lstrip("/"),
            **self._events_environment(connections),
            **self._dagster_environment(connections.dagster_database_url),
        }

    def _events_environment(self, connections: Connections) -> dict[str, str]:
        """Return where the web server notes events of the bucket, unless a setting says it."""
        settings = self._settings
        if settings.bucket_events_token is None or settings.bucket_events_database_url is not None:
            return {}
        return {"STOCKS_BUCKET_EVENTS_DATABASE_URL": connections.database_url}

    def _dagster_environment(self, database_url: str) -> dict[str, str]:
        storage = database_url.partition("://")[2]
        return {
            "DAGSTER_HOME": str(self._dagster_home),
            "STOCKS_HOME": str(self._settings.home),
            # With its driver named: SQLAlchemy's own choice is not what dagster-postgres can use.
            "STOCKS_DAGSTER_STORAGE_URL": f"postgresql+psycopg2://{storage}",
            # Events of many partitions are written together.
            "DAGSTER_EVENT_BATCH_SIZE": os.environ.get("DAGSTER_EVENT_BATCH_SIZE", "500"),
        }

    def _choose_ui_port(self) -> int:
        if self._settings.ui_port is None:
            last = ports.remembered(self._settings.home, _WEBSERVER).get("http", _UI_PORT)
            return ports.choose_port(last)
        ports.require_free(self._settings.ui_port, "STOCKS_UI_PORT")
        return self._settings.ui_port

    def _code_socket(self) -> Path:
        """Return where the code server listens: in the home, unless its path is too long."""
        path = self._settings.home / "run" / "code.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
            return path
        digest = hashlib.sha256(os.fsencode(self._settings.home)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"stocks-{os.getuid()}-{digest}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.lstat().st_uid != os.getuid() or folder.is_symlink():
            raise StackError(f"'{folder}' belongs to somebody else; remove it or move STOCKS_HOME")
        return folder / "code.sock"

    def _write_workspace(self, name: str, where: str) -> Path:
        workspace = self._dagster_home / f"{name}.yaml"
        homes.write_private(workspace, _WORKSPACE_YAML.format(where=where, name=CODE_LOCATION))
        return workspace

    def _wait_for(
        self, started: processes.Record, is_ready: Callable[[], bool], *, port: int | None = None
    ) -> None:
        home, name = self._settings.home, started.name
        log = processes.log_path(home, name)
        deadline = time.monotonic() + _START_SECONDS
        while processes.is_running(home, name):
            if is_ready():
                return
            if time.monotonic() > deadline:
                raise StackError(f"the {name} does not answer; its log is {log}")
            time.sleep(0.2)
        words = processes.last_words(home, started)
        if port is not None and "in use" in words:
            raise _PortTakenError(f"the {name} found port {port} taken; its log is {log}")
        raise StackError(f"the {name} ended at its start: {words} (all of it in {log})")


class _PortTakenError(StackError):
    """Another program took the port between its choice and its use."""


def _says(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _settle_environment(connections: Connections) -> None:
    """Keep what a developer has set for other work from what this and later processes do here."""
    # No proxy leads to what listens on the loopback address.
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        if not {"*", ports.LOOPBACK} & set(hosts):
            os.environ[name] = ",".join([*hosts, ports.LOOPBACK, "localhost"])
    if connections.s3.access_key_id is not None:
        # The SDK insists that a profile exists, even where it is not asked for keys.
        for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
            os.environ.pop(name, None)


def _warehouse(connections: Connections) -> "Warehouse":
    from stocks_assets.adapters.warehouse import Warehouse

    return Warehouse(connections.database_url, connections.models_url)


def _migrate(database_url: str) -> None:
    """Bring the tables of the warehouse to the newest version.

    Raises:
        StackError: the server does not allow it.
    """
    import sqlalchemy.exc

    from stocks_assets.adapters.warehouse import Warehouse

    warehouse = Warehouse(database_url)
    try:
        warehouse.migrate()
    except sqlalchemy.exc.DBAPIError as error:
        said = str(error.orig).splitlines()[0]
        raise StackError(
            f"the tables in {warehouse} cannot be made: {said}; give the user of "
            "STOCKS_DATABASE_URL the right to create schemas there"
        ) from error


def _without_password(database_url: str) -> str:
    parts = urlsplit(database_url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
