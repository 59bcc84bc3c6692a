"""Jobs and the schedule."""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from stocks_assets.defs.batch import DEFER_ASSET_EVENTS
from stocks_assets.defs.partitions import INBOX_KEY, RANGE_END, RANGE_START, tickers_of_run
from stocks_assets.defs.universe import Roster, universe
from stocks_assets.domain.batches import split
from stocks_assets.domain.calendar import is_session
from stocks_assets.errors import SettingsError
from stocks_assets.settings import read_settings

REFRESH = "refresh"
LOAD = "load"
EXPORT = "export"
ACCESS = "access"
CATCH_UP = "catch_up"
PROGRESS_LOGGER = "progress"
NOTES_TAG = "stocks/universe"
# What was asked for at once, and of how many runs it is made: it fails and works as one.
BATCH = "stocks/batch"
BATCH_RUNS = "stocks/batch_runs"
_SCHEDULE = "dagster/schedule_name"
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

# Executed again, a run passes over what is done: it is simpler to begin at its beginning.
_TAGS = {DEFER_ASSET_EVENTS: "true", "dagster/retry_strategy": "ALL_STEPS"}

refresh_job = dg.define_asset_job(
    REFRESH,
    selection=dg.AssetSelection.all() - dg.AssetSelection.groups(ACCESS),
    description="Bronze to gold for the tickers in the config of the resource 'batch', in one run. "
    "Each ticker is recorded for itself; one that fails costs the others nothing.",
    tags=_TAGS,
)


load_job = dg.define_asset_job(
    LOAD,
    selection=dg.AssetSelection.assets(INBOX_KEY)
    | dg.AssetSelection.groups("silver", "staging", "gold"),
    description="Takes up files from the inbox, and brings silver and gold up to date with what is "
    "in bronze, without asking the vendor for anything.",
    tags=_TAGS,
)


export_job = dg.define_asset_job(
    EXPORT,
    selection=dg.AssetSelection.groups(ACCESS),
    description="Writes gold as Parquet into the bucket for it: what has changed of the tickers in "
    "the config of the resource 'batch', and of the tables across tickers.",
    tags=_TAGS,
)


def refresh_run(
    tickers: Sequence[str], partitions: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the run config and the tags of a refresh of `tickers`.

    Dagster asks a run that goes from one partitioned asset to the next for its partitions, so the
    tags span all `partitions`; the config says which are meant.
    """
    run_config = {"resources": {"batch": {"config": {"tickers": list(tickers)}}}}
    tags = {DEFER_ASSET_EVENTS: "true", RANGE_START: partitions[0], RANGE_END: partitions[-1]}
    return run_config, tags


def refresh_runs(
    batch: str, tickers: Sequence[str], partitions: Sequence[str], *, at_most: int
) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Return `refresh_run` of as few runs as there can be, of `at_most` tickers each.

    `batch` names what they have in common, which no other runs have.
    """
    parts = split(tickers, at_most)
    common = {BATCH: batch, BATCH_RUNS: str(len(parts))}
    return [
        (run_config, {**tags, **common})
        for run_config, tags in (refresh_run(part, partitions) for part in parts)
    ]


def request_runs(
    run_key: str,
    tickers: Sequence[str],
    partitions: Sequence[str],
    tags: Mapping[str, str] | None = None,
) -> list[dg.RunRequest]:
    """Return requests for as few runs of `tickers` as the settings allow."""
    runs = refresh_runs(run_key, tickers, partitions, at_most=read_settings().tickers_per_run)
    return [
        dg.RunRequest(
            run_key=run_key if len(runs) == 1 else f"{run_key} {number}/{len(runs)}",
            run_config=run_config,
            tags={**own, **(tags or {})},
        )
        for number, (run_config, own) in enumerate(runs, start=1)
    ]


@dg.logger(None, description="Hands the log of a run to whoever listens in this process.")
def progress_logger(_: dg.InitLoggerContext) -> logging.Logger:
    """Return the logger that `headless` listens to; a run without it logs to the console."""
    logger = logging.getLogger(PROGRESS_LOGGER)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    return logger


@dg.schedule(
    job=refresh_job,
    cron_schedule="30 18 * * 1-5",
    execution_timezone="America/New_York",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Applies the universe's file and refreshes every ticker, at 18:30 New York time of "
    "each session.",
)
def after_the_close(
    context: dg.ScheduleEvaluationContext, roster: dg.ResourceParam[Roster]
) -> list[dg.RunRequest] | dg.SkipReason:
    """Request a few runs for all tickers; a file that cannot be read costs none of them the day.

    Those that matter most come first: where calls are scarce, they get them. Where the tick comes
    late, as the machine was off, the catch-up may have come first: its tickers are left to it.
    """
    day = context.scheduled_execution_time.date()
    if not is_session(day):
        return dg.SkipReason(f"the New York Stock Exchange is closed on {day}")
    try:
        notes = roster.apply_file(context.instance).notes
    except SettingsError as error:
        notes = [f"the universe stays as it is: {error}"]
    for note in notes:
        context.log.warning(note)
    tickers = roster.by_priority(context.instance)
    if not tickers:
        advice = notes or ["add some with: stocks tickers add AAPL"]
        return dg.SkipReason(f"there are no tickers yet; {'; '.join(advice)}")
    members = universe(context.instance)
    caught_up = caught_up_since(context.scheduled_execution_time, context.instance, members)
    wanted = [ticker for ticker in tickers if ticker not in caught_up]
    if not wanted:
        return dg.SkipReason(f"the catch-up is at work on all {len(tickers)} tickers")
    tags = {NOTES_TAG: "; ".join(notes)} if notes else {}
    return request_runs(day.isoformat(), wanted, members, tags)


def caught_up_since(
    moment: datetime, instance: dg.DagsterInstance, members: Sequence[str]
) -> set[str]:
    """Return the tickers of the catch-up's runs made since `moment` that wait or are at work."""
    statuses = [
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
    ]
    made = dg.RunsFilter(
        tags={_SCHEDULE: CATCH_UP}, statuses=statuses, created_after=moment.astimezone(UTC)
    )
    return {
        ticker
        for run in instance.get_runs(made)
        for ticker in tickers_of_run(run.tags, run.run_config, members)
    }
