"""What analysts get: a role that reads, rows of a query, and gold as files."""

import io
import json
from datetime import UTC, date, datetime

import dagster as dg
import duckdb
import polars as pl
import psycopg
import pytest
from conftest import materializations
from outside import s3_client
from polars.testing import assert_frame_equal
from psycopg import sql

from stocks_assets.adapters.curated import Curated
from stocks_assets.adapters.object_store import ObjectStore
from stocks_assets.adapters.query import limited, run, write, write_file
from stocks_assets.adapters.reader import Reader
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.defs.access import gold_changed
from stocks_assets.defs.jobs import EXPORT, refresh_run
from stocks_assets.defs.partitions import TICKERS
from stocks_assets.domain.exports import ExportedTable, ExportKey, Format, exported_tables
from stocks_assets.domain.sample_market import SampleMarket
from stocks_assets.errors import QueryError, SettingsError, StackError

READER = Reader("stocks_reader", "p@ss/w:rd", 300)
ODD = ["AAPL", "BRK.B", "BF-B", "BF/B", "7203", "NULL", "TRUE", "1E5", "A.B-C/D"]
PRICES = ExportedTable(
    "gold", "prices", True, ("ticker", "session_date"), "prices", ("gold", "prices")
)
DAYS = ExportedTable("gold", "days", False, (), "days", ("gold", "days"))


