"""The live source against a server that answers, refuses and breaks as the vendor does."""

import gzip
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import quote

import pytest
from vendor import KEY, REFUSALS, Vendor, cut, drip, drop, hang, page, reset, say, send, small

from stocks_assets.adapters.budget import CallBudget, Rates
from stocks_assets.adapters.sources.alpha_vantage import AlphaVantageSource
from stocks_assets.domain.datasets import (
    COMPANIES,
    DAILY_BARS,
    DATASETS,
    INTRADAY_BARS,
    LISTINGS,
    MARKET,
    WEEKLY_BARS,
)
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
    Unreachable,
)
from stocks_assets.errors import InvalidTickerError

WEEKLY = b'{"Meta Data": {"2. Symbol": "IBM"},\r\n "Weekly Adjusted Time Series": {"2024-03-15": { } } }\n'
LISTED = b"symbol,name,exchange,assetType,ipoDate,delistingDate,status\r\nIBM,IBM,NYSE,Stock,1962-01-02,null,Active\r\n"
DATA = Data(WEEKLY, "TIME_SERIES_WEEKLY_ADJUSTED")


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with Vendor() as server:
        yield server


@pytest.fixture
def open_source(vendor):
    opened = []

    def open_one(**options):
        settings = {"premium": False, "url": vendor.url, "retry_wait": 0.001, **options}
        opened.append(AlphaVantageSource(KEY, **settings))
        return opened[-1]

    yield open_one
    for source in opened:
        source.close()


@pytest.fixture
def source(open_source):
    return open_source()


def test_a_good_reply_arrives_byte_for_byte(vendor, source):
    vendor.will(WEEKLY)
    assert source.fetch(WEEKLY_BARS, "IBM") == DATA


