"""The vendor on localhost: a real HTTP server that sells, refuses and breaks as the vendor does."""

import gzip
import json
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qsl, quote, urlsplit

from stocks_assets.domain.calendar import last_closed_session
from stocks_assets.domain.sample_market import SampleMarket

KEY = "THE0KEY0OF0MINE"

_PLANS = "any of the premium plans at https://www.alphavantage.co/premium/"
_THANKS = "Thank you for using Alpha Vantage!"
_CLAIM = "https://www.alphavantage.co/support/#api-key"
_REFUSALS = {
    "day quota": (
        "Information",
        "We have detected your API key as <KEY> and our standard API rate limit is 25 requests per "
        f"day. Please subscribe to {_PLANS} to instantly remove all daily rate limits.",
    ),
    "burst": (
        "Information",
        f"{_THANKS} Please consider spreading out your free API requests more sparingly (1 request "
        f"per second). You may subscribe to {_PLANS} to lift the free key rate limit (25 requests "
        "per day), raise the per-second burst limit, and instantly unlock all premium endpoints",
    ),
    "legacy burst": (
        "Note",
        f"{_THANKS} Our standard API call frequency is 5 calls per minute and 500 calls per day. "
        "Please visit https://www.alphavantage.co/premium/ if you would like to target a higher API "
        "call frequency.",
    ),
    "premium endpoint": (
        "Information",
        f"{_THANKS} This is a premium endpoint. You may subscribe to {_PLANS} to instantly unlock "
        "all premium endpoints",
    ),
    "premium parameter": (
        "Information",
        f"{_THANKS} The outputsize=full parameter value is a premium feature for the "
        f"TIME_SERIES_DAILY endpoint. You may subscribe to {_PLANS} to instantly unlock all premium "
        "features",
    ),
    "demo key": (
        "Information",
        "The **demo** API key is for demo purposes only. Please claim your free API key at "
        f"({_CLAIM}) to explore our full API offerings. It takes fewer than 20 seconds.",
    ),
    "bad key": (
        "Error Message",
        "the parameter apikey is invalid or missing. Please claim your free API key on "
        f"({_CLAIM}). It should take less than 20 seconds.",
    ),
    "unknown symbol": (
        "Error Message",
        "Invalid API call. Please retry or visit the documentation "
        "(https://www.alphavantage.co/documentation/) for TIME_SERIES_DAILY.",
    ),
}
REFUSALS: Mapping[str, bytes] = {
    name: json.dumps({field: words}).encode() for name, (field, words) in _REFUSALS.items()
}
"""The documented refusals, which come with HTTP 200; the server puts the key in for `<KEY>`."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that the server received; `turn` counts the calls like it that came before.

    `at` is in seconds since 1970; a call for the whole market has an empty `symbol`.
    """

    function: str
    symbol: str
    turn: int
    at: float
    query: Mapping[str, str]


class Exchange(BaseHTTPRequestHandler):
    """One call and its answer."""

    protocol_version = "HTTP/1.1"
    server: "Vendor"

    def do_GET(self) -> None:
        self.query = dict(parse_qsl(urlsplit(self.path).query))
        reply = self.server.receive(self.query)
        (say(reply) if isinstance(reply, bytes) else reply)(self)

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


Reply = Callable[[Exchange], None]
Answer = Callable[[Asked], bytes | Reply]


