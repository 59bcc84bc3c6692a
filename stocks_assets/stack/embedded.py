"""The servers that the platform brings along: PostgreSQL and S3, in one home folder."""

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from stocks_assets.stack import home as homes
from stocks_assets.stack import secrets
from stocks_assets.stack.lock import held
from stocks_assets.stack.postgres import (
    DAGSTER,
    DAGSTER_DATABASE,
    LOADER,
    TRANSFORMER,
    EmbeddedPostgres,
)
from stocks_assets.stack.seaweedfs import EmbeddedS3
from stocks_assets.stack.status import ServiceStatus


@dataclass(frozen=True)
class Endpoints:
    """Where the embedded servers are and what opens them; None where an outside one is used.

    `database_url`, `dagster_database_url` and the `aws_` keys are those of who may do everything;
    the others are for who does the work, once its roles are made.
    """

    database_url: str | None = field(default=None, repr=False)
    dagster_database_url: str | None = field(default=None, repr=False)
    s3_endpoint_url: str | None = None
    aws_access_key_id: str | None = field(default=None, repr=False)
    aws_secret_access_key: str | None = field(default=None, repr=False)
    loader_url: str | None = field(default=None, repr=False)
    transformer_url: str | None = field(default=None, repr=False)
    dagster_role_url: str | None = field(default=None, repr=False)
    pipeline_key_id: str | None = field(default=None, repr=False)
    pipeline_secret_key: str | None = field(default=None, repr=False)


class EmbeddedStack:
    """The servers of one home folder; starting, asking and stopping may come from any process."""

    def __init__(
        self,
        home: Path,
        *,
        postgres: bool = True,
        s3: bool = True,
        postgres_port: int | None = None,
        s3_port: int | None = None,
        bucket: str = "stocks-raw",
        curated_bucket: str = "stocks-curated",
    ) -> None:
        """False leaves out the server in whose place an outside one is used.

        The buckets are those that the pipeline's own S3 user may use.
        """
        self._home = home.resolve()
        self._postgres = EmbeddedPostgres(self._home, port=postgres_port) if postgres else None
        buckets = (bucket, curated_bucket)
        self._s3 = EmbeddedS3(self._home, port=s3_port, buckets=buckets) if s3 else None

    def start(self, progress: Callable[[str], None] = lambda _: None) -> Endpoints:
        """Start what does not run yet, and say so; return when all of it can be used.

        Raises:
            StackError: A server cannot be started.
        """
        homes.prepare(self._home)
        with _choosing_ports(), ThreadPoolExecutor() as pool:
            starts = [pool.submit(_start, server, progress) for server in self._servers()]
        for start in starts:
            start.result()
        endpoints = self.endpoints()
        assert endpoints is not None
        return endpoints

    def stop(self) -> list[str]:
        """Stop what runs and name it; what was left out at construction is left alone."""
        with ThreadPoolExecutor() as pool:
            stopped = list(pool.map(lambda server: server.stop(), self._servers()))
        servers = zip(self._servers(), stopped, strict=True)
        return [server.name for server, ran in servers if ran]

    def endpoints(self) -> Endpoints | None:
        """Where the servers are, without starting any; None when one of them does not run."""
        found = Endpoints()
        if self._postgres:
            found = replace(
                found,
                database_url=self._postgres.url(),
                dagster_database_url=self._postgres.url(DAGSTER_DATABASE),
                loader_url=self._postgres.url(role=LOADER),
                transformer_url=self._postgres.url(role=TRANSFORMER),
                dagster_role_url=self._postgres.url(DAGSTER_DATABASE, DAGSTER),
            )
            if found.database_url is None or found.dagster_role_url is None:
                return None
        if self._s3:
            url = self._s3.url()
            if url is None:
                return None
            keys = secrets.load(self._home)
            found = replace(
                found,
                s3_endpoint_url=url,
                aws_access_key_id=keys.s3_access_key_id,
                aws_secret_access_key=keys.s3_secret_access_key,
                pipeline_key_id=keys.s3_pipeline_key_id,
                pipeline_secret_key=keys.s3_pipeline_secret_key,
            )
        return found

    def status(self) -> list[ServiceStatus]:
        """What there is to say about each server, without secrets."""
        return [server.status() for server in self._servers()]

    def lock(self) -> AbstractContextManager[None]:
        """Hold while starting or stopping further processes of this home; `start` takes others."""
        homes.prepare(self._home)
        return held(self._home, "stack")

    def _servers(self) -> list[EmbeddedPostgres | EmbeddedS3]:
        return [server for server in (self._postgres, self._s3) if server]


@contextmanager
def _choosing_ports() -> Iterator[None]:
    """Let one stack of this user start at a time: two would find the same port to be free."""
    path = Path(tempfile.gettempdir()) / f"stocks-ports-{os.getuid()}.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _start(server: EmbeddedPostgres | EmbeddedS3, progress: Callable[[str], None]) -> None:
    before = server.status()
    server.start()
    now = server.status()
    found = "runs already" if before.pid == now.pid else "started"
    progress(f"{now.name} {now.version} {found} at {now.address}")
