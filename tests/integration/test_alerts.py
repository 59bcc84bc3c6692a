"""Messages about failing jobs, to a real webhook and a real mail server on this machine."""

import json
import re
import socketserver
import threading
import time
from contextlib import contextmanager
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    TickData,
    TickStatus,
)
from dagster_shared.error import SerializableErrorInfo

from stocks_assets.adapters.backlog import find_failing
from stocks_assets.adapters.messages import Message, Messenger, deliver
from stocks_assets.adapters.sources.build import offers
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.adapters.warehouse import Failure, Warehouse, ensure_database
from stocks_assets.defs.alerts import alerts_sensor
from stocks_assets.defs.batch import Batch
from stocks_assets.defs.checks import every_ticker_is_refreshed
from stocks_assets.defs.jobs import BATCH, BATCH_RUNS
from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.calendar import NEW_YORK
from stocks_assets.domain.datasets import DATASETS, Call
from stocks_assets.domain.outcomes import UnknownSymbol
from stocks_assets.domain.planner import Allowance
from stocks_assets.domain.sample_market import SampleMarket
from stocks_assets.settings import Settings

# Short histories: what is looked at is who is done, not how much.
START = datetime(2026, 11, 20, 22, tzinfo=UTC)
MARKET = SampleMarket(first_session=date(2026, 6, 1))


@contextmanager
def served(server):
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Webhook(ThreadingHTTPServer):
    """Keeps what is posted, and answers `status`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Hook)
        self.got, self.status = [], 200

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hook/s3cret"


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status == 200:
            self.server.got.append(json.loads(body)["text"])
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_):
        pass


class Mail(socketserver.StreamRequestHandler):
    """As much of SMTP as one message takes."""

    def handle(self):
        self.say("220 here")
        while line := self.rfile.readline().decode().strip():
            if line.upper() == "DATA":
                self.say("354 go on")
                lines = iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), ".")
                self.server.got.append("\n".join(lines))
            self.say("221 bye" if line.upper() == "QUIT" else "250 fine")
            if line.upper() == "QUIT":
                return

    def say(self, line):
        self.wfile.write(f"{line}\r\n".encode())


@contextmanager
def served_mail():
    """A mail server that keeps what it is given."""
    with served(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail)) as server:
        server.got = []
        server.url = f"smtp://127.0.0.1:{server.server_address[1]}"
        yield server


def subject_of(mail):
    return re.search(r"Subject: (.*)", mail)[1]


@dg.op(config_schema={"fails": bool})
def work(context):
    if context.op_config["fails"]:
        raise dg.Failure("the disk is full", allow_retries=False)


@dg.job
def nightly():
    work()


class Looks:
    """The sensor's looks, each with the cursor that the last one left."""

    def __init__(self, instance, warehouse, messenger):
        self.instance, self.warehouse, self.cursor = instance, warehouse, None
        self.sensor = alerts_sensor(messenger, ui_url="http://ui")

    def __call__(self):
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"warehouse": self.warehouse}
        )
        said = self.sensor(context).skip_message
        self.cursor = context.cursor
        return said

    def end(self, *, fails, tags=None):
        config = {"ops": {"work": {"config": {"fails": fails}}}}
        return nightly.execute_in_process(
            run_config=config, instance=self.instance, raise_on_error=False, tags=tags
        ).run_id


def test_a_job_that_fails_is_told_once_and_so_is_its_recovery(warehouse):
    with served(Webhook()) as webhook, dg.instance_for_test() as instance:
        look = Looks(instance, warehouse, Messenger(webhook.url))
        end = look.end
        look()
        end(fails=False)
        look()
        assert webhook.got == []
        first = end(fails=True)
        end(fails=True)
        webhook.status = 500
        said = look()
        assert "the webhook answered 500" in said
        assert "s3cret" not in said
        webhook.status = 200
        look()
        look()
        assert webhook.got == [
            "stocks: nightly failed\nnightly failed: work: "
            f"dagster._core.definitions.events.Failure: the disk is full\nhttp://ui/runs/{first}"
        ]
        last = end(fails=False)
        look()
        end(fails=False)
        look()
        assert webhook.got[1:] == [
            "stocks: nightly works again\n"
            f"nightly works again; it failed in {first}\nhttp://ui/runs/{last}"
        ]


