"""Who does the work of runs, and how many of them at once, as the settings say.

`dagster.yaml` names the classes below, whatever is chosen, so that one file serves the laptop and
containers. A run holds a lock in PostgreSQL while it lives, and one on a worker another: Celery
still calls a task started whose worker was killed. Dagster's daemon asks here for signs of life,
fails a run without any, and starts it again.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import (
    CheckRunHealthResult,
    DefaultRunLauncher,
    LaunchRunContext,
    RunLauncher,
    WorkerStatus,
)
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import ConfigurableClass, ConfigurableClassData, deserialize_value

from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.connections import find_connections
from stocks_assets.errors import SettingsError
from stocks_assets.settings import Launcher, Settings, read_settings

if TYPE_CHECKING:
    from dagster._config import UserConfigSchema

_MAX_RETRIES = "dagster/max_retries"
_RETRIES_STEPS = "dagster/retry_on_asset_or_op_failure"
_TASK_ID = "dagster-celery/task_id"
# Set on runs that a code server has started, and on those of commands such as `stocks refresh`.
_CODE_SERVER = GRPC_INFO_TAG
PROCESS_TAG = "stocks/process"
# A run begins, and ends, without its lock.
_SECONDS_WITHOUT_A_SIGN = 60
# A worker says that it has a run, and locks it then.
_SECONDS_UNTIL_LOCKED = 10
_logger = logging.getLogger(__name__)
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
            return WatchedRunLauncher(inst_data)
        return _celery_launcher(settings, inst_data)


class SettingsRunQueue(QueuedRunCoordinator[Any]):
    """Lets as many runs be at work at once as STOCKS_RUNS_AT_ONCE says."""

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
            max_concurrent_runs=read_settings().runs_at_once,
            dequeue_interval_seconds=1,
            inst_data=inst_data,
        )


class Watch:
    """Tells of runs whether their processes live, by the locks that they hold in PostgreSQL.

    A run without a sign of life is gone when it has had none for so many `seconds`.
    """

    def __init__(
        self,
        warehouse: Callable[[], Warehouse] | None = None,
        clock: Callable[[], float] = time.monotonic,
        seconds: float = _SECONDS_WITHOUT_A_SIGN,
    ) -> None:
        self._warehouse = warehouse or _warehouse
        self._clock = clock
        self._seconds = seconds
        self._missed_since: dict[str, float] = {}

    def look_after(
        self, run: dg.DagsterRun, lives_otherwise: Callable[[], bool] = lambda: False
    ) -> CheckRunHealthResult:
        """Return whether the process of `run` lives; another sign of it may be in its place."""
        if run.run_id in self._warehouse().living([run.run_id]) or lives_otherwise():
            self._missed_since.pop(run.run_id, None)
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        now = self._clock()
        if now - self._missed_since.setdefault(run.run_id, now) < self._seconds:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        del self._missed_since[run.run_id]
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its process is gone")


class WatchesStarts:
    """A launcher that knows of runs which have not begun whether they ever will."""

    def is_lost(self, run: dg.DagsterRun) -> bool:
        """Tell whether what took `run`, to begin it, is gone."""
        raise NotImplementedError


class WatchedRunLauncher(DefaultRunLauncher):
    """Has the code server start a process a run, and knows which of them live."""

    def __init__(
        self, inst_data: ConfigurableClassData | None = None, watch: Watch | None = None
    ) -> None:
        super().__init__(inst_data)
        self._watch = watch or Watch()

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Tell that it does."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether the process of `run` lives; who started it otherwise is not known."""
        if not {_CODE_SERVER, PROCESS_TAG} & run.tags.keys():
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return self._watch.look_after(run, lambda: self._may_be_at_work(run))

    def _may_be_at_work(self, run: dg.DagsterRun) -> bool:
        """Tell whether the code server has the run, or does not answer."""
        if _CODE_SERVER not in run.tags:
            return False
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:
            return False
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id))
        except DagsterUserCodeUnreachableError:
            _logger.warning("the code server does not say whether run %s lives", run.run_id)
            return True
        return deserialize_value(answer, CanCancelExecutionResult).can_cancel


def _warehouse() -> Warehouse:
    return Warehouse(find_connections(read_settings()).database_url)


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
                # Look at each turn, every ten seconds, and not at each tenth.
                "unacked_restore_throttle": 1,
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
        from celery.states import PENDING  # noqa: PLC0415 # an extra
        from dagster_celery.launcher import CeleryRunLauncher  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError(
            f"STOCKS_LAUNCHER=celery needs the extra 'workers' to be installed: {error}"
        ) from error

    watch, watch_of_starts = Watch(), Watch(seconds=_SECONDS_UNTIL_LOCKED)

    def is_held(run: dg.DagsterRun) -> bool:
        return bool(_warehouse().held([held_by_worker(run.run_id)]))

    class WatchedCeleryRunLauncher(CeleryRunLauncher, WatchesStarts):
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
                # A command has it, or a code server had it before there were workers.
                if {_CODE_SERVER, PROCESS_TAG} & run.tags.keys():
                    return watch.look_after(run)
                # It was started otherwise.
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            if is_held(run):
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its worker is gone")

        def is_lost(self, run: dg.DagsterRun) -> bool:
            # Of one that waits in the queue, Celery knows nothing yet.
            task_id = run.tags.get(_TASK_ID)
            if task_id is None or self.celery.AsyncResult(task_id).state == PENDING:
                return False
            found = watch_of_starts.look_after(run, lambda: is_held(run))
            return found.status == WorkerStatus.NOT_FOUND

    return WatchedCeleryRunLauncher(
        default_queue="dagster", inst_data=inst_data, **celery_settings(settings)
    )
