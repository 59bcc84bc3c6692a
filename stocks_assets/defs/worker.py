"""A worker: takes runs from the queue of a Redis server and does them, on any machine."""

import logging
import os
import signal
from typing import Any

from celery import Celery, Task
from celery.utils.nodenames import gethostname
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import unpack_value
from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_execute_job_task
from kombu.exceptions import OperationalError

from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.connections import find_connections
from stocks_assets.defs.launch import celery_settings, held_by_worker
from stocks_assets.errors import StackError
from stocks_assets.settings import Settings, read_settings

_log = logging.getLogger(__name__)
# What a run leaves behind in memory goes with its process.
_RUNS_PER_PROCESS = 20
_SECONDS_TO_ANSWER = 5


class RunTask(Task):  # type: ignore[misc] # Celery has no types
    """A run, which holds a lock while it is done: others see by it that its worker lives."""

    def __call__(self, execute_job_args_packed: Any) -> Any:  # noqa: ANN401 # as Celery hands it on
        """Do the run, unless another worker does it already.

        A run that loses its lock is interrupted: Dagster takes it for dead and starts it again.
        """
        run_id = unpack_value(execute_job_args_packed, as_type=ExecuteRunArgs).run_id
        warehouse = Warehouse(find_connections(read_settings()).database_url)
        on_end = signal.getsignal(signal.SIGTERM)
        try:
            with warehouse.lock_if_free(held_by_worker(run_id), on_loss=_interrupt) as is_free:
                if is_free:
                    return super().__call__(execute_job_args_packed)
            _log.warning("run %s is done by another worker", run_id)
            return None
        finally:
            # A run of Dagster's leaves it ignored, and the process could not be told to end.
            signal.signal(signal.SIGTERM, on_end)


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def make_worker(settings: Settings) -> Celery:
    """Return the Celery app of workers."""
    app: Celery = make_app(celery_settings(settings))  # type: ignore[no-untyped-call]
    create_execute_job_task(app, base=RunTask)  # type: ignore[arg-type] # it is handed on
    return app


def answers(settings: Settings) -> bool:
    """Tell whether a worker on this machine answers, at work or not.

    Raises:
        SettingsError: no broker is set.
        StackError: the queue cannot be reached.
    """
    try:
        replies = make_worker(settings).control.ping(timeout=_SECONDS_TO_ANSWER)
    except OperationalError as error:
        raise StackError(f"the queue of runs cannot be reached: {error}") from error
    return any(name.endswith(f"@{gethostname()}") for reply in replies for name in reply)


def run_worker(settings: Settings, *, concurrency: int, name: str | None) -> None:
    """Work until a signal ends it: SIGTERM when the runs at hand are done, SIGQUIT at once.

    Up to `concurrency` runs at once, each in a process of its own.
    """
    app = make_worker(settings)
    # The processes of a worker share the processors; those of Polars would take all of them each.
    threads = max(1, (os.cpu_count() or 1) // concurrency)
    os.environ.setdefault("POLARS_MAX_THREADS", str(threads))
    app.worker_main(
        [
            "worker",
            f"--hostname={name or f'worker-{os.getpid()}'}@%h",
            f"--concurrency={concurrency}",
            f"--max-tasks-per-child={_RUNS_PER_PROCESS}",
            "--loglevel=INFO",
            "--without-gossip",
            "--without-mingle",
        ]
    )