def test_a_request_of_many_runs_fails_once(warehouse):
    def tags(day, runs=3):
        return {BATCH: day, BATCH_RUNS: str(runs)}

    with served(Webhook()) as webhook, dg.instance_for_test() as instance:
        look = Looks(instance, warehouse, Messenger(webhook.url))
        look()
        for fails in (True, False, True):
            look.end(fails=fails, tags=tags("Monday"))
            look()
        for _ in range(3):
            assert len(webhook.got) == 1
            look.end(fails=False, tags=tags("Tuesday"))
            look()
    assert [text.splitlines()[0] for text in webhook.got] == [
        "stocks: nightly failed",
        "stocks: nightly works again",
    ]


CODE = RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin("localhost", 1), "__repository__")


@pytest.mark.parametrize("of_daemon", [True, False])
def test_a_failure_that_dagster_makes_good_by_itself_is_not_told(warehouse, of_daemon):
    """It says that it will, and does for those runs that it has started."""
    origin = CODE.get_job_origin("nightly") if of_daemon else None
    retries = {"run_retries": {"enabled": True, "max_retries": 3}}
    with served(Webhook()) as webhook, dg.instance_for_test(overrides=retries) as instance:
        look = Looks(instance, warehouse, Messenger(webhook.url))
        look()
        started = dg.DagsterRun(
            "nightly", status=dg.DagsterRunStatus.STARTED, remote_job_origin=origin
        )
        run = instance.add_run(started)
        instance.report_run_failed(run, "its process is gone")
        assert instance.get_run_by_id(run.run_id).tags["dagster/will_retry"] == "true"
        look()
        assert len(webhook.got) == (0 if of_daemon else 1)
        look.end(
            fails=False,
            tags={"dagster/root_run_id": run.run_id, "dagster/parent_run_id": run.run_id},
        )
        look()
        assert len(webhook.got) == (0 if of_daemon else 2)


def test_a_message_that_went_out_one_way_is_not_sent_that_way_again(warehouse):
    with served(Webhook()) as webhook, dg.instance_for_test() as instance:
        messenger = Messenger(webhook.url, "smtp://127.0.0.1:1", "me@example.com")
        look = Looks(instance, warehouse, messenger)
        look()
        look.end(fails=True)
        assert "no mail was sent" in look()
        assert "no mail was sent" in look()
        assert len(webhook.got) == 1
        with served_mail() as server:
            look.sensor = alerts_sensor(
                Messenger(webhook.url, server.url, "me@example.com"), ui_url="http://ui"
            )
            look()
            look()
            assert len(server.got) == 1
    assert len(webhook.got) == 1


ORIGIN = CODE.get_instigator_origin("after_the_close")
AWAY = SerializableErrorInfo("postgresql://me:s3cret@db is away", [], "OperationalError")


def tick(status, due, ended=None, error=None):
    """A tick that was due then and ended then, which is now if it is not said."""
    return TickData(
        ORIGIN.get_id(),
        "after_the_close",
        InstigatorType.SCHEDULE,
        status,
        due,
        run_ids=["one"] if status is TickStatus.SUCCESS else [],
        skip_reason="closed" if status is TickStatus.SKIPPED else None,
        error=error,
        selector_id=ORIGIN.get_selector().get_id(),
        end_timestamp=time.time() if ended is None else ended,
    )


@contextmanager
def scheduled():
    """An instance with a schedule that is switched on."""
    with dg.instance_for_test() as instance:
        instance.add_instigator_state(
            InstigatorState(
                ORIGIN,
                InstigatorType.SCHEDULE,
                InstigatorStatus.RUNNING,
                ScheduleInstigatorData("30 18 * * 1-5", None),
            )
        )
        yield instance


