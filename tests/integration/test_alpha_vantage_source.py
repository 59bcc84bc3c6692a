"""The live source against a server that answers as the vendor does, refusals included."""

import gzip
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import pytest

from stocks_assets.adapters.sources.alpha_vantage import AlphaVantageSource
from stocks_assets.domain.datasets import COMPANIES, DAILY_BARS, DATASETS, WEEKLY_BARS
from stocks_assets.domain.outcomes import (
    BadKey,
    BurstLimited,
    Data,
    DayQuotaSpent,
    Malformed,
    PremiumOnly,
    TransportFailed,
    Unavailable,
    UnknownSymbol,
)
from stocks_assets.errors import InvalidTickerError

KEY = "THE0KEY0OF0MINE"
WEEKLY = b'{"Meta Data": {"2. Symbol": "IBM"},\r\n "Weekly Adjusted Time Series": { } }\n'
DROPPED = None


def refusal(field: str, words: str) -> bytes:
    return json.dumps({field: words}).encode()


PREMIUM = "the premium plans at https://www.alphavantage.co/premium/"
DAY_QUOTA = refusal(
    "Information",
    f"We have detected your API key as {KEY} and our standard API rate limit is 25 requests per "
    f"day. Please subscribe to any of {PREMIUM} to instantly remove all daily rate limits.",
)
BURST = refusal(
    "Information",
    "Thank you for using Alpha Vantage! Please consider spreading out your free API requests more "
    f"sparingly (1 request per second). You may subscribe to any of {PREMIUM} to lift the free key "
    "rate limit (25 requests per day), raise the per-second burst limit",
)
LEGACY_BURST = refusal("Note", "Our standard API call frequency is 5 calls per minute")
PREMIUM_ENDPOINT = refusal(
    "Information",
    f"Thank you for using Alpha Vantage! This is a premium endpoint. You may subscribe to any of "
    f"{PREMIUM} to instantly unlock all premium endpoints",
)
PREMIUM_PARAMETER = refusal(
    "Information",
    "The outputsize=full parameter value is a premium feature for the TIME_SERIES_DAILY endpoint.",
)
DEMO_KEY = refusal("Information", "The **demo** API key is for demo purposes only.")
BAD_KEY = refusal("Error Message", "the parameter apikey is invalid or missing.")
UNKNOWN = refusal("Error Message", "Invalid API call. Please retry or visit the documentation")


