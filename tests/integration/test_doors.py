"""Who may do what: each role in PostgreSQL and each user of the bucket can what it needs, no more."""

import gzip
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import psycopg
import pytest
from botocore.exceptions import ClientError
from conftest import World

from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.curated import Curated
from stocks_assets.adapters.hook import Hints
from stocks_assets.adapters.object_store import ObjectStore, S3Location
from stocks_assets.adapters.reader import Reader
from stocks_assets.adapters.roles import Role, Roles
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.adapters.trace import trace
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.datasets import DATASETS, DROPPED, LARGEST_REPLY
from stocks_assets.domain.exports import ExportedTable
from stocks_assets.domain.hints import HINTS_KEPT
from stocks_assets.domain.sample_market import SampleMarket
from stocks_assets.errors import SettingsError, StackError
from stocks_assets.stack.secrets import Secrets

LOADER, TRANSFORMER, DAGSTER = "test_loader", "test_transformer", "test_dagster"
HINTER = "test_hinter"
READER = Reader("stocks_reader", "p@ss/w:rd", 300)
LAST = date(2026, 10, 30)
BUCKETS = ("stocks-raw", "stocks-curated")
PRICES = ExportedTable(
    "gold", "mart_latest_prices", False, (), "prices", ("gold", "mart_latest_prices")
)


def url_of(warehouse: Warehouse, role: str, database: str = "test", password: str = "it/s") -> str:
    address = warehouse.database_url.rpartition("@")[2].rpartition("/")[0]
    return f"postgresql://{role}:{password.replace('/', '%2F')}@{address}/{database}"


def roles_of(warehouse: Warehouse) -> Roles:
    return Roles(
        warehouse.database_url,
        loader=Role("STOCKS_LOADER_DATABASE_URL", url_of(warehouse, LOADER)),
        transformer=Role("STOCKS_TRANSFORMER_DATABASE_URL", url_of(warehouse, TRANSFORMER)),
        dagster=Role("STOCKS_DAGSTER_DATABASE_URL", url_of(warehouse, DAGSTER, "test_dagster")),
        hinter=Role("STOCKS_BUCKET_EVENTS_DATABASE_URL", url_of(warehouse, HINTER)),
    )


def prepare(warehouse: Warehouse) -> None:
    roles = roles_of(warehouse)
    roles.prepare(owns_passwords=True)
    READER.prepare(
        warehouse.database_url,
        owns_password=True,
        makers=[roles.loader.url, roles.transformer.url],
    )


