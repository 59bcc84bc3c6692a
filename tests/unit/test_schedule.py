from datetime import UTC, date, datetime, time, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._utils.schedules import cron_string_iterator

from stocks_assets.defs.catch_up import catch_up
from stocks_assets.defs.extras import every_month, every_week, of_month
from stocks_assets.defs.jobs import NOTES_TAG, after_the_close
from stocks_assets.defs.universe import Applied
from stocks_assets.defs.upkeep import every_session
from stocks_assets.domain.calendar import (
    ends_first_week,
    ends_week,
    exchange_calendar_frame,
    last_end_of_first_week,
    last_end_of_week,
)
from stocks_assets.errors import SettingsError

NEW_YORK = ZoneInfo("America/New_York")


SESSION = datetime(2026, 11, 20, 18, 30, tzinfo=NEW_YORK)


class File:
    """A universe's file that adds `tickers`, or says why it cannot be read."""

    def __init__(self, *tickers, error=None, notes=(), urgent=()):
        self.tickers, self.error, self.notes = tickers, error, list(notes)
        self.urgent = urgent

    def by_priority(self, instance):
        known = instance.get_dynamic_partitions("ticker")
        return sorted(known, key=lambda ticker: ticker not in self.urgent)

    def apply_file(self, instance):
        if self.error:
            raise SettingsError(self.error)
        instance.add_dynamic_partitions("ticker", list(self.tickers))
        return Applied(len(self.tickers), notes=self.notes)


def evaluate(moment, tickers=("A", "B", "C"), file=None, runs=()):
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("ticker", list(tickers))
        for run in runs:
            instance.add_run(run)
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=moment,
            resources={"roster": file or File()},
        )
        return after_the_close(context)


def test_a_session_asks_for_one_run_of_all_tickers():
    (request,) = evaluate(SESSION)
    assert isinstance(request, dg.RunRequest)
    assert request.run_config["resources"]["batch"]["config"]["tickers"] == ["A", "B", "C"]
    assert request.tags["dagster/defer_asset_events"] == "true"
    assert NOTES_TAG not in request.tags


def test_the_universes_file_is_applied_before_the_tickers_are_named():
    (request,) = evaluate(SESSION, file=File("NEW"))
    assert request.run_config["resources"]["batch"]["config"]["tickers"] == ["A", "B", "C", "NEW"]
    assert request.tags["dagster/asset_partition_range_end"] == "NEW"


def test_a_file_that_cannot_be_read_costs_nobody_the_day_and_the_run_says_so():
    (request,) = evaluate(SESSION, file=File(error="universe.yaml: ';' is not a ticker"))
    assert request.run_config["resources"]["batch"]["config"]["tickers"] == ["A", "B", "C"]
    assert "';' is not a ticker" in request.tags[NOTES_TAG]


@pytest.mark.parametrize(
    "day",
    [(2026, 11, 26), (2026, 12, 25), (2026, 7, 3), (2026, 11, 21)],
    ids=["Thanksgiving", "Christmas", "Independence Day observed", "a Saturday"],
)
def test_a_day_without_a_session_starts_nothing(day):
    skipped = evaluate(datetime(*day, 18, 30, tzinfo=NEW_YORK))
    assert isinstance(skipped, dg.SkipReason)
    assert "closed" in skipped.skip_message


def caught_up(*tickers, status=dg.DagsterRunStatus.STARTED):
    config = {"resources": {"batch": {"config": {"tickers": list(tickers)}}}}
    tags = {"dagster/schedule_name": catch_up.name}
    return dg.DagsterRun(job_name="refresh", run_config=config, tags=tags, status=status)


def test_what_the_catch_up_has_asked_for_since_is_left_to_it_where_the_tick_comes_late():
    (request,) = evaluate(SESSION, runs=[caught_up("A", "C")])
    assert request.run_config["resources"]["batch"]["config"]["tickers"] == ["B"]
    skipped = evaluate(SESSION, runs=[caught_up("A", "C"), caught_up("B")])
    assert "all 3 tickers" in skipped.skip_message


def test_what_the_catch_up_has_done_or_asked_for_before_the_close_is_asked_for():
    done = caught_up("A", "B", "C", status=dg.DagsterRunStatus.SUCCESS)
    (request,) = evaluate(SESSION, runs=[done])
    assert request.run_config["resources"]["batch"]["config"]["tickers"] == ["A", "B", "C"]
    later = datetime(2099, 11, 20, 18, 30, tzinfo=NEW_YORK)
    (request,) = evaluate(later, runs=[caught_up("A", "B", "C")])
    assert request.run_config["resources"]["batch"]["config"]["tickers"] == ["A", "B", "C"]


