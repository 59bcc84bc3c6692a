"""Dagster's daemon, with another sense of when to look after backfills and runs.

Dagster looks every thirty seconds and starts the next layer for whatever is there by then. A
backfill of three layers waits so four times, and a layer that takes longer has its followers
started in bits, a dozen runs and more. Here the daemon looks every few seconds, and goes on with a
backfill when the runs that it has started have ended: so a layer is followed by the next, for all
that succeeded.

Of runs that have not begun Dagster asks no launcher: one whose worker dies before waits for the
start timeout. Here a launcher that can tell is asked.

Started as `python -m` with the arguments of `dagster-daemon`.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._daemon import backfill, controller
from dagster._daemon.cli import main
from dagster._daemon.monitoring import run_monitoring

from stocks_assets.defs.jobs import UNFINISHED
from stocks_assets.defs.launch import WatchesStarts
from stocks_assets.errors import StackError

SECONDS_BETWEEN_LOOKS = 3
_BACKFILL_TAG = "dagster/backfill"

_go_on = backfill.execute_backfill_jobs
_look_after_start = run_monitoring.monitor_starting_run


def can_go_on(instance: dg.DagsterInstance, one: PartitionBackfill) -> bool:
    """Tell whether there is something to do: no run of the backfill waits or is at work.

    What a daemon that was killed had still to submit is submitted, under the ids reserved for it:
    one of these runs may be created and no more, and would never end.
    """
    if one.status != BulkActionStatus.REQUESTED or one.submitting_run_requests:
        return True
    unfinished = dg.RunsFilter(tags={_BACKFILL_TAG: one.backfill_id}, statuses=UNFINISHED)
    return not instance.get_runs(unfinished, limit=1)


def _go_on_with_those_that_can(
    workspace_process_context: Any,  # noqa: ANN401 # Dagster's own, and so are the others
    logger: Any,  # noqa: ANN401
    backfill_jobs: Sequence[PartitionBackfill],
    **others: Any,  # noqa: ANN401
) -> Iterator[Any]:
    instance = workspace_process_context.instance
    able = [one for one in backfill_jobs if can_go_on(instance, one)]
    yield from _go_on(workspace_process_context, logger, able, **others)


def end_if_lost(
    instance: dg.DagsterInstance, run_record: dg.RunRecord, logger: logging.Logger
) -> None:
    """Fail a run that has not begun and never will; Dagster looks after the others."""
    launcher, run = instance.run_launcher, run_record.dagster_run
    if isinstance(launcher, WatchesStarts) and launcher.is_lost(run):
        now = instance.get_run_by_id(run.run_id)
        if now is not None and now.status == dg.DagsterRunStatus.STARTING:
            instance.report_run_failed(now, "Its worker is gone, before the run had begun.")
        return
    _look_after_start(instance, run_record, logger)


def take_over() -> None:
    """Put the replacements into Dagster's daemon.

    Raises:
        StackError: this version of Dagster would not use them.
    """
    users = (
        (backfill.execute_backfill_iteration_loop, "DEFAULT_DAEMON_INTERVAL_SECONDS"),
        (backfill.execute_backfill_iteration, "execute_backfill_jobs"),
        (run_monitoring.execute_run_monitoring_iteration, "monitor_starting_run"),
    )
    for user, name in users:
        if name not in user.__code__.co_names:
            raise StackError(
                f"Dagster's {user.__name__} uses {name} no more, so runs would go wrong: "
                "install the locked requirements"
            )
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = SECONDS_BETWEEN_LOOKS
    backfill.execute_backfill_jobs = _go_on_with_those_that_can  # type: ignore[assignment]
    run_monitoring.monitor_starting_run = end_if_lost


if __name__ == "__main__":
    take_over()
    main()