def test_the_vendor_is_asked_for_the_symbol_with_the_key(vendor, source):
    vendor.will(WEEKLY)
    source.fetch(WEEKLY_BARS, "bf/b")
    assert [call.query for call in vendor.calls] == [
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
    vendor.answer = small
    outcome = open_source(premium=premium).fetch(DAILY_BARS, "IBM")
    assert outcome.function == daily["function"]
    assert [call.query for call in vendor.calls] == [{**daily, "symbol": "IBM", "apikey": KEY}]


def test_a_month_is_asked_for_by_its_name(vendor, open_source):
    vendor.answer = small
    outcome = open_source(premium=True).fetch(INTRADAY_BARS, "IBM", "2024-03")
    assert outcome.function == "TIME_SERIES_INTRADAY"
    (call,) = vendor.calls
    assert call.query == {
        "function": "TIME_SERIES_INTRADAY",
        "symbol": "IBM",
        "interval": "5min",
        "adjusted": "false",
        "extended_hours": "false",
        "outputsize": "full",
        "month": "2024-03",
        "apikey": KEY,
    }


def test_the_list_of_the_market_is_asked_for_without_a_symbol_and_comes_as_it_is(vendor, source):
    vendor.will(LISTED)
    assert source.fetch(LISTINGS, MARKET, "active") == Data(LISTED, "LISTING_STATUS")
    (call,) = vendor.calls
    assert call.query == {"function": "LISTING_STATUS", "state": "active", "apikey": KEY}


def test_a_free_key_asks_one_function_a_dataset_and_never_for_what_is_premium(vendor, source):
    vendor.answer = small
    for dataset in DATASETS.values():
        ticker = MARKET if dataset.is_of_market else "IBM"
        outcome = source.fetch(
            dataset, ticker, "2024-03" if dataset.is_monthly else dataset.parts[0]
        )
        assert type(outcome) is (PremiumOnly if dataset.is_premium else Data)
        assert source.offers(dataset) is not dataset.is_premium
    assert [call.function for call in vendor.calls] == [
        "LISTING_STATUS",
        "TIME_SERIES_WEEKLY_ADJUSTED",
        "TIME_SERIES_DAILY",
        "SPLITS",
        "DIVIDENDS",
        "OVERVIEW",
        "TIME_SERIES_MONTHLY_ADJUSTED",
    ]
    assert not [call for call in vendor.calls if call.query.get("outputsize") == "full"]


FINAL = {
    "premium endpoint": (REFUSALS["premium endpoint"], PremiumOnly),
    "premium parameter": (REFUSALS["premium parameter"], PremiumOnly),
    "demo key": (REFUSALS["demo key"], BadKey),
    "bad key": (REFUSALS["bad key"], BadKey),
    "unknown symbol": (REFUSALS["unknown symbol"], UnknownSymbol),
    "day quota": (REFUSALS["day quota"], DayQuotaSpent),
    "day quota with a status of its own": (say(REFUSALS["day quota"], 429), DayQuotaSpent),
    "empty object": (b"{}", Malformed),
    "empty series": (b'{"Weekly Adjusted Time Series": {}}', Unavailable),
    "empty body": (b"", Malformed),
    "page": (page(), Malformed),
    "cut short": (WEEKLY[:40], Malformed),
    "another charset": (WEEKLY.replace(b"IBM", b"Soci\xe9t\xe9"), Malformed),
    "two bytes a letter": (WEEKLY.decode().encode("utf-16"), Malformed),
    "another compression": (send(b"\x1b\x03\x00\xf8", Content_Encoding="br"), Malformed),
    "not found": (say(b"not here", 404), Malformed),
    "redirect": (say(b"", 302, Location="/elsewhere?apikey=<KEY>"), Malformed),
}


@pytest.mark.parametrize(("reply", "expected"), FINAL.values(), ids=FINAL)
def test_what_no_second_call_can_mend_is_asked_once_and_told(vendor, source, reply, expected):
    vendor.will(reply)
    assert type(source.fetch(WEEKLY_BARS, "IBM")) is expected
    assert len(vendor.calls) == 1


PASSING = {
    "burst": REFUSALS["burst"],
    "legacy burst": REFUSALS["legacy burst"],
    "too many requests": say(b"slow down", 429),
    "too many requests without a sensible word": say(b"", 429, Retry_After="soon"),
    "server error": page(500),
    "unavailable": say(b"", 503),
    "dropped connection": drop,
    "reset in the middle of the body": reset,
    "less than was announced": cut,
    "damaged gzip": send(gzip.compress(WEEKLY)[:-9] + b"damaged!!", Content_Encoding="gzip"),
    "no gzip at all": send(WEEKLY, Content_Encoding="gzip"),
    "no HTTP at all": drip(b"SSH-2.0-OpenSSH_9.6\r\n", 0),
}


@pytest.mark.parametrize("reply", PASSING.values(), ids=PASSING)
def test_what_passes_is_tried_again_until_the_data_comes(vendor, source, reply):
    vendor.will(reply, reply, WEEKLY)
    assert source.fetch(WEEKLY_BARS, "IBM") == DATA
    assert len(vendor.calls) == 3


LASTING = {
    "burst": (REFUSALS["burst"], BurstLimited, "faster than the key allows"),
    "too many requests": (say(b"", 429), BurstLimited, "HTTP status 429"),
    "server error": (say(b"", 502), TransportFailed, "HTTP status 502"),
    "dropped connection": (drop, TransportFailed, "RemoteProtocolError"),
    "reset in the middle of the body": (reset, TransportFailed, "ReadError"),
}


@pytest.mark.parametrize(("reply", "expected", "reason"), LASTING.values(), ids=LASTING)
def test_what_does_not_pass_is_told_after_a_few_calls(vendor, source, reply, expected, reason):
    vendor.will(reply)
    outcome = source.fetch(WEEKLY_BARS, "IBM")
    assert type(outcome) is expected
    assert reason in outcome.reason
    assert len(vendor.calls) == 4


SLOW = {
    "hangs before the first byte": (hang, {"timeout": 0.1}, "ReadTimeout"),
    "drips the body": (
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + b" " * 999, 0.02),
        {"timeout": 5, "deadline": 0.3},
        "no whole reply within 0.3 s",
    ),
    "drips a compressed body of which nothing can be unpacked yet": (
        drip(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(WEEKLY), 0.02),
        {"timeout": 5, "deadline": 0.3},
        "no whole reply within 0.3 s",
    ),
    "drips the headers": (
        drip(b"HTTP/1.1 200 OK\r\n" + b"X-More: of it\r\n" * 99, 0.02),
        {"timeout": 5, "deadline": 0.3},
        "no whole reply within 0.3 s",
    ),
}