@pytest.fixture
def owner(warehouse):
    with psycopg.connect(warehouse.database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def connected(warehouse, owner):
    """Return how to connect as each of the roles; tables of each kind are there."""
    owner.execute("drop schema if exists gold, staging cascade")
    prepare(warehouse)
    with psycopg.connect(url_of(warehouse, TRANSFORMER), autocommit=True) as dbt:
        dbt.execute("create table gold.facts as select 1 as number")
        dbt.execute("create table staging.steps as select 1 as number")
        dbt.execute("create table ops.gold_changes (change_id bigint generated always as identity)")
    opened = []

    def connect(role: str) -> psycopg.Connection:
        database = {DAGSTER: "test_dagster"}.get(role, "test")
        url = READER.url(warehouse.database_url)
        if role != READER.role:
            url = url_of(warehouse, role, database)
        opened.append(psycopg.connect(url, autocommit=True))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


MAY = {
    LOADER: [
        "insert into bronze.indexed_bucket (identity) values ('mine')",
        "begin; lock table bronze.indexed_bucket in exclusive mode; commit",
        "truncate bronze.objects, ops.object_loads",
        "select * from silver.daily_bars_as_of(now())",
        "delete from silver.daily_bars",
        "create schema silver_stg_1 create table daily_bars (like silver.daily_bars including all)",
        "drop schema silver_stg_1 cascade",
        "create table silver._dlt_test (number int)",
        "drop table silver._dlt_test",
        "insert into ops.batches select from ops.batches limit 0",
        "select * from gold.facts",
        "select * from staging.steps",
        "select pg_sequence_last_value("
        "pg_get_serial_sequence('ops.gold_changes', 'change_id')::regclass)",
    ],
    TRANSFORMER: [
        "select * from silver.daily_bars",
        "select * from ops.batches",
        "create table gold.more as select 1 as number",
        "drop table gold.more",
        "create or replace aggregate gold.product(double precision) (sfunc = float8mul, stype = double precision)",
        "create view staging.view as select * from silver.daily_bars",
        "create temporary table changes (number int)",
        "insert into ops.gold_changes default values",
        "comment on table ops.gold_changes is 'its own'",
    ],
    DAGSTER: [
        "create table runs (number int)",
        "drop table runs",
    ],
    HINTER: [
        "insert into bronze.hints (key) values ('x'), ('x') on conflict do nothing",
        "select count(*) from bronze.hints",
    ],
    READER.role: ["select * from gold.facts", "select * from silver.daily_bars"],
}
MAY_NOT = {
    LOADER: [
        "insert into gold.facts values (2)",
        "drop table gold.facts",
        "create table gold.more (number int)",
        "delete from ops.gold_changes",
        "drop table silver.daily_bars",
        "alter table silver.daily_bars add column more int",
        "create table public.more (number int)",
        "create role more",
        "create database more",
        "select rolpassword from pg_authid",
        "copy silver.daily_bars to '/tmp/bars'",
        "copy silver.daily_bars from program 'true'",
        f"set role {TRANSFORMER}",
    ],
    TRANSFORMER: [
        "delete from silver.daily_bars",
        "create table silver.more (number int)",
        "select * from bronze.objects",
        "select * from ops.failures",
        "delete from ops.batches",
        "create schema more",
        "create table public.more (number int)",
        "copy gold.facts to '/tmp/facts'",
        f"set role {LOADER}",
    ],
    DAGSTER: [
        "create role more",
        "create database more",
        "copy (select 1) to program 'true'",
        "select rolpassword from pg_authid",
        f"set role {LOADER}",
    ],
    HINTER: [
        "update bronze.hints set key = 'y'",
        "delete from bronze.hints",
        "truncate bronze.hints",
        "select * from bronze.objects",
        "insert into bronze.objects (key) values ('x')",
        "insert into bronze.notices (key, etag, reason) values ('x', 'y', 'z')",
        "delete from ops.object_loads",
        "select * from silver.daily_bars",
        "select * from gold.facts",
        "create table bronze.more (number int)",
        "create table public.more (number int)",
        "create schema more",
        "copy bronze.hints to '/tmp/hints'",
        f"set role {LOADER}",
    ],
    READER.role: [
        "delete from gold.facts",
        "select * from staging.steps",
        "select * from ops.failures",
        "select * from bronze.objects",
        f"set role {LOADER}",
    ],
}


@pytest.mark.parametrize("role", MAY)
def test_each_role_can_what_it_needs_and_nothing_more(connected, role):
    connection = connected(role)
    for statement in MAY[role]:
        connection.execute(statement)
    for statement in MAY_NOT[role]:
        # A session may ask for the right to write, and has not got it.
        connection.execute("set session characteristics as transaction read write")
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedObject)):
            connection.execute(statement)


def test_no_role_comes_into_the_database_of_dagster_but_its_own(connected, warehouse):
    for role in (LOADER, TRANSFORMER, HINTER):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(url_of(warehouse, role, "test_dagster"))


@pytest.fixture
def closed(owner):
    """As in compose, nobody comes into the warehouse but who is let in."""
    owner.execute("revoke connect, temporary on database test from public")
    yield
    opened(owner)


def opened(owner: psycopg.Connection) -> None:
    owner.execute("grant connect, temporary on database test to public")


