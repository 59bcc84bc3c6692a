"""Dagster's storage with events in batches says what Dagster's own says."""

import dagster as dg
import psycopg
from dagster._core.events import (
    AssetCheckEvaluationPlanned,
    AssetMaterializationPlannedData,
    DagsterEvent,
    DagsterEventType,
    StepMaterializationData,
)
from dagster_postgres import PostgresEventLogStorage

from stocks_assets.adapters.warehouse import ensure_database
from stocks_assets.defs.storage import BatchingEventLog

ASSETS = [dg.AssetKey(["bronze", "splits"]), dg.AssetKey(["bronze", "dividends"])]
ROWS = "select run_id, dagster_event_type, step_key, asset_key, partition from event_logs order by 1, 2, 4, 5"


def entry(event):
    return dg.EventLogEntry(
        error_info=None,
        user_message="",
        level=10,
        run_id="a-run",
        timestamp=1_700_000_000.0,
        step_key=event.step_key,
        job_name="a_job",
        dagster_event=event,
    )


def planned():
    for asset in ASSETS:
        for ticker in ("A", "B", "C"):
            data = AssetMaterializationPlannedData(asset, partition=ticker)
            yield entry(DagsterEvent.build_asset_materialization_planned_event("a_job", "s", data))
    check = AssetCheckEvaluationPlanned(asset_key=ASSETS[0], check_name="is_right")
    yield entry(
        DagsterEvent(
            event_type_value=DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
            job_name="a_job",
            event_specific_data=check,
            step_key="s",
        )
    )


def made():
    for ticker in ("A", "B"):
        made_of = dg.AssetMaterialization(
            ASSETS[0], partition=ticker, tags={"dagster/data_version": f"of {ticker}"}
        )
        yield entry(
            DagsterEvent(
                event_type_value=DagsterEventType.ASSET_MATERIALIZATION.value,
                job_name="a_job",
                event_specific_data=StepMaterializationData(made_of),
                step_key="s",
            )
        )


def stored(servers, kind):
    """Store events in a database of their own and return all that is asked of them."""
    url = servers.database_url.rsplit("/", 1)[0] + f"/events_{kind.__name__.lower()}"
    ensure_database(url)
    log = kind(
        url.replace("postgresql://", "postgresql+psycopg2://"), should_autocreate_tables=True
    )
    log.store_event_batch(list(planned()))
    log.store_event_batch(list(made()))
    with psycopg.connect(url) as connection:
        rows = connection.execute(ROWS).fetchall()
    records = {r.asset_entry.asset_key: r.asset_entry.last_run_id for r in log.get_asset_records()}
    attempts = {
        asset: set(
            log.get_latest_asset_partition_materialization_attempts_without_materializations(asset)
        )
        for asset in ASSETS
    }
    checks = log.get_latest_asset_check_execution_by_key([dg.AssetCheckKey(ASSETS[0], "is_right")])
    versions = log.get_latest_tags_by_partition(
        ASSETS[0], DagsterEventType.ASSET_MATERIALIZATION, tag_keys=["dagster/data_version"]
    )
    newest = log.get_asset_records([ASSETS[0]])[0].asset_entry.last_materialization
    log.dispose()
    found = [check.status for check in checks.values()]
    return rows, records, attempts, found, versions, newest.asset_materialization.partition


def test_partitions_in_batches_are_stored_as_one_by_one(servers):
    ours, dagsters = stored(servers, BatchingEventLog), stored(servers, PostgresEventLogStorage)
    assert ours == dagsters
    assert len(ours[0]) == 9
    assert ours[2] == {ASSETS[0]: {"C"}, ASSETS[1]: {"A", "B", "C"}}
    assert ours[4] == {ticker: {"dagster/data_version": f"of {ticker}"} for ticker in ("A", "B")}
    assert ours[5] == "B"
