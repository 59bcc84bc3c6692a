"""Dagster's own storage in PostgreSQL, for many partitions.

dagster-postgres opens a connection for each statement, which costs more than the statement; the
pool it has for its web server serves every process as well. And of the events that say which
partitions a run is going to make it stores one after the other, in two transactions each: at 500
tickers a minute of a backfill. Here they are stored in batches, as it does with those that say
which partitions are made; and of either kind the statement is made once, not anew for each batch.

Its columns have no time zone: written in another one than UTC, they are hours off when Dagster
reads or compares them.

Dagster keeps each event for ever, or forgets a run with all that it was the last to make. Here the
old events go that nothing shown of an asset rests on.
"""

import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self

import dagster as dg
from dagster._core.events import ASSET_CHECK_EVENTS
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy import event as listeners
from sqlalchemy import text

# Each process that opens the instance learns here what ranges of tickers stand for.
import stocks_assets.defs.partitions  # noqa: F401

# Known and meant: the handler that writes `logs/runs.log`, see `defs/logs.py`.
warnings.filterwarnings("ignore", "Handling yaml-defined logging", dg.BetaWarning)


_OF_PARTITIONS = (
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
)

# So many events are looked at in one transaction.
_LOOKED_AT = 20_000
_LAST_ID = 2**63 - 1

_NEXT_WINDOW = text("select id from event_logs where id >= :low order by id offset :count limit 1")
# An asset without partitions has events whose partition is null, which no index finds by `=`.
_PRUNE = text(
    """
    with old as materialized (
        select id, run_id, asset_key, partition, dagster_event_type as kind,
            (
                select value from asset_event_tags
                where event_id = event_logs.id and key = 'dagster/data_version' limit 1
            ) as version
        from event_logs where id >= :low and id < :high and timestamp < :before
    ), judged as (
        select old.id,
            case when old.asset_key is null then not exists (
                select from runs
                where runs.run_id = old.run_id and not runs.status = any(:finished)
            )
            else newest.id > old.id and (
                old.version is null
                or old.version is distinct from (
                    select value from asset_event_tags
                    where event_id = newest.id and key = 'dagster/data_version' limit 1
                )
                or old.version = (
                    select value from asset_event_tags
                    where event_id = earlier.id and key = 'dagster/data_version' limit 1
                )
            ) end as is_needless
        from old
        left join lateral (
            (
                select id from event_logs as other
                where asset_key = old.asset_key and dagster_event_type = old.kind
                    and partition = old.partition
                order by id desc limit 1
            )
            union all
            (
                select id from event_logs as other
                where old.partition is null and asset_key = old.asset_key
                    and dagster_event_type = old.kind and partition is null
                order by id desc limit 1
            )
        ) as newest on true
        left join lateral (
            (
                select id from event_logs as other
                where asset_key = old.asset_key and dagster_event_type = old.kind
                    and partition = old.partition and id < old.id
                order by id desc limit 1
            )
            union all
            (
                select id from event_logs as other
                where old.partition is null and asset_key = old.asset_key
                    and dagster_event_type = old.kind and partition is null and id < old.id
                order by id desc limit 1
            )
        ) as earlier on old.version is not null
    ), gone as (
        delete from event_logs using judged where event_logs.id = judged.id and is_needless
        returning event_logs.id
    ), untagged as (
        delete from asset_event_tags using gone where event_id = gone.id
    )
    select (select count(*) from old) as old, (select count(*) from gone) as gone
    """
)
# The last of each check is what the UI shows of it.
_PRUNE_CHECKS = text(
    """
    delete from asset_check_executions as old
    where create_timestamp < :before and exists (
        select from asset_check_executions as newer
        where newer.asset_key = old.asset_key and newer.check_name = old.check_name
            and newer.partition is not distinct from old.partition and newer.id > old.id
            and newer.execution_status <> 'PLANNED'
    )
    """
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


def prune(log: PostgresEventLogStorage, before: datetime) -> int:
    """Remove the events from before that time, but for what the state of an asset rests on.

    Of each partition, or asset that has none, the last event of each kind stays, whatever its age:
    by it Dagster knows when and by which run it was made, or failed. So does the first one with the
    data version that it still has, by which what is made of it is found up to date. Events that are
    of no asset are the log of a run; they stay while the run is not over. Of a check the last
    result stays.

    Returns how many events are gone. What was removed before an error, or the end of the process,
    stays so; the next time goes on.
    """
    finished = [status.value for status in FINISHED_STATUSES]
    limits = {"before": before.astimezone(UTC).replace(tzinfo=None), "finished": finished}
    removed = 0
    low: int | None = 0
    while low is not None:
        with log.index_transaction() as connection:
            window = {"low": low, "count": _LOOKED_AT}
            following = connection.execute(_NEXT_WINDOW, window).scalar()
            bounds = {"low": low, "high": _LAST_ID if following is None else following}
            found = connection.execute(_PRUNE, {**bounds, **limits}).one()
        removed += found.gone
        # Ids rise with time: what stays of old events is little, and comes first.
        low = following if found.old else None
    with log.index_transaction() as connection:
        connection.execute(_PRUNE_CHECKS, {"before": limits["before"]})
    return removed


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