def test_without_tickers_nothing_starts_and_the_way_to_add_some_is_said():
    skipped = evaluate(SESSION, tickers=())
    assert "stocks tickers add" in skipped.skip_message
    waiting = evaluate(SESSION, tickers=(), file=File(notes=["the list is not loaded yet"]))
    assert "the list is not loaded yet" in waiting.skip_message


def test_a_large_universe_is_a_few_runs_with_what_matters_most_in_the_first(monkeypatch):
    monkeypatch.setenv("STOCKS_TICKERS_PER_RUN", "500")
    tickers = [f"T{number}" for number in range(5000)]
    requests = evaluate(SESSION, tickers=tickers, file=File(urgent=["T4999", "T7"]))
    asked = [r.run_config["resources"]["batch"]["config"]["tickers"] for r in requests]
    assert [len(part) for part in asked] == [500] * 10
    assert asked[0][:3] == ["T7", "T4999", "T0"]
    assert sorted(ticker for part in asked for ticker in part) == sorted(tickers)
    assert len({request.run_key for request in requests}) == 10


@pytest.fixture
def proving():
    """An instance with 30 tickers and some gold."""
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("ticker", [f"T{number}" for number in range(30)])
        built = dg.AssetMaterialization(["gold", "fct_daily_prices"], partition="T1")
        instance.report_runless_asset_event(built)
        yield instance


def proof(schedule, instance, moment):
    return schedule(dg.build_schedule_context(instance=instance, scheduled_execution_time=moment))


def take(instance, schedule, request, status=dg.DagsterRunStatus.SUCCESS):
    """Make the run as the daemon does."""
    tags = {**request.tags, "dagster/run_key": request.run_key}
    instance.add_run(dg.DagsterRun(job_name=schedule.job_name, tags=tags, status=status))


def proofs_of(schedule, instance, first, last, missed=()):
    """The days from `first` to `last`, but `missed` ones, on whose ticks `schedule` gets a run."""
    ticks = cron_string_iterator(
        datetime.combine(first, time(), tzinfo=NEW_YORK).timestamp(),
        schedule.cron_schedule,
        schedule.execution_timezone,
    )
    days = []
    for tick in takewhile(lambda tick: tick.date() <= last, ticks):
        if tick.date() in missed:
            continue
        asked = proof(schedule, instance, tick.astimezone(UTC))
        if isinstance(asked, dg.RunRequest):
            take(instance, schedule, asked)
            days.append((tick.date(), asked.run_key))
    return days


# Good Friday is 2026-04-03.
MARCH_27, APRIL_2, APRIL_6, APRIL_11 = (
    date(2026, *day) for day in ((3, 27), (4, 2), (4, 6), (4, 11))
)


def test_proofs_are_on_sessions_that_end_a_week(proving):
    assert proofs_of(every_week, proving, MARCH_27, APRIL_11) == [
        (MARCH_27, "2026-03-27"),
        (APRIL_2, "2026-04-02"),
        (date(2026, 4, 10), "2026-04-10"),
    ]
    take(proving, every_month, dg.RunRequest(run_key="2026-03"))
    assert proofs_of(every_month, proving, MARCH_27, APRIL_11) == [(APRIL_2, "2026-04")]


def test_a_proof_that_was_missed_is_made_up_by_the_next_session_once(proving):
    missed = {APRIL_2, date(2026, 4, 3)}
    assert proofs_of(every_week, proving, MARCH_27, date(2026, 4, 9), missed) == [
        (MARCH_27, "2026-03-27"),
        (APRIL_6, "2026-04-02"),
    ]
    take(proving, every_month, dg.RunRequest(run_key="2026-03"))
    assert proofs_of(every_month, proving, MARCH_27, date(2026, 4, 30), missed) == [
        (APRIL_6, "2026-04")
    ]


def test_a_twelfth_that_is_made_up_is_that_of_its_month(proving):
    # October's is due until the first session of November that ends a week.
    asked = proof(every_month, proving, datetime(2026, 11, 4, 20, 30, tzinfo=NEW_YORK))
    assert asked.run_key == "2026-10"
    assert asked.run_config["ops"]["rebuild_tables"]["config"]["tickers"] == ["T8"]


def test_a_proof_whatever_came_of_it_is_not_asked_for_again_but_one_never_submitted_is(proving):
    evening = datetime(2026, 4, 6, 21, 30, tzinfo=NEW_YORK)
    asked = proof(every_week, proving, evening)
    take(proving, every_week, asked, dg.DagsterRunStatus.NOT_STARTED)
    assert proof(every_week, proving, evening).run_key == asked.run_key
    take(proving, every_week, asked, dg.DagsterRunStatus.FAILURE)
    assert isinstance(proof(every_week, proving, evening), dg.SkipReason)