def test_a_schedule_whose_tick_fails_is_told_and_so_is_its_recovery(warehouse):
    with served(Webhook()) as webhook, scheduled() as instance:
        look = Looks(instance, warehouse, Messenger(webhook.url))
        look()
        instance.create_tick(tick(TickStatus.SUCCESS, time.time()))
        look()
        assert webhook.got == []
        instance.create_tick(tick(TickStatus.FAILURE, time.time(), error=AWAY))
        look()
        look()
        assert len(webhook.got) == 1
        assert webhook.got[0].startswith("stocks: schedule after_the_close failed\n")
        assert "is away" in webhook.got[0]
        assert "s3cret" not in webhook.got[0]
        assert webhook.got[0].endswith("http://ui/automation")
        instance.create_tick(tick(TickStatus.SKIPPED, time.time()))
        look()
        look()
        assert [text.splitlines()[0] for text in webhook.got[1:]] == [
            "stocks: schedule after_the_close works again"
        ]


def test_a_tick_that_is_made_hours_late_is_told_when_it_fails_and_when_it_is_made_good(warehouse):
    """The machine was off when it was due; Dagster tries the same tick again."""
    due = time.time() - 8 * 3600
    with served(Webhook()) as webhook, scheduled() as instance:
        look = Looks(instance, warehouse, Messenger(webhook.url))
        # A day ago, before anybody looked: no news.
        day = 24 * 3600
        instance.create_tick(tick(TickStatus.FAILURE, due - day, time.time() - day, AWAY))
        look()
        look()
        assert webhook.got == []
        late = instance.create_tick(tick(TickStatus.FAILURE, due, error=AWAY))
        look()
        look()
        assert [text.splitlines()[0] for text in webhook.got] == [
            "stocks: schedule after_the_close failed"
        ]
        instance.update_tick(late._replace(tick_data=tick(TickStatus.SUCCESS, due)))
        look()
        look()
        assert [text.splitlines()[0] for text in webhook.got[1:]] == [
            "stocks: schedule after_the_close works again"
        ]


def test_mail_goes_to_whom_the_settings_name():
    with served_mail() as server:
        Messenger(None, server.url, "me@example.com").send("mail", "it failed", "A: why")
        (mail,) = server.got
    assert "Subject: it failed" in mail
    assert "To: me@example.com" in mail
    assert "\nDate: " in mail
    assert re.search(r"\nMessage-ID: <\S+@example.com>", mail)
    assert mail.endswith("A: why")


def test_what_is_said_of_a_way_that_fails_has_no_secret():
    with served(Webhook()) as webhook:
        messenger = Messenger(webhook.url, "smtp://user:pw@127.0.0.1:1", "me@example.com")
        assert "pw" not in repr(messenger)
        told = [Message("it failed", "why", frozenset(messenger.ways))]
        delivery = deliver(told, messenger, at_most=1)
    assert webhook.got == ["it failed\nwhy"]
    [trouble] = delivery.trouble
    assert "no mail was sent" in trouble
    assert "pw" not in trouble


@pytest.mark.parametrize("url", ["smtp://user:pä@127.0.0.1:1", "smtp://127.0.0.1:pw"])
def test_settings_that_cannot_work_fail_their_own_way_alone(url):
    with served(Webhook()) as webhook:
        messenger = Messenger(webhook.url, url, "me@example.com")
        told = [Message("it failed", "why", frozenset(messenger.ways))]
        assert deliver(told, messenger, at_most=1).unsent
    assert webhook.got == ["it failed\nwhy"]


