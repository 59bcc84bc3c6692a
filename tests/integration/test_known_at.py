"""What silver knew when: restatements, prices as of a past moment, and silver built anew."""

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from unittest.mock import ANY

import polars as pl
import psycopg
import pytest

from stocks_assets.adapters import silver
from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.sources.replay import ReplaySource
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.domain.bronze_key import BronzeKey, content_hash
from stocks_assets.domain.calendar import sessions
from stocks_assets.domain.datasets import DAILY_BARS, WEEKLY_BARS, Call
from stocks_assets.domain.outcomes import Data
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.domain.sample_market import SampleMarket

MARKET = SampleMarket(first_session=date(2024, 1, 2))
TICKERS = MARKET.tickers(6)
# Quarters in which the sample market pays dividends and splits, and a week in its middle.
DAYS = [date(2025, 3, 5), date(2025, 3, 7), date(2025, 6, 30), date(2025, 9, 30), date(2025, 10, 1)]
WEEKLY, DAILY = SILVER_TABLES["weekly_bars"], SILVER_TABLES["daily_bars"]
INTRADAY = SILVER_TABLES["intraday_bars"]
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
        connection.execute("update silver.daily_bars set close = low, volume = 0")
        connection.execute("truncate silver.restated_closes")
        connection.execute("delete from silver.weekly_bars where session_date > '2025-01-01'")
    for table in (WEEKLY, DAILY):
        results = list(silver.rebuild(bronze, warehouse, table, TICKERS))
        assert {type(result) for result in results} == {silver.Loaded}
    assert content(warehouse) == before
    assert load(bronze, warehouse, WEEKLY) == []


@pytest.mark.parametrize("accepted", [False, True], ids=["refused", "accepted"])
def test_a_short_history_is_what_it_was_when_silver_is_built_anew(bronze, warehouse, accepted):
    rows = [(friday, 64.0, 64.0, 0.0, 1, 7) for friday in FRIDAYS]
    tell(bronze, warehouse, WEEKLY, payload(WEEKLY, rows[:25]))
    fetch(bronze, Told({("A", ""): payload(WEEKLY, rows[:10])}), WEEKLY_BARS, ["A"])
    (failed,) = silver.load(bronze, warehouse, WEEKLY, ["A"], only_stale=True)
    assert "10 rows where 25 are stored" in failed.reason
    if accepted:
        (loaded,) = silver.load(
            bronze, warehouse, WEEKLY, ["A"], only_stale=False, accept_shorter=True
        )
        assert loaded.load.row_count == 10
    tell(bronze, warehouse, WEEKLY, payload(WEEKLY, rows[:26]))
    before = content(warehouse)
    assert (before["superseded_rows"] != [(None,)]) == accepted
    list(silver.rebuild(bronze, warehouse, WEEKLY, ["A"]))
    assert content(warehouse) == before


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
        def fetch(self, dataset, ticker, part="", **how):
            outcome = super().fetch(dataset, ticker, part, **how)
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


class Told:
    """Sells what it is told to."""

    def __init__(self, bodies):
        self.bodies = bodies

    def fetch(self, dataset, ticker, part="", **_how):
        return Data(self.bodies[ticker, part], dataset.endpoints[0].function)


def tell(bronze, warehouse, table, body, ticker="A"):
    """Load the payload `body`, and return the moment after it came."""
    (dataset,) = (d for d in table.inputs if d.name == table.name)
    fetch(bronze, Told({(ticker, ""): body}), dataset, [ticker])
    load(bronze, warehouse, table, [ticker])
    return datetime.now(UTC)


def payload(table, rows):
    """A payload of `rows`: label, close, adjusted close, dividend, split and volume."""
    adjusted = ["5. adjusted close", "7. dividend amount", "8. split coefficient", "6. volume"]
    series = {}
    for label, close, *further in rows:
        high, low = str(close * 1.25), str(close * 0.75)
        bar = {"1. open": str(close), "2. high": high, "3. low": low, "4. close": str(close)}
        more = (
            dict(zip(adjusted, map(str, further), strict=True)) if further else {"5. volume": "7"}
        )
        series[str(label)] = bar | more
    key = "Weekly Adjusted Time Series" if table is WEEKLY else "Time Series (Daily)"
    return json.dumps({key: series}).encode()


def events(warehouse):
    return query(
        warehouse,
        "select class, columns, rows_changed, first_key from silver.restatements "
        "order by restated_at, class",
    )


FRIDAYS = [date(2024, 4, 5) + timedelta(weeks=n) for n in range(30)]


def test_each_of_many_vintages_is_told_by_its_own_event(bronze, warehouse):
    closes = {friday: 64.0 + n % 5 for n, friday in enumerate(FRIDAYS[:25])}
    factors = dict.fromkeys(FRIDAYS, 1.0)
    dividends, volumes, labels = {}, {}, {}
    moments = []

    def vintage():
        rows = [
            (
                labels.get(f, f),
                close,
                close * factors[f],
                dividends.get(f, 0.0),
                1,
                volumes.get(f, 7),
            )
            for f, close in closes.items()
        ]
        moments.append((tell(bronze, warehouse, WEEKLY, payload(WEEKLY, rows)), events(warehouse)))

    def restate(by, before):
        factors.update({f: factor * by for f, factor in factors.items() if f < before})

    labels[FRIDAYS[24]] = FRIDAYS[24] - timedelta(days=3)
    vintage()
    labels.clear()
    closes[FRIDAYS[24]] = 80.0
    vintage()
    closes[FRIDAYS[25]], dividends[FRIDAYS[25]] = 60.0, 4.0
    restate(60 / 64, before=FRIDAYS[25])
    vintage()
    closes[FRIDAYS[26]] = 16.0
    restate(0.25, before=FRIDAYS[26])
    vintage()
    closes[FRIDAYS[27]], dividends[FRIDAYS[27]] = 8.0, 0.5
    restate(0.5 * 8 / 8.5, before=FRIDAYS[27])
    vintage()
    volumes[FRIDAYS[3]] = 9
    vintage()
    del closes[FRIDAYS[0]]
    vintage()
    factors.update(
        {f: round(factor * closes.get(f, 1), 4) / closes.get(f, 1) for f, factor in factors.items()}
    )
    vintage()

    adjusted = ["adjusted_close"]
    expected = [
        [],
        [],
        [("dividend", adjusted, 25, "2024-04-01")],
        [("split", adjusted, 26, "2024-04-01")],
        [("dividend and split", adjusted, 27, "2024-04-01")],
        [("vendor correction", ["volume"], 1, "2024-04-22")],
        [("removed", sorted({*WEEKLY.columns} - {*WEEKLY.primary_key}), 1, "2024-04-01")],
        [("rounding", adjusted, ANY, "2024-04-08")],
    ]
    so_far = []
    for (moment, found), new in zip(moments, expected, strict=True):
        so_far += new
        assert found == so_far
        known = as_of(warehouse, WEEKLY, moment)
        assert known.equals(shaped(bronze, WEEKLY, ["A"], moment))
    before = content(warehouse)
    list(silver.rebuild(bronze, warehouse, WEEKLY, ["A"]))
    assert content(warehouse) == before


