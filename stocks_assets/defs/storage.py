"""Dagster's own storage in PostgreSQL, for many partitions.

dagster-postgres opens a connection for each statement, which costs more than the statement; the
pool it has for its web server serves every process as well. And of the events that say which
partitions a run is going to make it stores one after the other, in two transactions each: at 500
tickers a minute of a backfill. Here they are stored in batches, as it does with those that say
which partitions are made; and of either kind the statement is made once, not anew for each batch.

Its columns have no time zone: written in another one than UTC, they are hours off when Dagster
reads or compares them.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import dagster as dg
from dagster._core.events import ASSET_CHECK_EVENTS
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy import event as listeners

# Each process that opens the instance learns here what ranges of tickers stand for.
import stocks_assets.defs.partitions  # noqa: F401

# Known and meant: the handler that writes `logs/runs.log`, see `defs/logs.py`.
warnings.filterwarnings("ignore", "Handling yaml-defined logging", dg.BetaWarning)


_OF_PARTITIONS = (
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
)


class BatchingEventLog(PostgresEventLogStorage):
    """`PostgresEventLogStorage` that stores the events of partitions in batches."""

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store `events`: one statement for those that say which partitions are, or will be, made.

        What else there is goes its usual way.
        """
        checks = [event for event in events if event.dagster_event_type in ASSET_CHECK_EVENTS]
        others = [event for event in events if event.dagster_event_type not in ASSET_CHECK_EVENTS]
        if not others or not all(event.dagster_event_type in _OF_PARTITIONS for event in others):
            super().store_event_batch(events)
            return
        for event in checks:
            self.store_event(event)
        statement = SqlEventLogStorageTable.insert().returning(
            SqlEventLogStorageTable.c.id, sort_by_parameter_order=True
        )
        with self._connect() as connection:
            rows = [self._event_to_row(event) for event in others]
            ids: list[int] = list(connection.execute(statement, rows).scalars())
        # Of each asset, the table of assets keeps the last.
        last = {
            event.get_dagster_event().asset_key: (event, number)
            for event, number in zip(others, ids, strict=True)
        }
        with self.index_transaction() as connection:
            self._store_asset_event_tags(connection, others, ids)
            for event, number in last.values():
                self._store_asset_event(connection, event, number)


def _use_utc(connection: Any, _: object) -> None:  # noqa: ANN401 # psycopg2's own
    """Have times stored as Dagster takes them, whatever the server's time zone is."""
    with connection, connection.cursor() as cursor:
        cursor.execute("set time zone 'UTC'")


class PooledPostgresStorage(DagsterPostgresStorage):
    """`DagsterPostgresStorage` that keeps its connections."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Build the storage from dagster.yaml."""
        url = pg_url_from_config(config_value)
        storage = cls(url, should_autocreate_tables=True, inst_data=inst_data)
        storage._event_log_storage = BatchingEventLog(url, should_autocreate_tables=False)
        for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
            part.optimize_for_webserver(
                statement_timeout=60_000, pool_recycle=3600, max_overflow=20
            )
            engine = part._engine  # type: ignore[union-attr]  # noqa: SLF001 # of all three
            listeners.listen(engine, "connect", _use_utc)
        return storage
