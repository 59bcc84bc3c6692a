from datetime import datetime
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from stocks_assets.defs.jobs import NOTES_TAG, after_the_close
from stocks_assets.defs.universe import Applied
from stocks_assets.errors import SettingsError

NEW_YORK = ZoneInfo("America/New_York")


SESSION = datetime(2026, 11, 20, 18, 30, tzinfo=NEW_YORK)


class File:
    """A universe's file that adds `tickers`, or says why it cannot be read."""

    def __init__(self, *tickers, error=None, notes=()):
        self.tickers, self.error, self.notes = tickers, error, list(notes)

    def apply_file(self, instance):
        if self.error:
            raise SettingsError(self.error)
        instance.add_dynamic_partitions("ticker", list(self.tickers))
        return Applied(len(self.tickers), notes=self.notes)


def evaluate(moment, tickers=("A", "B", "C"), file=None):
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("ticker", list(tickers))
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=moment,
            resources={"roster": file or File()},
        )
        return after_the_close(context)


def test_a_session_asks_for_one_run_of_all_tickers():
    request = evaluate(SESSION)
    assert isinstance(request, dg.RunRequest)
    assert request.run_config["resources"]["batch"]["config"]["tickers"] == ["A", "B", "C"]
    assert request.tags["dagster/defer_asset_events"] == "true"
    assert NOTES_TAG not in request.tags


def test_the_universes_file_is_applied_before_the_tickers_are_named():
    request = evaluate(SESSION, file=File("NEW"))
    assert request.run_config["resources"]["batch"]["config"]["tickers"] == ["A", "B", "C", "NEW"]
    assert request.tags["dagster/asset_partition_range_end"] == "NEW"


def test_a_file_that_cannot_be_read_costs_nobody_the_day_and_the_run_says_so():
    request = evaluate(SESSION, file=File(error="universe.yaml: ';' is not a ticker"))
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


def test_without_tickers_nothing_starts_and_the_way_to_add_some_is_said():
    skipped = evaluate(SESSION, tickers=())
    assert "stocks tickers add" in skipped.skip_message
    waiting = evaluate(SESSION, tickers=(), file=File(notes=["the list is not loaded yet"]))
    assert "the list is not loaded yet" in waiting.skip_message


def test_it_runs_after_the_close_in_new_york_whatever_the_season():
    assert after_the_close.execution_timezone == "America/New_York"
    assert after_the_close.cron_schedule == "30 18 * * 1-5"