@pytest.mark.parametrize("schedule", [every_week, every_month], ids=["week", "month"])
def test_no_proof_is_made_up_on_a_day_without_a_session(proving, schedule):
    skipped = proof(schedule, proving, datetime(2026, 4, 3, 21, 30, tzinfo=NEW_YORK))
    assert "closed" in skipped.skip_message


def test_events_are_removed_in_the_night_before_each_session():
    nights = [datetime(2026, 4, day, 3, tzinfo=NEW_YORK) for day in (1, 2, 3, 6)]
    with dg.instance_for_test() as instance:
        asked = [proof(every_session, instance, night) for night in nights]
    assert [isinstance(one, dg.RunRequest) for one in asked] == [True, True, False, True]
    assert "closed on 2026-04-03" in asked[2].skip_message


def test_where_nothing_is_built_nothing_is_proven():
    evening = datetime(2026, 11, 6, 21, 30, tzinfo=NEW_YORK)
    with dg.instance_for_test() as instance:
        assert "no tickers" in proof(every_week, instance, evening).skip_message
        assert "no ticker is due" in proof(every_month, instance, evening).skip_message
        instance.add_dynamic_partitions("ticker", ["A"])
        assert "nothing of gold" in proof(every_week, instance, evening).skip_message


def test_each_month_has_one_session_that_ends_its_first_week():
    days = exchange_calendar_frame(date(2000, 1, 1), date(2027, 12, 31)).filter("is_session")
    found = [day for day in days["calendar_date"] if ends_first_week(day)]
    assert len(found) == len({(day.year, day.month) for day in found}) == 28 * 12
    assert all(ends_week(day) and day.day <= 10 for day in found)


def test_the_last_end_of_a_week_is_the_newest_there_is_on_each_day():
    days = exchange_calendar_frame(date(2001, 1, 1), date(2002, 12, 31))["calendar_date"].to_list()
    weeks = [day for day in days if ends_week(day)]
    months = [day for day in days if ends_first_week(day)]
    for day in days[60:]:
        assert last_end_of_week(day) == max(end for end in weeks if end <= day)
        assert last_end_of_first_week(day) == max(end for end in months if end <= day)


def test_the_monthly_proof_names_a_twelfth_whether_it_has_objects_or_not(proving):
    asked = proof(every_month, proving, datetime(2026, 11, 6, 20, 30, tzinfo=NEW_YORK))
    config = asked.run_config["ops"]["rebuild_tables"]["config"]
    assert config == {"tickers": ["T24"], "as_far_as_stored": True}


def test_each_ticker_is_proven_once_a_year():
    tickers = [f"T{n}" for n in range(100)]
    proven = [t for month in range(1, 13) for t in of_month(tickers, date(2026, month, 1))]
    assert sorted(proven) == sorted(tickers)


def test_a_ticker_keeps_its_month_whichever_others_come_and_go():
    """By their places, the first of a list that loses a ticker each month would move up for ever."""
    tickers = [f"T{n}" for n in range(100)]
    proven = []
    for month in range(1, 13):
        proven += of_month(
            tickers[month:] + [f"NEW{n}" for n in range(month)], date(2026, month, 1)
        )
    assert set(tickers[12:]) <= set(proven)
    assert len(proven) == len(set(proven))


def test_it_runs_once_after_the_close_of_each_session_early_or_not_summer_or_winter():
    first, last = date(2024, 1, 1), date(2027, 12, 31)
    ticks = cron_string_iterator(
        datetime(2024, 1, 1, tzinfo=UTC).timestamp(),
        after_the_close.cron_schedule,
        after_the_close.execution_timezone,
    )
    ticks = takewhile(lambda tick: tick.date() <= last, ticks)
    by_day = {tick.date(): tick.astimezone(UTC) for tick in ticks}
    days = exchange_calendar_frame(first, last).filter("is_session")
    assert set(days["calendar_date"]) <= set(by_day)
    for day, closes_at in days.select("calendar_date", "closes_at").iter_rows():
        assert timedelta(hours=2) < by_day[day] - closes_at < timedelta(hours=6), day
    # The clock in New York stands for another time in UTC before and after the change.
    assert by_day[date(2026, 3, 6)].hour == 23
    assert by_day[date(2026, 3, 9)].hour == 22
    assert days.filter("is_early_close").height > 6
