"""The key is nowhere but in the query string: everything that a refresh leaves behind is searched."""

import gzip
import json
import logging
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

import dagster as dg
import pytest
from psycopg.sql import SQL, Identifier
from vendor import (
    REFUSALS,
    Vendor,
    cut,
    drip,
    drop,
    hang,
    nothing,
    page,
    reset,
    sample_market,
    say,
    send,
)

from stocks_assets.adapters.budget import CallBudget, Rates
from stocks_assets.adapters.dbt_project import PROJECT_DIR
from stocks_assets.adapters.sources.alpha_vantage import AlphaVantageSource
from stocks_assets.adapters.sources.build import build_source
from stocks_assets.domain.datasets import INTRADAY_BARS, WEEKLY_BARS
from stocks_assets.domain.sample_market import SampleMarket
from stocks_assets.errors import StocksError
from stocks_assets.settings import read_settings

# Written otherwise in a URL.
KEY = "THE/KEY+0F=M1NE"
ECHO = b"<KEY> ?symbol=X&apikey=<QUOTED>"
MARKET = SampleMarket()


def echoing(refusal: bytes) -> bytes:
    """Return a documented refusal that repeats the key, whether the vendor's does or not."""
    ((name, words),) = json.loads(refusal).items()
    return json.dumps({name: f"{words} {ECHO.decode()}"}).encode()


DAY_QUOTA = echoing(REFUSALS["day quota"])
FAULTS = {
    **{name: echoing(body) for name, body in REFUSALS.items() if name != "day quota"},
    "a refusal that nobody has seen": b'{"Information": "' + ECHO + b'", "' + ECHO + b'": 1}',
    "a page": page(),
    "a page that says 500": page(500),
    "a page that says 404": page(404),
    "a redirect": say(b"", 302, Location="/elsewhere?apikey=<KEY>"),
    "a redirect to nowhere": say(b"", 302, Location="http://[<KEY>"),
    "too many requests": say(ECHO, 429, X_Key="<KEY>", Retry_After="<KEY>"),
    "unavailable": say(ECHO, 503, Set_Cookie="key=<KEY>"),
    "truncated": b'{"Meta Data": "' + ECHO,
    "another charset": ECHO + b"\xe9",
    "damaged gzip": send(KEY.encode(), Content_Encoding="gzip", X_Key=KEY),
    "too large": send(KEY.encode(), Content_Length="99999999999", X_Key=KEY),
    "no HTTP": drip(f"HELO {KEY}\r\n".encode(), 0),
    "a status in words": drip(f"HTTP/1.1 {KEY} OK\r\n\r\n".encode(), 0),
    "a header that is none": drip(f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode(), 0),
    "drips": drip(f"HTTP/1.1 200 {KEY}\r\n".encode() * 99, 0.01),
    "hangs": hang,
    "cut": cut,
    "dropped": drop,
    "reset": reset,
}


@pytest.fixture
def vendor():
    with Vendor() as server:
        yield server


@pytest.fixture
def overheard(caplog, capfd):
    """Every logger there is at its most talkative: what they say, and what is printed."""
    loggers = [logging.getLogger(name) for name in [None, *logging.Logger.manager.loggerDict]]
    before = [(logger, logger.level) for logger in loggers]
    apart = [logger for logger in loggers if not logger.propagate]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    for logger in apart:
        logger.addHandler(caplog.handler)
    caplog.handler.setLevel(logging.DEBUG)
    yield caplog, capfd
    for logger in apart:
        logger.removeHandler(caplog.handler)
    for logger, level in before:
        logger.setLevel(level)


@dataclass
class Place:
    """Somewhere that is searched; `witness` is in it, or the search would look at nothing."""

    witness: str
    texts: list[str] = field(default_factory=list)


