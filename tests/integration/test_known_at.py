"""What silver knew when: restatements, prices as of a past moment, and silver built anew."""

import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime

import polars as pl
import pytest

from stocks_assets.adapters import silver
from stocks_assets.adapters.sources.replay import ReplaySource
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.domain.datasets import DAILY_BARS, DATASETS, WEEKLY_BARS, Call
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.domain.sample_market import SampleMarket

MARKET = SampleMarket(first_session=date(2024, 1, 2))
TICKERS = MARKET.tickers(6)
# Quarters in which the sample market pays dividends and splits, and a week in its middle.
DAYS = [date(2025, 3, 5), date(2025, 3, 7), date(2025, 6, 30), date(2025, 9, 30), date(2025, 10, 1)]
WEEKLY, DAILY = SILVER_TABLES["weekly_bars"], SILVER_TABLES["daily_bars"]
RECORDED = ["AAPL", "DELL", "IBM", "MSFT"]


def fetch(bronze, source, dataset, tickers):
    calls = [Call(dataset.name, ticker) for ticker in tickers]
    for _ in bronze.ingest(source, dataset, calls, threads=4):
        pass


def load(bronze, warehouse, table, tickers=TICKERS):
    results = list(silver.load(bronze, warehouse, table, tickers, only_stale=True))
    assert [r for r in results if isinstance(r, silver.Failed)] == []
    return results


def query(warehouse, sql, *parameters):
    with warehouse.connect() as connection:
        return connection.execute(sql, parameters).fetchall()


def shaped(bronze, table, tickers, moment):
    """What the objects said that had come by `moment`, shaped anew."""
    parts = []
    for ticker, line in bronze.timelines(table.inputs, tickers).items():
        objects = {key.payload_name: key for key in line if key.fetched_at <= moment}
        if objects:
            payloads = {name: bronze.read(key) for name, key in objects.items()}
            parts.append(table.shape(ticker, payloads).rows.select(table.columns))
    return pl.concat(parts).sort(table.primary_key)


def as_of(warehouse, table, moment):
    with warehouse.connect() as connection:
        found = pl.read_database(
            f"select * from silver.{table.name}_as_of(%s)",
            connection,
            execute_options={"params": (moment,)},
        )
    return found.select(table.columns).sort(table.primary_key)


def content(warehouse):
    """All that silver holds, but for when and by which load it was written."""
    tables = ["superseded_rows", "restated_closes", *SILVER_TABLES]
    return {
        table: query(
            warehouse,
            "select md5(string_agg(line, '' order by line)) from (select (to_jsonb(t) - 'load_id' "
            f"- 'loaded_at')::text as line from silver.{table} t) lines",
        )
        for table in tables
    }


def history(bronze, warehouse, *, loads_between):
    """Let the market go on, fetching on each day; return the moments after each fetch."""
    moments = []
    for day in DAYS:
        source = SampleSource(MARKET, lambda day=day: day)
        for dataset in (WEEKLY_BARS, DAILY_BARS):
            fetch(bronze, source, dataset, TICKERS)
        if loads_between:
            for table in (WEEKLY, DAILY):
                load(bronze, warehouse, table)
        moments.append(datetime.now(UTC))
    for table in (WEEKLY, DAILY):
        load(bronze, warehouse, table)
    return moments


@pytest.mark.parametrize("loads_between", [True, False], ids=["loaded daily", "loaded in the end"])
def test_prices_read_as_of_a_moment_are_what_the_objects_said_that_had_come(
    bronze, warehouse, loads_between
):
    moments = history(bronze, warehouse, loads_between=loads_between)
    for moment in [*moments, datetime(2000, 1, 1, tzinfo=UTC)]:
        for table in (WEEKLY, DAILY):
            known = as_of(warehouse, table, moment)
            if moment.year == 2000:
                assert known.is_empty()
                continue
            assert known.equals(shaped(bronze, table, TICKERS, moment)), (table.name, moment)
    classes = dict(query(warehouse, "select class, count(*) from silver.restatements group by 1"))
    assert {"dividend", "split"} & classes.keys()
    assert "vendor correction" not in classes
    assert "removed" not in classes


def test_silver_is_built_anew_from_bronze_alone_to_the_same_content(bronze, warehouse):
    history(bronze, warehouse, loads_between=True)
    before = content(warehouse)
    assert before["superseded_rows"] != [(None,)]
    with warehouse.connect() as connection:
        connection.execute("update silver.daily_bars set close = 1, open = low + 0")
        connection.execute("truncate silver.restated_closes")
        connection.execute("delete from silver.weekly_bars where session_date > '2025-01-01'")
    for table in (WEEKLY, DAILY):
        results = list(silver.rebuild(bronze, warehouse, table, TICKERS))
        assert {type(result) for result in results} == {silver.Loaded}
    assert content(warehouse) == before
    assert load(bronze, warehouse, WEEKLY) == []


