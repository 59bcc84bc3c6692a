"""Dagster's own storage in PostgreSQL, with connections that are kept.

dagster-postgres opens a connection for each statement, which costs more than the statement; the
pool it has for its web server serves every process as well.
"""

from collections.abc import Mapping
from typing import Any, Self

from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import pg_url_from_config

# Each process that opens the instance learns here what ranges of tickers stand for.
import stocks_assets.defs.partitions  # noqa: F401


class PooledPostgresStorage(DagsterPostgresStorage):
    """`DagsterPostgresStorage` that keeps its connections."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Build the storage from dagster.yaml."""
        storage = cls(
            pg_url_from_config(config_value), should_autocreate_tables=True, inst_data=inst_data
        )
        for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
            part.optimize_for_webserver(
                statement_timeout=60_000, pool_recycle=3600, max_overflow=20
            )
        return storage