class Vendor(ThreadingHTTPServer):
    """Answers as `answer` says, and keeps what it was asked."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: Answer | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.answer: Answer = answer or (lambda _: REFUSALS["unknown symbol"])
        self.calls: list[Asked] = []
        self.errors: list[BaseException | None] = []
        self._turns: Counter[tuple[tuple[str, str], ...]] = Counter()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
        assert self.errors == []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/query"

    def will(self, *replies: bytes | Reply) -> None:
        """Answer with `replies` one after the other, and with the last of them for ever."""
        coming = list(replies)
        self.answer = lambda _: coming.pop(0) if len(coming) > 1 else coming[0]

    def asked(self) -> list[tuple[str, str]]:
        """Return the function and symbol of each call, in the order in which they came."""
        return [(call.function, call.symbol) for call in self.calls]

    def receive(self, query: dict[str, str]) -> bytes | Reply:
        with self._lock:
            like = tuple(sorted(query.items()))
            asked = Asked(
                query["function"], query.get("symbol", ""), self._turns[like], time.time(), query
            )
            self._turns[like] += 1
            self.calls.append(asked)
            return self.answer(asked)

    def handle_error(self, *_: object) -> None:
        """Let go of a client that has gone; that is what many of these tests are about."""
        error = sys.exception()
        if not isinstance(error, OSError):
            self.errors.append(error)


def say(body: bytes, status: int = 200, **headers: str) -> Reply:
    """Answer with `body`, compressed, and the key in it where it says `<KEY>`."""

    def reply(exchange: Exchange) -> None:
        key = exchange.query["apikey"]
        words = body.replace(b"<KEY>", key.encode()).replace(b"<QUOTED>", quote(key, "").encode())
        packed = gzip.compress(words, compresslevel=1)
        sent = {"Content-Encoding": "gzip", "Content-Length": str(len(packed))}
        named = {
            name.replace("_", "-"): text.replace("<KEY>", key) for name, text in headers.items()
        }
        exchange.begin(status, sent | named)
        exchange.wfile.write(packed)

    return reply


def send(body: bytes, **headers: str) -> Reply:
    """Send exactly `body` under exactly these headers, and close."""

    def reply(exchange: Exchange) -> None:
        exchange.begin(200, {name.replace("_", "-"): text for name, text in headers.items()})
        exchange.wfile.write(body)
        exchange.close_connection = True

    return reply


def drop(exchange: Exchange) -> None:
    """Close the connection without a word."""
    exchange.close_connection = True


def reset(exchange: Exchange) -> None:
    """Reset the connection in the middle of the body."""
    exchange.begin(200, {"Content-Length": "1000"})
    exchange.wfile.write(b'{"Meta Data": {"1. Information": "Weekly')
    exchange.wfile.flush()
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.rfile.close()
    exchange.wfile.close()
    exchange.connection.close()
    raise ConnectionResetError


def cut(exchange: Exchange) -> None:
    """End before the body does."""
    send(b'{"Meta Data": {"1. Information": "Weekly', Content_Length="1000")(exchange)


def hang(exchange: Exchange) -> None:
    """Say nothing until the client gives up."""
    exchange.connection.recv(1)
    exchange.close_connection = True


def drip(body: bytes, pause: float) -> Reply:
    """Send one byte of `body`, from the status line on, every `pause` seconds."""

    def reply(exchange: Exchange) -> None:
        exchange.close_connection = True
        for byte in body:
            exchange.wfile.write(bytes([byte]))
            time.sleep(pause)

    return reply


def page(status: int = 200) -> Reply:
    """Answer with a page for people that repeats the URL, as those of proxies do."""
    text = b"<html><h1>Sorry</h1>GET /query?symbol=X&apikey=<QUOTED> (<KEY>)</html>"
    return say(text, status, Content_Type="text/html")


_BAR = {
    "1. open": "184.3500",
    "2. high": "188.4400",
    "3. low": "183.8850",
    "4. close": "186.8600",
}
_DAILY = _BAR | {"5. volume": "3721700"}
_ADJUSTED = _BAR | {
    "5. adjusted close": "185.2200",
    "6. volume": "3721700",
    "7. dividend amount": "0.0000",
}
_SERIES = {
    "TIME_SERIES_WEEKLY_ADJUSTED": ("Weekly Adjusted Time Series", "2024-03-15", _ADJUSTED),
    "TIME_SERIES_MONTHLY_ADJUSTED": ("Monthly Adjusted Time Series", "2024-03-15", _ADJUSTED),
    "TIME_SERIES_DAILY": ("Time Series (Daily)", "2024-03-15", _DAILY),
    "TIME_SERIES_DAILY_ADJUSTED": (
        "Time Series (Daily)",
        "2024-03-15",
        _ADJUSTED | {"8. split coefficient": "1.0"},
    ),
    "TIME_SERIES_INTRADAY": ("Time Series (5min)", "2024-03-15 15:55:00", _DAILY),
}
_LISTINGS = "symbol,name,exchange,assetType,ipoDate,delistingDate,status\r\n"


def small(asked: Asked) -> bytes:
    """Return a good reply with as little in it as there can be."""
    symbol = asked.symbol
    if asked.function == "LISTING_STATUS":
        state = asked.query["state"]
        gone = "null" if state == "active" else "2024-03-15"
        return f"{_LISTINGS}IBM,IBM,NYSE,Stock,1962-01-02,{gone},{state.title()}\r\n".encode()
    if asked.function == "OVERVIEW":
        return json.dumps({"Symbol": symbol, "Name": symbol, "AssetType": "Common Stock"}).encode()
    if asked.function not in _SERIES:
        return json.dumps({"symbol": symbol, "data": []}).encode()
    data_key, label, bar = _SERIES[asked.function]
    meta = {"1. Information": asked.function, "2. Symbol": symbol, "3. Last Refreshed": label}
    return json.dumps({"Meta Data": meta, data_key: {label: bar}}).encode()


def nothing(asked: Asked) -> bytes:
    """Return a reply that is no refusal and has nothing in it."""
    if asked.function == "LISTING_STATUS":
        return _LISTINGS.encode()
    if asked.function == "OVERVIEW":
        return b"{}"
    if asked.function not in _SERIES:
        return small(asked)
    return json.dumps({"Meta Data": {}, _SERIES[asked.function][0]: {}}).encode()


def sample_market(market: SampleMarket) -> Answer:
    """Sell what `market` has up to the last closed session."""
    last_session = last_closed_session(datetime.now(UTC))
    taken = ("outputsize", "month", "interval", "state")

    def answer(asked: Asked) -> bytes:
        arguments = {name: asked.query[name] for name in taken if name in asked.query}
        return market.reply(asked.function, asked.symbol, last_session, **arguments)

    return answer