@pytest.mark.parametrize(("reply", "limits", "reason"), SLOW.values(), ids=SLOW)
def test_no_server_holds_a_call_for_ever(vendor, open_source, reply, limits, reason):
    vendor.will(reply)
    outcome = open_source(**limits).fetch(WEEKLY_BARS, "IBM")
    assert outcome == TransportFailed(f"TIME_SERIES_WEEKLY_ADJUSTED: {reason}")
    assert len(vendor.calls) == 4


def test_a_slow_server_that_gets_there_is_waited_for(vendor, open_source):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(WEEKLY)
    vendor.will(drip(head + WEEKLY, 0.001))
    assert open_source(timeout=5, deadline=60).fetch(WEEKLY_BARS, "IBM") == DATA


@pytest.mark.parametrize(("status", "wording"), [(429, "seconds"), (429, "date"), (503, "seconds")])
def test_who_says_when_to_come_back_is_left_alone_until_then(vendor, source, status, wording):
    seconds = 1 if wording == "seconds" else 2
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    if wording == "date":
        until = until.replace(microsecond=0)
        busy = say(b"", status, Retry_After=format_datetime(until, usegmt=True))
    else:
        busy = say(b"", status, Retry_After=str(seconds))
    vendor.answer = lambda _: WEEKLY if datetime.now(UTC) >= until else busy
    assert source.fetch(WEEKLY_BARS, "IBM") == DATA
    # Left to the back-off of this test alone, all attempts would be over within milliseconds.
    assert len(vendor.calls) == 2


