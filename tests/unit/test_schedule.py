from datetime import datetime
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from stocks_assets.defs.jobs import after_the_close

NEW_YORK = ZoneInfo("America/New_York")


def evaluate(moment, tickers=("A", "B", "C")):
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("ticker", list(tickers))
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=moment)
        return after_the_close(context)


def test_a_session_asks_for_one_run_of_all_tickers():
    request = evaluate(datetime(2026, 11, 20, 18, 30, tzinfo=NEW_YORK))
    assert isinstance(request, dg.RunRequest)
    assert request.run_config["resources"]["batch"]["config"]["tickers"] == ["A", "B", "C"]
    assert request.tags["dagster/defer_asset_events"] == "true"


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
    skipped = evaluate(datetime(2026, 11, 20, 18, 30, tzinfo=NEW_YORK), tickers=())
    assert "stocks tickers add" in skipped.skip_message


def test_it_runs_after_the_close_in_new_york_whatever_the_season():
    assert after_the_close.execution_timezone == "America/New_York"
    assert after_the_close.cron_schedule == "30 18 * * 1-5"