DAYS_OF_JUNE = sessions(date(2024, 6, 3), date(2024, 6, 28))


def test_raw_bars_after_adjusted_ones_are_no_event_and_both_are_known_as_they_were(
    bronze, warehouse
):
    adjusted = [(day, 80.0, 20.0, 0.0, 1, 7) for day in DAYS_OF_JUNE[:12]]
    raw = [(day, 80.0) for day in DAYS_OF_JUNE[8:12]] + [(day, 20.0) for day in DAYS_OF_JUNE[12:]]
    first = tell(bronze, warehouse, DAILY, payload(DAILY, adjusted))
    second = tell(bronze, warehouse, DAILY, payload(DAILY, raw))
    assert events(warehouse) == []
    whole = [(day, 80.0, 20.0, 0.0, 1, 7) for day in DAYS_OF_JUNE[:12]]
    whole += [
        (day, 20.0, 20.0, 0.0, 4 if n == 0 else 1, 7) for n, day in enumerate(DAYS_OF_JUNE[12:])
    ]
    whole[3] = (DAYS_OF_JUNE[3], 80.0, 20.0, 0.0, 1, 9)
    third = tell(bronze, warehouse, DAILY, payload(DAILY, whole))
    assert events(warehouse) == [("vendor correction", ["volume"], 1, str(DAYS_OF_JUNE[3]))]
    for moment in (first, third):
        assert as_of(warehouse, DAILY, moment).equals(shaped(bronze, DAILY, ["A"], moment))
    between = as_of(warehouse, DAILY, second).select("session_date", "close", "adjusted_close")
    assert between.rows() == [
        *((day, 80.0, 20.0) for day in DAYS_OF_JUNE[:8]),
        *((day, 80.0, None) for day in DAYS_OF_JUNE[8:12]),
        *((day, 20.0, None) for day in DAYS_OF_JUNE[12:]),
    ]


def test_every_table_view_and_column_of_silver_says_what_it_is(warehouse):
    silent = query(
        warehouse,
        "select relname, attname from pg_class join pg_namespace n on n.oid = relnamespace "
        "join pg_attribute on attrelid = pg_class.oid "
        "where nspname = 'silver' and relkind in ('r', 'v') and not attisdropped "
        "and (attnum > 0 and col_description(pg_class.oid, attnum) is null "
        "or obj_description(pg_class.oid, 'pg_class') is null)",
    )
    assert silent == []
    functions = query(
        warehouse,
        "select proname from pg_proc join pg_namespace n on n.oid = pronamespace "
        "where nspname = 'silver' and obj_description(pg_proc.oid, 'pg_proc') is null",
    )
    assert functions == []


NAN, INFINITY = float("nan"), float("inf")
BAR = {"open": 10, "high": 12, "low": 9, "close": 11, "volume": 7}
WEEK = BAR | {
    "week_start": date(2024, 4, 15),
    "session_date": date(2024, 4, 19),
    "adjusted_close": 11,
    "dividend_amount": 0,
    "is_complete": True,
}
MONTH = {name: value for name, value in WEEK.items() if name != "week_start"}
MONTH["month_start"] = date(2024, 4, 1)
SESSION = BAR | {"session_date": date(2024, 4, 15), "adjusted_close": 11, "split_coefficient": 1}
FIVE_MINUTES = BAR | {
    "starts_at": datetime(2024, 4, 15, 15, 55, tzinfo=UTC),
    "session_date": date(2024, 4, 15),
}
DIVIDEND = {"ex_date": date(2024, 4, 15), "action_type": "dividend", "dividend_amount": 1}
SPLIT = {"ex_date": date(2024, 4, 15), "action_type": "split", "split_ratio": 2}
UNSOUND = [
    *(("weekly_bars", WEEK, wrong) for wrong in [
        {"week_start": date(2024, 4, 16)}, {"session_date": date(2024, 4, 22)}, {"high": 8},
        {"open": 13}, {"close": 8.5}, {"volume": -1}, {"adjusted_close": -1},
        {"adjusted_close": NAN}, {"dividend_amount": NAN}, {"known_at": None}, {"ticker": None},
    ]),
    *(("monthly_bars", MONTH, wrong) for wrong in [
        {"month_start": date(2024, 4, 2)}, {"session_date": date(2024, 5, 1)}, {"low": 0},
        {"adjusted_close": INFINITY}, {"is_complete": None},
    ]),
    *(("daily_bars", SESSION, wrong) for wrong in [
        {"split_coefficient": 0}, {"split_coefficient": NAN}, {"dividend_amount": -0.01},
        {"high": INFINITY}, {"high": NAN, "close": NAN}, {"open": NAN}, {"bronze_key": None},
    ]),
    *(("intraday_bars", FIVE_MINUTES, wrong) for wrong in [
        {"session_date": date(2024, 4, 16)}, {"low": -1},
    ]),
    *(("corporate_actions", DIVIDEND, wrong) for wrong in [
        {"dividend_amount": 0}, {"dividend_amount": None}, {"dividend_amount": INFINITY},
        {"split_ratio": 2}, {"action_type": "merger"},
    ]),
    *(("corporate_actions", SPLIT, wrong) for wrong in [{"split_ratio": -2}, {"split_ratio": NAN}]),
]  # fmt: skip


