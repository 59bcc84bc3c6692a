"""Files that people put into the bucket, on real servers."""

import gzip
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from botocore.exceptions import ClientError
from outside import s3_client

from stocks_assets.adapters import silver
from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.inbox import Inbox, Left, Quarantined, Taken, digest
from stocks_assets.adapters.object_store import ObjectStore
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.adapters.universe_file import UniverseFile
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.defs.arrivals import arrivals_sensor
from stocks_assets.defs.batch import DEFER_ASSET_EVENTS
from stocks_assets.defs.inbox import INBOX_KEY, LOAD, bronze_inbox, files_dropped
from stocks_assets.defs.partitions import TICKERS
from stocks_assets.defs.universe import Roster
from stocks_assets.domain.bronze_key import BronzeKey, content_hash
from stocks_assets.domain.datasets import DROPPED, DROPPED_DAILY_BARS
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.domain.sample_market import SampleMarket

HEADER = "ticker,date,open,high,low,close,volume"
BARS = "\n".join([HEADER, "IBM,2024-04-15,10,12,9,11.50,7", "MSFT,2024-04-15,20,22,19,21,8"])
BAD = "ticker,date\nIBM,03/04/2024\n"
ACTIONS = "ticker,ex_date,action_type,amount\nIBM,2024-02-08,dividend,1.66\n"


@dataclass
class Person:
    """Somebody with an S3 client of their own."""

    client: Any
    bucket: str

    def put(self, key: str, body: str | bytes = BARS) -> None:
        self.client.put_object(
            Bucket=self.bucket, Key=key, Body=body if isinstance(body, bytes) else body.encode()
        )

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def keys(self, prefix: str) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for entry in found.get("Contents", ())]


@pytest.fixture
def person(servers, store) -> Iterator[Person]:
    person = person_at(servers, store)
    yield person
    person.client.close()


def person_at(servers, store):
    client = s3_client(
        servers.s3_endpoint_url, servers.aws_access_key_id, servers.aws_secret_access_key
    )
    return Person(client, store.bucket)


@pytest.fixture
def inbox(store, bronze, warehouse):
    return Inbox(store, bronze, warehouse)


def newest(bronze):
    """What bronze says now: the document of each dataset and ticker, by the part's slug."""
    found = {}
    for dataset in DROPPED.values():
        for call, key in bronze.newest(dataset, ["IBM", "MSFT"]).items():
            slug = call.part.rpartition("-")[0]
            found[call.dataset, call.ticker, slug] = json.loads(bronze.read(key))
    return found


def test_a_file_becomes_an_object_a_ticker_and_is_kept_as_it_was(inbox, bronze, person):
    packed = gzip.compress(BARS.encode())
    person.put("inbox/prices/my bars.csv.gz", packed)
    (outcome,) = inbox.take_up()
    assert isinstance(outcome, Taken)
    assert outcome.rows == {"IBM": 1, "MSFT": 1}
    assert newest(bronze)["dropped_daily_bars", "IBM", "prices-my-bars-csv-gz"] == {
        "source": "inbox/prices/my bars.csv.gz",
        "precedence": "fill",
        "rows": [
            {
                "session_date": "2024-04-15",
                "open": "10",
                "high": "12",
                "low": "9",
                "close": "11.50",
                "volume": "7",
            }
        ],
    }
    assert person.keys("inbox/") == []
    assert outcome.kept_as.endswith("/prices/my bars.csv.gz")
    assert person.get(outcome.kept_as) == packed


def test_what_was_taken_up_is_found_from_the_bucket_alone(inbox, bronze, warehouse, person):
    person.put("inbox/override/actions/x.csv", ACTIONS)
    inbox.take_up()
    before = newest(bronze)
    with warehouse.connect() as connection:
        connection.execute("truncate bronze.objects, bronze.indexed_bucket")
    for dataset in DROPPED.values():
        bronze.sync_index(dataset)
    assert newest(bronze) == before
    assert before["dropped_actions", "IBM", "override-actions-x-csv"]["precedence"] == "override"


