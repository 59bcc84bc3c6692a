from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from stocks_assets.defs.daemon import can_go_on


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def backfill(name, status=BulkActionStatus.REQUESTED):
    return PartitionBackfill(
        backfill_id=name,
        status=status,
        from_failure=False,
        tags={},
        backfill_timestamp=datetime(2026, 11, 20, tzinfo=UTC).timestamp(),
    )


def start(instance, name):
    run = dg.DagsterRun(
        job_name="a", tags={"dagster/backfill": name}, status=dg.DagsterRunStatus.STARTED
    )
    return instance.add_run(run)


def test_a_backfill_goes_on_when_its_runs_have_ended_and_not_before(instance):
    asked = backfill("one")
    start(instance, "another")
    assert can_go_on(instance, asked)
    first, second = start(instance, "one"), start(instance, "one")
    assert not can_go_on(instance, asked)
    instance.report_run_failed(first)
    assert not can_go_on(instance, asked)
    instance.report_run_canceled(second)
    assert can_go_on(instance, asked)


def test_who_cancels_a_backfill_does_not_wait_for_its_runs(instance):
    start(instance, "one")
    assert can_go_on(instance, backfill("one", BulkActionStatus.CANCELING))