def test_the_key_is_in_nothing_that_a_refresh_leaves_behind(
    world, vendor, overheard, monkeypatch, tmp_path_factory
):
    logged, printed = overheard
    good, *unlucky = MARKET.tickers(1 + len(FAULTS))
    faults = dict(zip(unlucky, FAULTS.values(), strict=True))
    sold = sample_market(MARKET)

    def answer(asked):
        if asked.symbol in faults:
            return faults[asked.symbol] if "WEEKLY" in asked.function else nothing(asked)
        # A reply that is data may repeat the key as well, where it is kept and where it is not.
        body = sold(asked).replace(b"US/Eastern", b"US/Eastern " + ECHO)
        return body.replace(b'"Country": "USA"', b'"Country": "USA ' + ECHO + b'"')

    vendor.answer = answer
    world.add(good, *unlucky)
    source = open_source(vendor, world.warehouse)
    results = [
        world.refresh(source, [good, *unlucky]),
        world.materialize(source, "bronze/weekly_bars", first=unlucky[0]),
    ]
    vendor.will(DAY_QUOTA)
    results.append(world.refresh(source, unlucky, layers=("bronze",)))
    assert [result.success for result in results] == [False, False, True]
    raised = exceptions(source, monkeypatch)
    shown = [repr(source), str(vars(source).keys()), *representations(world, monkeypatch)]
    source.close()

    places = {
        "log records": Place(unlucky[0], log_records(logged)),
        "events": Place("ASSET_MATERIALIZATION", events(world, results)),
        "runs": Place(unlucky[0], runs(world)),
        "tables": Place("PremiumOnly", tables(world.warehouse)),
        "objects": Place("quarantine/", objects(world.store)),
        "output": Place(unlucky[0], list(printed.readouterr())),
        "exceptions": Place("2024-13", raised),
        "representations": Place("AlphaVantageSource", shown),
        "log files": Place("ready to accept connections", log_files(world, tmp_path_factory)),
    }
    for place in places.values():
        assert any(place.witness in text for text in place.texts)
    leaks = {name: leak for name, place in places.items() if (leak := first_leak(place.texts))}
    assert leaks == {}
    # It was the key that was sent, and that the vendor repeated.
    assert {call.query["apikey"] for call in vendor.calls} == {KEY}
    assert any("<KEY>" in text for text in places["objects"].texts)
    assert any("<KEY>" in text for text in places["tables"].texts)


def first_leak(texts):
    """Return some of the first text that has the key in it, however written, or its beginning."""
    beginnings = {key[:8] for key in (KEY, quote(KEY, safe=""), quote(KEY), quote_plus(KEY))}
    for text in texts:
        for beginning in beginnings:
            if beginning in text:
                return text[max(0, text.index(beginning) - 100) :][:200]
    return None


def open_source(vendor, warehouse):
    return AlphaVantageSource(
        KEY,
        premium=False,
        url=vendor.url,
        budget=CallBudget(warehouse, KEY, Rates(per_second=1000, per_day=5000)),
        retry_wait=0.001,
        timeout=0.2,
        deadline=0.3,
    )


def log_records(caplog):
    formatter = logging.Formatter()
    return [f"{formatter.format(record)} {record.__dict__}" for record in caplog.records]


def events(world, results):
    logged = [entry for result in results for entry in world.instance.all_logs(result.run_id)]
    of_jobs = [event for result in results for event in result.all_events]
    return [f"{entry} {dg.serialize_value(entry)}" for entry in [*logged, *of_jobs]]


def runs(world):
    return [
        f"{record} {dg.serialize_value(record.dagster_run)}"
        for record in world.instance.get_run_records()
    ]


def tables(warehouse):
    """Return each row of each table, with the table's name."""
    texts = []
    with warehouse.connect() as connection:
        names = connection.execute(
            "select schemaname, tablename from pg_tables "
            "where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table in names:
            rows = SQL("select t::text from {} t").format(Identifier(schema, table))
            texts += [f"{schema}.{table} {row}" for (row,) in connection.execute(rows)]
    return texts


def objects(store):
    """Return each object of the bucket: key, metadata and body, as it is and unpacked."""
    texts = []
    for key in store.keys_after("", ""):
        stored = store._client.get_object(Bucket=store.bucket, Key=key)
        body = stored.pop("Body").read()
        unpacked = gzip.decompress(body).decode(errors="replace")
        texts.append(f"{key} {stored} {body!r} {unpacked}")
    return texts


def exceptions(source, monkeypatch):
    """Return the tracebacks of what can be made to raise."""
    monkeypatch.setenv("ALPHA_VANTAGE_API_KEY", KEY)
    monkeypatch.setenv("STOCKS_CALLS_PER_DAY", "-1")
    texts = []
    for wrong in (
        lambda: source.fetch(WEEKLY_BARS, "no ticker"),
        lambda: source.fetch(INTRADAY_BARS, "IBM", "2024-13"),
        read_settings,
    ):
        try:
            wrong()
        except (StocksError, ValueError):
            texts.append(traceback.format_exc())
    assert len(texts) == 3
    monkeypatch.delenv("STOCKS_CALLS_PER_DAY")
    return texts


def representations(world, monkeypatch):
    monkeypatch.setenv("STOCKS_SOURCE", "alpha_vantage")
    settings = read_settings()
    built = build_source(settings, world.warehouse)
    built.close()
    return [
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        settings.digest(),
        repr(built),
        repr(built._budget),
        repr(world.warehouse),
        repr(world.store),
        repr(world.bronze),
    ]


def log_files(world, tmp_path_factory):
    folders = [
        *tmp_path_factory.getbasetemp().glob("servers*/logs"),
        Path(world.instance.storage_directory()),
        PROJECT_DIR / "target",
    ]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return [file.read_text(errors="replace") for file in files if file.suffix != ".msgpack"]