def test_alerts_go_on_by_mail_when_the_webhook_is_gone_for_good(warehouse):
    with served_mail() as mails, dg.instance_for_test() as instance:
        look = Looks(
            instance, warehouse, Messenger("http://127.0.0.1:1/hook", mails.url, "me@example.com")
        )
        look()
        look.end(fails=True)
        assert "no webhook was sent" in look()
        look.end(fails=False)
        look()
        look.end(fails=True)
        assert "3 wait for the next look" in look()
        assert [subject_of(mail) for mail in mails.got] == [
            "stocks: nightly failed",
            "stocks: nightly works again",
            "stocks: nightly failed",
        ]
        with served(Webhook()) as webhook:
            look.sensor = alerts_sensor(
                Messenger(webhook.url, mails.url, "me@example.com"), ui_url="http://ui"
            )
            look()
            look()
        assert [text.splitlines()[0] for text in webhook.got] == [
            subject_of(mail) for mail in mails.got
        ]


def backfill(instance, status, *, error=None, ended=True, name="abcdefgh"):
    """Ask for a backfill, or change how it stands."""
    moment = time.time()
    one = PartitionBackfill(
        backfill_id=name,
        status=status,
        from_failure=False,
        tags={},
        backfill_timestamp=moment,
        error=error,
        backfill_end_timestamp=moment if ended else None,
    )
    known = instance.get_backfill(name)
    (instance.add_backfill if known is None else instance.update_backfill)(one)


def test_a_backfill_that_fails_before_its_first_run_is_told(warehouse):
    with served(Webhook()) as webhook, dg.instance_for_test() as instance:
        look = Looks(instance, warehouse, Messenger(webhook.url))
        look()
        error = SerializableErrorInfo("postgresql://me:s3cret@db is away", [], "Error")
        backfill(instance, BulkActionStatus.FAILED, error=error)
        look()
        look()
    [text] = webhook.got
    assert text.splitlines()[1].startswith("backfill abcdefgh failed: postgresql:")
    assert text.endswith("http://ui/runs/b/abcdefgh")
    assert "s3cret" not in text


@pytest.mark.parametrize("status", [BulkActionStatus.FAILED, BulkActionStatus.COMPLETED_FAILED])
def test_a_backfill_that_ends_as_failed_is_told_though_its_runs_succeeded(warehouse, status):
    with served(Webhook()) as webhook, dg.instance_for_test() as instance:
        look = Looks(instance, warehouse, Messenger(webhook.url))
        backfill(instance, BulkActionStatus.REQUESTED, ended=False)
        look()
        look.end(fails=False, tags={"dagster/backfill": "abcdefgh"})
        look()
        assert webhook.got == []
        backfill(instance, status)
        look()
        look()
        assert [text.splitlines()[0] for text in webhook.got] == [
            "stocks: backfill abcdefgh failed"
        ]
        look.end(fails=False, tags={"dagster/backfill": "abcdefgh"})
        look()
        assert [text.splitlines()[0] for text in webhook.got[1:]] == [
            "stocks: backfill abcdefgh works again"
        ]


@pytest.mark.parametrize("status", [BulkActionStatus.CANCELED, BulkActionStatus.COMPLETED_FAILED])
def test_a_backfill_that_somebody_stopped_is_no_failure(warehouse, status):
    """Dagster calls a backfill complete and failed when one of its runs was cancelled."""
    with served(Webhook()) as webhook, dg.instance_for_test() as instance:
        look = Looks(instance, warehouse, Messenger(webhook.url))
        look()
        instance.report_run_canceled(wait(instance, {"dagster/backfill": "abcdefgh"}))
        look.end(fails=False, tags={"dagster/backfill": "abcdefgh"})
        backfill(instance, status)
        look()
    assert webhook.got == []


def wait(instance, tags):
    """A run that waits."""
    run = dg.DagsterRun("nightly", status=dg.DagsterRunStatus.NOT_STARTED, tags=tags)
    return instance.add_run(run)