@pytest.mark.parametrize("after", ["3600", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_vendor_that_wants_to_be_left_alone_for_long_is_not_waited_for(vendor, source, after):
    vendor.will(say(b"", 429, Retry_After=after))
    outcome = source.fetch(WEEKLY_BARS, "IBM")
    assert type(outcome) is DayQuotaSpent
    assert "HTTP status 429; come back after 2" in outcome.reason
    assert source.fetch(WEEKLY_BARS, "AAPL") == DayQuotaSpent(f"not called: {outcome.reason}")
    assert len(vendor.calls) == 1


def test_a_server_that_is_not_there_is_told(open_source):
    outcome = open_source(url="http://127.0.0.1:1/q").fetch(WEEKLY_BARS, "IBM")
    assert type(outcome) is Unreachable
    assert outcome.reason.startswith("TIME_SERIES_WEEKLY_ADJUSTED: ConnectError, ")


def test_a_server_that_does_not_speak_tls_is_told(vendor, open_source):
    outcome = open_source(url=vendor.url.replace("http:", "https:")).fetch(WEEKLY_BARS, "IBM")
    assert type(outcome) is Unreachable
    assert "ConnectError, [SSL" in outcome.reason
    assert vendor.calls == []


TOO_LARGE = {
    "announced": send(b"", Content_Length=str(64 * 1024 * 1024 + 1)),
    "unpacked": say(b" " * (64 * 1024 * 1024 + 1)),
}


@pytest.mark.parametrize("reply", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_reply_without_end_is_cut_off(vendor, source, reply):
    vendor.will(reply)
    assert source.fetch(WEEKLY_BARS, "IBM") == Malformed(
        "the reply of TIME_SERIES_WEEKLY_ADJUSTED is over 64 MiB"
    )
    assert len(vendor.calls) == 1


def test_once_the_day_is_spent_the_vendor_is_not_called_again(vendor, source):
    vendor.will(WEEKLY, REFUSALS["day quota"], WEEKLY)
    assert isinstance(source.fetch(WEEKLY_BARS, "AAPL"), Data)
    assert isinstance(source.fetch(WEEKLY_BARS, "IBM"), DayQuotaSpent)
    for ticker in ("MSFT", "IBM"):
        outcome = source.fetch(COMPANIES, ticker)
        assert type(outcome) is DayQuotaSpent
        assert outcome.reason.startswith("not called: ")
    assert len(vendor.calls) == 2


@pytest.mark.parametrize("premium", [False, True])
def test_once_the_day_is_spent_all_threads_stop(vendor, open_source, premium):
    vendor.will(REFUSALS["day quota"])
    source = open_source(premium=premium)
    tickers = [f"T{number}" for number in range(100)]
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda ticker: source.fetch(WEEKLY_BARS, ticker), tickers))
    assert {type(outcome) for outcome in outcomes} == {DayQuotaSpent}
    # Those that were under way when the first one was refused could not be called back.
    assert len(vendor.calls) <= (4 if premium else 1)


def test_a_premium_key_has_several_calls_under_way(vendor, open_source):
    together = threading.Barrier(4, timeout=30)

    def once_all_are_here(exchange):
        together.wait()
        say(WEEKLY)(exchange)

    vendor.will(once_all_are_here)
    source = open_source(premium=True)
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda ticker: source.fetch(WEEKLY_BARS, ticker), "ABCD"))
    assert outcomes == [DATA] * 4
    assert len(vendor.calls) == 4


def test_a_free_key_has_one_call_under_way(vendor, source):
    under_way, most = threading.Semaphore(1), []

    def alone(exchange):
        most.append(under_way.acquire(blocking=False))
        time.sleep(0.01)
        under_way.release()
        say(WEEKLY)(exchange)

    vendor.will(alone)
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda ticker: source.fetch(WEEKLY_BARS, ticker), "ABCDEFGH"))
    assert outcomes == [DATA] * 8
    assert most == [True] * 8


def test_each_attempt_is_taken_from_the_budget_and_none_is_made_without(
    vendor, open_source, warehouse
):
    budget = CallBudget(warehouse, KEY, Rates(per_day=6))
    source = open_source(budget=budget)
    vendor.will(say(b"", 503))
    assert isinstance(source.fetch(WEEKLY_BARS, "IBM"), TransportFailed)
    assert source.allowance().left == 2
    outcome = source.fetch(WEEKLY_BARS, "IBM")
    assert type(outcome) is DayQuotaSpent
    assert outcome.reason.startswith("no call is left before 2")
    assert source.fetch(WEEKLY_BARS, "AAPL").reason == f"not called: {outcome.reason}"
    assert len(vendor.calls) == 6


NONSENSE = {
    "a part of a dataset that has none": (WEEKLY_BARS, "IBM", "2024-03"),
    "no month": (INTRADAY_BARS, "IBM", ""),
    "a thirteenth month": (INTRADAY_BARS, "IBM", "2024-13"),
    "a day": (INTRADAY_BARS, "IBM", "2024-03-01"),
    "another parameter": (INTRADAY_BARS, "IBM", "2024-03&apikey=x"),
    "a list that is none": (LISTINGS, MARKET, "renamed"),
    "one ticker's list of the market": (LISTINGS, "IBM", "active"),
}


