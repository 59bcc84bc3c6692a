"""The same graph without its UI: what the command line asks of Dagster."""

import logging
import os
import socket
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import psutil
from dagster_shared.error import SerializableErrorInfo

from stocks_assets.adapters.universe_file import UniverseFile
from stocks_assets.adapters.warehouse import Failure, Warehouse
from stocks_assets.definitions import defs
from stocks_assets.defs.batch import DEFER_ASSET_EVENTS
from stocks_assets.defs.checks import (
    RULES_CHECK,
    every_ticker_is_refreshed,
    sessions_are_complete,
)
from stocks_assets.defs.freshness import CHECK as FRESHNESS_CHECK
from stocks_assets.defs.jobs import PROGRESS_LOGGER, REFRESH, refresh_run, refresh_runs
from stocks_assets.defs.launch import PROCESS_TAG
from stocks_assets.defs.rebuild import REBUILD
from stocks_assets.defs.universe import Applied, Roster, universe
from stocks_assets.domain.datasets import LISTINGS
from stocks_assets.domain.planner import Priority

_GOLD = ("staging", "gold")
_CALENDAR = dg.AssetKey(["silver", "exchange_calendar"])
_LISTINGS = tuple(dg.AssetKey([layer, LISTINGS.name]) for layer in ("bronze", "silver"))
_CHECKS = (
    every_ticker_is_refreshed.check_key.name,
    sessions_are_complete.check_key.name,
    RULES_CHECK,
    FRESHNESS_CHECK,
)

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RefreshReport:
    """What came of a refresh: tickers that failed, and what broke the run as a whole, if it did."""

    run_id: str
    failures: list[Failure]
    error: str | None


class Headless:
    """Dagster's instance and the definitions, in this process."""

    def __init__(
        self, instance: dg.DagsterInstance, warehouse: Warehouse, logs: Path, file: UniverseFile
    ) -> None:
        self._instance = instance
        self._warehouse = warehouse
        self._logs = logs
        self._roster = Roster(warehouse, file)

    def tickers(self) -> list[str]:
        """Return the universe, in the order in which the tickers came."""
        return universe(self._instance)

    def add_tickers(self, tickers: Sequence[str], priority: Priority | None = None) -> list[str]:
        """Add `tickers` to the universe and return those that are new; a priority is for all."""
        return self._roster.add(self._instance, tickers, priority)

    def remove_tickers(self, tickers: Sequence[str]) -> tuple[list[str], list[str]]:
        """Take `tickers` out of the universe, keep their data, and return those removed and held.

        Held is what a run or a backfill that is not finished would fail without.
        """
        return self._roster.remove(self._instance, tickers)

    def apply_universe_file(self) -> Applied:
        """Make the universe say what its file says.

        Raises:
            SettingsError: the file cannot be read.
        """
        return self._roster.apply_file(self._instance)

    def let_go_of_universe_file(self) -> int:
        """Keep what a file named that is gone, as if added by hand; return how many tickers."""
        return self._roster.let_go()

    def notes_on(self, tickers: Sequence[str], *, removed: bool) -> list[str]:
        """Say where the universe's file will undo what was just done to `tickers` by hand."""
        return self._roster.notes_on(tickers, removed=removed)

    def fail_dead_runs(self, *, unmarked_too: bool) -> None:
        """Mark runs as failed whose process is gone: they would hold a place in the queue for ever.

        Runs of this class carry a mark of their process; the others are left alone unless
        `unmarked_too` says that nothing can be running them.
        """
        unfinished = dg.RunsFilter(
            statuses=[
                dg.DagsterRunStatus.STARTING,
                dg.DagsterRunStatus.STARTED,
                dg.DagsterRunStatus.CANCELING,
            ]
        )
        for run in self._instance.get_runs(filters=unfinished):
            mark = run.tags.get(PROCESS_TAG)
            if (mark is None and unmarked_too) or (mark is not None and _is_gone(mark)):
                self._instance.report_run_failed(run, "The process of this run is gone.")

    def refresh(self, tickers: Sequence[str], progress: Progress, *, at_most: int) -> RefreshReport:
        """Run the refresh job for `tickers`, which are in the universe, in this process.

        More than `at_most` of them take more runs, one after the other; the first that breaks as a
        whole is the last.
        """
        reports: list[RefreshReport] = []
        runs = refresh_runs(str(uuid4()), tickers, self.tickers(), at_most=at_most)
        for number, (run_config, tags) in enumerate(runs, start=1):
            if len(runs) > 1:
                progress(f"run {number} of {len(runs)}")
            reports.append(self._run(run_config, tags, None, progress))
            if reports[-1].error is not None:
                break
        return replace(reports[-1], failures=[f for one in reports for f in one.failures])

    def rebuild(
        self, tickers: Sequence[str], tables: Sequence[str], progress: Progress
    ) -> RefreshReport:
        """Build silver anew from bronze, in this process: of no tickers or tables, all."""
        config = {"tickers": list(tickers), "tables": list(tables)}
        run_config = {"ops": {"rebuild_tables": {"config": config}}}
        return self._run(run_config, {}, None, progress, job=REBUILD)

    def rebuild_gold(self, progress: Progress) -> RefreshReport:
        """Build all of gold anew from silver and the exchange's calendar, in this process."""
        universe = self.tickers()
        run_config, tags = refresh_run(universe, universe)
        run_config["ops"] = {"gold": {"config": {"full_refresh": True}}}
        job = defs().resolve_job_def(REFRESH)
        keys = [
            key
            for key in job.asset_layer.executable_asset_keys
            if key.path[0] in _GOLD or key == _CALENDAR
        ]
        return self._run(run_config, tags, keys, progress)

    def load_listings(self, progress: Progress) -> RefreshReport:
        """Run that part of the refresh job that loads the list of securities, in this process."""
        return self._run({}, {DEFER_ASSET_EVENTS: "true"}, _LISTINGS, progress)

    def _run(
        self,
        run_config: dict[str, Any],
        tags: dict[str, str],
        assets: Sequence[dg.AssetKey] | None,
        progress: Progress,
        *,
        job: str = REFRESH,
    ) -> RefreshReport:
        tags[PROCESS_TAG] = _own_mark()
        run_config["loggers"] = {PROGRESS_LOGGER: {}}
        # dbt's own lines are kept beside the logs of the servers; the terminal gets the progress.
        log = self._logs / "dbt.log"
        with _progress_log(progress), log.open("a") as lines, redirect_stdout(lines):
            result = (
                defs()
                .resolve_job_def(job)
                .execute_in_process(
                    instance=self._instance,
                    run_config=run_config,
                    tags=tags,
                    asset_selection=assets,
                    raise_on_error=False,
                )
            )
        failures = self._warehouse.failures(result.run_id)
        errors = [
            _root_cause(event.step_failure_data.error)
            for event in result.filter_events(lambda event: event.is_step_failure)
            if event.step_failure_data.error is not None and not _is_check(str(event.step_key))
        ]
        if failures and job == REBUILD:
            errors = []  # the step fails for them
        if not result.success and not errors and not failures:
            # Such as a resource that cannot be opened: no step was even tried.
            errors = [
                _root_cause(event.job_failure_data.error)
                for event in result.filter_events(lambda event: event.is_job_failure)
                if event.job_failure_data.error is not None
            ] or ["it failed before its first step"]
        return RefreshReport(result.run_id, failures, "; ".join(errors) or None)


