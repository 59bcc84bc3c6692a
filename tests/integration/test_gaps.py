"""Sessions that are missing: seen, told, and made good by the next catch-up."""

import json
import time
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.execution.backfill import PartitionBackfill

from stocks_assets.adapters import silver
from stocks_assets.adapters.backlog import find_behind
from stocks_assets.adapters.dbt_project import project_digest
from stocks_assets.adapters.gaps import count_bars, find_gaps, find_lacking, find_unexplained
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.defs.catch_up import catch_up
from stocks_assets.defs.checks import sessions_are_complete
from stocks_assets.domain.bronze_key import BronzeKey, content_hash
from stocks_assets.domain.calendar import NEW_YORK, last_closed_session, sessions
from stocks_assets.domain.datasets import DAILY_BARS
from stocks_assets.domain.gaps import SETTLES_AFTER, Place
from stocks_assets.domain.outcomes import classify
from stocks_assets.domain.payloads import SILVER_TABLES
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


def requested(world, source, runs=(), backfill=()):
    """What the catch-up asks for beside runs at work, and a backfill of assets between its runs."""
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("ticker", list(TICKERS))
        for run in runs:
            instance.add_run(run)
        if backfill:
            instance.add_backfill(backfill_of(world, source, instance, backfill))
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime(2026, 11, 22, 1, tzinfo=UTC),
            resources={"source": source, "warehouse": world.warehouse},
        )
        return catch_up(context)


def backfill_of(world, source, instance, assets):
    """A backfill that goes on, of all tickers but the first."""
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        return PartitionBackfill.from_asset_partitions(
            "one",
            world.definitions(source).resolve_asset_graph(),
            list(TICKERS[1:]),
            [dg.AssetKey(asset.split("/")) for asset in assets],
            time.time(),
            {},
            instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )


def at_work(job, tickers):
    """A run that has just begun."""
    config = {"resources": {"batch": {"config": {"tickers": list(tickers)}}}}
    return dg.DagsterRun(job_name=job, run_config=config, status=dg.DagsterRunStatus.STARTED)


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


def test_a_close_that_leaps_makes_the_list_of_splits_due_once(world):
    ticker, *others = TICKERS
    world.add(*TICKERS)
    assert world.refresh(sample(OFF_SINCE), TICKERS, layers=INGEST).success
    age_fetches(world, datetime(2026, 11, 13, 18, 30, tzinfo=NEW_YORK))
    assert find_unexplained(world.warehouse, TICKERS) == set()
    with world.warehouse.connect() as connection:
        connection.execute(
            "update silver.daily_bars set open = close / 4, high = close / 4, low = close / 4, "
            "close = close / 4 where ticker = any(%s) and session_date = %s",
            ([ticker, others[0]], OFF_SINCE),
        )
        # One of them is known to be split.
        connection.execute(
            "insert into silver.corporate_actions (ticker, ex_date, action_type, split_ratio, "
            "bronze_key, known_at, row_version, load_id, loaded_at) "
            "values (%s, %s, 'split', 4, 'bronze/splits/test', now(), 0, 'test', now())",
            (others[0], OFF_SINCE),
        )
    assert find_unexplained(world.warehouse, TICKERS) == {ticker}
    # What the vendor has not when it has had its time, it is not asked for again.
    age_fetches(world, datetime(2026, 11, 13, 22, 30, tzinfo=NEW_YORK))
    assert find_unexplained(world.warehouse, TICKERS) == set()


class Free(SampleSource):
    """A vendor whose replies on daily bars have the newest 100 sessions."""

    def fetch(self, dataset, ticker, part="", **how):
        if dataset != DAILY_BARS:
            return super().fetch(dataset, ticker, part, **how)
        endpoint = dataset.endpoints[1]
        body = MARKET.reply(endpoint.function, ticker, self._last_session(), outputsize="compact")
        return classify(endpoint, body)


class Damaged(SampleSource):
    """A vendor whose newest daily bar has no price that can be."""

    def fetch(self, dataset, ticker, part="", **how):
        outcome = super().fetch(dataset, ticker, part, **how)
        if dataset != DAILY_BARS:
            return outcome
        reply = json.loads(outcome.body)
        reply["Time Series (Daily)"][str(self._last_session())]["1. open"] = "-1"
        return classify(dataset.endpoints[0], json.dumps(reply).encode())


