"""The world as the definitions see it; a test brings another one."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import dagster as dg

from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.curated import Curated
from stocks_assets.adapters.inbox import Inbox
from stocks_assets.adapters.object_store import ObjectStore
from stocks_assets.adapters.sources.build import build_source
from stocks_assets.adapters.sources.port import Source
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.connections import find_connections
from stocks_assets.defs.batch import Batch
from stocks_assets.defs.gold import dbt_resource
from stocks_assets.settings import read_settings


@dg.resource(description="Where market data comes from: STOCKS_SOURCE.")
def source(_: dg.InitResourceContext) -> Iterator[Source]:
    """Open the source that the settings name."""
    settings = read_settings()
    counted_in = Warehouse(find_connections(settings).database_url)
    opened = build_source(settings, counted_in)
    try:
        yield opened
    finally:
        opened.close()


@dg.resource(description="The PostgreSQL database with silver and gold: STOCKS_DATABASE_URL.")
def warehouse(context: dg.InitResourceContext) -> Iterator[Warehouse]:
    """Open the warehouse that the settings name; it tells others that the run is alive."""
    connections = find_connections(read_settings())
    opened = Warehouse(connections.database_url, connections.models_url)
    with opened.alive(context.run.run_id) if context.run else nullcontext():
        yield opened


@dg.resource(description="The bucket with bronze objects: STOCKS_S3_ENDPOINT_URL, STOCKS_BUCKET.")
def bronze(_: dg.InitResourceContext) -> Iterator[BronzeStore]:
    """Open the bucket that the settings name."""
    settings = read_settings()
    connections = find_connections(settings)
    with ObjectStore(connections.s3, settings.bucket) as store:
        counted_in = Warehouse(connections.database_url)
        yield BronzeStore(store, counted_in, late_days=settings.late_days)


@dg.resource(description="The inbox in the bucket, for files of people's own: STOCKS_INBOX_MAX_MB.")
def inbox(_: dg.InitResourceContext) -> Iterator[Inbox]:
    """Open the inbox of the bucket that the settings name."""
    settings = read_settings()
    connections = find_connections(settings)
    counted_in = Warehouse(connections.database_url)
    with ObjectStore(connections.s3, settings.bucket) as store:
        limit = settings.inbox_max_mb * 10**6
        yield Inbox(store, BronzeStore(store, counted_in), counted_in, max_bytes=limit)


@dg.resource(description="The bucket that gold is exported to: STOCKS_CURATED_BUCKET.")
def curated(_: dg.InitResourceContext) -> Iterator[Curated]:
    """Open the bucket for exports that the settings name."""
    settings = read_settings()
    connections = find_connections(settings)
    with ObjectStore(connections.s3, settings.curated_bucket) as store:
        yield Curated(store, Warehouse(connections.database_url))


def production() -> Mapping[str, Any]:
    """Return the resources that the settings describe; nothing is read or opened before a run."""
    return {
        "batch": Batch(),
        "source": source,
        "bronze": bronze,
        "inbox": inbox,
        "curated": curated,
        "warehouse": warehouse,
        "dbt": dbt_resource(),
    }