@pytest.fixture
def owner(warehouse):
    with psycopg.connect(warehouse.database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def reader_url(warehouse):
    READER.prepare(warehouse.database_url, owns_password=True)
    return READER.url(warehouse.database_url)


@pytest.fixture
def reader(reader_url):
    with psycopg.connect(reader_url, autocommit=True) as connection:
        yield connection


# The role


def test_the_reader_reads_what_is_dropped_and_made_anew(owner, reader):
    for content in ("first", "second"):
        owner.execute("drop table if exists gold.facts cascade")
        owner.execute(f"create table gold.facts__tmp as select '{content}' as content")
        owner.execute("alter table gold.facts__tmp rename to facts")
        owner.execute("create view gold.mart as select * from gold.facts")
        for name in ("gold.facts", "mart"):
            assert reader.execute(f"select content from {name}").fetchone() == (content,)
    owner.execute("create table silver.more as select 1")
    assert reader.execute("select * from silver.more").fetchone() == (1,)
    owner.execute("drop table silver.more")


def test_the_reader_reads_silver_as_it_was_known_at_a_time(reader):
    assert reader.execute("select * from silver.daily_bars_as_of(now())").fetchall() == []


@pytest.mark.parametrize(
    "statement",
    [
        "delete from gold.facts",
        "insert into gold.facts values (2)",
        "update gold.facts set number = 2",
        "truncate gold.facts",
        "drop table gold.facts",
        "create table gold.other (number int)",
        "create table public.other (number int)",
        "create schema other",
        "select * from ops.failures",
        "select * from bronze.objects",
        "copy gold.facts to '/tmp/facts'",
        "select lo_create(0)",
        "select lo_creat(0)",
        "select lo_from_bytea(0, 'x')",
    ],
)
@pytest.mark.parametrize("mode", ["read only", "read write"])
def test_the_reader_can_do_nothing_else_even_if_it_asks_to(owner, reader, statement, mode):
    owner.execute("create table gold.facts as select 1 as number")
    reader.execute(f"set session characteristics as transaction {mode}")
    with pytest.raises(
        (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)
    ):
        reader.execute(statement)
    assert owner.execute("select number from gold.facts").fetchall() == [(1,)]


def test_the_reader_has_no_way_into_the_database_of_dagster(servers, reader_url):
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(READER.url(servers.dagster_database_url))


def test_a_statement_that_takes_too_long_is_ended_and_says_why(warehouse):
    hasty = Reader("stocks_hasty_reader", "secret", 1)
    hasty.prepare(warehouse.database_url, owns_password=True)
    with (
        pytest.raises(QueryError, match="statement timeout; STOCKS_READER_TIMEOUT_SECONDS"),
        run(hasty.url(warehouse.database_url), "select pg_sleep(60)") as result,
    ):
        list(result.batches)


def test_making_the_role_ready_again_changes_nothing(warehouse, owner, reader_url):
    owner.execute("create table gold.facts as select 1 as number")
    rights = (
        "select array_agg(xmin::text) from pg_class where relname = 'facts' union all "
        "select array_agg(xmin::text) from pg_namespace where nspname in ('gold', 'silver') "
        "union all select array_agg(xmin::text) from pg_authid where rolname = 'stocks_reader'"
    )
    before = owner.execute(rights).fetchall()
    READER.prepare(warehouse.database_url, owns_password=True)
    assert owner.execute(rights).fetchall() == before


@pytest.mark.parametrize(
    "statement",
    [
        "create temporary table mine as select 1",
        "create type pg_temp.mine as (number int)",
        "create domain pg_temp.mine as int",
        "create function pg_temp.mine() returns int language sql as 'select 1'",
    ],
)
def test_what_an_analyst_has_for_a_session_keeps_nobody_out(warehouse, reader, statement):
    reader.execute("set session characteristics as transaction read write")
    reader.execute(statement)
    READER.prepare(warehouse.database_url, owns_password=True)


def test_who_may_not_make_roles_is_told_what_an_administrator_has_to_run(servers, owner):
    owner.execute("drop database if exists theirs")
    owner.execute("drop role if exists team, team_reader")
    owner.execute("create role team login password 'secret'")
    owner.execute("create database theirs owner team")
    address = servers.database_url.rpartition("@")[2].rpartition("/")[0]
    url = f"postgresql://team:secret@{address}/theirs"
    Warehouse(url).migrate()
    wanted = Reader("team_reader", "known", 60)
    with pytest.raises(StackError, match="permission denied") as refused:
        wanted.prepare(url, owns_password=False)
    told, _, then = str(refused.value).partition("run: ")[2].partition("; and ")
    assert then == "set STOCKS_READER_PASSWORD to that password"
    assert "known" not in told
    owner.execute(told.replace("'...'", "'known'"))
    wanted.prepare(url, owns_password=False)
    with psycopg.connect(url, autocommit=True) as team:
        team.execute("create table gold.facts as select 1 as number")
    with psycopg.connect(wanted.url(url)) as connection:
        assert connection.execute("select number from facts").fetchone() == (1,)
        assert connection.execute("show statement_timeout").fetchone() == ("1min",)
    owner.execute("drop database theirs")
    owner.execute("drop role team, team_reader")


def test_a_password_that_others_go_by_is_not_replaced(warehouse, reader_url):
    with pytest.raises(SettingsError, match="set STOCKS_READER_PASSWORD"):
        Reader(READER.role, "another", 300).prepare(warehouse.database_url, owns_password=False)
    with psycopg.connect(reader_url):
        pass


def test_a_role_that_may_do_more_is_not_made_a_reader(warehouse):
    with pytest.raises(SettingsError, match="may do more than read"):
        Reader("stocks", "secret", 300).prepare(warehouse.database_url, owns_password=True)


@pytest.mark.parametrize(
    ("right", "said"),
    [
        ("grant pg_write_all_data to application", "it is a member of pg_write_all_data"),
        ("alter table gold.facts owner to application", "it owns table gold.facts"),
        ("grant insert on gold.facts to application", "it may insert on table gold.facts"),
        ("grant all on all tables in schema ops to application", "it may "),
        (
            "grant update (number) on gold.facts to application",
            "it may update on column number of table gold.facts",
        ),
        ("grant create on schema gold to application", "it may create on schema gold"),
        (
            "alter default privileges in schema gold grant delete on tables to application",
            "it may delete on default privileges on new relations",
        ),
    ],
)
def test_the_role_of_an_application_that_writes_is_left_as_it_is(warehouse, owner, right, said):
    def settings():
        return owner.execute(
            "select rolpassword, (select count(*) from pg_db_role_setting where setrole = oid) "
            "from pg_authid where rolname = 'application'"
        ).fetchall()

    owner.execute("drop role if exists application")
    owner.execute("create role application login password 'theirs'")
    owner.execute("create schema gold create table facts (number int)")
    owner.execute(right)
    before = settings()
    with pytest.raises(SettingsError, match=f"STOCKS_READER_ROLE='application' .*: {said}"):
        Reader("application", "ours", 300).prepare(warehouse.database_url, owns_password=True)
    assert settings() == before
    owner.execute("drop owned by application")
    owner.execute("drop role application")


def test_a_reader_that_keeps_something_for_its_session_stays_the_reader(warehouse, reader):
    reader.execute("set session characteristics as transaction read write")
    reader.execute("create temporary table kept (number serial)")
    READER.prepare(warehouse.database_url, owns_password=True)


# Queries

VALUES = """
    select 1 as number, 1.50::numeric as price, 0.1::float8 as ratio, true as flag, 'a,"b"' as text,
        null::date as nothing, date '2024-02-29' as day, '{"x": 1}'::jsonb as document,
        array[1.5, null]::float8[] as series, timestamptz '2024-02-29 12:00:00+02' as moment, 2 as number
"""


def written(url, statement, form):
    file = io.BytesIO()
    with run(url, statement, as_text=form is Format.CSV) as result:
        write(result, form, file)
    return file.getvalue()


def test_csv_is_what_postgresql_prints(reader_url):
    assert written(reader_url, VALUES, Format.CSV).decode().splitlines() == [
        "number,price,ratio,flag,text,nothing,day,document,series,moment,number_2",
        '1,1.50,0.1,true,"a,""b""",,2024-02-29,"{""x"": 1}","{1.5,NULL}",2024-02-29 10:00:00+00,2',
    ]


def test_json_is_one_array_of_rows(reader_url):
    (row,) = json.loads(written(reader_url, VALUES, Format.JSON))
    assert row["price"] == 1.5
    assert row["series"] == [1.5, None]
    assert (row["nothing"], row["day"], row["flag"]) == (None, "2024-02-29", True)
    assert json.loads(written(reader_url, "select 1 as a where false", Format.JSON)) == []
    many = json.loads(written(reader_url, "select generate_series(1, 25000) as n", Format.JSON))
    assert [row["n"] for row in many] == list(range(1, 25001))


def test_parquet_has_types(reader_url):
    frame = pl.read_parquet(written(reader_url, VALUES, Format.PARQUET))
    assert frame.schema == {
        "number": pl.Int32,
        "price": pl.Float64,
        "ratio": pl.Float64,
        "flag": pl.Boolean,
        "text": pl.String,
        "nothing": pl.Date,
        "day": pl.Date,
        "document": pl.String,
        "series": pl.List(pl.Float64),
        "moment": pl.Datetime("us", "UTC"),
        "number_2": pl.Int32,
    }
    assert frame.row(0)[-3:] == ([1.5, None], datetime(2024, 2, 29, 10, tzinfo=UTC), 2)
    assert pl.read_parquet(written(reader_url, "select 1 as a where false", Format.PARQUET)).schema


def test_rows_come_as_they_are_read_and_the_rest_is_not_waited_for(reader_url):
    with run(reader_url, "select generate_series(1, 100000000000) as n") as result:
        assert next(result.batches)["n"].head(2).to_list() == [1, 2]
        assert sum(frame.height for frame in limited(result.batches, 15_000)) == 15_000


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "select\n  tiker from silver.daily_bars",
            'column "tiker" does not exist (line 2, column 3); hint: Perhaps you meant to '
            'reference the column "daily_bars.ticker".',
        ),
        ("selec 1", 'syntax error at or near "selec" (line 1, column 1)'),
        ("select 1 / 0", "division by zero"),
        ("select 1; select 2", "cannot insert multiple commands into a prepared statement"),
        ("set timezone = 'UTC'", "the statement returns no rows"),
        (" ; ", "there is no statement"),
        ("select '\udcff'", "the statement is not text in UTF-8"),
        (
            "copy (select 1) to stdout",
            "COPY cannot be used here; give its SELECT alone, and --output a file for the rows",
        ),
        (
            "select pg_terminate_backend(pg_backend_pid())",
            "terminating connection due to administrator command",
        ),
        (
            "delete from silver.daily_bars",
            "cannot execute DELETE in a read-only transaction; analysts may read gold and silver, "
            "and write nothing",
        ),
        (
            "select * from ops.failures",
            "permission denied for schema ops (line 1, column 15); analysts may read gold and "
            "silver, and nothing else",
        ),
    ],
)
def test_what_is_wrong_with_a_statement_is_one_line(reader_url, statement, said):
    with pytest.raises(QueryError) as refused, run(reader_url, statement) as result:
        list(result.batches)
    assert str(refused.value) == said


