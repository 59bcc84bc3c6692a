"""Sessions that are missing: seen, told, and made good by the next catch-up."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg

from stocks_assets.adapters.gaps import find_gaps, find_lacking
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.defs.catch_up import catch_up
from stocks_assets.defs.checks import sessions_are_complete
from stocks_assets.domain.calendar import NEW_YORK, last_closed_session, sessions
from stocks_assets.domain.gaps import SETTLES_AFTER, Place
from stocks_assets.domain.sample_market import SampleMarket

MARKET = SampleMarket(first_session=date(2026, 1, 2))
TICKERS = MARKET.tickers(3)
OFF_SINCE, BACK_ON = date(2026, 11, 13), date(2026, 11, 20)
NOW = datetime(2026, 11, 21, 15, tzinfo=UTC)
INGEST = ("bronze", "silver")


def sample(last_session):
    return SampleSource(MARKET, lambda: last_session)


def age_fetches(world, moment):
    with world.warehouse.connect() as connection:
        connection.execute("update ops.fetches set checked_at = %s, had_at = %s", (moment, moment))


def checked(world):
    context = dg.build_asset_check_context(instance=world.instance)
    return sessions_are_complete(context, warehouse=world.warehouse)


def requested(world, source):
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("ticker", list(TICKERS))
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime(2026, 11, 22, 1, tzinfo=UTC),
            resources={"source": source, "warehouse": world.warehouse},
        )
        return catch_up(context)


def test_a_week_without_the_machine_is_seen_and_filled_and_what_nobody_has_is_not_asked_for(world):
    world.add(*TICKERS)
    assert world.refresh(sample(OFF_SINCE), TICKERS, layers=INGEST).success
    age_fetches(world, datetime(2026, 11, 16, 18, 30, tzinfo=NEW_YORK))
    that_night = datetime(2026, 11, 16, 23, tzinfo=NEW_YORK)
    assert find_lacking(world.warehouse, TICKERS, that_night - timedelta(hours=2)) == set()
    assert find_lacking(world.warehouse, TICKERS, that_night) == set(TICKERS)
    age_fetches(world, that_night)
    assert find_lacking(world.warehouse, TICKERS, that_night + timedelta(minutes=5)) == set()

    age_fetches(world, datetime(2026, 11, 14, 12, tzinfo=UTC))
    missing = [gap for gap, is_fillable in find_gaps(world.warehouse, TICKERS, NOW) if is_fillable]
    assert [(gap.ticker, gap.place, gap.first, gap.last, gap.sessions) for gap in missing] == [
        (ticker, Place.AFTER, date(2026, 11, 16), BACK_ON, 5) for ticker in sorted(TICKERS)
    ]
    # The check goes by the clock.
    since = sessions(date(2026, 11, 16), last_closed_session(datetime.now(UTC) - SETTLES_AFTER))
    told = checked(world)
    assert not told.passed
    assert told.metadata["missing_sessions"].value == len(since) * len(TICKERS)
    count = f"{len(since)} sessions are missing after the last bar"
    assert f"{min(TICKERS)}: {count}" in told.description

    # The vendor has but four of them.
    assert world.refresh(sample(date(2026, 11, 19)), TICKERS, layers=INGEST).success
    told = checked(world)
    assert told.passed
    assert told.metadata["sessions_the_vendor_has_not"].value == (len(since) - 4) * len(TICKERS)


def test_a_catch_up_asks_for_just_what_is_missing(world):
    world.add(*TICKERS)
    assert world.refresh(sample(OFF_SINCE), TICKERS, layers=INGEST).success
    age_fetches(world, datetime(2026, 11, 14, 12, tzinfo=UTC))
    (request,) = requested(world, sample(BACK_ON))
    assert request.run_config["resources"]["batch"]["config"]["tickers"] == list(TICKERS)


def test_a_catch_up_asks_for_nothing_once_all_is_there(world):
    world.add(*TICKERS)
    assert world.refresh(sample(BACK_ON), TICKERS).success
    answer = requested(world, sample(BACK_ON))
    assert isinstance(answer, dg.SkipReason)
    assert answer.skip_message == "nothing of 3 tickers has failed, is missing or waits"