def test_a_session_whose_row_was_rejected_is_no_lack_of_the_vendor(world):
    world.add(*TICKERS)
    settled = last_closed_session(datetime.now(UTC) - SETTLES_AFTER)
    assert world.refresh(Damaged(MARKET, lambda: settled), TICKERS, layers=INGEST).success
    told = checked(world)
    assert told.passed
    assert told.metadata["sessions_with_rejected_rows"].value == len(TICKERS)
    assert told.metadata["sessions_the_vendor_has_not"].value == 0


def bars(world):
    return world.query(
        "select ticker, session_date, close, row_version, bronze_key, known_at "
        "from silver.daily_bars order by 1, 2"
    )


class Counting(Warehouse):
    """A warehouse that keeps of which tickers bars were counted."""

    def __init__(self, url):
        super().__init__(url)
        self.counted = []

    def holdings(self, tickers):
        self.counted.append(sorted(tickers))
        return super().holdings(tickers)

    def changes_of_bars(self):
        # What a session changed is told when it ends, which the server may have yet to see.
        others = (
            "select count(*) from pg_stat_activity where datname = current_database() "
            "and pid <> pg_backend_pid() and backend_type = 'client backend'"
        )
        with self.connect() as connection:
            for _ in range(500):
                if connection.execute(others).fetchone() == (0,):
                    break
                time.sleep(0.02)
        return super().changes_of_bars()


@pytest.mark.parametrize(
    ("vendor", "lost"),
    [
        (SampleSource, "session_date between '2026-08-03' and '2026-08-14'"),
        (Free, "session_date < '2026-06-01'"),  # the newest reply does not have them
        (Free, "true"),
    ],
)
def test_bars_that_silver_has_lost_are_seen_and_come_back_as_they_were_without_a_call(
    world, vendor, lost
):
    world.add(*TICKERS)
    for day in (date(2026, 9, 1), BACK_ON):
        assert world.refresh(vendor(MARKET, lambda day=day: day), TICKERS, layers=INGEST).success
    with world.warehouse.gold_batch("a batch", TICKERS, built_by=project_digest()):
        pass
    world.warehouse = Counting(world.warehouse.database_url)
    before, calls = bars(world), world.warehouse.fetches()
    assert checked(world).passed

    one = TICKERS[1]
    with world.warehouse.connect() as connection:
        gone = connection.execute(
            f"delete from silver.daily_bars where ticker = %s and {lost}", (one,)
        ).rowcount
    behind = find_behind(world.warehouse, TICKERS, gold_project=project_digest())
    assert (behind.lost_bars, behind.tickers) == ({one: gone}, {one})
    told = checked(world)
    assert not told.passed
    assert told.description == f"{one}: {gone} rows are gone from silver/daily_bars"
    (request,) = requested(world, sample(BACK_ON))
    assert request.run_config["resources"]["batch"]["config"]["tickers"] == [one]

    daily = SILVER_TABLES[DAILY_BARS.name]
    list(silver.load(world.bronze, world.warehouse, daily, TICKERS, only_stale=True))
    assert bars(world).equals(before)
    assert world.warehouse.fetches() == calls
    assert checked(world).passed


def test_bars_are_counted_again_where_a_load_was_or_rows_went_otherwise(world):
    everyone = sorted(TICKERS)
    world.add(*TICKERS)
    warehouse = Counting(world.warehouse.database_url)
    daily = SILVER_TABLES[DAILY_BARS.name]

    def load(day, tickers):
        """Load what the vendor has on `day`, without the checks that count."""
        assert world.refresh(sample(day), tickers, layers=("bronze",)).success
        list(silver.load(world.bronze, world.warehouse, daily, tickers, only_stale=True))

    def counted(*statements):
        """Return which bars are counted after `statements`; it is told as if all had been."""
        with warehouse.connect() as connection:
            for statement in statements:
                connection.execute(statement)
        warehouse.counted = []
        holdings, lost = count_bars(warehouse, TICKERS)
        once = warehouse.counted
        assert holdings == Warehouse.holdings(warehouse, TICKERS)
        return once, lost

    load(OFF_SINCE, TICKERS)
    assert counted() == ([everyone], {})
    assert counted() == ([], {})
    load(BACK_ON, TICKERS[:1])
    assert counted() == ([[TICKERS[0]]], {})
    assert counted("analyze silver.daily_bars") == ([], {})

    # In the midst of a history, so that neither its first nor its last bar tells.
    loss = "delete from silver.daily_bars where session_date = '2026-09-01' and ticker = '{}'"
    assert counted(loss.format(TICKERS[1])) == ([everyone], {TICKERS[1]: 1})
    assert counted() == ([], {TICKERS[1]: 1})
    load(OFF_SINCE, TICKERS[1:2])
    assert counted() == ([[TICKERS[1]]], {})
    # Together with a load of another.
    load(BACK_ON, TICKERS[1:2])
    assert counted(loss.format(TICKERS[2])) == ([[TICKERS[1]], everyone], {TICKERS[2]: 1})
    counts, lost = counted("truncate silver.daily_bars")
    assert (counts, set(lost)) == ([everyone], set(TICKERS))
    load(BACK_ON, TICKERS)
    assert counted() == ([everyone], {})
    assert counted("delete from ops.bar_changes") == ([everyone], {})
    # Where the server counts nothing, we do.
    try:
        assert counted("alter role current_user set track_counts = off") == ([everyone], {})
        assert counted() == ([everyone], {})
    finally:
        counted("alter role current_user reset track_counts")