def test_the_tables_themselves_take_sound_rows_and_no_others(warehouse):
    provenance = {
        "ticker": "A",
        "row_version": 0,
        "bronze_key": "bronze/of/it",
        "load_id": "load",
        "loaded_at": datetime.now(UTC),
        "known_at": datetime.now(UTC),
    }

    def insert(connection, table, row):
        marks = ", ".join(["%s"] * len(row))
        connection.execute(
            f"insert into silver.{table} ({', '.join(row)}) values ({marks})", list(row.values())
        )

    with psycopg.connect(warehouse.database_url, autocommit=True) as connection:
        for table, sound, wrong in UNSOUND:
            with connection.transaction(force_rollback=True):
                insert(connection, table, provenance | sound)
            with pytest.raises(psycopg.errors.IntegrityError):
                insert(connection, table, provenance | sound | wrong)


# Objects that others put into the bucket, minute by minute

SESSIONS = [str(day) for day in sessions(date(2026, 2, 23), date(2026, 2, 26))]


def at(minute):
    return datetime(2026, 3, 2, 12, minute, tzinfo=UTC)


def put(store, dataset, minute, body, part=""):
    key = BronzeKey(dataset, "A", at(minute), content_hash(body), part)
    store.put_new(str(key), body, {})
    return str(key)


def load_all(bronze, warehouse, table, *, only_stale=True, accept_shorter=False):
    """Load what is new of the one ticker; return what became of it."""
    (result,) = silver.load(
        bronze, warehouse, table, ["A"], only_stale=only_stale, accept_shorter=accept_shorter
    )
    return result


def rebuild(bronze, warehouse, table):
    (result,) = silver.rebuild(bronze, warehouse, table, ["A"])
    return result


def month(day, price=10):
    """A payload of two bars of five minutes on `day`."""
    prices = dict.fromkeys(["1. open", "2. high", "3. low", "4. close"], str(price))
    series = {f"{day} 10:{minute}:00": prices | {"5. volume": "1"} for minute in ("00", "05")}
    meta = {"6. Time Zone": "US/Eastern"}
    return json.dumps({"Meta Data": meta, "Time Series (5min)": series}).encode()


def months(warehouse):
    return query(
        warehouse, "select session_date::text, close from silver.intraday_bars order by starts_at"
    )[::2]


TORN = month("2026-02-03")[:-40]


def test_a_torn_month_costs_no_other_one(bronze, store, warehouse):
    january = put(store, "intraday_bars", 1, month("2026-01-05"), "2026-01")
    torn = put(store, "intraday_bars", 2, TORN, "2026-02")
    failed = load_all(bronze, warehouse, INTRADAY)
    assert torn in failed.reason
    assert january not in failed.reason
    assert months(warehouse) == [("2026-01-05", 10)]
    assert list(warehouse.refused_objects("intraday_bars")) == [torn]
    february = put(store, "intraday_bars", 3, month("2026-02-03"), "2026-02")
    loaded = load_all(bronze, warehouse, INTRADAY)
    assert loaded.load.bronze_keys == [january, february]
    assert loaded.load.row_count == 4
    before = content(warehouse)
    assert months(warehouse) == [("2026-01-05", 10), ("2026-02-03", 10)]
    assert isinstance(rebuild(bronze, warehouse, INTRADAY), silver.Loaded)
    assert content(warehouse) == before


def test_rows_that_are_rejected_are_counted_over_the_months_of_a_load(bronze, store, warehouse):
    for minute, day in ((1, "2026-01-05"), (2, "2026-02-03")):
        body = month(day).replace(b'"10"', b'"-1"', 1)
        put(store, "intraday_bars", minute, body, day[:7])
    loaded = load_all(bronze, warehouse, INTRADAY)
    assert loaded.load.rejected_count == 2
    assert sum(loaded.rejected_by_rule.values()) >= 2


class Unreachable(BronzeStore):
    """A bucket that does not give one object away."""

    withheld = ""

    def read(self, key):
        if str(key) == self.withheld:
            raise ConnectionError("no answer")
        return super().read(key)


def test_no_object_is_loaded_ahead_of_one_that_could_not_be_had(bronze, store, warehouse):
    unreachable = Unreachable(store, warehouse)
    for minute in (1, 2, 3):
        key = put(store, "weekly_bars", minute, vintage(minute))
        if minute == 2:
            unreachable.withheld = key
    failed = load_all(unreachable, warehouse, WEEKLY)
    assert unreachable.withheld in failed.reason
    assert closes_of_week(warehouse, at(3)) == [1]
    load_all(bronze, warehouse, WEEKLY)
    assert [closes_of_week(warehouse, at(minute)) for minute in (1, 2, 3)] == [[1], [2], [3]]


@pytest.mark.parametrize("error", [ConnectionError("no answer"), EOFError("torn")], ids=str)
def test_a_rebuild_that_could_not_have_an_object_replaces_nothing(bronze, store, warehouse, error):
    class Withholding(BronzeStore):
        def read(self, key):
            if str(key) == first:
                raise error
            return super().read(key)

    first = put(store, "weekly_bars", 1, vintage(1))
    put(store, "weekly_bars", 2, vintage(2))
    load_all(bronze, warehouse, WEEKLY)
    before = content(warehouse)
    for _ in range(2):
        failed = rebuild(Withholding(store, warehouse), warehouse, WEEKLY)
        assert str(error) in failed.reason
        assert first in failed.reason
    assert content(warehouse) == before
    assert warehouse.refused_objects("weekly_bars") == {}


