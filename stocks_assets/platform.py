"""The whole platform on one machine: servers, Dagster's processes, and work without a UI."""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from stocks_assets.connections import Connections, embedded_stack, find_connections
from stocks_assets.errors import StackError
from stocks_assets.settings import PROJECT_ROOT, Settings, read_settings
from stocks_assets.stack import ports, processes
from stocks_assets.stack.embedded import EmbeddedStack

if TYPE_CHECKING:
    from stocks_assets.adapters.warehouse import Warehouse
    from stocks_assets.defs.headless import Headless

Progress = Callable[[str], None]

CODE_LOCATION = "stocks_assets"
_UI_PORT = 3000
_CODE_PORT = 4266
_START_SECONDS = 90
_CODE, _WEBSERVER, _DAEMON = "code-location", "webserver", "daemon"

_DAGSTER_YAML = """\
# Written by `stocks`; edits are lost. The URL comes from the environment, so no password is here.
storage:
  custom:
    module: stocks_assets.defs.storage
    class: PooledPostgresStorage
    config:
      postgres_url: {env: STOCKS_DAGSTER_STORAGE_URL}
concurrency:
  runs:
    max_concurrent_runs: 2
retention:
  schedule: {purge_after_days: 90}
  sensor:
    purge_after_days: {skipped: 7, failure: 30, success: 90}
telemetry:
  enabled: false
nux:
  enabled: false
"""
_WORKSPACE_YAML = """\
# Written by `stocks`; edits are lost.
load_from:
  - grpc_server: {{host: 127.0.0.1, port: {port}, location_name: {name}}}
"""


