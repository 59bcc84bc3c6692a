"""Loads into silver and objects in the bucket, on real servers."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import polars as pl
import psycopg
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from stocks_assets.adapters import loader, silver
from stocks_assets.adapters.arrivals import NEVER, Arrivals
from stocks_assets.adapters.bronze import BronzeStore, Stored
from stocks_assets.adapters.silver_store import Origin, SilverStore
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.adapters.warehouse import PARTS_OF_A_LOCK, RejectedRow, SilverLoad, Warehouse
from stocks_assets.defs.checks import silver_checks
from stocks_assets.domain.bronze_key import BronzeKey, content_hash
from stocks_assets.domain.datasets import SPLITS, WEEKLY_BARS, Call
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.domain.sample_market import SampleMarket

INGEST = ("bronze", "silver")
MARKET = SampleMarket(first_session=date(2025, 1, 2))
DAILY = SILVER_TABLES["daily_bars"]
MOMENT = datetime(2026, 1, 12, tzinfo=UTC)


def bars(ticker="A", closes=(10.0, 11.0), at=MOMENT):
    """What a load of silver.daily_bars is given: a bar a day from 2 January 2026."""
    count = len(closes)
    nothing = pl.Series([None] * count, dtype=pl.Float64)
    return pl.DataFrame(
        {
            "ticker": [ticker] * count,
            "session_date": [date(2026, 1, 2) + timedelta(days=day) for day in range(count)],
            "open": [9.0] * count,
            "high": [99.0] * count,
            "low": [1.0] * count,
            "close": list(closes),
            "adjusted_close": nothing,
            "volume": [100] * count,
            "dividend_amount": nothing,
            "split_coefficient": nothing,
            "bronze_key": [f"object of {at}"] * count,
            "known_at": pl.Series([at] * count, dtype=pl.Datetime("us", "UTC")),
        }
    )


def load(warehouse, frame, *whole, accept_shorter=False):
    origin = Origin(frame["bronze_key"][0], frame["known_at"][0])
    with SilverStore(warehouse) as store:
        return store.merge(
            DAILY, frame, dict.fromkeys(whole, origin), accept_shorter=accept_shorter
        )


def stored(warehouse):
    with warehouse.connect() as connection:
        return connection.execute(
            "select ticker, session_date, close, xmin::text from silver.daily_bars order by 1, 2"
        ).fetchall()


def staging_schemas(warehouse):
    with warehouse.connect() as connection:
        return connection.execute(
            "select nspname from pg_namespace where nspname like 'silver_stg%'"
        ).fetchall()


def test_a_load_inserts_what_is_new_and_rewrites_only_what_changed(warehouse):
    load(warehouse, bars(closes=(10.0, 11.0)))
    before = stored(warehouse)
    load(warehouse, bars(closes=(10.0, 12.0, 13.0)))
    after = stored(warehouse)
    assert [row[2] for row in after] == [10.0, 12.0, 13.0]
    assert after[0] == before[0]
    assert after[1][3] != before[1][3]
    assert staging_schemas(warehouse) == []


def test_rows_that_a_whole_history_lacks_are_deleted_and_others_stay(warehouse):
    load(warehouse, bars("A", (1.0, 2.0, 3.0)))
    load(warehouse, bars("B", (1.0, 2.0, 3.0)))
    load(warehouse, bars("A", (1.0, 5.0)), "A")
    load(warehouse, bars("B", (1.0,)))
    assert [row[2] for row in stored(warehouse)] == [1.0, 5.0, 1.0, 2.0, 3.0]


def test_a_whole_history_that_lost_much_of_itself_is_refused_unless_it_is_wanted(warehouse):
    load(warehouse, bars("A", [float(day) for day in range(1, 31)]), "A")
    refused = load(warehouse, bars("A", (1.0, 2.0)), "A").refused
    assert "has 2 rows where 30 are stored" in refused["A"]
    assert "accept_shorter" in refused["A"]
    assert len(stored(warehouse)) == 30
    assert load(warehouse, bars("A", (1.0, 2.0)), "A", accept_shorter=True).refused == {}
    assert len(stored(warehouse)) == 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda f: f.with_columns(pl.col("volume").cast(pl.Float64)),
            "volume is Float64, not Int64",
        ),
        (
            lambda f: f.with_columns(pl.col("session_date").cast(pl.String)),
            "session_date is String",
        ),
        (lambda f: f.drop("close"), r"missing \['close'\]"),
        (lambda f: f.with_columns(more=1), r"not in the table \['more'\]"),
    ],
)
def test_a_frame_that_does_not_fit_the_table_is_refused_before_anything_is_sent(
    warehouse, change, complaint
):
    whole = bars().with_columns(
        row_version=pl.lit(1, dtype=pl.Int64), load_id=pl.lit("l"), loaded_at="known_at"
    )
    with pytest.raises(TypeError, match=complaint):
        loader.merge(warehouse, "silver", "daily_bars", change(whole), DAILY.primary_key)
    assert stored(warehouse) == []


def test_an_append_adds_all_of_its_rows_or_none_and_nothing_twice(warehouse):
    def rows(*closes, load_id):
        return bars(closes=closes).with_columns(
            row_version=pl.lit(1, dtype=pl.Int64), load_id=pl.lit(load_id), loaded_at="known_at"
        )

    with loader.Loader(warehouse, "silver", "daily_bars", DAILY.primary_key) as appending:
        appending.prepare()
        appending.append(rows(10.0, 11.0, load_id="first").tail(1))
        with pytest.raises(PipelineStepFailed, match="already exists"):
            appending.append(rows(12.0, 13.0, load_id="second"))
        assert [row[2] for row in stored(warehouse)] == [11.0]
        appending.append(rows(10.0, load_id="third"))
    assert [row[2] for row in stored(warehouse)] == [10.0, 11.0]
    assert staging_schemas(warehouse) == []


def test_what_a_killed_load_left_behind_is_swept_by_the_next(warehouse):
    with warehouse.connect() as connection:
        connection.execute("create schema silver_stg_dead")
        connection.execute("create table silver_stg_dead.daily_bars (n int)")
    load(warehouse, bars())
    assert staging_schemas(warehouse) == []
    assert len(stored(warehouse)) == 2


def test_a_merge_that_is_cut_off_is_not_repeated_over_what_a_crash_left(warehouse):
    load(warehouse, bars(closes=(10.0, 11.0)))
    with warehouse.connect() as watch, ThreadPoolExecutor(1) as pool:
        watch.execute("lock table silver.daily_bars in share mode")
        loading = pool.submit(load, warehouse, bars(closes=(10.0, 12.0)))
        waiting = None
        while waiting is None:
            assert not loading.done()
            watch.execute("select pg_stat_clear_snapshot(), pg_sleep(0.05)")
            waiting = watch.execute(
                "select pid from pg_stat_activity where query like 'MERGE%' "
                "and wait_event_type = 'Lock'"
            ).fetchone()
        ((staging,),) = staging_schemas(warehouse)
        with warehouse.connect() as connection:
            connection.execute("select pg_terminate_backend(%s)", waiting)
            # Crash recovery empties unlogged tables.
            connection.execute(f"truncate {staging}.daily_bars")
        watch.rollback()
        with pytest.raises(PipelineStepFailed):
            loading.result()
    assert [row[2] for row in stored(warehouse)] == [10.0, 11.0]
    load(warehouse, bars(closes=(10.0, 12.0)))
    assert [row[2] for row in stored(warehouse)] == [10.0, 12.0]
    assert staging_schemas(warehouse) == []


def test_loads_at_the_same_time_lose_and_duplicate_nothing(warehouse):
    closes = [float(day) for day in range(1, 91)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda ticker: load(warehouse, bars(ticker, closes)), ["A", "B", "C", "D"]))
    assert len(stored(warehouse)) == 4 * 90
    with warehouse.connect() as connection:
        assert connection.execute("select from silver.superseded_rows").fetchall() == []


def put_weeks(store, ticker, count):
    """Put `count` weekly replies of `ticker` into the bucket, each with a week more."""
    for number in range(count):
        moment = MOMENT + timedelta(weeks=number)
        body = MARKET.reply("TIME_SERIES_WEEKLY_ADJUSTED", ticker, moment.date())
        store.put_new(str(BronzeKey("weekly_bars", ticker, moment, content_hash(body))), body, {})


def test_processes_that_load_one_table_at_once_load_each_object_once(bronze, store, warehouse):
    tickers = list(MARKET.tickers(6))
    for ticker in tickers:
        put_weeks(store, ticker, 4)
    weekly = SILVER_TABLES["weekly_bars"]

    def load_some(wanted):
        # Connections of its own, as another process would have.
        other = Warehouse(warehouse.database_url)
        found = silver.load(BronzeStore(store, other), other, weekly, wanted, only_stale=True)
        return list(found)

    # The same, others, and some of both, in any order.
    shares = [tickers[:4], tickers[2:], tickers[::-1], tickers[4:], tickers]
    with ThreadPoolExecutor(len(shares)) as pool:
        results = [result for found in pool.map(load_some, shares) for result in found]
    assert sorted(result.ticker for result in results) == sorted(tickers)
    books = "select distinct loads from ops.object_loads where table_name = 'weekly_bars'"
    live = content_of_weeks(warehouse)
    with warehouse.connect() as connection:
        assert connection.execute(books).fetchall() == [(1,)]
    assert {ticker for ticker, *_ in live[0]} == set(tickers)
    assert live[1]
    list(silver.rebuild(bronze, warehouse, weekly, tickers))
    assert content_of_weeks(warehouse) == live


def content_of_weeks(warehouse):
    with warehouse.connect() as connection:
        return [
            connection.execute(statement).fetchall()
            for statement in (
                "select ticker, week_start, close, row_version, bronze_key, known_at "
                "from silver.weekly_bars order by 1, 2",
                "select ticker, row_key, superseded_at, class, old_bronze_key, new_bronze_key "
                "from silver.superseded_rows order by 1, 2, 3",
            )
        ]


def test_parts_of_a_lock_exclude_each_other_where_they_overlap(warehouse):
    with warehouse.locks("load x", ["A", "B"]):
        assert not waits(warehouse, ["C"])
        assert waits(warehouse, ["B", "C"])
        assert waits(warehouse, [f"T{number}" for number in range(PARTS_OF_A_LOCK + 1)])
    with warehouse.locks("load x", [f"T{number}" for number in range(PARTS_OF_A_LOCK + 1)]):
        assert waits(warehouse, ["C"])
    assert not waits(warehouse, ["A"])


def waits(warehouse, parts):
    """Tell whether who wants `parts` has to wait for somebody."""
    url = f"{warehouse.database_url}?options=-c%20lock_timeout%3D200"
    try:
        with Warehouse(url).locks("load x", parts):
            return False
    except psycopg.errors.LockNotAvailable:
        return True


def test_migrations_can_run_again_and_at_the_same_time(warehouse):
    threads = [threading.Thread(target=warehouse.migrate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored(warehouse) == []


def test_an_object_is_written_once(store):
    assert store.put_new("bronze/x", b"first", {})
    assert not store.put_new("bronze/x", b"second", {})
    assert store.get("bronze/x") == b"first"


def test_a_reply_is_kept_byte_for_byte_and_the_same_one_only_once(bronze, store):
    ticker = MARKET.tickers(1)[0]
    source = SampleSource(MARKET, lambda: date(2026, 1, 9))
    call = Call("weekly_bars", ticker)
    ((_, first),) = bronze.ingest(source, WEEKLY_BARS, [call], threads=2)
    ((answered, second),) = bronze.ingest(source, WEEKLY_BARS, [call], threads=2)
    assert answered == call
    assert isinstance(first, Stored)
    assert (first.is_new, second.is_new) == (True, False)
    assert first.key == second.key
    expected = MARKET.reply("TIME_SERIES_WEEKLY_ADJUSTED", ticker, date(2026, 1, 9))
    assert bronze.read(first.key) == expected
    assert list(store.keys_after("bronze/", "")) == [str(first.key)]


def test_objects_that_others_put_into_the_bucket_are_found_and_strange_keys_named(bronze, store):
    body = b'{"symbol": "BF/B", "data": []}'
    moment = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    key = BronzeKey("splits", "BF/B", moment, content_hash(body))
    store.put_new(str(key), body, {})
    store.put_new("bronze/splits/2026-03-04/notes.txt", b"", {})
    assert bronze.sync_index(SPLITS).new == 1
    ((strange, _, reason),), _ = Arrivals(bronze._warehouse).tell([], told_until=NEVER)
    assert strange == "bronze/splits/2026-03-04/notes.txt"
    assert "is not a bronze key; expected" in reason
    assert bronze.newest(SPLITS, ["BF/B"]) == {Call("splits", "BF/B"): key}
    # One that sorts earlier within the day, and came later, is not missed.
    late = BronzeKey("splits", "A", moment.replace(hour=1), content_hash(body))
    store.put_new(str(late), body, {})
    bronze.sync_index(SPLITS)
    assert bronze.newest(SPLITS, ["A"]) == {Call("splits", "A"): late}


def test_rejected_rows_are_kept_with_their_reason_while_good_ones_load(world):
    ticker = MARKET.tickers(1)[0]

    class Damaged(SampleSource):
        def fetch(self, dataset, ticker, part="", **how):
            outcome = super().fetch(dataset, ticker, part, **how)
            if dataset is WEEKLY_BARS:
                body = outcome.body.replace(b'"1. open": "', b'"1. open": "-', 1)
                return type(outcome)(body, outcome.function)
            return outcome

    world.add(ticker)
    whole = world.refresh(SampleSource(MARKET, lambda: date(2026, 1, 9)), [ticker], layers=INGEST)
    assert whole.success
    expected = world.query("select count(*) from silver.weekly_bars").item()
    assert world.refresh(
        Damaged(MARKET, lambda: date(2026, 1, 16)), [ticker], layers=INGEST
    ).success
    rejected = world.query("select ticker, table_name, rules, bronze_key from silver.rejected_rows")
    assert rejected.height == 1
    row = rejected.row(0, named=True)
    assert (row["ticker"], row["table_name"]) == (ticker, "weekly_bars")
    assert "open|min_exclusive" in row["rules"]
    assert row["bronze_key"] in world.objects()
    assert world.query("select count(*) from silver.weekly_bars").item() == expected


@pytest.mark.parametrize(
    ("rejected", "tolerated", "passed", "severity"),
    [
        (0, 0.0, True, "WARN"),
        (1, 0.01, False, "WARN"),
        (2, 0.01, False, "ERROR"),
        (1, 0.0, False, "ERROR"),
        (50, 0.5, False, "WARN"),
    ],
)
def test_rows_that_break_rules_warn_up_to_the_tolerated_share_and_fail_above(
    warehouse, rejected, tolerated, passed, severity
):
    key = "bronze/daily_bars/x"
    loaded = SilverLoad("A", [key], 100 - rejected, rejected, None, None)
    rows = [RejectedRow("A", key, "{}", ["close|min_exclusive"])] * rejected
    warehouse.record_silver_loads("daily_bars", [loaded], rows, [key], warehouse.now())
    check = {
        check.check_key.asset_key.path[1]: check
        for check in silver_checks(tolerated_share=tolerated)
    }["daily_bars"]
    result = check(warehouse=warehouse)
    assert (result.passed, result.severity.value) == (passed, severity)
    assert result.metadata["rejected_rows"].value == rejected
    by_rule = {"close|min_exclusive": rejected} if rejected else {}
    assert result.metadata["by_rule"].value == by_rule
    assert f"over {100 * tolerated:g} % of the rows" in next(iter(check.check_specs)).description