@contextmanager
def open_headless(
    dagster_home: Path, warehouse: Warehouse, logs: Path, file: UniverseFile
) -> Iterator[Headless]:
    """Open the instance that is configured in `dagster_home`; `logs` takes what dbt says."""
    os.environ["DAGSTER_HOME"] = str(dagster_home)
    with dg.DagsterInstance.get() as instance:
        yield Headless(instance, warehouse, logs, file)


def _root_cause(error: SerializableErrorInfo) -> str:
    """Return what went wrong at the bottom of a chain of errors, as one line."""
    while error.cause is not None:
        error = error.cause
    if error.cls_name == dg.DagsterExecutionInterruptedError.__name__:
        return "it was interrupted; what it finished stays, and the next refresh does the rest"
    return textwrap.shorten(error.message, 600, placeholder=" ...")


def _is_check(step: str) -> bool:
    return step.endswith(_CHECKS)


def _own_mark() -> str:
    process = psutil.Process()
    return f"{socket.gethostname()} {process.pid} {process.create_time()}"


def _is_gone(mark: str) -> bool:
    """Tell whether the process with this mark has ended; one of another machine may not have."""
    host, pid, created = mark.rsplit(" ", 2)
    if host != socket.gethostname():
        return False
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(created)) > 1
    except psutil.NoSuchProcess:
        return True


class _StepLog(logging.Handler):
    """Turns Dagster's log of a run into lines for people: steps that end, warnings and errors."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.DEBUG)
        self._progress = progress
        self._materialized: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Say what `record` is worth saying."""
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        event: dg.DagsterEvent | None = meta.get("dagster_event")
        if event is None:
            if record.levelno >= logging.WARNING or "not available" in record.getMessage():
                self._progress(str(meta.get("orig_message", record.getMessage())))
            return
        step = str(event.step_key).replace("__", "/")
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            self._materialized[step] += 1
        elif event.event_type == dg.DagsterEventType.STEP_SUCCESS and not _is_check(step):
            count = self._materialized[step]
            seconds = event.step_success_data.duration_ms / 1000
            done = f"{count} materialized" if count else "nothing new"
            if "/" not in step and step != "gold":
                done = "done"
            self._progress(f"{step:<26} {done} in {seconds:.1f} s")


@contextmanager
def _progress_log(progress: Progress) -> Iterator[None]:
    handler = _StepLog(progress)
    logger = logging.getLogger(PROGRESS_LOGGER)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