@pytest.mark.parametrize("name", ["Kurse 100% +ä é~#?.csv", "a/b/c/d/e/f/g.csv", "ü" * 70 + ".csv"])
def test_a_file_may_have_any_name(inbox, person, name):
    person.put(f"inbox/prices/{name}")
    person.put(f"inbox/actions/{name}", BAD)
    taken, quarantined = sorted(inbox.take_up(), key=lambda outcome: outcome.path, reverse=True)
    assert person.get(taken.kept_as) == BARS.encode()
    assert person.get(quarantined.kept_as) == BAD.encode()
    assert person.keys("inbox/") == []


def test_a_file_that_cannot_be_read_is_quarantined_once_with_the_reason(inbox, bronze, person):
    person.put("inbox/prices/bad.csv", BAD.replace("date", "date,open,high,low,close,volume"))
    person.put("inbox/prices/good.csv")
    outcomes = {type(outcome): outcome for outcome in inbox.take_up()}
    bad = outcomes[Quarantined]
    assert "'03/04/2024' can be two dates" in bad.reason
    assert bad.reason in person.get(f"{bad.kept_as}.reason.txt").decode()
    assert person.keys("quarantine/inbox/") == [bad.kept_as, f"{bad.kept_as}.reason.txt"]
    assert person.keys("inbox/") == []
    assert inbox.take_up() == []
    assert {slug for _, _, slug in newest(bronze)} == {"prices-good-csv"}


def test_a_file_above_the_limit_is_quarantined_unread(store, bronze, warehouse, person):
    person.put("inbox/prices/x.csv")
    (outcome,) = Inbox(store, bronze, warehouse, max_bytes=50).take_up()
    assert isinstance(outcome, Quarantined)
    assert outcome.reason.startswith("it has more than 50 bytes; split it, or raise")


def test_folders_marks_and_hidden_files_stay(inbox, person):
    for key in ("inbox/", "inbox/prices/", "inbox/prices/.DS_Store"):
        person.put(key, b"")
    assert inbox.waiting() == []
    assert inbox.take_up() == []
    assert "inbox/prices/.DS_Store" in person.keys("inbox/")


def test_the_same_file_again_adds_nothing(inbox, store, person):
    person.put("inbox/prices/x.csv")
    inbox.take_up()
    before = person.keys("bronze/")
    person.put("inbox/prices/x.csv")
    (outcome,) = inbox.take_up()
    assert outcome.new_objects == 0
    assert person.keys("bronze/") == before
    assert person.keys("inbox/") == []


def test_a_path_that_is_put_again_says_what_it_says_now(inbox, bronze, person):
    person.put("inbox/x.csv")
    inbox.take_up()
    person.put("inbox/x.csv", BARS.replace("11.50", "11.75").rpartition("\n")[0])
    (outcome,) = inbox.take_up()
    assert outcome.withdrawn == ["MSFT"]
    documents = newest(bronze)
    (row,) = documents["dropped_daily_bars", "IBM", "x-csv"]["rows"]
    assert row["close"] == "11.75"
    assert documents["dropped_daily_bars", "MSFT", "x-csv"]["rows"] == []
    person.put("inbox/x.csv", ACTIONS)
    inbox.take_up()
    documents = newest(bronze)
    assert documents["dropped_daily_bars", "IBM", "x-csv"]["rows"] == []
    assert len(documents["dropped_actions", "IBM", "x-csv"]["rows"]) == 1


def test_what_a_file_said_can_be_taken_back(inbox, bronze, person):
    person.put("inbox/prices/x.csv")
    person.put("inbox/prices/y.csv")
    inbox.take_up()
    person.put("inbox/withdraw/prices/x.csv", b"")
    (outcome,) = inbox.take_up()
    assert outcome.withdrawn == ["IBM", "MSFT"]
    rows = {slug: document["rows"] for (_, _, slug), document in newest(bronze).items()}
    assert rows["prices-x-csv"] == []
    assert len(rows["prices-y-csv"]) == 1


def test_nothing_can_be_taken_back_that_was_never_taken_up(inbox, person):
    person.put("inbox/withdraw/prices/x.csv", b"")
    (outcome,) = inbox.take_up()
    assert isinstance(outcome, Quarantined)
    assert "nothing was ever taken up from inbox/prices/x.csv" in outcome.reason


class KilledError(BaseException):
    """The end of a process."""


class Life:
    """So many steps that change something are left."""

    def __init__(self, steps):
        self.steps = steps

    def step(self):
        if self.steps == 0:
            raise KilledError
        self.steps -= 1