class Vendor(ThreadingHTTPServer):
    """Answers with `replies`, the last of them for ever, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.replies: list[tuple[int, bytes | None]] = []
        self.calls: list[dict[str, str]] = []
        self.lock = threading.Lock()

    def will(self, *replies: bytes | tuple[int, bytes | None]) -> None:
        self.replies = [
            reply if isinstance(reply, tuple) else (200, reply) for reply in reversed(replies)
        ]


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        with self.server.lock:
            self.server.calls.append(dict(parse_qsl(urlsplit(self.path).query)))
            replies = self.server.replies
            status, body = replies.pop() if len(replies) > 1 else replies[0]
        if body is DROPPED:
            self.close_connection = True
            return
        packed = gzip.compress(body) if "gzip" in self.headers["Accept-Encoding"] else body
        self.send_response(status)
        self.send_header("Location", f"/elsewhere?apikey={KEY}")
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(packed)))
        self.end_headers()
        self.wfile.write(packed)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with Vendor() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def open_source(vendor):
    opened = []

    def open_one(*, premium=False):
        url = f"http://127.0.0.1:{vendor.server_port}/query"
        opened.append(AlphaVantageSource(KEY, premium=premium, url=url, retry_wait=0.001))
        return opened[-1]

    yield open_one
    for source in opened:
        source.close()


@pytest.fixture
def source(open_source):
    return open_source()


def test_a_good_reply_arrives_byte_for_byte(vendor, source):
    vendor.will(WEEKLY)
    assert source.fetch(WEEKLY_BARS, "IBM") == Data(WEEKLY, "TIME_SERIES_WEEKLY_ADJUSTED")


def test_the_vendor_is_asked_for_the_symbol_with_the_key(vendor, source):
    vendor.will(WEEKLY)
    source.fetch(WEEKLY_BARS, "bf/b")
    assert vendor.calls == [
        {"function": "TIME_SERIES_WEEKLY_ADJUSTED", "symbol": "BF/B", "apikey": KEY}
    ]


@pytest.mark.parametrize(
    ("premium", "daily"),
    [
        (False, {"function": "TIME_SERIES_DAILY", "outputsize": "compact"}),
        (True, {"function": "TIME_SERIES_DAILY_ADJUSTED", "outputsize": "full"}),
    ],
)
def test_each_plan_asks_for_the_fullest_endpoint_that_it_may_use(
    vendor, open_source, premium, daily
):
    vendor.will(b'{"Time Series (Daily)": {}}')
    outcome = open_source(premium=premium).fetch(DAILY_BARS, "IBM")
    assert outcome.function == daily["function"]
    assert vendor.calls == [{**daily, "symbol": "IBM", "apikey": KEY}]


def test_a_free_key_asks_one_function_a_dataset_and_never_for_the_full_history(vendor, source):
    vendor.will(b"{}")
    for dataset in DATASETS.values():
        assert isinstance(source.fetch(dataset, "IBM"), Unavailable)
    assert [call["function"] for call in vendor.calls] == [
        "TIME_SERIES_WEEKLY_ADJUSTED",
        "TIME_SERIES_DAILY",
        "SPLITS",
        "DIVIDENDS",
        "OVERVIEW",
    ]
    assert not [call for call in vendor.calls if call.get("outputsize") == "full"]


FINAL = {
    "premium endpoint": (PREMIUM_ENDPOINT, PremiumOnly),
    "premium parameter": (PREMIUM_PARAMETER, PremiumOnly),
    "demo key": (DEMO_KEY, BadKey),
    "bad key": (BAD_KEY, BadKey),
    "unknown symbol": (UNKNOWN, UnknownSymbol),
    "day quota": (DAY_QUOTA, DayQuotaSpent),
    "empty object": (b"{}", Unavailable),
    "page": (b"<html>oops</html>", Malformed),
    "cut short": (WEEKLY[:40], Malformed),
    "not found": ((404, b"not here"), Malformed),
    "redirect": ((302, b""), Malformed),
}


@pytest.mark.parametrize(("reply", "expected"), FINAL.values(), ids=FINAL)
def test_what_no_second_call_can_mend_is_asked_once_and_told(vendor, source, reply, expected):
    vendor.will(reply)
    assert type(source.fetch(WEEKLY_BARS, "IBM")) is expected
    assert len(vendor.calls) == 1


PASSING = {
    "burst": BURST,
    "legacy burst": LEGACY_BURST,
    "too many requests": (429, b"slow down"),
    "server error": (500, b"<html>"),
    "unavailable": (503, b""),
    "dropped connection": (200, DROPPED),
}


@pytest.mark.parametrize("reply", PASSING.values(), ids=PASSING)
def test_what_passes_is_tried_again_until_the_data_comes(vendor, source, reply):
    vendor.will(reply, reply, WEEKLY)
    assert source.fetch(WEEKLY_BARS, "IBM") == Data(WEEKLY, "TIME_SERIES_WEEKLY_ADJUSTED")
    assert len(vendor.calls) == 3


LASTING = {
    "burst": (BURST, BurstLimited, "faster than the key allows"),
    "too many requests": ((429, b""), BurstLimited, "HTTP status 429"),
    "server error": ((502, b""), TransportFailed, "HTTP status 502"),
    "dropped connection": ((200, DROPPED), TransportFailed, "RemoteProtocolError"),
}


@pytest.mark.parametrize(("reply", "expected", "reason"), LASTING.values(), ids=LASTING)
def test_what_does_not_pass_is_told_after_a_few_calls(vendor, source, reply, expected, reason):
    vendor.will(reply)
    outcome = source.fetch(WEEKLY_BARS, "IBM")
    assert type(outcome) is expected
    assert reason in outcome.reason
    assert len(vendor.calls) == 4


def test_a_server_that_is_not_there_is_told(vendor):
    nowhere = AlphaVantageSource(KEY, premium=False, url="http://127.0.0.1:1/q", retry_wait=0.001)
    try:
        outcome = nowhere.fetch(WEEKLY_BARS, "IBM")
    finally:
        nowhere.close()
    assert outcome == TransportFailed("TIME_SERIES_WEEKLY_ADJUSTED: ConnectError")


def test_a_reply_without_end_is_cut_off(vendor, source):
    vendor.will(b" " * (64 * 1024 * 1024 + 1))
    assert source.fetch(WEEKLY_BARS, "IBM") == Malformed(
        "the reply of TIME_SERIES_WEEKLY_ADJUSTED is over 64 MiB"
    )


def test_once_the_day_is_spent_the_vendor_is_not_called_again(vendor, source):
    vendor.will(WEEKLY, DAY_QUOTA, WEEKLY)
    assert isinstance(source.fetch(WEEKLY_BARS, "AAPL"), Data)
    assert isinstance(source.fetch(WEEKLY_BARS, "IBM"), DayQuotaSpent)
    for dataset in DATASETS.values():
        assert isinstance(source.fetch(dataset, "MSFT"), DayQuotaSpent)
    assert len(vendor.calls) == 2


def test_threads_that_waited_for_their_turn_do_not_call_when_the_day_is_spent(vendor, source):
    vendor.will(DAY_QUOTA)
    tickers = [f"T{number}" for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda ticker: source.fetch(WEEKLY_BARS, ticker), tickers))
    assert {type(outcome) for outcome in outcomes} == {DayQuotaSpent}
    assert len(vendor.calls) == 1


def test_what_is_no_ticker_is_never_sent(vendor, source):
    vendor.will(WEEKLY)
    with pytest.raises(InvalidTickerError):
        source.fetch(WEEKLY_BARS, "IBM&apikey=x")
    assert vendor.calls == []


def test_the_source_names_no_tickers(source):
    assert list(source.listed_tickers(None)) == []


def test_the_key_is_never_seen_in_an_outcome_or_a_log(vendor, source, caplog):
    for name in ("", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, logger=name)
    seen = [repr(source)]
    for reply in (WEEKLY, BURST, BAD_KEY, (500, b""), (302, b""), (200, DROPPED), b"x", DAY_QUOTA):
        vendor.will(reply)
        seen.append(repr(source.fetch(WEEKLY_BARS, "IBM")))
    seen.append(repr(source.fetch(COMPANIES, "IBM")))
    assert any(record.name.startswith("httpcore") for record in caplog.records)
    seen += [record.getMessage() for record in caplog.records]
    seen += [str(record.__dict__) for record in caplog.records]
    assert [text for text in seen if KEY in text] == []


def test_other_users_of_the_http_library_keep_its_log(vendor, caplog):
    import httpx

    vendor.will(WEEKLY)
    caplog.set_level(logging.INFO, logger="httpx")
    httpx.get(f"http://127.0.0.1:{vendor.server_port}/other")
    assert [record.name for record in caplog.records] == ["httpx"]
