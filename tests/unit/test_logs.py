import json
import logging
from dataclasses import fields

import dagster as dg
import pytest

from stocks_assets.defs.logs import LineFormatter, Redactor, RunLog, is_worth_a_line
from stocks_assets.settings import Settings
from stocks_assets.stack import secrets
from stocks_assets.stack.postgres import DAGSTER, LOADER, TRANSFORMER
from stocks_assets.stack.seaweedfs import EmbeddedS3

KEY, PASSWORD = "ABCDEF0123456789", "p@ss word/1"


def settings(tmp_path):
    return Settings(
        _env_file=None,
        STOCKS_HOME=tmp_path,
        ALPHA_VANTAGE_API_KEY=KEY,
        STOCKS_DATABASE_URL="postgresql://me:p%40ss%20word%2F1@host:5432/stocks",
        STOCKS_ALERT_WEBHOOK_URL="https://hooks.example.com/secret-path",
    )


class Lines(logging.Handler):
    def __init__(self, formatter):
        super().__init__()
        self.setFormatter(formatter)
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


def run(formatter):
    """Run a job that materializes a ticker, logs of another one and fails; return its lines."""
    lines = Lines(formatter)

    @dg.asset(key=["silver", "daily_bars"], partitions_def=dg.DynamicPartitionsDefinition(name="t"))
    def bars(context):
        yield dg.AssetMaterialization(["silver", "daily_bars"], partition="BRK.B")
        about = {"dataset": "silver/daily_bars", "ticker": "IBM"}
        context.log.error(f"no reply of https://vendor/query?apikey={KEY}&x=1", extra=about)
        raise ValueError(f"cannot open postgresql://me:{PASSWORD}@host/stocks")

    @dg.logger
    def listener(_):
        logger = logging.Logger("listener")
        logger.addHandler(lines)
        return logger

    job = dg.Definitions(
        assets=[bars], loggers={"listener": listener}
    ).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("t", ["BRK.B"])
        result = job.execute_in_process(
            instance=instance,
            partition_key="BRK.B",
            raise_on_error=False,
            run_config={"loggers": {"listener": {}}},
        )
    assert not result.success
    return result.run_id, lines.lines


def test_lines_of_json_have_ticker_dataset_and_run(tmp_path):
    formatter = LineFormatter(as_json=True, redact=Redactor.from_settings(settings(tmp_path)))
    run_id, lines = run(formatter)
    found = [json.loads(line) for line in lines]
    assert {one["run"] for one in found} == {run_id}
    [said] = [one for one in found if one["level"] == "error" and one.get("ticker") == "IBM"]
    assert said["dataset"] == "silver/daily_bars"
    assert said["step"] == "silver__daily_bars"
    [event] = [one for one in found if one.get("event") == "ASSET_MATERIALIZATION"]
    assert (event["dataset"], event["ticker"]) == ("silver/daily_bars", "BRK.B")
    [failure] = [one for one in found if one.get("event") == "STEP_FAILURE"]
    assert "ValueError" in failure["error"]


def test_lines_of_pairs_are_one_line_each(tmp_path):
    formatter = LineFormatter(as_json=False, redact=Redactor.from_settings(settings(tmp_path)))
    run_id, lines = run(formatter)
    assert all("\n" not in line and f"run={run_id}" in line for line in lines)
    assert any("dataset=silver/daily_bars ticker=IBM" in line for line in lines)


@pytest.mark.parametrize("as_json", [True, False])
def test_no_line_has_a_secret(tmp_path, as_json):
    (tmp_path / "run").mkdir()
    own = secrets.load_or_create(tmp_path)
    redact = Redactor.from_settings(settings(tmp_path))
    _, lines = run(LineFormatter(as_json=as_json, redact=redact))
    everything = "\n".join(lines)
    assert "apikey=***" in everything
    assert KEY not in everything
    assert PASSWORD not in everything
    for secret in own.values():
        assert redact(f"it is {secret}!") == "it is ***!"
    assert redact("to https://hooks.example.com/secret-path") == "to ***"


def test_no_secret_of_the_servers_is_left_out_of_all_of_them(tmp_path):
    (tmp_path / "run").mkdir()
    own = secrets.load_or_create(tmp_path)
    derived = {name for name, one in vars(secrets.Secrets).items() if isinstance(one, property)}
    names = {field.name for field in fields(own)} | derived
    known = {getattr(own, name) for name in names if not name.endswith("_key_id")}
    known |= {own.role_password(role) for role in (LOADER, TRANSFORMER, DAGSTER)}
    started_with = EmbeddedS3(tmp_path)._environment(own)
    known |= {value for name, value in started_with.items() if "JWT" in name}
    assert len(known) == 13
    assert sorted(own.values()) == sorted(known)


def test_what_is_made_has_a_line_and_dagsters_own_steps_have_none():
    def record(level, event=None):
        made = logging.makeLogRecord({"levelno": level})
        made.dagster_meta = {"dagster_event": event}
        return made

    class Event:
        def __init__(self, kind):
            self.event_type_value = kind

    assert is_worth_a_line(record(logging.DEBUG, Event("ASSET_MATERIALIZATION")))
    assert is_worth_a_line(record(logging.INFO))
    assert not is_worth_a_line(record(logging.DEBUG, Event("STEP_OUTPUT")))
    assert not is_worth_a_line(record(logging.DEBUG))


def test_a_log_that_has_grown_is_moved_aside_and_others_follow(tmp_path, monkeypatch):
    monkeypatch.setenv("STOCKS_HOME", str(tmp_path))
    log = tmp_path / "runs.log"
    first = RunLog(str(log))
    first.handle(logging.makeLogRecord({"msg": "before", "levelno": logging.INFO}))
    with log.open("ab") as file:
        file.truncate(11 * 2**20)
    second = RunLog(str(log))
    for one in (first, second):
        one.handle(logging.makeLogRecord({"msg": "after", "levelno": logging.INFO}))
        one.close()
    assert log.read_text().count("message=after") == 2
    assert (tmp_path / "runs.log.1").read_bytes().startswith(b"time=")


def test_a_word_that_is_a_short_secret_blanks_nothing(tmp_path):
    redact = Redactor(["demo", "stocks-password"])
    assert redact("demo stocks stocks-password") == "demo stocks ***"