@pytest.mark.parametrize("is_last", [True, False], ids=["at the end", "in the middle"])
def test_what_is_refused_and_accepted_comes_out_of_bronze_alone(bronze, store, warehouse, is_last):
    def weeks(count, close=64.0):
        return payload(WEEKLY, [(friday, close, 64.0, 0.0, 1, 7) for friday in FRIDAYS[:count]])

    def forget():
        with warehouse.connect() as connection:
            connection.execute(
                "truncate silver.weekly_bars, silver.superseded_rows, silver.restated_closes, "
                "silver.rejected_rows, ops.silver_loads, ops.refused_objects"
            )
            connection.execute(
                "update ops.object_loads set loaded_at = null, loads = 0, is_refused = false"
            )

    bodies = [weeks(25), weeks(10), weeks(24, -1.0), weeks(25)[:-40], None]
    for minute, body in enumerate(bodies, start=1):
        if body is None:
            rubbish = BronzeKey("weekly_bars", "A", at(minute), content_hash(b"rubbish"))
            store.put_text(str(rubbish), "rubbish")
        else:
            put(store, "weekly_bars", minute, body)
        load_all(bronze, warehouse, WEEKLY)
    put(store, "weekly_bars", 6, weeks(9))
    accepted = load_all(bronze, warehouse, WEEKLY, only_stale=False, accept_shorter=True)
    assert accepted.load.row_count == 9
    put(store, "weekly_bars", 7, weeks(20, 65.0))
    load_all(bronze, warehouse, WEEKLY)
    put(store, "weekly_bars", 8, weeks(1) if is_last else weeks(21))
    result = load_all(bronze, warehouse, WEEKLY)
    assert isinstance(result, silver.Failed) == is_last
    before = content(warehouse)
    refused = warehouse.refused_objects("weekly_bars").keys()
    # With the short one that was accepted goes the first one, which waited before it.
    assert len(refused) == 3 + is_last
    for build in (rebuild, load_all):
        forget()
        again = build(bronze, warehouse, WEEKLY)
        assert isinstance(again, silver.Failed) == is_last
        assert content(warehouse) == before
        assert warehouse.refused_objects("weekly_bars").keys() == refused
    rebuild(bronze, warehouse, WEEKLY)
    assert content(warehouse) == before


def vintage(close):
    return payload(WEEKLY, [(FRIDAYS[0], close, close, 0.0, 1, 7)])


def closes_of_week(warehouse, moment):
    return as_of(warehouse, WEEKLY, moment)["close"].to_list()


def vendors(*closes, adjusted=True):
    """The vendor's payload with a bar a session, whole or as a free key gets it; None is no bar."""
    further = (7.0, 0.0, 1, 7) if adjusted else ()
    bars = zip(SESSIONS, closes, strict=False)
    return payload(DAILY, [(day, close, *further) for day, close in bars if close is not None])


def file(*closes, precedence="override"):
    """What bronze keeps of a file with a bar a session; no bar: it is withdrawn."""
    rows = [
        {"session_date": day, "volume": "5"}
        | dict.fromkeys(["open", "high", "low", "close"], str(close))
        for day, close in zip(SESSIONS, closes, strict=False)
        if close is not None
    ]
    return json.dumps({"source": "x.csv", "precedence": precedence, "rows": rows}).encode()


def closes_as_of(warehouse, *minutes):
    return [as_of(warehouse, DAILY, at(minute))["close"].to_list() for minute in minutes]


@pytest.mark.parametrize("one_by_one", [True, False], ids=["one by one", "all at once"])
def test_prices_are_known_as_files_came_and_went(bronze, store, warehouse, one_by_one):
    arrivals = [
        ("daily_bars", vendors(10, 11, 12), ""),
        ("dropped_daily_bars", file(None, 99), "f"),
        ("dropped_daily_bars", file(), "f"),
        ("daily_bars", vendors(10, 21, 12), ""),
        ("dropped_daily_bars", file(None, 98), "f"),
        ("dropped_daily_bars", file(), "f"),
    ]
    for minute, (dataset, body, part) in enumerate(arrivals, start=1):
        put(store, dataset, minute, body, part)
        if one_by_one:
            load_all(bronze, warehouse, DAILY)
    if not one_by_one:
        load_all(bronze, warehouse, DAILY)
    known = [[10, close, 12] for close in (11, 99, 11, 21, 98, 21)]
    assert closes_as_of(warehouse, *range(1, 7)) == known
    assert query(warehouse, "select count(*) from silver.superseded_rows") == [(5,)]
    now = "select close, source from silver.daily_bars order by session_date"
    assert query(warehouse, now)[1] == (21, "vendor")
    before = content(warehouse)
    rebuild(bronze, warehouse, DAILY)
    assert content(warehouse) == before


def test_a_file_that_fills_takes_no_row_that_the_vendor_has_said(bronze, store, warehouse):
    def stored_after(minute, dataset, body, part=""):
        put(store, dataset, minute, body, part)
        assert isinstance(load_all(bronze, warehouse, DAILY), silver.Loaded)
        said = query(warehouse, "select close, source from silver.daily_bars order by session_date")
        return [(int(close), source[0]) for close, source in said]

    everything, window_of_now = file(99, 98, 97, 96, precedence="fill"), [None, 21, 22]
    stored_after(1, "daily_bars", vendors(10, 11, adjusted=False))
    filled = [(10, "v"), (11, "v"), (97, "i"), (96, "i")]
    assert stored_after(2, "dropped_daily_bars", everything, "f") == filled
    moved_on = [(10, "v"), (21, "v"), (22, "v"), (96, "i")]
    assert stored_after(3, "daily_bars", vendors(*window_of_now, adjusted=False)) == moved_on
    won = [(50, "i"), *moved_on[1:]]
    assert stored_after(4, "dropped_daily_bars", file(50), "o") == won
    assert stored_after(5, "dropped_daily_bars", file(), "o") == moved_on
    told = events(warehouse)
    assert {kind for kind, *_ in told} == {"file", "vendor correction"}
    corrected = [event for event in told if event[0] == "vendor correction"]
    assert [(count, key) for _, _, count, key in corrected] == [(1, SESSIONS[1])]
    before = content(warehouse)
    rebuild(bronze, warehouse, DAILY)
    assert content(warehouse) == before
    # What a whole history has no more is the file's to fill.
    assert stored_after(6, "daily_bars", vendors(*window_of_now)) == [(99, "i"), *moved_on[1:]]