def test_of_two_who_count_at_once_the_first_to_note_it_counts(world):
    world.add(*TICKERS)
    assert world.refresh(sample(OFF_SINCE), TICKERS, layers=INGEST).success
    warehouse = Counting(world.warehouse.database_url)
    count_bars(warehouse, TICKERS)
    before, changes = warehouse.counted_bars(), warehouse.changes_of_bars()
    assert world.refresh(sample(BACK_ON), TICKERS, layers=INGEST).success
    count_bars(warehouse, TICKERS)
    after = warehouse.counted_bars()
    warehouse.note_counted_bars(changes, {}, before.loaded_at, since=before.counted_at)
    warehouse.note_counted_bars(changes, {}, before.loaded_at, since=None)
    assert warehouse.counted_bars() == after


def test_on_a_holiday_a_refused_object_starts_nothing(world):
    world.add(*TICKERS)
    assert world.refresh(sample(BACK_ON), TICKERS).success
    # Much shorter than what is stored.
    one, body = (
        TICKERS[1],
        MARKET.reply("TIME_SERIES_WEEKLY_ADJUSTED", TICKERS[1], date(2026, 2, 6)),
    )
    key = BronzeKey("weekly_bars", one, datetime.now(UTC), content_hash(body))
    world.store.put_new(str(key), body, {})
    world.bronze.look()
    behind = find_behind(world.warehouse, TICKERS, gold_project=project_digest())
    assert behind.silver == {one: ["weekly_bars"]}
    world.refresh(sample(BACK_ON), [one], layers=("silver",))
    assert world.warehouse.refused_objects("weekly_bars").keys() == {str(key)}
    assert isinstance(requested(world, sample(BACK_ON)), dg.SkipReason)


def test_a_catch_up_asks_for_just_what_is_missing(world):
    world.add(*TICKERS)
    assert world.refresh(sample(OFF_SINCE), TICKERS, layers=INGEST).success
    age_fetches(world, datetime(2026, 11, 14, 12, tzinfo=UTC))
    (request,) = requested(world, sample(BACK_ON))
    assert request.run_config["resources"]["batch"]["config"]["tickers"] == list(TICKERS)


@pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources`")  # Dagster's own use
def test_a_catch_up_leaves_to_runs_and_backfills_at_work_what_they_fetch_and_says_so(world):
    world.add(*TICKERS)
    assert world.refresh(sample(OFF_SINCE), TICKERS, layers=INGEST).success
    age_fetches(world, datetime(2026, 11, 14, 12, tzinfo=UTC))

    def asked(**at_work):
        said = requested(world, sample(BACK_ON), **at_work)
        if isinstance(said, dg.SkipReason):
            return said.skip_message
        return said[0].run_config["resources"]["batch"]["config"]["tickers"]

    # An export names all tickers, and fetches none.
    assert asked(runs=[at_work("export", TICKERS)]) == list(TICKERS)
    assert asked(backfill=["curated/by_ticker"]) == list(TICKERS)
    # Its runs of bronze have ended, and those of silver have not begun.
    layers = ["bronze/daily_bars", "silver/daily_bars"]
    assert asked(backfill=layers) == list(TICKERS[:1])
    everybody = [at_work("refresh", TICKERS[:1])]
    assert asked(runs=everybody, backfill=layers) == "3 of 3 tickers are left to runs at work"


def test_a_catch_up_asks_for_nothing_once_all_is_there(world):
    world.add(*TICKERS)
    assert world.refresh(sample(BACK_ON), TICKERS).success
    answer = requested(world, sample(BACK_ON))
    assert isinstance(answer, dg.SkipReason)
    assert answer.skip_message == "nothing of 3 tickers has failed, is missing or waits"