class Platform:
    """What `stocks` works with: everything below one home folder, as the settings say."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._embedded = embedded_stack(settings)
        self._dagster_home = settings.home / "dagster"

    @classmethod
    def from_settings(cls) -> "Platform":
        """Return the platform that the environment describes.

        Raises:
            SettingsError: a setting cannot be used.
        """
        return cls(read_settings())

    def up(self, progress: Progress) -> str:
        """Start what does not run yet and return the URL of the UI.

        Raises:
            StackError: something cannot be started or reached.
        """
        from stocks_assets.adapters.dbt_project import dbt_environment, ensure_manifest
        from stocks_assets.adapters.warehouse import Warehouse

        connections = self.start_servers(progress)
        with self._embedded.lock():
            with dbt_environment(Warehouse(connections.database_url), None):
                ensure_manifest()
            return self._start_dagster(connections, progress)

    def down(self, progress: Progress) -> None:
        """Stop everything that was started below the home folder."""
        stopped = [
            name
            for name in (_DAEMON, _WEBSERVER, _CODE)
            if processes.stop(self._settings.home, name)
        ]
        stopped += EmbeddedStack(self._settings.home).stop()
        progress(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")

    def start_servers(self, progress: Progress) -> Connections:
        """Start the embedded servers, if any are wanted, and make ready what is kept in them.

        Raises:
            StackError: a server cannot be started or reached.
        """
        from stocks_assets.adapters.object_store import ObjectStore
        from stocks_assets.adapters.warehouse import Warehouse, ensure_database

        self._embedded.start(progress)
        connections = find_connections(self._settings)
        ensure_database(connections.database_url)
        ensure_database(connections.dagster_database_url)
        Warehouse(connections.database_url).migrate()
        with ObjectStore(connections.s3, self._settings.bucket) as store:
            store.ensure_bucket()
        self._dagster_home.mkdir(parents=True, exist_ok=True)
        (self._dagster_home / "dagster.yaml").write_text(_DAGSTER_YAML)
        return connections

    @contextmanager
    def headless(self, progress: Progress = lambda _: None) -> Iterator["Headless"]:
        """Yield Dagster without its UI; servers that had to be started for it are stopped after.

        What the UI was started with in the meantime keeps running.
        """
        ran_before = self._embedded.endpoints() is not None
        connections = self.start_servers(progress)
        try:
            from stocks_assets.adapters.dbt_project import dbt_environment, ensure_manifest
            from stocks_assets.adapters.warehouse import Warehouse
            from stocks_assets.defs.headless import open_headless

            warehouse = Warehouse(connections.database_url)
            with dbt_environment(warehouse, None):
                ensure_manifest()
            os.environ.update(self._environment(connections))
            with open_headless(
                self._dagster_home, warehouse, self._settings.home / "logs"
            ) as headless:
                yield headless
        finally:
            if not ran_before and processes.read(self._settings.home, _WEBSERVER) is None:
                self._embedded.stop()

    def warehouse(self) -> "Warehouse":
        """Return the warehouse, which runs."""
        from stocks_assets.adapters.warehouse import Warehouse

        return Warehouse(find_connections(self._settings).database_url)

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
        services = [asdict(service) for service in EmbeddedStack(self._settings.home).status()]
        for name in (_CODE, _WEBSERVER, _DAEMON):
            record = processes.read(self._settings.home, name)
            port = next(iter(record.ports.values()), None) if record else None
            services.append(
                {
                    "name": name,
                    "running": record is not None,
                    "version": version("dagster"),
                    "pid": record.pid if record else None,
                    "address": f"127.0.0.1:{port}" if port else None,
                }
            )
        return {
            "home": str(self._settings.home),
            "source": self._settings.source,
            "bucket": self._settings.bucket,
            "ui_url": self._ui_url(),
            **self._addresses(),
            "versions": {
                "stocks-assets": version("stocks-assets"),
                "python": sys.version.split()[0],
            },
            "services": services,
        }

    def _addresses(self) -> dict[str, str | None]:
        endpoints = self._embedded.endpoints()
        settings = self._settings
        database_url = endpoints.database_url if endpoints else None
        if settings.database_url is not None:
            database_url = _without_password(settings.database_url.get_secret_value())
        return {
            "database_url": database_url,
            "s3_endpoint_url": settings.s3_endpoint_url
            or (endpoints.s3_endpoint_url if endpoints else None),
            "aws_access_key_id": endpoints.aws_access_key_id if endpoints else None,
            "aws_secret_access_key": endpoints.aws_secret_access_key if endpoints else None,
        }

    def _ui_url(self) -> str | None:
        record = processes.read(self._settings.home, _WEBSERVER)
        return f"http://127.0.0.1:{record.ports['http']}" if record else None

    def _start_dagster(self, connections: Connections, progress: Progress) -> str:
        """Start the code location, the web server and the daemon, in this order."""
        home = self._settings.home
        running = {name: processes.read(home, name) for name in (_CODE, _WEBSERVER, _DAEMON)}
        code, web = running[_CODE], running[_WEBSERVER]
        code_port = code.ports["grpc"] if code else ports.choose_port(_CODE_PORT)
        ui_port = web.ports["http"] if web else self._choose_ui_port()
        ports.remember(home, _WEBSERVER, {"http": ui_port})
        workspace = self._dagster_home / "workspace.yaml"
        workspace.write_text(_WORKSPACE_YAML.format(port=code_port, name=CODE_LOCATION))
        environment = {**os.environ, **self._environment(connections)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def start(name: str, arguments: Sequence[str], **listens: int) -> None:
            processes.start(
                home,
                name,
                [sys.executable, "-m", *arguments],
                env=environment,
                cwd=PROJECT_ROOT,
                ports=listens,
            )

        location = ["-h", "127.0.0.1", "-p", str(code_port), "--location-name", CODE_LOCATION]
        start(
            _CODE,
            ["dagster", "code-server", "start", "-m", "stocks_assets.definitions", *location],
            grpc=code_port,
        )
        self._wait_for(_CODE, lambda: _listens(code_port))
        start(
            _WEBSERVER,
            ["dagster_webserver", "-h", "127.0.0.1", "-p", str(ui_port), "-w", str(workspace)],
            http=ui_port,
        )
        start(_DAEMON, ["dagster._daemon", "run", "-w", str(workspace)])
        url = f"http://127.0.0.1:{ui_port}"
        self._wait_for(_WEBSERVER, lambda: _answers(f"{url}/server_info"))
        progress(f"the UI {'runs already' if web else 'started'} at {url}")
        return url

    def _environment(self, connections: Connections) -> dict[str, str]:
        """Return what Dagster's processes need to find their way; all else is inherited."""
        storage = connections.dagster_database_url.partition("://")[2]
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

    def _wait_for(self, name: str, is_ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not is_ready():
            record = processes.read(self._settings.home, name)
            if record is None or time.monotonic() > deadline:
                log = processes.log_path(self._settings.home, name)
                what = "ended at its start" if record is None else "does not answer"
                raise StackError(f"the {name} {what}; its log is {log}")
            time.sleep(0.2)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((ports.LOOPBACK, port), timeout=2).close()
    except OSError:
        return False
    return True


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


def _without_password(database_url: str) -> str:
    parts = urlsplit(database_url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