def test_a_row_of_a_withdrawn_file_goes_when_nothing_is_in_doubt_about_it(bronze, store, warehouse):
    put(store, "daily_bars", 1, vendors(10, adjusted=False))
    put(store, "dropped_daily_bars", 2, file(None, 11, 12), "x")
    put(store, "dropped_daily_bars", 3, file(None, None, -1), "y")
    closes = "select close from silver.daily_bars order by session_date"
    left = []
    for minute, path in ((4, "x"), (5, "y")):
        put(store, "dropped_daily_bars", minute, file(), path)
        load_all(bronze, warehouse, DAILY)
        left.append(query(warehouse, closes))
    assert left == [[(10,), (12,)], [(10,)]]


def test_an_action_of_a_file_that_fills_gives_way_to_what_bars_told(bronze, store, warehouse):
    actions = SILVER_TABLES["corporate_actions"]
    amounts = "select ex_date::text, dividend_amount from silver.corporate_actions order by 1"
    lines = [{"ex_date": day, "action_type": "dividend", "amount": "0.7"} for day in SESSIONS[:2]]
    body = json.dumps({"source": "x.csv", "precedence": "fill", "rows": lines}).encode()
    put(store, "dropped_actions", 1, body, "f")
    put(store, "daily_bars", 2, window("Compact", SESSIONS[:3], [SESSIONS[0]]))
    load_all(bronze, warehouse, actions)
    assert query(warehouse, amounts) == [(SESSIONS[0], 0.5), (SESSIONS[1], 0.7)]
    put(store, "daily_bars", 3, window("Compact", SESSIONS[1:], []))
    load_all(bronze, warehouse, actions)
    assert query(warehouse, amounts) == [(SESSIONS[0], 0.5), (SESSIONS[1], 0.7)]


def test_a_file_is_not_refused_with_the_reply_beside_it(bronze, store, warehouse):
    days = [str(day) for day in sessions(date(2026, 1, 5), date(2026, 2, 20))]
    bars = [(day, 8.0, 7.0, 0.0, 1, 7) for day in days]
    put(store, "daily_bars", 1, payload(DAILY, bars))
    load_all(bronze, warehouse, DAILY)
    short = put(store, "daily_bars", 2, payload(DAILY, bars[:3]))
    put(store, "dropped_daily_bars", 3, file(9), "f")
    failed = load_all(bronze, warehouse, DAILY)
    assert "3 rows where" in failed.reason
    assert list(warehouse.refused_objects("daily_bars")) == [short]
    before = as_of(warehouse, DAILY, at(3))
    assert before["close"].to_list() == [8.0] * len(days) + [9]
    rebuild(bronze, warehouse, DAILY)
    assert as_of(warehouse, DAILY, at(3)).equals(before)
    assert load_all(bronze, warehouse, DAILY).reason.endswith(f"({short})")
    accepted = load_all(bronze, warehouse, DAILY, only_stale=False, accept_shorter=True)
    assert accepted.load.row_count == 4


def test_of_objects_that_came_together_the_bad_one_alone_is_refused(bronze, store, warehouse):
    actions = SILVER_TABLES["corporate_actions"]
    bad = put(store, "splits", 1, b'{"data": {}}')
    paid = {"ex_dividend_date": SESSIONS[0], "amount": "0.5"}
    put(store, "dividends", 2, json.dumps({"data": [paid]}).encode())
    put(store, "daily_bars", 3, vendors(10, 11))
    failed = load_all(bronze, warehouse, actions)
    assert failed.reason.endswith(f"({bad})")
    assert list(warehouse.refused_objects("corporate_actions")) == [bad]
    assert query(warehouse, "select dividend_amount from silver.corporate_actions") == [(0.5,)]


def window(size, days, dividends):
    """The vendor's adjusted bars of `days`, of this output size."""
    rows = [(day, 8.0, 7.0, 0.5 if day in dividends else 0.0, 1, 7) for day in days]
    meta = {"Meta Data": {"4. Output Size": size}}
    return json.dumps(meta | json.loads(payload(DAILY, rows))).encode()


def test_a_compact_reply_takes_no_session_nor_action_away(bronze, store, warehouse):
    days = [str(day) for day in sessions(date(2025, 11, 3), date(2026, 2, 27))]
    actions = SILVER_TABLES["corporate_actions"]

    def stored_after(minute, size, some, dividends):
        put(store, "daily_bars", minute, window(size, some, dividends))
        for table in (DAILY, actions):
            assert isinstance(load_all(bronze, warehouse, table), silver.Loaded)
        bars = query(warehouse, "select session_date::text from silver.daily_bars order by 1")
        paid = query(warehouse, "select ex_date::text from silver.corporate_actions order by 1")
        return [day for (day,) in bars], [day for (day,) in paid]

    paid = [days[3], days[20]]
    assert stored_after(1, "Compact", days[:30], paid) == (days[:30], paid)
    # What the window does not reach stays; what it reaches is as it says.
    assert stored_after(2, "Compact", days[5:35], []) == (days[:35], paid[:1])
    assert stored_after(3, "Full size", days[:40], paid) == (days[:40], paid)
    assert stored_after(4, "Compact", days[30:45], [days[41]]) == (days[:45], [*paid, days[41]])
    gone = [days[0], days[1]]
    assert stored_after(5, "Full size", days[2:46], paid) == (days[2:46], paid)
    removed = "select row_key from silver.superseded_rows where class = 'removed' and table_name = 'daily_bars'"
    assert sorted(query(warehouse, removed)) == [(day,) for day in gone]
    before = content(warehouse)
    for table in (DAILY, actions):
        rebuild(bronze, warehouse, table)
    assert content(warehouse) == before