def test_what_fails_half_way_leaves_the_file_that_was_there(reader_url, tmp_path):
    path = tmp_path / "numbers.csv"
    path.write_text("kept")
    statement = "select 1 / (30000 - n) from (select generate_series(1, 40000) as n) numbers"
    with (
        pytest.raises(QueryError, match="division by zero"),
        run(reader_url, statement, as_text=True) as result,
    ):
        write_file(result, Format.CSV, path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [
        ("numbers.csv", "kept")
    ]


# Exports


@pytest.fixture
def market(owner):
    """Prices of odd tickers, a table about the market, and the log that gold's models keep."""
    owner.execute(
        "create schema if not exists gold;"
        "create table gold.prices (ticker text, session_date date, close double precision, "
        " volume bigint, primary key (ticker, session_date));"
        "create table gold.days (day date, is_session boolean, notes text);"
        "insert into gold.days values ('2026-01-02', true, null), ('2026-01-01', false, 'holiday');"
        "create table ops.gold_changes (change_id bigint generated always as identity primary key, "
        " model text, ticker text);"
        "create table ops.gold_offsets (model text primary key);"
        "insert into ops.gold_offsets values ('prices')"
    )
    add(owner, ODD)
    return owner


def add(owner, tickers):
    for ticker in tickers:
        owner.execute(
            "insert into gold.prices select %s, date '2026-01-01' + n, n / 3.0, nullif(n, 2) "
            "from generate_series(1, 3) n",
            (ticker,),
        )
    change(owner, tickers)


def change(owner, tickers):
    owner.cursor().executemany(
        "insert into ops.gold_changes (model, ticker) values ('prices', %s)",
        [(t,) for t in tickers],
    )


@pytest.fixture
def curated(store, warehouse):
    return Curated(store, warehouse)


def export(curated, tickers=None, **more):
    """Export and return what came of each object but those that stay as they are."""
    results = curated.export([PRICES, DAYS], tickers, **{"built_by": "first", **more})
    return {
        result.key.ticker or result.key.table: result.outcome
        for result in results
        if result.outcome != "unchanged"
    }


def stored(store):
    return {entry.key: (entry.etag, entry.modified_at) for entry in store.entries("gold/")}


def scan(store: ObjectStore, table, *, is_per_ticker=True):
    location = store._location
    return pl.scan_parquet(
        f"s3://{store.bucket}/gold/{table}/",
        hive_partitioning=is_per_ticker,
        storage_options={
            "aws_endpoint_url": location.endpoint_url,
            "aws_access_key_id": location.access_key_id,
            "aws_secret_access_key": location.secret_access_key,
            "aws_region": "us-east-1",
        },
    )


def in_duckdb(store: ObjectStore, folder, table):
    """Return what DuckDB reads of a table, from files laid out as the objects are.

    To read from S3 itself it would have to load an extension off the network.
    """
    location = store._location
    client = s3_client(location.endpoint_url, location.access_key_id, location.secret_access_key)
    for entry in store.entries(f"gold/{table}/"):
        path = folder / entry.key
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(store.bucket, entry.key, str(path))
    client.close()
    with duckdb.connect() as connection:
        return connection.sql(
            f"from read_parquet('{folder}/gold/{table}/**/*.parquet', hive_partitioning = true)"
        ).pl()


@pytest.mark.parametrize("tickers", [ODD, ["7203", "0700"]], ids=["odd", "numbers"])
def test_polars_and_duckdb_read_what_the_tables_hold(market, curated, store, tmp_path, tickers):
    def table_of(statement):
        with curated._warehouse.reader() as read:
            return read(sql.SQL(statement))

    market.execute("delete from gold.prices where ticker <> all(%s)", (tickers,))
    add(market, set(tickers) - set(ODD))
    assert export(curated) == {"days": "written", **dict.fromkeys(tickers, "written")}
    held = table_of("select * from gold.prices order by 1, 2")
    for read in (scan(store, "prices").collect(), in_duckdb(store, tmp_path, "prices")):
        assert_frame_equal(read.sort("ticker", "session_date"), held, check_column_order=False)
    for ticker in tickers:
        one = scan(store, "prices").filter(ticker=ticker).collect()
        assert one.height == 3, ticker
    days = scan(store, "days", is_per_ticker=False).collect()
    assert_frame_equal(days.sort("day"), table_of("select * from gold.days order by 1"))
    assert {str(ExportKey.parse(key)) for key in stored(store)} == set(stored(store))


def test_what_has_not_changed_is_not_written_again(market, curated, store):
    export(curated)
    before = stored(store)
    assert export(curated) == {}
    # Neither where all is read, as somebody asked for it, the models are others, or the log is lost.
    assert export(curated, only_changed=False) == {}
    assert export(curated, built_by="second") == {}
    market.execute("truncate ops.gold_changes")
    assert export(curated, built_by="second") == {}
    assert stored(store) == before


def test_only_tickers_that_gold_noted_a_change_of_are_read(market, curated, store):
    export(curated)
    market.execute("update gold.prices set close = 9 where session_date = '2026-01-02'")
    change(market, ["BF/B"])
    assert export(curated) == {"BF/B": "written"}
    change(market, [None])
    assert export(curated) == dict.fromkeys(set(ODD) - {"BF/B"}, "written")
    assert scan(store, "prices").filter(close=9).collect().height == len(ODD)


def test_changes_that_the_log_has_forgotten_are_found_in_the_tables(market, curated):
    export(curated)
    market.execute("update gold.prices set close = 9 where ticker in ('AAPL', 'BF-B')")
    change(market, ["AAPL"])
    change(market, ["BF-B"])
    market.execute(
        "delete from ops.gold_changes where change_id < (select max(change_id) from ops.gold_changes)"
    )
    assert export(curated) == {"AAPL": "written", "BF-B": "written"}


def test_some_tickers_can_be_exported_alone(market, curated):
    assert export(curated, ["BF/B", "NVDA"]) == {"BF/B": "written", "days": "written"}
    assert export(curated) == dict.fromkeys(set(ODD) - {"BF/B"}, "written")


def test_what_others_did_to_an_object_is_put_right(market, curated, store):
    export(curated)
    entries = {entry.key: entry for entry in store.entries("gold/prices/")}
    store.remove(entries[str(PRICES.key("BF/B"))])
    store.put_file(str(PRICES.key("AAPL")), io.BytesIO(b"half a file"), {})
    assert export(curated) == {"AAPL": "written", "BF/B": "written"}
    assert scan(store, "prices").collect().height == 3 * len(ODD)


def test_objects_of_tickers_that_are_gone_go_but_not_those_of_others(market, curated, store):
    export(curated)
    strange = str(PRICES.key("ZZZ"))
    store.put_file(strange, io.BytesIO(b"of another database"), {})
    market.execute("delete from gold.prices where ticker in ('BF/B', 'AAPL')")
    assert export(curated, ["BF/B"]) == {"BF/B": "removed"}
    assert export(curated) == {"AAPL": "removed"}
    assert export(curated) == {}
    left = {ExportKey.parse(key).ticker for key in stored(store) if key != strange}
    assert left == {*ODD, None} - {"AAPL", "BF/B"}
    assert strange in stored(store)


def test_a_table_that_gold_has_not_built_yet_is_named(market, curated):
    market.execute("drop table gold.days")
    with pytest.raises(StackError, match=r"there is no gold\.days yet; make it: stocks refresh"):
        export(curated)


def test_the_graph_exports_all_of_gold_and_again_just_what_changed(world):
    market = SampleMarket(first_session=date(2025, 6, 2))
    tickers = market.tickers(2)
    world.add(*tickers)
    friday = SampleSource(market, lambda: date(2026, 11, 13))

    def held(statement):
        with world.warehouse.reader() as read:
            return read(sql.SQL(statement))

    def run_export(names):
        run_config, tags = refresh_run(names, tickers)
        job = world.definitions(friday).resolve_job_def(EXPORT)
        done = job.execute_in_process(instance=world.instance, run_config=run_config, tags=tags)
        return {
            (one.asset_key.path[-1], one.partition or ""): {
                name: value.value for name, value in one.metadata.items()
            }
            for one in materializations(world.instance, done.run_id)
        }

    assert world.refresh(friday, tickers).success
    done = run_export(tickers)
    assert set(done) == {("by_ticker", tickers[0]), ("by_ticker", tickers[1]), ("whole", "")}
    assert world.materialized("curated/by_ticker") == set(tickers)
    tables = exported_tables(manifest())
    for table in tables:
        rows = held(f"select * from gold.{table.name}")
        if rows.height or not table.is_per_ticker:
            read = scan(world.store, table.name, is_per_ticker=table.is_per_ticker).collect()
            assert_frame_equal(read, rows, check_row_order=False, check_column_order=False)
    assert sum(line["rows"] for line in done.values()) == sum(
        world.query(f"select count(*) from gold.{table.name}").item() for table in tables
    )
    before = stored(world.store)
    assert all(line["written"] == 0 for line in run_export(tickers).values())
    assert stored(world.store) == before
    monday = SampleSource(market, lambda: date(2026, 11, 16))
    assert world.refresh(monday, tickers[:1]).success
    done = run_export(tickers)
    assert done["by_ticker", tickers[0]]["written"] > 0
    assert done["by_ticker", tickers[1]]["written"] == 0
    daily = scan(world.store, "fct_daily_prices").collect()
    rows = held("select * from gold.fct_daily_prices")
    assert_frame_equal(daily, rows, check_row_order=False, check_column_order=False)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(TICKERS.name), ["IBM", "MSFT"])
        yield instance