def test_a_failed_request_is_told_when_its_last_run_is_cancelled_long_after(warehouse):
    with served(Webhook()) as webhook, dg.instance_for_test() as instance:
        look = Looks(instance, warehouse, Messenger(webhook.url))
        look()
        alone = wait(instance, {BATCH: "Sunday", BATCH_RUNS: "1"})
        last = wait(instance, {BATCH: "Monday", BATCH_RUNS: "2"})
        failed = look.end(fails=True, tags={BATCH: "Monday", BATCH_RUNS: "2"})
        instance.report_run_canceled(alone)
        look()
        assert webhook.got == []
        kept = json.loads(look.cursor)
        kept["since"] = datetime.now(UTC).isoformat()  # other ends moved it on
        look.cursor = json.dumps(kept)
        instance.report_run_canceled(last)
        look()
    [text] = webhook.got
    assert text.endswith(f"http://ui/runs/{failed}")


def test_runs_that_are_no_news_do_not_hide_those_that_are(warehouse):
    with served(Webhook()) as webhook, dg.instance_for_test() as instance:
        look = Looks(instance, warehouse, Messenger(webhook.url))
        look.sensor = alerts_sensor(Messenger(webhook.url), ui_url="http://ui", runs_a_page=2)
        look()
        for _ in range(5):
            instance.report_run_canceled(wait(instance, {}))
        look.end(fails=True)
        look()
        assert [text.splitlines()[0] for text in webhook.got] == ["stocks: nightly failed"]


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_what_ends_is_seen_whatever_the_time_zone_of_the_database(
    servers, warehouse, monkeypatch, zone
):
    monkeypatch.setenv("PGTZ", zone)
    url = servers.database_url.rsplit("/", 1)[0] + f"/dagster_{zone[:4].lower()}"
    ensure_database(url)
    storage = {
        "module": "stocks_assets.defs.storage",
        "class": "PooledPostgresStorage",
        "config": {"postgres_url": url.replace("postgresql://", "postgresql+psycopg2://")},
    }
    with (
        served(Webhook()) as webhook,
        dg.instance_for_test(overrides={"storage": {"custom": storage}}) as instance,
    ):
        look = Looks(instance, warehouse, Messenger(webhook.url))
        look()
        backfill(instance, BulkActionStatus.FAILED)
        look()
        for fails in (True, False):
            look.end(fails=fails)
            look()
    assert [text.splitlines()[0] for text in webhook.got] == [
        "stocks: backfill abcdefgh failed",
        "stocks: nightly failed",
        "stocks: nightly works again",
    ]


class Vendor(SampleSource):
    """A vendor who does not know some tickers, and whose calls are planned."""

    def __init__(self, *unknown):
        super().__init__(MARKET, lambda: date(2026, 11, 20))
        self.unknown = unknown

    def fetch(self, dataset, ticker, part="", **how):
        if ticker in self.unknown:
            return UnknownSymbol("the vendor does not know this ticker")
        return super().fetch(dataset, ticker, part, **how)

    def allowance(self):
        return Allowance()


def test_a_ticker_that_the_vendor_does_not_know_is_told_once(world):
    known, unknown = MARKET.tickers(1)[0], "NOSUCH"
    source = Vendor(unknown)
    with served(Webhook()) as webhook, dg.instance_for_test() as world.instance:
        world.add(known, unknown)
        look = Looks(world.instance, world.warehouse, Messenger(webhook.url))
        look()
        outcomes = []
        for _ in range(2):
            outcomes.append(world.refresh(source, [known, unknown]).success)
            look()
        assert outcomes == [False, True]
        [text] = webhook.got
        subject, *lines, _ = text.splitlines()
        assert subject == "stocks: refresh failed"
        assert all(unknown in line for line in lines)
        world.instance.delete_dynamic_partition("ticker", unknown)
        world.refresh(source, [known])
        look()
        assert webhook.got[1].splitlines()[0] == "stocks: refresh works again"


@pytest.fixture
def refreshed(warehouse):
    """A refresh of A and B, of which the vendor knows but B, as its runs and messages show."""
    with served(Webhook()) as webhook, dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("ticker", ["A", "B", "C"])
        look = Looks(instance, warehouse, Messenger(webhook.url))
        look()
        yield look, webhook.got


def note(warehouse, ticker, outcome):
    with warehouse.fetch_journal(1, datetime.now(UTC)) as journal:
        journal.note(Call("daily_bars", ticker, ""), outcome, outcome, None)


