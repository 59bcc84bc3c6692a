"""Messages about failing jobs, to a real webhook and a real mail server on this machine."""

import json
import socketserver
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    TickData,
    TickStatus,
)
from dagster_shared.error import SerializableErrorInfo

from stocks_assets.adapters.messages import Messenger, NotSentError
from stocks_assets.adapters.warehouse import Failure
from stocks_assets.defs.alerts import alerts_sensor
from stocks_assets.defs.jobs import BATCH, BATCH_RUNS


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
        warehouse.record_failures(first, [Failure("silver/daily_bars", "IBM", "torn")])
        end(fails=True)
        webhook.status = 500
        said = look()
        assert "the webhook answered 500" in said
        assert "s3cret" not in said
        webhook.status = 200
        look()
        look()
        assert webhook.got == [
            f"stocks: nightly failed\nnightly failed: IBM: torn (silver/daily_bars)\nhttp://ui/runs/{first}"
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
        with served(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail)) as server:
            server.got = []
            mend = f"smtp://127.0.0.1:{server.server_address[1]}"
            look.sensor = alerts_sensor(
                Messenger(webhook.url, mend, "me@example.com"), ui_url="http://ui"
            )
            look()
            look()
            assert len(server.got) == 1
    assert len(webhook.got) == 1


def test_a_schedule_whose_tick_fails_is_told_and_so_is_its_recovery(warehouse):
    origin = CODE.get_instigator_origin("after_the_close")

    def ticked(instance, status, error=None):
        now = time.time()
        instance.create_tick(
            TickData(
                origin.get_id(),
                "after_the_close",
                InstigatorType.SCHEDULE,
                status,
                now,
                run_ids=["one"] if status is TickStatus.SUCCESS else [],
                skip_reason="closed" if status is TickStatus.SKIPPED else None,
                error=error,
                selector_id=origin.get_selector().get_id(),
                end_timestamp=now,
            )
        )

    with served(Webhook()) as webhook, dg.instance_for_test() as instance:
        look = Looks(instance, warehouse, Messenger(webhook.url))
        instance.add_instigator_state(
            InstigatorState(
                origin,
                InstigatorType.SCHEDULE,
                InstigatorStatus.RUNNING,
                ScheduleInstigatorData("30 18 * * 1-5", None),
            )
        )
        look()
        ticked(instance, TickStatus.SUCCESS)
        look()
        assert webhook.got == []
        broken = SerializableErrorInfo("postgresql://me:s3cret@db is away", [], "OperationalError")
        ticked(instance, TickStatus.FAILURE, broken)
        look()
        look()
        assert len(webhook.got) == 1
        assert webhook.got[0].startswith("stocks: schedule after_the_close failed\n")
        assert "is away" in webhook.got[0]
        assert "s3cret" not in webhook.got[0]
        assert webhook.got[0].endswith("http://ui/automation")
        ticked(instance, TickStatus.SKIPPED)
        look()
        look()
        assert [text.splitlines()[0] for text in webhook.got[1:]] == [
            "stocks: schedule after_the_close works again"
        ]


def test_mail_goes_to_whom_the_settings_name():
    with served(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail)) as server:
        server.got = []
        port = server.server_address[1]
        Messenger(None, f"smtp://127.0.0.1:{port}", "me@example.com").send("it failed", "A: why")
        (mail,) = server.got
    assert "Subject: it failed" in mail
    assert "To: me@example.com" in mail
    assert mail.endswith("A: why")


def test_one_way_that_fails_does_not_keep_the_other_from_being_used():
    with served(Webhook()) as webhook:
        messenger = Messenger(webhook.url, "smtp://user:pw@127.0.0.1:1", "me@example.com")
        assert "pw" not in repr(messenger)
        with pytest.raises(NotSentError, match="no mail was sent") as not_sent:
            messenger.send("it failed", "why")
    assert "pw" not in str(not_sent.value)
    assert webhook.got == ["it failed\nwhy"]