class MortalStore(ObjectStore):
    life = Life(-1)

    def put_new(self, *args):
        self.life.step()
        return super().put_new(*args)

    def put_text(self, *args):
        self.life.step()
        super().put_text(*args)

    def copy(self, *args):
        self.life.step()
        return super().copy(*args)

    def remove(self, *args):
        self.life.step()
        return super().remove(*args)


class MortalWarehouse(Warehouse):
    life = Life(-1)

    def index(self, keys):
        if keys := list(keys):
            self.life.step()
        super().index(keys)


def test_a_take_up_that_is_killed_anywhere_comes_to_the_same_when_it_is_run_again(
    servers, store, warehouse
):
    for steps in range(20):
        life = Life(steps)
        bucket = f"{store.bucket}-{steps}"
        with ObjectStore(store._location, bucket) as whole:
            whole.ensure_bucket()
            person = person_at(servers, whole)
            person.put("inbox/prices/good.csv")
            person.put("inbox/prices/bad.csv", BAD)
            with MortalStore(store._location, bucket) as mortal:
                books = MortalWarehouse(warehouse.database_url)
                mortal.life = books.life = life
                try:
                    Inbox(mortal, BronzeStore(mortal, books), books).take_up()
                    survived = True
                except KilledError:
                    survived = False
            bronze = BronzeStore(whole, warehouse)
            Inbox(whole, bronze, warehouse).take_up()
            assert set(newest(bronze)) == {
                ("dropped_daily_bars", ticker, "prices-good-csv") for ticker in ("IBM", "MSFT")
            }
            assert len(person.keys("bronze/")) == 2
            assert [key.rpartition("/")[2] for key in person.keys("taken/")] == ["good.csv"]
            names = [key.rpartition("/")[2] for key in person.keys("quarantine/")]
            assert names == ["bad.csv", "bad.csv.reason.txt"]
            assert person.keys("inbox/") == []
        if survived:
            break
    assert survived
    assert steps == 9