def test_a_bar_that_lost_its_dividend_costs_neither_the_bar_nor_the_action(
    bronze, store, warehouse
):
    rows = [
        (day, 10.0, 9.0, 0.5 if n == 1 else 0.0, 2 if n == 2 else 1, 7)
        for n, day in enumerate(SESSIONS)
    ]
    actions = SILVER_TABLES["corporate_actions"]
    put(store, "daily_bars", 1, payload(DAILY, rows))
    series = json.loads(payload(DAILY, rows))["Time Series (Daily)"]
    del series[SESSIONS[1]]["7. dividend amount"]
    series[SESSIONS[2]] = None
    put(store, "daily_bars", 2, json.dumps({"Time Series (Daily)": series}).encode())
    assert load_all(bronze, warehouse, DAILY).load.rejected_count == 2
    assert load_all(bronze, warehouse, actions).load.rejected_count == 0
    told = "select dividend_amount, split_coefficient from silver.daily_bars order by session_date"
    assert query(warehouse, told) == [(0.0, 1.0), (0.5, 1.0), (0.0, 2.0), (0.0, 1.0)]
    told = "select ex_date::text, dividend_amount, split_ratio from silver.corporate_actions order by 1"
    assert query(warehouse, told) == [(SESSIONS[1], 0.5, None), (SESSIONS[2], None, 2.0)]
    assert query(warehouse, "select count(*) from silver.superseded_rows") == [(0,)]


def test_a_history_is_too_short_whether_or_not_a_row_of_it_is_bad(bronze, store, warehouse):
    days = [str(day) for day in sessions(date(2026, 1, 5), date(2026, 2, 20))]
    bars = [(day, 8.0, 7.0, 0.0, 1, 7) for day in days]
    put(store, "daily_bars", 1, payload(DAILY, bars))
    load_all(bronze, warehouse, DAILY)
    bad = (days[1], -8.0, 7.0, 0.0, 1, 7)
    put(store, "daily_bars", 2, payload(DAILY, [bars[0], bad, bars[2]]))
    assert "3 rows where" in load_all(bronze, warehouse, DAILY).reason
    # So many bad rows are no loss of rows.
    put(
        store,
        "daily_bars",
        3,
        payload(DAILY, [(day, -8.0, *rest) for day, _, *rest in bars[:4]] + bars[4:]),
    )
    loaded = load_all(bronze, warehouse, DAILY)
    assert loaded.load.rejected_count == 4
    assert len(closes_as_of(warehouse, 3)[0]) == len(days)


@pytest.mark.parametrize(("before", "after"), [(1, 0), (2, 0), (4, 2), (20, 17)])
def test_a_list_of_actions_that_lost_much_of_itself_is_refused_by_itself(
    bronze, store, warehouse, before, after
):
    actions = SILVER_TABLES["corporate_actions"]
    days = [str(day) for day in sessions(date(2025, 1, 2), date(2025, 3, 2))]

    def splits(count):
        lines = [{"effective_date": day, "split_factor": "2"} for day in days[:count]]
        return json.dumps({"symbol": "A", "data": lines}).encode()

    paid = [{"ex_dividend_date": day, "amount": "0.5"} for day in days]
    put(store, "splits", 1, splits(before))
    put(store, "dividends", 2, json.dumps({"data": paid[:30]}).encode())
    load_all(bronze, warehouse, actions)
    short = put(store, "splits", 3, splits(after))
    put(store, "dividends", 4, json.dumps({"data": paid[1:31]}).encode())
    failed = load_all(bronze, warehouse, actions)
    assert f"has {after} splits where {before} are stored" in failed.reason
    assert list(warehouse.refused_objects("corporate_actions")) == [short]
    counts = "select action_type, count(*), max(ex_date)::text from silver.corporate_actions group by 1 order by 1"
    stored = [("dividend", 30, days[30]), ("split", before, days[before - 1])]
    assert query(warehouse, counts) == stored
    accepted = load_all(bronze, warehouse, actions, only_stale=False, accept_shorter=True)
    assert accepted.load.row_count == 30 + after


def test_a_list_may_correct_one_action_and_bars_may_take_one_back(bronze, store, warehouse):
    actions = SILVER_TABLES["corporate_actions"]
    days = [str(day) for day in sessions(date(2025, 1, 2), date(2025, 3, 2))]
    dates = "select ex_date::text from silver.corporate_actions order by 1"
    for minute, some in enumerate((days[:3], [*days[:2], days[5]], days[:2]), start=1):
        lines = [{"ex_dividend_date": day, "amount": "0.5"} for day in some]
        put(store, "dividends", minute, json.dumps({"data": lines}).encode())
        assert isinstance(load_all(bronze, warehouse, actions), silver.Loaded)
        assert query(warehouse, dates) == [(day,) for day in some]
    put(store, "daily_bars", 4, window("Full size", days, [days[9]]))
    load_all(bronze, warehouse, actions)
    put(store, "daily_bars", 5, window("Full size", days, []))
    assert isinstance(load_all(bronze, warehouse, actions), silver.Loaded)
    assert query(warehouse, dates) == [(days[0],), (days[1],)]


def test_a_short_history_of_weeks_is_believed_no_sooner_than_a_long_one(bronze, store, warehouse):
    rows = [(friday, 64.0, 64.0, 0.0, 1, 7) for friday in FRIDAYS[:19]]
    put(store, "weekly_bars", 1, payload(WEEKLY, rows))
    load_all(bronze, warehouse, WEEKLY)
    put(store, "weekly_bars", 2, payload(WEEKLY, rows[:1]))
    assert "1 rows where 19" in load_all(bronze, warehouse, WEEKLY).reason
    put(store, "weekly_bars", 3, payload(WEEKLY, rows[1:]))
    assert isinstance(load_all(bronze, warehouse, WEEKLY), silver.Loaded)


def test_a_long_file_that_is_withdrawn_is_no_loss_of_the_vendors(bronze, store, warehouse):
    days = [str(day) for day in sessions(date(2025, 1, 2), date(2025, 3, 2))]
    lines = [
        {"session_date": day, "volume": "5"} | dict.fromkeys(["open", "high", "low", "close"], "9")
        for day in days
    ]
    document = {"source": "x.csv", "precedence": "fill", "rows": lines}
    put(store, "dropped_daily_bars", 1, json.dumps(document).encode(), "f")
    put(store, "daily_bars", 2, vendors(10, 11, 12))
    load_all(bronze, warehouse, DAILY)
    put(store, "dropped_daily_bars", 3, file(), "f")
    loaded = load_all(bronze, warehouse, DAILY)
    assert isinstance(loaded, silver.Loaded)
    assert query(warehouse, "select count(*) from silver.daily_bars") == [(3,)]


