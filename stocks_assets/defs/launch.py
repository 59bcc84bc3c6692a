"""Who does the work of runs, and how many of them at once, as the settings say.

`dagster.yaml` names the classes below, whatever is chosen, so that one file serves the laptop and
containers. A run on a worker holds a lock in PostgreSQL while it lives: Celery still calls a task
started whose worker was killed.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.launcher import (
    CheckRunHealthResult,
    DefaultRunLauncher,
    LaunchRunContext,
    RunLauncher,
    WorkerStatus,
)
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.connections import find_connections
from stocks_assets.errors import SettingsError
from stocks_assets.settings import Launcher, Settings, read_settings

if TYPE_CHECKING:
    from dagster._config import UserConfigSchema

_MAX_RETRIES = "dagster/max_retries"
_RETRIES_STEPS = "dagster/retry_on_asset_or_op_failure"
_TASK_ID = "dagster-celery/task_id"
# A run whose worker was killed is done again, by another one.
_ATTEMPTS_AFTER_A_KILL = 3
# A worker takes a message when it has nothing to do, and is done with it once the run begins. One
# that a killed worker had for that moment is handed out again after so many seconds.
_SECONDS_UNTIL_HANDED_OUT_AGAIN = 60


class SettingsRunLauncher(RunLauncher, ConfigurableClass):
    """Stands in `dagster.yaml` for the launcher that STOCKS_LAUNCHER names."""

    @classmethod
    def config_type(cls) -> "UserConfigSchema":
        """Return that there is nothing to configure."""
        return {}

    @classmethod
    def from_config_value(  # type: ignore[override] # it is chosen here
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> RunLauncher:
        """Return the launcher.

        Raises:
            SettingsError: the launcher that is set cannot be had here.
        """
        del config_value
        settings = read_settings()
        if settings.launcher == "kubernetes":
            raise SettingsError(
                "STOCKS_LAUNCHER=kubernetes is for pods that Dagster's Helm chart starts, with a "
                "dagster.yaml of the chart's own: see docs/kubernetes.md"
            )
        if settings.launcher != "celery":
            return DefaultRunLauncher(inst_data)
        return _celery_launcher(settings, inst_data)


class SettingsRunQueue(QueuedRunCoordinator[Any]):
    """Lets as many runs be at work at once as STOCKS_CONCURRENT_RUNS says."""

    @classmethod
    def config_type(cls) -> "UserConfigSchema":
        """Return that there is nothing to configure."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> "SettingsRunQueue":
        """Return the queue."""
        del config_value
        return cls(
            max_concurrent_runs=read_settings().concurrent_runs,
            dequeue_interval_seconds=2,
            inst_data=inst_data,
        )


def executor(launcher: Launcher) -> dg.ExecutorDefinition:
    """Return what executes the steps of a run."""
    if launcher == "multiprocess":
        return dg.multiprocess_executor
    # Steps of a run share the process: a start costs more than most steps do.
    return dg.in_process_executor


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Return what makes a Celery app, for who launches runs and for workers alike.

    Raises:
        SettingsError: no broker is set.
    """
    broker = settings.celery_broker_url
    if broker is None:
        raise SettingsError(
            "a worker needs STOCKS_CELERY_BROKER_URL, the Redis server that the runs wait in"
        )
    return {
        "broker": broker.get_secret_value(),
        "backend": (settings.celery_backend_url or broker).get_secret_value(),
        "config_source": {
            "task_default_queue": "dagster",
            "task_default_priority": 5,
            "worker_prefetch_multiplier": 1,
            # A run that waits is to go to the first worker that is free.
            "worker_disable_prefetch": True,
            "broker_connection_retry_on_startup": True,
            # What a run says is kept by Dagster already.
            "worker_redirect_stdouts": False,
            "broker_transport_options": {
                "visibility_timeout": _SECONDS_UNTIL_HANDED_OUT_AGAIN,
                "max_retries": 3,
                "interval_start": 0,
                "interval_step": 0.2,
                "interval_max": 0.5,
            },
        },
    }


def held_by_worker(run_id: str) -> str:
    """Return the lock that the worker of a run holds while it lives."""
    return f"worker of run {run_id}"


def _celery_launcher(settings: Settings, inst_data: ConfigurableClassData) -> RunLauncher:
    try:
        from dagster_celery.launcher import CeleryRunLauncher  # noqa: PLC0415 # an extra
    except ImportError as error:
        raise SettingsError(
            f"STOCKS_LAUNCHER=celery needs the extra 'workers' to be installed: {error}"
        ) from error

    class WatchedCeleryRunLauncher(CeleryRunLauncher):
        """Hands runs to workers, and knows which of them live."""

        def launch_run(self, context: LaunchRunContext) -> None:
            self._instance.add_run_tags(
                context.dagster_run.run_id,
                {_MAX_RETRIES: str(_ATTEMPTS_AFTER_A_KILL), _RETRIES_STEPS: "false"},
            )
            super().launch_run(context)

        def terminate(self, run_id: str) -> bool:
            run = self._instance.get_run_by_id(run_id)
            if run is None or run.is_finished or _TASK_ID not in run.tags:
                return False
            # Who is interrupted without having been asked to end has failed.
            self._instance.report_run_canceling(run)
            return bool(super().terminate(run_id))

        def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
            if _TASK_ID not in run.tags:
                # It was started otherwise, such as by `stocks refresh`.
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            warehouse = Warehouse(find_connections(read_settings()).database_url)
            if warehouse.held([held_by_worker(run.run_id)]):
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its worker is gone")

    return WatchedCeleryRunLauncher(
        default_queue="dagster", inst_data=inst_data, **celery_settings(settings)
    )