def test_two_recorded_vintages_restate_what_they_restate(bronze, warehouse, recordings):
    moments = []
    for vintage in (date(2022, 2, 11), date(2024, 4, 15)):
        fetch(bronze, ReplaySource(recordings, vintage), WEEKLY_BARS, RECORDED)
        load(bronze, warehouse, WEEKLY, RECORDED)
        moments.append(datetime.now(UTC))
    for moment in moments:
        known = as_of(warehouse, WEEKLY, moment)
        assert known.equals(shaped(bronze, WEEKLY, RECORDED, moment))
    events = query(
        warehouse,
        "select ticker, class, columns, rows_changed from silver.restatements order by 1, 2",
    )
    assert events == [
        ("AAPL", "dividend", ["adjusted_close"], 1162),
        ("DELL", "dividend", ["adjusted_close"], 164),
        ("IBM", "dividend", ["adjusted_close"], 1162),
        ("IBM", "vendor correction", ["volume"], 1),
        ("MSFT", "dividend", ["adjusted_close"], 1162),
    ]
    values = query(
        warehouse,
        "select row_key, column_name, old_value, new_value from silver.restated_values "
        "where column_name <> 'adjusted_close'",
    )
    assert values == [("2022-02-07", "volume", "23388276", "23489144")]


def test_a_partial_week_leaves_no_phantom_bar_and_says_that_it_is_not_complete(bronze, warehouse):
    ticker = TICKERS[:1]
    for day in (date(2025, 3, 3), date(2025, 3, 5), date(2025, 3, 7)):
        fetch(bronze, SampleSource(MARKET, lambda day=day: day), WEEKLY_BARS, ticker)
        load(bronze, warehouse, WEEKLY, ticker)
        weeks = query(
            warehouse,
            "select week_start, session_date, is_complete from silver.weekly_bars "
            "where week_start >= '2025-02-24' order by 1",
        )
        assert weeks == [
            (date(2025, 2, 24), date(2025, 2, 28), True),
            (date(2025, 3, 3), day, day == date(2025, 3, 7)),
        ]
    assert query(warehouse, "select from silver.restatements where class = 'running period'") == []


def test_a_load_killed_at_any_moment_and_run_again_ends_as_an_undisturbed_one(
    bronze, warehouse, store, servers
):
    history(bronze, warehouse, loads_between=False)
    expected = content(warehouse)
    with warehouse.connect() as connection:
        connection.execute(
            "truncate silver.weekly_bars, silver.daily_bars, silver.superseded_rows, "
            "silver.restated_closes, ops.silver_loads"
        )
    script = f"""
from stocks_assets.adapters import silver
from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.object_store import ObjectStore, S3Location
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.payloads import SILVER_TABLES
location = S3Location({servers.s3_endpoint_url!r}, {servers.aws_access_key_id!r}, {servers.aws_secret_access_key!r})
warehouse = Warehouse({warehouse.database_url!r})
bronze = BronzeStore(ObjectStore(location, {store.bucket!r}), warehouse)
print("ready", flush=True)
for table in ("weekly_bars", "daily_bars"):
    for _ in silver.load(bronze, warehouse, SILVER_TABLES[table], {TICKERS!r}, only_stale=True):
        pass
"""
    for delay in (0.3, 0.9, 1.6, 2.5):
        with subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
        ) as process:
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
    for table in (WEEKLY, DAILY):
        load(bronze, warehouse, table)
    assert content(warehouse) == expected


def test_an_object_of_rubbish_is_refused_whole_and_the_next_good_one_loads(bronze, warehouse):
    ticker = TICKERS[:1]

    class Rubbish(SampleSource):
        def fetch(self, dataset, ticker, part=""):
            outcome = super().fetch(dataset, ticker, part)
            body = outcome.body.replace(b'"1. open": "', b'"1. open": "-')
            return type(outcome)(body, outcome.function)

    fetch(bronze, SampleSource(MARKET, lambda: DAYS[0]), WEEKLY_BARS, ticker)
    load(bronze, warehouse, WEEKLY, ticker)
    before = query(warehouse, "select * from silver.weekly_bars order by 1, 2")
    fetch(bronze, Rubbish(MARKET, lambda: DAYS[1]), WEEKLY_BARS, ticker)
    (failed,) = silver.load(bronze, warehouse, WEEKLY, ticker, only_stale=True)
    assert "rows break a rule (" in failed.reason
    assert "open|min_exclusive" in failed.reason
    assert query(warehouse, "select * from silver.weekly_bars order by 1, 2") == before
    assert len(warehouse.rejections("weekly_bars").refused) == 1
    fetch(bronze, SampleSource(MARKET, lambda: DAYS[2]), WEEKLY_BARS, ticker)
    (loaded,) = load(bronze, warehouse, WEEKLY, ticker)
    assert loaded.load.last_date == DAYS[2]
    assert warehouse.rejections("weekly_bars").refused == []


def test_every_column_of_silver_says_what_it_is(warehouse):
    silent = query(
        warehouse,
        "select table_name, column_name from information_schema.columns "
        "where table_schema = 'silver' and column_name in ('known_at', 'bronze_key', 'load_id') "
        "and table_name = any(%s) and col_description(format('silver.%%I', table_name)::regclass, "
        "ordinal_position) is null",
        list(DATASETS),
    )
    assert silent == []