@pytest.mark.parametrize("label", ["1961-01-01", "2029-01-02", str(SESSIONS[3])])
def test_a_row_whose_date_is_damaged_costs_no_stored_row(bronze, store, warehouse, label):
    put(store, "daily_bars", 1, vendors(10, 11, 12, 13))
    load_all(bronze, warehouse, DAILY)
    series = json.loads(vendors(10, 11, 12, 13))["Time Series (Daily)"]
    damaged = [
        f'"{label if day == str(SESSIONS[1]) else day}": {json.dumps(bar)}'
        for day, bar in series.items()
    ]
    put(store, "daily_bars", 2, f'{{"Time Series (Daily)": {{{", ".join(damaged)}}}}}'.encode())
    assert load_all(bronze, warehouse, DAILY).load.rejected_count == 1
    closes = query(warehouse, "select close from silver.daily_bars order by session_date")
    assert closes[:2] == [(10,), (11,)]
    assert closes[2:] in ([(12,), (13,)], [(12,), (11,)])


def test_a_week_whose_label_moved_into_another_week_keeps_its_stored_row(bronze, store, warehouse):
    rows = [(friday, 64.0 + n, 64.0, 0.0, 1, 7) for n, friday in enumerate(FRIDAYS[:5])]
    put(store, "weekly_bars", 1, payload(WEEKLY, rows))
    load_all(bronze, warehouse, WEEKLY)
    rows[1] = (FRIDAYS[3] - timedelta(days=2), *rows[1][1:])
    put(store, "weekly_bars", 2, payload(WEEKLY, rows))
    load_all(bronze, warehouse, WEEKLY)
    closes = query(warehouse, "select close from silver.weekly_bars order by week_start")
    assert closes == [(64.0 + n,) for n in range(5)]


@pytest.mark.parametrize(
    ("label", "left"),
    [(SESSIONS[2], [10, 12, 13]), ("no date", [10, 11, 12, 13])],
    ids=["of a session", "of no session"],
)
def test_a_bad_row_keeps_what_it_may_have_meant_and_nothing_else(
    bronze, store, warehouse, label, left
):
    put(store, "daily_bars", 1, vendors(10, 11, 12))
    load_all(bronze, warehouse, DAILY)
    good = [(SESSIONS[0], 10, 7.0, 0.0, 1, 7), (SESSIONS[3], 13, 7.0, 0.0, 1, 7)]
    put(store, "daily_bars", 2, payload(DAILY, [*good, (label, -12, 7.0, 0.0, 1, 7)]))
    load_all(bronze, warehouse, DAILY)
    assert closes_as_of(warehouse, 2) == [left]


def test_who_asks_for_a_ticker_by_name_gets_all_that_is_pending_in_order(bronze, store, warehouse):
    for minute in (1, 2):
        put(store, "weekly_bars", minute, vintage(minute))
    for minute in (3, 4):
        put(store, "weekly_bars", minute, vintage(minute))
        load_all(bronze, warehouse, WEEKLY, only_stale=False)
    put(store, "weekly_bars", 0, vintage(5))
    loaded = load_all(bronze, warehouse, WEEKLY, only_stale=False)
    known = [closes_of_week(warehouse, at(minute)) for minute in range(5)]
    assert known == [[5], [1], [2], [3], [4]]
    with warehouse.connect() as connection:
        connection.execute("update silver.weekly_bars set close = low, row_version = 0")
    again = load_all(bronze, warehouse, WEEKLY, only_stale=False)
    assert again.load == loaded.load
    assert closes_of_week(warehouse, at(5)) == [4]


def test_who_asks_for_months_by_name_gets_each_of_them_loaded_again(bronze, store, warehouse):
    for minute, day in ((1, "2026-01-05"), (2, "2026-02-03")):
        put(store, "intraday_bars", minute, month(day), day[:7])
    load_all(bronze, warehouse, INTRADAY)
    expected = months(warehouse)
    with warehouse.connect() as connection:
        connection.execute("delete from silver.intraday_bars where session_date < '2026-02-01'")
    put(store, "intraday_bars", 3, month("2026-03-02"), "2026-03")
    load_all(bronze, warehouse, INTRADAY, only_stale=False)
    assert months(warehouse) == [*expected, ("2026-03-02", 10)]


def test_what_was_ahead_of_an_object_is_refused_whenever_silver_runs(bronze, store, warehouse):
    # The second of them has not closed yet.
    later = [str(day) for day in sessions(date(2026, 2, 27), date(2026, 3, 3))]
    put(store, "daily_bars", 1, payload(DAILY, [(day, 10, 7.0, 0.0, 1, 7) for day in later]))
    loaded = load_all(bronze, warehouse, DAILY)
    assert (loaded.load.row_count, loaded.load.rejected_count) == (1, 1)
    assert "session_is_not_in_the_future" in loaded.rejected_by_rule


def test_bars_of_five_minutes_read_as_of_a_moment_are_what_was_said_by_then(
    bronze, store, warehouse
):
    for minute, price in ((1, 10), (3, 11), (5, 12)):
        put(store, "intraday_bars", minute, month("2026-02-03", price), "2026-02")
        other = f"2025-1{minute // 2}"
        put(store, "intraday_bars", minute + 1, month(f"{other}-03"), other)
        load_all(bronze, warehouse, INTRADAY)
    for moment in range(7):
        known = as_of(warehouse, INTRADAY, at(moment))
        if moment == 0:
            assert known.is_empty()
            continue
        assert known.equals(shaped(bronze, INTRADAY, ["A"], at(moment))), moment
    classes = query(warehouse, "select class, columns from silver.restatements")
    assert classes == [("vendor correction", ["close", "high", "low", "open"])] * 2