def requested(instance, warehouse):
    """Return what the sensor asks for, or why it asks for nothing."""
    answer = gold_changed(
        dg.build_sensor_context(instance=instance, resources={"warehouse": warehouse})
    )
    return answer if isinstance(answer, dg.RunRequest) else answer.skip_message


@dg.job(name=EXPORT)
def exporting():
    """Do nothing, well."""


def begin(instance, request):
    return instance.create_run_for_job(
        exporting, tags=request.tags, status=dg.DagsterRunStatus.STARTED
    )


def test_an_export_that_failed_is_asked_for_again_and_ever_more_seldom(market, warehouse, instance):
    first = requested(instance, warehouse)
    assert first.run_config["resources"]["batch"]["config"]["tickers"] == ["IBM", "MSFT"]
    run = begin(instance, first)
    assert requested(instance, warehouse) == "a run of 'export' has not ended"
    instance.report_run_failed(run)
    second = requested(instance, warehouse)
    assert second.run_key != first.run_key
    assert requested(instance, warehouse).run_key == second.run_key
    run = begin(instance, second)
    assert requested(instance, warehouse) == "a run of 'export' has not ended"
    instance.report_run_failed(run)
    assert "2 exports failed; the next attempt is due at" in requested(instance, warehouse)
    change(market, ["AAPL"])
    assert requested(instance, warehouse).run_key not in (first.run_key, second.run_key)


@pytest.mark.parametrize("end", ["succeeded", "canceled"])
def test_an_export_that_has_not_failed_is_not_asked_for_again(market, warehouse, instance, end):
    first = requested(instance, warehouse)
    if end == "succeeded":
        assert exporting.execute_in_process(instance=instance, tags=first.tags).success
    else:
        instance.report_run_canceled(begin(instance, first))
    assert "the newest change of gold was exported" in requested(instance, warehouse)
    change(market, ["AAPL"])
    assert requested(instance, warehouse).run_key != first.run_key


def manifest():
    from stocks_assets.adapters.dbt_project import ensure_manifest

    return json.loads(ensure_manifest().read_bytes())