def refresh(look, *failed, tickers=("A", "B"), breaks=False):
    """A run of the job `refresh` for `tickers`, in which some failed, or gold did."""

    @dg.op(name=every_ticker_is_refreshed.node_def.name)
    def check():
        if failed:
            raise dg.Failure("the check failed", allow_retries=False)

    @dg.op
    def gold():
        if breaks:
            raise dg.Failure("no space is left", allow_retries=False)

    @dg.op
    def begin(context):
        look.warehouse.record_failures(
            context.run_id, [Failure("bronze/daily_bars", one, "UnknownSymbol") for one in failed]
        )

    @dg.job(name="refresh", resource_defs={"batch": Batch.configure_at_launch()})
    def job():
        begin()
        check()
        gold()

    return job.execute_in_process(
        run_config={"resources": {"batch": {"config": {"tickers": list(tickers)}}}},
        instance=look.instance,
        raise_on_error=False,
    ).run_id


def test_a_refresh_works_again_when_no_ticker_that_was_told_fails_any_more(refreshed):
    look, got = refreshed
    note(look.warehouse, "A", "UnknownSymbol")
    first = refresh(look, "A")
    look()
    assert got == [
        "stocks: refresh failed\nrefresh failed: A: UnknownSymbol (bronze/daily_bars)\n"
        f"http://ui/runs/{first}"
    ]
    refresh(look)  # it is not due
    look()
    refresh(look, "A")
    look()
    note(look.warehouse, "A", "Data")
    refresh(look, tickers=["C"])
    look()
    assert len(got) == 1
    refresh(look)
    look()
    assert [text.splitlines()[1] for text in got[1:]] == [
        f"refresh works again; it failed in {first}"
    ]


def test_what_fails_is_what_was_refused_and_is_wanted_or_what_is_not_in_silver(warehouse):
    note(warehouse, "A", "UnknownSymbol")
    note(warehouse, "B", "Data")
    with warehouse.fetch_journal(1, datetime.now(UTC)) as journal:
        month = f"{datetime.now(NEW_YORK):%Y-%m}"
        journal.note(Call("intraday_bars", "C", month), "PremiumOnly", "no", None)
        journal.note(
            Call("splits", "D", ""), "Data", None, BronzeKey("splits", "D", START, "0" * 64)
        )

    def failing(*tickers, plan="free", months=0):
        settings = Settings(
            STOCKS_SOURCE="alpha_vantage", ALPHA_VANTAGE_API_KEY="k", STOCKS_ALPHA_VANTAGE_PLAN=plan
        )
        datasets = [one for one in DATASETS.values() if offers(settings, one)]
        return find_failing(warehouse, tickers, datasets, intraday_months=months)

    assert failing("A", "B", "C", "D") == {"A", "D"}
    assert failing("B", "C", plan="premium", months=2) == {"C"}
    assert failing("B", "C", plan="free", months=2) == set()


def test_a_ticker_that_fails_does_not_hide_another_nor_the_job(refreshed):
    look, got = refreshed
    note(look.warehouse, "A", "UnknownSymbol")
    refresh(look, "A")
    look()
    refresh(look, "A", "B")
    look()
    refresh(look, "A", "B", breaks=True)
    look()
    assert [text.splitlines()[1:-1] for text in got[1:]] == [
        ["refresh failed: B: UnknownSymbol (bronze/daily_bars)", "and 1 as before"],
        [
            "refresh failed: gold: dagster._core.definitions.events.Failure: no space is left",
            "and 2 as before",
        ],
    ]


def test_a_failure_is_told_though_the_warehouse_is_away(refreshed):
    look, got = refreshed
    refresh(look, "A")
    look.warehouse = Warehouse("postgresql://nobody@127.0.0.1:1/none")
    assert "what failed cannot be read (StackError)" in look()
    assert [text.splitlines()[0] for text in got] == ["stocks: refresh failed"]