@pytest.mark.parametrize(("dataset", "ticker", "part"), NONSENSE.values(), ids=NONSENSE)
def test_what_makes_no_sense_is_never_sent(vendor, open_source, dataset, ticker, part):
    with pytest.raises(ValueError, match=f"{dataset.name}"):
        open_source(premium=True).fetch(dataset, ticker, part)
    assert vendor.calls == []


@pytest.mark.parametrize("ticker", ["IBM&apikey=x", MARKET])
def test_what_is_no_ticker_is_never_sent(vendor, source, ticker):
    with pytest.raises(InvalidTickerError):
        source.fetch(WEEKLY_BARS, ticker)
    assert vendor.calls == []


def test_the_source_names_no_tickers(source):
    assert list(source.listed_tickers(None)) == []


ECHOES = {
    "a refusal": REFUSALS["day quota"],
    "a page": page(),
    "a field's name": b'{"<KEY>": 1, "a long name of which only a part is shown, <KEY>": 1}',
    "data": WEEKLY.replace(b"IBM", b"<KEY> <QUOTED>"),
    "a redirect": say(b"<KEY>", 302, Location="/elsewhere?apikey=<KEY>", X_Key="<KEY>"),
    "too many requests": say(REFUSALS["day quota"], 429, Retry_After="<KEY>"),
}


@pytest.mark.parametrize("reply", ECHOES.values(), ids=ECHOES)
@pytest.mark.parametrize("key", [KEY, "A/B+C=D%E F"])
def test_a_key_that_the_vendor_repeats_is_nowhere_in_the_outcome(vendor, key, reply):
    vendor.will(reply)
    source = AlphaVantageSource(key, premium=False, url=vendor.url, retry_wait=0.001)
    try:
        outcome = source.fetch(WEEKLY_BARS, "IBM")
    finally:
        source.close()
    told = f"{outcome!r} {outcome.body.decode()}"
    assert key[:6] not in told
    assert quote(key, "")[:6] not in told


def test_a_key_that_is_no_secret_changes_no_data(vendor):
    vendor.will(WEEKLY.replace(b"IBM", b"of demographic interest"))
    source = AlphaVantageSource("demo", premium=False, url=vendor.url)
    try:
        assert b"of demographic interest" in source.fetch(WEEKLY_BARS, "IBM").body
    finally:
        source.close()


def test_the_key_is_never_seen_in_a_log(vendor, open_source, caplog):
    for name in ("", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, logger=name)
    for reply in (WEEKLY, *ECHOES.values(), say(b"", 500, X_Key="<KEY>"), drop):
        vendor.will(reply)
        source = open_source()
        source.fetch(WEEKLY_BARS, "IBM")
    assert any(record.name.startswith("httpcore") for record in caplog.records)
    seen = [record.getMessage() for record in caplog.records]
    seen += [str(record.__dict__) for record in caplog.records]
    assert [text for text in [*seen, repr(source)] if KEY in text] == []


def test_other_users_of_the_http_library_keep_its_log(vendor, source, caplog):
    import httpx

    vendor.will(WEEKLY)
    caplog.set_level(logging.INFO, logger="httpx")
    httpx.get(f"{vendor.url}?function=OTHER&apikey=demo")
    assert [record.name for record in caplog.records] == ["httpx"]


def test_without_a_network_the_day_is_not_spent(world_budget):
    budget, used = world_budget
    offline = AlphaVantageSource(
        KEY, premium=False, url="http://127.0.0.1:9/query", budget=budget, retry_wait=0.001
    )
    outcomes = [offline.fetch(WEEKLY_BARS, f"T{number}") for number in range(20)]
    offline.close()
    assert {type(outcome) for outcome in outcomes} == {Unreachable}
    assert used() <= 4


@pytest.fixture
def world_budget(warehouse):
    """A budget of 100 calls, and what says how many of them were taken."""

    def budget():
        return CallBudget(warehouse, KEY, Rates(per_second=100, per_day=100))

    def used():
        with budget() as counting:
            return 100 - counting.allowance().left

    return budget(), used
