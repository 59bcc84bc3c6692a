import logging
from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._daemon import backfill as dagsters
from dagster._daemon import controller
from dagster._daemon.monitoring import run_monitoring

from stocks_assets.defs import daemon
from stocks_assets.defs.daemon import can_go_on, take_over
from stocks_assets.errors import StackError


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


def test_a_run_that_a_killed_daemon_left_to_submit_does_not_hold_its_backfill_up(instance):
    request = dg.RunRequest(asset_selection=[dg.AssetKey("one")])
    run = dg.DagsterRun(
        job_name="a", tags={"dagster/backfill": "one"}, status=dg.DagsterRunStatus.NOT_STARTED
    )
    instance.add_run(run)
    asked = backfill("one").with_submitting_run_requests([request], [run.run_id])
    assert can_go_on(instance, asked)
    assert not can_go_on(instance, asked.with_submitting_run_requests([], []))


def test_who_cancels_a_backfill_does_not_wait_for_its_runs(instance):
    start(instance, "one")
    assert can_go_on(instance, backfill("one", BulkActionStatus.CANCELING))


@pytest.fixture
def original(monkeypatch):
    monkeypatch.setattr(controller, "DEFAULT_DAEMON_INTERVAL_SECONDS", 30)
    monkeypatch.setattr(dagsters, "execute_backfill_jobs", daemon._go_on)
    monkeypatch.setattr(run_monitoring, "monitor_starting_run", daemon._look_after_start)
    return monkeypatch


class Context:
    """As much of a workspace as a look after backfills takes."""

    def __init__(self, instance):
        self.instance = instance


def test_dagsters_own_loop_looks_so_often_and_leaves_a_backfill_at_work_alone(instance, original):
    take_over()
    looked, pauses = [], []

    def go_on(context, logger, jobs, **others):
        looked.append([job.backfill_id for job in jobs])
        yield None

    class Shutdown:
        def wait(self, seconds):
            pauses.append(seconds)
            return False

    original.setattr(daemon, "_go_on", go_on)
    for name in ("busy", "free"):
        instance.add_backfill(backfill(name))
    run = start(instance, "busy")
    logger = logging.getLogger(__name__)
    loop = dagsters.execute_backfill_iteration_loop(Context(instance), logger, Shutdown())
    while not pauses:
        next(loop)
    instance.report_run_failed(run)
    while len(pauses) < 2:
        next(loop)
    assert [sorted(names) for names in looked] == [["free"], ["busy", "free"]]
    assert max(pauses) <= daemon.SECONDS_BETWEEN_LOOKS


def test_a_dagster_that_would_not_use_the_replacements_is_refused(original):
    def execute_backfill_iteration():
        pass

    original.setattr(dagsters, "execute_backfill_iteration", execute_backfill_iteration)
    with pytest.raises(StackError, match="execute_backfill_jobs no more"):
        take_over()