def test_take_ups_at_the_same_time_take_each_file_once(inbox, store, bronze, warehouse, person):
    for number in range(6):
        person.put(f"inbox/prices/{number}.csv", BARS.replace("11.50", f"11.5{number}"))
    outcomes, errors = [], []

    def take_up():
        try:
            with ObjectStore(store._location, store.bucket) as own:
                outcomes.extend(Inbox(own, BronzeStore(own, warehouse), warehouse).take_up())
        except Exception as error:  # noqa: BLE001 # a thread's failure is judged below
            errors.append(error)

    threads = [threading.Thread(target=take_up) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(outcome.path for outcome in outcomes) == [
        f"inbox/prices/{n}.csv" for n in range(6)
    ]
    assert len(person.keys("bronze/")) == 6 * 2
    assert len(person.keys("taken/")) == 6


def test_a_file_that_is_replaced_while_it_is_taken_up_is_taken_up_again(
    store, warehouse, bronze, person
):
    class Slow(ObjectStore):
        def copy(self, entry, to):
            person.put(entry.key, BARS.replace("11.50", "11.75"))
            return super().copy(entry, to)

    with Slow(store._location, store.bucket) as slow:
        person.put("inbox/prices/x.csv")
        Inbox(slow, bronze, warehouse).take_up()
    assert person.keys("inbox/") == ["inbox/prices/x.csv"]
    Inbox(store, bronze, warehouse).take_up()
    (row,) = newest(bronze)["dropped_daily_bars", "IBM", "prices-x-csv"]["rows"]
    assert row["close"] == "11.75"
    assert person.keys("inbox/") == []


class ForbiddingStore(ObjectStore):
    """A bucket with one file that may not be read."""

    def read_raw(self, entry):
        if entry.key.endswith("secret.csv"):
            raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject")
        return super().read_raw(entry)


@pytest.fixture
def forbidding(store, warehouse):
    with ForbiddingStore(store._location, store.bucket) as forbidding:
        yield Inbox(forbidding, BronzeStore(forbidding, warehouse), warehouse)


def test_a_file_that_the_bucket_does_not_give_holds_up_no_other(forbidding, person):
    person.put("inbox/prices/secret.csv")
    person.put("inbox/prices/x.csv")
    outcomes = {type(outcome): outcome for outcome in forbidding.take_up()}
    assert outcomes[Taken].path == "inbox/prices/x.csv"
    assert outcomes[Left].path == "inbox/prices/secret.csv"
    assert person.keys("inbox/") == ["inbox/prices/secret.csv"]


def test_silver_reads_what_was_taken_up(inbox, bronze, person):
    person.put("inbox/prices/x.csv")
    inbox.take_up()
    payloads = {
        f"{call.dataset}/{call.part}": bronze.read(key)
        for call, key in bronze.newest(DROPPED_DAILY_BARS, ["IBM"]).items()
    }
    shaped = SILVER_TABLES["daily_bars"].shape("IBM", payloads)
    assert shaped.rows["close"].to_list() == [11.5]
    assert shaped.rejected.is_empty()


# In Dagster


def run(inbox, warehouse, instance, **tags):
    job = dg.define_asset_job(LOAD, selection=[INBOX_KEY], tags=tags)
    definitions = dg.Definitions(
        assets=[bronze_inbox], jobs=[job], resources={"inbox": inbox, "warehouse": warehouse}
    )
    return definitions.resolve_job_def(LOAD).execute_in_process(
        instance=instance, raise_on_error=False
    )


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.mark.parametrize("deferred", ["true", "false"])
def test_the_asset_says_what_came_of_each_file(inbox, warehouse, person, instance, deferred):
    instance.add_dynamic_partitions(str(TICKERS.name), ["IBM"])
    person.put("inbox/prices/x.csv", f"{BARS}\nA B,2024-04-15,1,1,1,1,1\n")
    person.put("inbox/prices/bad.csv", BAD)
    assert run(inbox, warehouse, instance, **{DEFER_ASSET_EVENTS: deferred}).success
    event = instance.get_latest_materialization_event(INBOX_KEY)
    metadata = {key: value.value for key, value in event.asset_materialization.metadata.items()}
    assert metadata["files_taken"] == 1
    assert metadata["rows"] == 2
    assert metadata["rows_without_ticker"] == 1
    assert metadata["some_tickers"] == ["IBM", "MSFT"]
    assert metadata["tickers_not_in_universe"] == ["MSFT"]
    (bad,) = metadata["quarantined"].records
    assert bad.data["file"] == "inbox/prices/bad.csv"
    assert "it has no column open" in bad.data["reason"]


@pytest.mark.parametrize("deferred", ["true", "false"])
def test_a_file_that_stays_makes_its_run_fail_or_is_judged_at_the_end(
    forbidding, warehouse, person, instance, deferred
):
    person.put("inbox/prices/secret.csv")
    person.put("inbox/prices/x.csv")
    result = run(forbidding, warehouse, instance, **{DEFER_ASSET_EVENTS: deferred})
    assert result.success == (deferred == "true")
    (failure,) = warehouse.failures(result.run_id)
    assert failure.asset == "bronze/inbox"
    assert "secret.csv: the bucket did not let it be taken up" in failure.reason
    event = instance.get_latest_materialization_event(INBOX_KEY)
    assert event.asset_materialization.metadata["files_taken"].value == 1


def look(inbox, instance):
    context = dg.build_sensor_context(instance=instance, resources={"inbox": inbox})
    return files_dropped(context)


def test_the_sensor_asks_for_one_run_for_the_files_that_wait(inbox, person, instance):
    instance.add_dynamic_partitions(str(TICKERS.name), ["IBM", "MSFT"])
    assert look(inbox, instance).skip_message == "nothing lies below inbox/"
    person.put("inbox/prices/x.csv")
    request = look(inbox, instance)
    assert request.run_key == look(inbox, instance).run_key == digest(inbox.waiting())
    # What they hold is loaded for just their tickers, by the sensor on bronze.
    assert request.asset_selection == [INBOX_KEY]
    assert request.tags[DEFER_ASSET_EVENTS] == "false"
    person.put("inbox/prices/x.csv", ACTIONS)
    assert look(inbox, instance).run_key != request.run_key


def test_the_sensor_waits_for_tickers_and_for_the_run_that_is_on(inbox, person, instance):
    person.put("inbox/prices/x.csv")
    assert "there are no tickers yet" in look(inbox, instance).skip_message
    instance.add_dynamic_partitions(str(TICKERS.name), ["IBM"])
    job = dg.define_asset_job(LOAD, selection=[INBOX_KEY])
    definitions = dg.Definitions(
        assets=[bronze_inbox], jobs=[job], resources={"inbox": inbox, "warehouse": None}
    )
    instance.create_run_for_job(
        definitions.resolve_job_def(LOAD), status=dg.DagsterRunStatus.STARTED
    )
    assert "wait for the run" in look(inbox, instance).skip_message


VENDORS = SampleMarket(first_session=date(2026, 9, 1))
LISTED, UNLISTED, STRANGER = VENDORS.tickers(1)[0], "UNLISTED", "STRANGER"
SESSIONS = [date(2026, 8, 31), date(2026, 9, 1), date(2026, 9, 2)]
DAY = {"open": 10, "high": 12, "low": 9, "close": 11, "volume": 7}


def closes(world, table, ticker):
    rows = world.query(
        f"select session_date, close from {table} where ticker = '{ticker}' "
        f"and session_date <= '{SESSIONS[-1]}'"
    )
    return dict(rows.rows())


def test_files_that_are_dropped_arrive_in_gold_beside_the_vendors_rows(world, person):
    source = SampleSource(VENDORS, lambda: date(2026, 11, 13))
    world.add(LISTED, UNLISTED)
    world.refresh(source, [LISTED], layers=("bronze",))
    filling = [{"ticker": LISTED, "date": str(day)} | DAY for day in SESSIONS[:2]]
    person.put("inbox/prices/old.json", json.dumps(filling))
    lines = [f"{LISTED},{SESSIONS[2]},10,12,9,11.5,7", f"{STRANGER},{SESSIONS[2]},1,1,1,1,1"]
    person.put("inbox/override/prices/mine.csv", "\n".join([HEADER, *lines]))
    bars = [{"symbol": UNLISTED, "session_date": day} | DAY for day in SESSIONS]
    bars[2] |= {"high": 8}
    packed = io.BytesIO()
    pl.DataFrame(bars).write_parquet(packed)
    person.put("inbox/prices/own.parquet", packed.getvalue())
    paid = f"{UNLISTED},{SESSIONS[1]},dividend,0.5"
    person.put("inbox/actions/own.csv", f"ticker,ex_date,action_type,amount\n{paid}\n")
    person.put("inbox/prices/bad.csv", f"{HEADER}\nIBM,03/04/2024,1,1,1,1,1\n")

    inbox = Inbox(world.store, world.bronze, world.warehouse)
    job = world.definitions(source).resolve_job_def(LOAD)
    taking = look(inbox, world.instance)
    assert job.execute_in_process(
        instance=world.instance, asset_selection=taking.asset_selection, tags=taking.tags
    ).success
    context = dg.build_sensor_context(
        instance=world.instance,
        resources={
            "bronze": world.bronze,
            "warehouse": world.warehouse,
            "roster": Roster(world.warehouse, UniverseFile(Path("no-such-file"))),
        },
    )
    (loading,) = arrivals_sensor(registers_unknown=False)(context).run_requests
    named = loading.run_config["resources"]["batch"]["config"]["tickers"]
    assert sorted(named) == sorted([LISTED, UNLISTED])
    assert job.execute_in_process(
        instance=world.instance, run_config=loading.run_config, tags=loading.tags
    ).success
    vendors = {
        date.fromisoformat(day): float(bar["4. close"])
        for day, bar in json.loads(
            VENDORS.reply("TIME_SERIES_DAILY_ADJUSTED", LISTED, date(2026, 11, 13))
        )["Time Series (Daily)"].items()
    }
    for table in ("silver.daily_bars", "gold.fct_daily_prices"):
        assert closes(world, table, LISTED) == {
            SESSIONS[0]: 11,
            SESSIONS[1]: vendors[SESSIONS[1]],
            SESSIONS[2]: 11.5,
        }
        assert closes(world, table, UNLISTED) == dict.fromkeys(SESSIONS[:2], 11)
        assert closes(world, table, STRANGER) == {}
    own = world.query(
        "select source, gold.dividend_amount, simple_return_1d from gold.fct_daily_prices gold "
        "join silver.daily_bars silver using (ticker, session_date) "
        f"where ticker = '{UNLISTED}' order by session_date"
    )
    assert own.select("source", "dividend_amount").rows() == [("inbox", 0), ("inbox", 0.5)]
    assert own["simple_return_1d"].to_list() == [None, pytest.approx(0.5 / 11)]
    sources = world.query(
        f"select source, count(*) from silver.daily_bars where ticker = '{LISTED}' group by 1"
    )
    assert dict(sources.rows()) == {"inbox": 2, "vendor": len(vendors) - 1}

    event = world.instance.get_latest_materialization_event(INBOX_KEY)
    metadata = event.asset_materialization.metadata
    (bad,) = metadata["quarantined"].value.records
    assert bad.data["file"] == "inbox/prices/bad.csv"
    assert "'03/04/2024' can be two dates" in bad.data["reason"]
    assert bad.data["reason"] in person.get(f"{bad.data['kept_as']}.reason.txt").decode()
    assert metadata["tickers_not_in_universe"].value == [STRANGER]
    rejected = world.query(
        "select ticker, rules from silver.rejected_rows where table_name = 'daily_bars'"
    )
    assert rejected.rows() == [
        (UNLISTED, ["high_is_not_below_low", "open_and_close_lie_between_low_and_high"])
    ]
    assert look(inbox, world.instance).skip_message == "nothing lies below inbox/"
    assert len(person.keys("quarantine/inbox/")) == 2
    assert len(person.keys("taken/")) == 4


def put_again(person, inbox, bronze, warehouse, *lines):
    """Let the file say something else, and load what it says; return what silver then has."""
    if lines:
        person.put("inbox/override/x.csv", "\n".join([HEADER, *lines]))
    else:
        person.put("inbox/withdraw/override/x.csv", b"")
    inbox.take_up()
    return closes_in_silver(bronze, warehouse)


def closes_in_silver(bronze, warehouse):
    results = silver.load(bronze, warehouse, SILVER_TABLES["daily_bars"], ["IBM"], only_stale=True)
    assert [r for r in results if isinstance(r, silver.Failed)] == []
    with warehouse.connect() as connection:
        return connection.execute(
            "select extract(day from session_date)::int, close, source from silver.daily_bars "
            "order by 1"
        ).fetchall()


def test_what_is_withdrawn_leaves_silver_and_gives_way_to_the_vendors_of_then(
    inbox, bronze, store, warehouse, person
):
    """With a free key, the vendor's replies have the newest sessions alone."""

    def vendor_says(bars):
        prices = ("1. open", "2. high", "3. low", "4. close")
        series = {
            f"2024-04-{day}": dict.fromkeys(prices, str(close)) | {"5. volume": "7"}
            for day, close in bars.items()
        }
        body = json.dumps({"Time Series (Daily)": series}).encode()
        key = BronzeKey("daily_bars", "IBM", datetime.now(UTC), content_hash(body))
        store.put_new(str(key), body, {})
        return closes_in_silver(bronze, warehouse)

    vendor_says({15: 15, 16: 16, 17: 17})
    override = "IBM,2024-04-{0},90,90,90,90,7".format
    own = [override(day) for day in (12, 15, 16)]
    assert [close for _, close, _ in put_again(person, inbox, bronze, warehouse, *own)] == [
        *(90, 90, 90, 17)
    ]
    vendor_says({16: 16.5, 17: 17, 18: 18})
    vendor_says({18: 18, 19: 19})
    assert put_again(person, inbox, bronze, warehouse, override(12)) == [
        (12, 90, "inbox"),
        *((day, close, "vendor") for day, close in ((15, 15), (16, 16.5), (17, 17), (18, 18))),
        (19, 19, "vendor"),
    ]
    left = put_again(person, inbox, bronze, warehouse)
    assert [day for day, _, _ in left] == [15, 16, 17, 18, 19]
    with warehouse.connect() as connection:
        before = connection.execute(HISTORY_OF_FILES).fetchall()
    assert [kind for _, kind, _ in before].count("removed") == 1
    list(silver.rebuild(bronze, warehouse, SILVER_TABLES["daily_bars"], ["IBM"]))
    assert closes_in_silver(bronze, warehouse) == left
    with warehouse.connect() as connection:
        assert connection.execute(HISTORY_OF_FILES).fetchall() == before


HISTORY_OF_FILES = (
    "select row_key, class, superseded_at from silver.superseded_rows order by superseded_at, 1"
)