def test_dagsters_role_comes_into_the_warehouse_to_leave_hints_or_not_at_all(
    warehouse, owner, closed
):
    """In compose the web server knows that role alone."""
    owner.execute("drop schema if exists gold, staging cascade")
    roles, url = roles_of(warehouse), url_of(warehouse, DAGSTER)
    replace(roles, hinter=None).prepare(owns_passwords=True)
    # What another test has given it.
    owner.execute(f"drop owned by {DAGSTER}")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(url)
    hinter = Role("STOCKS_BUCKET_EVENTS_DATABASE_URL", url)
    for _ in range(2):
        replace(roles, hinter=hinter).prepare(owns_passwords=True)
    for statement in MAY_NOT[HINTER]:
        with (
            psycopg.connect(url) as dagster,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            dagster.execute(statement)
    with Hints(url) as hints:
        hints.note(["x", "y", "x"])
        hints.note(["y"])
    assert owner.execute("select key from bronze.hints order by 1").fetchall() == [("x",), ("y",)]


def test_a_database_that_is_closed_lets_its_roles_in_and_nobody_else(warehouse, owner):
    owner.execute("drop schema if exists gold, staging cascade")
    roles = replace(roles_of(warehouse), hinter=None)
    roles.prepare(owns_passwords=True)
    owner.execute("grant connect, temporary on database test to public")
    # What other tests have given them.
    for role in (LOADER, TRANSFORMER, DAGSTER):
        owner.execute(f"revoke all on database test from {role}")
    with psycopg.connect(url_of(warehouse, DAGSTER)):
        pass
    acl = "select xmin::text, datacl::text from pg_database where datname = 'test'"
    try:
        roles.prepare(owns_passwords=True, closes=True)
        READER.prepare(warehouse.database_url, owns_password=True)
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(url_of(warehouse, DAGSTER))
        for url in (
            url_of(warehouse, LOADER),
            url_of(warehouse, TRANSFORMER),
            READER.url(warehouse.database_url),
        ):
            with psycopg.connect(url):
                pass
        before = owner.execute(acl).fetchone()
        roles.prepare(owns_passwords=True, closes=True)
        assert owner.execute(acl).fetchone() == before
    finally:
        opened(owner)


def test_hints_are_kept_up_to_a_number_and_those_beyond_are_dropped(warehouse, owner):
    with Hints(warehouse.database_url) as hints:
        for part in range(0, HINTS_KEPT + 3_000, 1_000):
            hints.note([f"key {number}" for number in range(part, part + 1_500)])
    assert owner.execute("select count(*) from bronze.hints").fetchone() == (HINTS_KEPT,)


def test_preparing_again_changes_nothing(connected, owner, warehouse):
    rights = (
        "select array_agg(xmin::text order by oid) from pg_class where relnamespace::regnamespace"
        "::text in ('bronze', 'silver', 'gold', 'staging', 'ops') union all "
        "select array_agg(xmin::text order by oid) from pg_namespace union all "
        "select array_agg(xmin::text order by oid) from pg_default_acl union all "
        "select array_agg(xmin::text order by oid) from pg_authid"
    )
    before = owner.execute(rights).fetchall()
    prepare(warehouse)
    assert owner.execute(rights).fetchall() == before


def test_what_one_user_made_before_there_were_roles_goes_to_the_role_that_makes_it(
    warehouse, owner
):
    owner.execute("drop schema if exists gold, staging cascade")
    owner.execute("create schema gold create table facts (number int)")
    owner.execute("create view gold.mart as select * from gold.facts")
    owner.execute(
        "create aggregate gold.product(float8) (sfunc = float8mul, stype = float8, initcond = '1')"
    )
    owner.execute("create table ops.gold_changes (change_id bigint generated always as identity)")
    prepare(warehouse)
    with psycopg.connect(url_of(warehouse, TRANSFORMER), autocommit=True) as dbt:
        dbt.execute("comment on table ops.gold_changes is 'its own'")
        dbt.execute("comment on aggregate gold.product(float8) is 'its own'")
        dbt.execute("drop table gold.facts cascade")
    with psycopg.connect(url_of(warehouse, LOADER), autocommit=True) as loader:
        loader.execute("delete from ops.gold_builds")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            loader.execute("delete from ops.gold_changes")


def test_a_loader_beside_an_owner_who_makes_the_models_reads_them(warehouse, owner):
    owner.execute("drop schema if exists gold, staging cascade")
    roles = replace(
        roles_of(warehouse), transformer=Role("STOCKS_DATABASE_URL", warehouse.database_url)
    )
    roles.prepare(owns_passwords=True)
    owner.execute("create table gold.facts as select 1 as number")
    with psycopg.connect(url_of(warehouse, LOADER)) as loader:
        assert loader.execute("select * from gold.facts").fetchone() == (1,)


def test_dagsters_role_is_not_given_the_warehouse(warehouse, owner):
    held_by = "select pg_get_userbyid(datdba) from pg_database where datname = 'test'"
    before = owner.execute(held_by).fetchone()
    roles = replace(
        roles_of(warehouse),
        dagster=Role("STOCKS_DAGSTER_DATABASE_URL", url_of(warehouse, DAGSTER, "test")),
    )
    with pytest.raises(SettingsError, match="STOCKS_DAGSTER_DATABASE_URL names the warehouse's"):
        roles.prepare(owns_passwords=True)
    assert owner.execute(held_by).fetchone() == before


def test_a_role_with_another_password_is_named_and_left_alone(connected, warehouse, owner):
    roles = roles_of(warehouse)
    wrong = Role("STOCKS_LOADER_DATABASE_URL", url_of(warehouse, LOADER, password="wrong"))
    theirs = Roles(warehouse.database_url, wrong, roles.transformer, roles.dagster)
    with pytest.raises(SettingsError, match=r"STOCKS_LOADER_DATABASE_URL .*'test_loader'") as said:
        theirs.prepare(owns_passwords=False)
    assert "wrong" not in str(said.value)
    with psycopg.connect(url_of(warehouse, LOADER)):
        pass


@pytest.fixture
def team(warehouse, owner):
    """The database of a team and an owner who is no superuser; what one user made is in it."""

    def gone():
        for database in ("theirs", "theirs_dagster"):
            owner.execute(f"drop database if exists {database} with (force)")
        owner.execute("drop role if exists team, team_loader, team_transformer, team_dagster")

    gone()
    owner.execute("create role team login createdb password 'it/s'")
    for database in ("theirs", "theirs_dagster"):
        owner.execute(f"create database {database} owner team")
    url = url_of(warehouse, "team", "theirs")
    Warehouse(url).migrate()
    with psycopg.connect(url, autocommit=True) as team:
        team.execute("create schema gold create table facts (number int)")
        team.execute("create table ops.gold_changes (change_id bigint)")
        team.execute("create aggregate gold.product(float8) (sfunc = float8mul, stype = float8)")
    with psycopg.connect(url_of(warehouse, "team", "theirs_dagster"), autocommit=True) as team:
        team.execute("create table runs (number int)")
    yield Roles(
        url,
        loader=Role("STOCKS_LOADER_DATABASE_URL", url_of(warehouse, "team_loader", "theirs")),
        transformer=Role(
            "STOCKS_TRANSFORMER_DATABASE_URL", url_of(warehouse, "team_transformer", "theirs")
        ),
        dagster=Role(
            "STOCKS_DAGSTER_DATABASE_URL", url_of(warehouse, "team_dagster", "theirs_dagster")
        ),
    )
    gone()


def test_an_owner_who_is_no_superuser_makes_the_roles_and_hands_over_what_is_theirs(
    team, owner, warehouse
):
    owner.execute("alter role team createrole")
    for _ in range(2):
        team.prepare(owns_passwords=False)
        they_can_work(team, warehouse)
    # As where there was none before.
    owner.execute("drop database theirs_dagster with (force)")
    team.prepare(owns_passwords=False)
    with psycopg.connect(team.dagster.url) as dagster:
        dagster.execute("create table runs (number int)")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(url_of(warehouse, "team_loader", "theirs_dagster"))


def test_who_may_not_make_roles_is_told_at_once_all_that_an_administrator_has_to_run(
    team, owner, warehouse
):
    with pytest.raises(StackError, match="permission denied to create role") as refused:
        team.prepare(owns_passwords=False)
    assert "it/s" not in str(refused.value)
    told = str(refused.value).partition("as an administrator run ")[2]
    for part in told.split("; then "):
        _, database, statements = part.split("'", 2)
        with psycopg.connect(url_of_owner(warehouse, database), autocommit=True) as administrator:
            for statement in statements.removeprefix(": ").split("; "):
                administrator.execute(statement.replace("'...'", "'it/s'"))
    for _ in range(2):
        team.prepare(owns_passwords=False)
        they_can_work(team, warehouse)


def url_of_owner(warehouse: Warehouse, database: str) -> str:
    return f"{warehouse.database_url.rpartition('/')[0]}/{database}"


def they_can_work(roles: Roles, warehouse: Warehouse) -> None:
    with psycopg.connect(roles.loader.url, autocommit=True) as loader:
        loader.execute("delete from silver.daily_bars")
        loader.execute("select * from gold.facts")
    with psycopg.connect(roles.transformer.url) as dbt:
        dbt.execute("comment on aggregate gold.product(float8) is 'its own'")
        dbt.execute("comment on table ops.gold_changes is 'its own'")
        dbt.execute("drop table gold.facts")
        dbt.rollback()
    with psycopg.connect(roles.dagster.url) as dagster:
        dagster.execute("drop table runs")
        dagster.rollback()
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(url_of(warehouse, "team_loader", "theirs_dagster"))


def test_tables_of_another_version_are_not_worked_with(warehouse, owner):
    warehouse.require_tables()
    owner.execute("update ops.schema_version set version_num = '0001'")
    with pytest.raises(StackError, match=r"not those of this version; .* run: stocks prepare"):
        warehouse.require_tables()


# The bucket


@pytest.fixture
def pipeline(servers):
    """Return the user that the pipeline is in the bucket; the buckets are there."""
    for bucket in BUCKETS:
        admin = (servers.aws_access_key_id, servers.aws_secret_access_key)
        with ObjectStore(S3Location(servers.s3_endpoint_url, *admin), bucket) as store:
            store.ensure_bucket()
    return S3Location(servers.s3_endpoint_url, servers.pipeline_key_id, servers.pipeline_secret_key)


def test_the_pipeline_may_do_in_the_bucket_what_it_needs_and_nothing_more(pipeline, servers):
    with ObjectStore(pipeline, "stocks-raw") as store, ObjectStore(pipeline, "other") as other:
        store.ensure_bucket()
        client = store._client
        assert store.put_new("bronze/x", b"1", {}) != store.put_new("bronze/x", b"2", {})
        client.put_object(Bucket="stocks-raw", Key="inbox/x", Body=b"1")
        [entry] = store.entries("inbox/x")
        assert store.copy(entry, "inbox-taken/x")
        assert store.remove(entry)
        for refused in (
            lambda: client.delete_object(Bucket="stocks-raw", Key="bronze/x"),
            lambda: client.delete_object(Bucket="stocks-raw", Key="quarantine/x"),
            lambda: client.delete_bucket(Bucket="stocks-raw"),
            lambda: client.create_bucket(Bucket="another"),
            lambda: client.put_bucket_policy(Bucket="stocks-raw", Policy="{}"),
            lambda: client.put_object(Bucket="other", Key="x", Body=b"1"),
            lambda: client.list_objects_v2(Bucket="other"),
        ):
            with pytest.raises(ClientError) as error:
                refused()
            assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
        with pytest.raises(StackError, match="refuses bucket 'other'"):
            other.ensure_bucket()
        assert store.get("bronze/x") == b"1"


def test_the_pipeline_runs_from_vendor_to_export_with_the_least_rights(warehouse, owner, pipeline):
    owner.execute("drop schema if exists gold, staging cascade")
    prepare(warehouse)
    least = Warehouse(url_of(warehouse, LOADER), url_of(warehouse, TRANSFORMER))
    market = SampleMarket()
    ticker = market.tickers(1)[0]
    with (
        ObjectStore(pipeline, "stocks-raw") as store,
        ObjectStore(pipeline, "stocks-curated") as curated,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        world = World(instance, least, store, BronzeStore(store, least))
        world.add(ticker)
        for _ in range(2):
            # The second one finds tables that the first one made.
            assert world.refresh(SampleSource(market, lambda: LAST), [ticker]).success
        least.forget_passed_tests()
        assert [found.problem for found in trace(world.bronze, least, ticker, None)] == [None] * 3
        [written] = Curated(curated, least).export([PRICES], None, built_by="test")
        assert written.rows == 1
    with psycopg.connect(READER.url(warehouse.database_url)) as reader:
        [(close,)] = reader.execute("select close from mart_latest_prices").fetchall()
    assert close > 0
    [(makers,)] = owner.execute(
        "select array_agg(distinct tableowner::text) from pg_tables where schemaname = 'gold'"
    ).fetchall()
    assert makers == [TRANSFORMER]


def test_no_secret_of_the_servers_can_be_found_from_another_one():
    known = Secrets("p", "AKID", "secret", "root")
    others = [
        known.reader_password,
        known.ui_password,
        known.s3_pipeline_key_id,
        known.s3_pipeline_secret_key,
        *map(known.role_password, (LOADER, TRANSFORMER, DAGSTER)),
    ]
    assert len({one.lower()[:20] for one in others}) == len(others)
    assert "root" not in repr(known)


# What others bring


HOSTILE = [
    "A'; drop table silver.daily_bars; --",
    '"; drop schema silver cascade; --',
    "../../../etc/passwd",
    "A/../../B",
    "$(touch /tmp/evil)",
    "{{ run_query('drop schema silver cascade') }}",
    "%s%(x)s",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_is_no_ticker_comes_into_no_statement_and_no_key(world, hostile):
    ticker = SampleMarket().tickers(1)[0]
    source = SampleSource(SampleMarket(), lambda: LAST)
    world.add(hostile, ticker)
    done = world.materialize(source, "bronze/splits", "silver/corporate_actions", first=hostile)
    assert not done.success
    assert world.objects() == []
    assert world.materialize(
        source,
        *("bronze/splits", "bronze/dividends", "bronze/daily_bars", "silver/corporate_actions"),
        first=ticker,
    ).success
    assert {key.split("_")[-2] for key in world.objects()} == {ticker}
    stored = world.query("select distinct ticker from silver.corporate_actions")
    assert stored["ticker"].to_list() == [ticker]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            gzip.compress(bytes(LARGEST_REPLY + 1)), id="a small one that unpacks to much"
        ),
        pytest.param(bytes(LARGEST_REPLY + 1), id="a large one"),
    ],
)
@pytest.mark.parametrize(("dataset", "part"), [("weekly_bars", ""), ("dropped_daily_bars", "x")])
def test_an_object_that_is_too_large_is_refused_and_the_ticker_loads_without_it(
    world, body, dataset, part
):
    source = SampleSource(SampleMarket(), lambda: LAST)
    ticker = SampleMarket().tickers(1)[0]
    world.add(ticker)
    table = dataset.removeprefix("dropped_")
    assets = (f"bronze/{table}", f"silver/{table}")
    assert world.materialize(source, *assets, first=ticker).success
    key = BronzeKey(
        dataset=dataset,
        ticker=ticker,
        fetched_at=datetime.now(UTC) + timedelta(hours=1),
        content_hash="0" * 16,
        part=part,
    )
    world.store._client.put_object(Bucket=world.store.bucket, Key=str(key), Body=body)
    world.bronze.sync_index((DATASETS | DROPPED)[dataset])
    assert not world.materialize(source, *assets, first=ticker).success
    refused = world.query("select bronze_key, reason from ops.refused_objects")
    assert refused["bronze_key"].to_list() == [str(key)]
    assert f"it has more than {LARGEST_REPLY:,} bytes" in refused["reason"][0]
    assert world.query(f"select count(*) as n from silver.{table}")["n"].item() > 500