def test_a_bar_that_a_month_has_no_more_goes_and_other_months_stay(bronze, store, warehouse):
    days = [str(day) for day in sessions(date(2026, 2, 2), date(2026, 2, 12))]

    def full(times):
        bar = dict.fromkeys(["1. open", "2. high", "3. low", "4. close"], "10") | {"5. volume": "1"}
        meta = {"5. Output Size": "Full size", "6. Time Zone": "US/Eastern"}
        document = {"Meta Data": meta, "Time Series (5min)": dict.fromkeys(times, bar)}
        return json.dumps(document).encode()

    def stored_times():
        starts = (
            "select starts_at at time zone 'America/New_York' from silver.intraday_bars order by 1"
        )
        return [str(start) for (start,) in query(warehouse, starts)]

    january, march = "2026-01-05 10:00:00", "2026-03-02 10:00:00"
    february = [f"{day} 09:30:00" for day in days]
    for minute, times in enumerate(([january], [march], february), start=1):
        put(store, "intraday_bars", minute, full(times), times[0][:7])
    load_all(bronze, warehouse, INTRADAY)
    assert stored_times() == [january, *february, march]
    put(store, "intraday_bars", 4, full(february[1:]), "2026-02")
    load_all(bronze, warehouse, INTRADAY)
    assert stored_times() == [january, *february[1:], march]
    put(store, "intraday_bars", 5, full(february[1:3]), "2026-02")
    assert f"2 rows where {len(february) - 1}" in load_all(bronze, warehouse, INTRADAY).reason
    assert stored_times() == [january, *february[1:], march]
    before = content(warehouse)
    assert isinstance(rebuild(bronze, warehouse, INTRADAY), silver.Failed)
    assert content(warehouse) == before


def test_a_listing_of_which_the_line_is_damaged_stays_and_one_without_a_line_goes(
    bronze, store, warehouse
):
    def put_lists(minute, left_out=(), **damages):
        tickers = [f"T{n}" for n in range(40) if f"T{n}" not in left_out]
        head = "symbol,name,exchange,assetType,ipoDate,delistingDate,status"
        line = "{0},Company {0},NYSE,Stock,2000-01-03,null,Active".format
        gone = "Z,Company Z,NYSE,Stock,2000-01-03,2020-01-03,Delisted"
        lists = {"active": [damages.get(t) or line(t) for t in tickers], "delisted": [gone]}
        for part, lines in lists.items():
            body = "\n".join([head, *lines, ""]).encode()
            key = BronzeKey("listings", "", at(minute), content_hash(body), part, "csv")
            store.put_new(str(key), body, {})
        listings = SILVER_TABLES["listings"]
        (loaded,) = silver.load(bronze, warehouse, listings, [""], only_stale=True)
        return loaded.load.rejected_count

    assert put_lists(1) == 0
    no_date = "T1,Company T1,NYSE,Stock,2000-13-03,null,Active"
    no_status = "T2,Company T2,NYSE,Stock,2000-01-03,null,"
    assert put_lists(2, left_out=["T3"], T1=no_date, T2=no_status) == 2
    told = "select ticker from silver.listings where listed_on = '2000-01-03' and status = 'active'"
    tickers = {ticker for (ticker,) in query(warehouse, told)}
    assert tickers == {f"T{n}" for n in range(40)} - {"T3"}


def test_each_restated_value_names_the_object_that_said_it(bronze, store, warehouse):
    rows = [(friday, 64.0, 64.0, 0.0, 1, 7) for friday in FRIDAYS[:4]]
    first = put(store, "weekly_bars", 1, payload(WEEKLY, rows[:3]))
    second = put(store, "weekly_bars", 2, payload(WEEKLY, rows))
    halved = [(friday, 64.0, 32.0, 0.0, 1, 7) for friday, *_ in rows]
    third = put(store, "weekly_bars", 3, payload(WEEKLY, [*halved, (FRIDAYS[4], 32, 32, 0, 1, 7)]))
    load_all(bronze, warehouse, WEEKLY)
    told = query(
        warehouse,
        "select row_key, old_bronze_key, new_bronze_key from silver.restated_values order by 1",
    )
    said_by = [first, first, first, second]
    mondays = [str(friday - timedelta(days=4)) for friday in FRIDAYS]
    assert told == [(day, key, third) for day, key in zip(mondays, said_by, strict=False)]


def test_a_refusal_stands_until_a_newer_object_of_the_same_payload_loads(bronze, store, warehouse):
    actions = SILVER_TABLES["corporate_actions"]

    def standing():
        return [key for _, key, _ in warehouse.rejections("corporate_actions").refused]

    bad = put(store, "splits", 1, b"{}")
    load_all(bronze, warehouse, actions)
    assert standing() == [bad]
    put(store, "dividends", 2, b'{"data": []}')
    load_all(bronze, warehouse, actions)
    assert standing() == [bad]
    put(store, "splits", 3, b'{"data": []}')
    assert isinstance(load_all(bronze, warehouse, actions), silver.Loaded)
    assert standing() == []


def test_a_load_waits_for_what_the_server_still_does_for_a_killed_one(bronze, store, warehouse):
    put(store, "weekly_bars", 1, vintage(1))
    put(store, "weekly_bars", 2, vintage(2))
    load_all(bronze, warehouse, WEEKLY)
    row = query(warehouse, "select to_jsonb(t) - 'source' from silver.weekly_bars t")[0][0]
    insert = "insert into silver.weekly_bars select * from jsonb_populate_record(null::silver.weekly_bars, %s)"
    with warehouse.connect() as connection:
        connection.execute("truncate silver.weekly_bars, silver.superseded_rows, ops.silver_loads")
    with psycopg.connect(warehouse.database_url) as dead, ThreadPoolExecutor(1) as pool:
        dead.execute(insert, (json.dumps(row),))
        loading = pool.submit(load_all, bronze, warehouse, WEEKLY, only_stale=False)
        waiting = None
        while waiting is None:
            assert not loading.done()
            waiting = dead.execute(
                "select from pg_stat_activity where query like 'lock table%' "
                "and wait_event_type = 'Lock'"
            ).fetchone()
            dead.execute("select pg_stat_clear_snapshot(), pg_sleep(0.05)")
        dead.commit()
        assert isinstance(loading.result(), silver.Loaded)
    assert query(warehouse, "select close from silver.weekly_bars") == [(2,)]
