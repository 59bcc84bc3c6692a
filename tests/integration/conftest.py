"""Real servers for the session: the embedded stack's own PostgreSQL and S3, in a temporary folder."""

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from gold_history import Dbt

from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.curated import Curated
from stocks_assets.adapters.inbox import Inbox
from stocks_assets.adapters.object_store import ObjectStore, S3Location
from stocks_assets.adapters.sources.port import Source
from stocks_assets.adapters.warehouse import Warehouse, ensure_database
from stocks_assets.definitions import build_defs
from stocks_assets.defs.batch import Batch
from stocks_assets.defs.gold import dbt_resource
from stocks_assets.defs.jobs import REFRESH, refresh_run
from stocks_assets.defs.partitions import RANGE_END, RANGE_START, TICKERS
from stocks_assets.stack.embedded import EmbeddedStack, Endpoints

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    stack = EmbeddedStack(tmp_path_factory.mktemp("servers"), postgres_port=None, s3_port=None)
    try:
        yield stack.start()
    finally:
        stack.stop()


@pytest.fixture
def warehouse(servers: Endpoints) -> Warehouse:
    return empty_warehouse(servers)


def empty_warehouse(servers: Endpoints) -> Warehouse:
    """An empty warehouse; of one name throughout, as dbt parses all anew for another one."""
    assert servers.database_url
    os.environ["DBT_DBNAME"] = "test"  # the manifest names it
    url = servers.database_url.rsplit("/", 1)[0] + "/test"
    ensure_database(url)
    warehouse = Warehouse(url)
    with warehouse.connect() as connection:
        connection.execute("drop schema if exists bronze, silver, staging, gold, ops cascade")
    warehouse.migrate()
    return warehouse


@pytest.fixture(scope="session")
def _dbt_processes() -> Iterator[list[Dbt]]:
    processes: list[Dbt] = []
    yield processes
    for process in processes:
        process.close()


@pytest.fixture
def dbt(warehouse: Warehouse, _dbt_processes: list[Dbt]) -> Dbt:
    """One dbt for the session, as its start costs more than most of its runs."""
    if not _dbt_processes:
        _dbt_processes.append(Dbt(warehouse))
    [dbt] = _dbt_processes
    dbt.warehouse = warehouse
    return dbt


@pytest.fixture
def store(servers: Endpoints) -> Iterator[ObjectStore]:
    with bucket(servers) as store:
        yield store


@contextmanager
def bucket(servers: Endpoints) -> Iterator[ObjectStore]:
    """Yield an empty bucket."""
    assert servers.s3_endpoint_url
    location = S3Location(
        servers.s3_endpoint_url, servers.aws_access_key_id, servers.aws_secret_access_key
    )
    with ObjectStore(location, f"test-{os.getpid()}-{next(_numbers)}") as store:
        store.ensure_bucket()
        yield store


@pytest.fixture
def bronze(store: ObjectStore, warehouse: Warehouse) -> BronzeStore:
    return BronzeStore(store, warehouse)


@dataclass
class World:
    """The definitions on real servers and an instance of Dagster that lasts for the test."""

    instance: dg.DagsterInstance
    warehouse: Warehouse
    store: ObjectStore
    bronze: BronzeStore

    def definitions(self, source: Source) -> dg.Definitions:
        return build_defs(
            {
                "batch": Batch(),
                "source": source,
                "bronze": self.bronze,
                "inbox": Inbox(self.store, self.bronze, self.warehouse),
                "curated": Curated(self.store, self.warehouse),
                "warehouse": self.warehouse,
                "dbt": dbt_resource(),
            }
        )

    def add(self, *tickers: str) -> None:
        self.instance.add_dynamic_partitions(str(TICKERS.name), list(tickers))

    def refresh(
        self, source: Source, tickers: Sequence[str], *, layers: Sequence[str] = ()
    ) -> dg.ExecuteInProcessResult:
        """Run the refresh job, or just its bronze and silver where gold is not what is looked at."""
        universe = self.instance.get_dynamic_partitions(str(TICKERS.name))
        run_config, tags = refresh_run(tickers, universe)
        definitions = self.definitions(source)
        keys = definitions.resolve_asset_graph().materializable_asset_keys
        return definitions.resolve_job_def(REFRESH).execute_in_process(
            instance=self.instance,
            run_config=run_config,
            tags=tags,
            raise_on_error=False,
            asset_selection=[key for key in keys if key.path[0] in layers] if layers else None,
        )

    def materialize(
        self,
        source: Source,
        *assets: str,
        first: str | None = None,
        last: str | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Materialize as the UI does: `assets`, or all with tickers, for a partition or a range."""
        definitions = self.definitions(source)
        graph = definitions.resolve_asset_graph()
        selection = [dg.AssetKey(asset.split("/")) for asset in assets] or [
            key for key in graph.materializable_asset_keys if graph.get(key).is_partitioned
        ]
        tags = {}
        if first and last:
            tags = {RANGE_START: first, RANGE_END: last}
        elif first:
            tags = {"dagster/partition": first}
        job = definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance, asset_selection=selection, tags=tags, raise_on_error=False
        )

    def query(self, sql: str) -> pl.DataFrame:
        with self.warehouse.connect() as connection:
            return pl.read_database(sql, connection)

    def objects(self) -> list[str]:
        return list(self.store.keys_after("bronze/", ""))

    def materialized(self, asset: str) -> set[str]:
        return self.instance.get_materialized_partitions(dg.AssetKey(asset.split("/")))


def materializations(instance: dg.DagsterInstance, run_id: str) -> list[dg.AssetMaterialization]:
    """Return what a run recorded, whether its steps yielded it or wrote it themselves."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    logged = (entry.dagster_event for entry in instance.all_logs(run_id, of_type=kind))
    return [event.step_materialization_data.materialization for event in logged if event]


@pytest.fixture
def world(warehouse: Warehouse, store: ObjectStore, bronze: BronzeStore) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(instance, warehouse, store, bronze)


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recorded payloads, which are no part of the project."""
    root = Path(__file__).resolve().parents[2]
    folder = root / os.environ.get("STOCKS_TEST_DATA", "../shared/data") / "alpha_vantage"
    if not folder.is_dir():
        pytest.skip(f"no recorded payloads in {folder}; set STOCKS_TEST_DATA to have them tested")
    return folder.resolve()
