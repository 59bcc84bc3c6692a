import json

import pytest

from stocks_assets.domain.datasets import (
    COMPANIES,
    DAILY_BARS,
    DIVIDENDS,
    INTRADAY_BARS,
    LISTINGS,
    SPLITS,
    WEEKLY_BARS,
)
from stocks_assets.domain.outcomes import (
    BadKey,
    BurstLimited,
    Data,
    DayQuotaSpent,
    Malformed,
    PremiumOnly,
    Unavailable,
    UnknownSymbol,
    classify,
)

WEEKLY = WEEKLY_BARS.endpoints[0]
LISTING_STATUS = LISTINGS.endpoints[0]
HEADER = b"symbol,name,exchange,assetType,ipoDate,delistingDate,status\r\n"
ROW = b'A,"Agilent, Inc",NYSE,Stock,1999-11-18,null,Active\r\n'
PLANS = "Please subscribe to any of the premium plans at https://www.alphavantage.co/premium/"

REFUSALS = {
    "day quota": (
        "Information",
        "We have detected your API key as SECRET123 and our standard API rate limit is 25 requests "
        f"per day. {PLANS} to instantly remove all daily rate limits.",
        DayQuotaSpent,
    ),
    "day quota of other years": (
        "Information",
        "Thank you for using Alpha Vantage! Our standard API rate limit is 100 requests per day. "
        f"{PLANS} to instantly remove all daily rate limits.",
        DayQuotaSpent,
    ),
    "burst": (
        "Information",
        "Thank you for using Alpha Vantage! Please consider spreading out your free API requests "
        "more sparingly (1 request per second). You may subscribe to any of the premium plans at "
        "https://www.alphavantage.co/premium/ to lift the free key rate limit (25 requests per "
        "day), raise the per-second burst limit, and instantly unlock all premium endpoints",
        BurstLimited,
    ),
    "legacy burst": (
        "Note",
        "Thank you for using Alpha Vantage! Our standard API call frequency is 5 calls per minute "
        "and 500 calls per day. Please visit https://www.alphavantage.co/premium/ if you would like "
        "to target a higher API call frequency.",
        BurstLimited,
    ),
    "premium endpoint": (
        "Information",
        "Thank you for using Alpha Vantage! This is a premium endpoint. You may subscribe to any of "
        "the premium plans at https://www.alphavantage.co/premium/ to instantly unlock all premium "
        "endpoints",
        PremiumOnly,
    ),
    "premium parameter": (
        "Information",
        "Thank you for using Alpha Vantage! The outputsize=full parameter value is a premium "
        "feature for the TIME_SERIES_DAILY endpoint. You may subscribe to any of the premium plans "
        "at https://www.alphavantage.co/premium/ to instantly unlock all premium features",
        PremiumOnly,
    ),
    "demo key": (
        "Information",
        "The **demo** API key is for demo purposes only. Please claim your free API key at "
        "(https://www.alphavantage.co/support/#api-key) to explore our full API offerings. It takes "
        "fewer than 20 seconds.",
        BadKey,
    ),
    "bad key": (
        "Error Message",
        "the parameter apikey is invalid or missing. Please claim your free API key on "
        "(https://www.alphavantage.co/support/#api-key). It should take less than 20 seconds.",
        BadKey,
    ),
    "unknown symbol": (
        "Error Message",
        "Invalid API call. Please retry or visit the documentation "
        "(https://www.alphavantage.co/documentation/) for TIME_SERIES_DAILY.",
        UnknownSymbol,
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_each_documented_refusal_is_told_by_its_words(name):
    field, words, expected = REFUSALS[name]
    outcome = classify(WEEKLY, json.dumps({field: words}).encode())
    assert type(outcome) is expected


def test_no_reason_repeats_the_key_that_the_vendor_echoes():
    for field, words, _ in REFUSALS.values():
        outcome = classify(WEEKLY, json.dumps({field: words}).encode())
        assert "SECRET123" not in repr(outcome)


def test_a_reply_with_its_data_key_is_data_as_it_came():
    body = b'{"Meta Data": {}, "Weekly Adjusted Time Series": {"2024-03-15": {}}}'
    assert classify(WEEKLY, body) == Data(body, "TIME_SERIES_WEEKLY_ADJUSTED")


@pytest.mark.parametrize("dataset", [SPLITS, DIVIDENDS])
def test_no_event_ever_is_data_too(dataset):
    body = b'{"symbol": "IBM", "data": []}'
    assert isinstance(classify(dataset.endpoints[0], body), Data)


@pytest.mark.parametrize("series", [b"{}", b"{ \n }"])
def test_a_series_without_a_bar_is_no_data_that_could_replace_a_history(series):
    body = b'{"Meta Data": {}, "Weekly Adjusted Time Series": ' + series + b"}"
    assert isinstance(classify(WEEKLY, body), Unavailable)


def test_the_empty_object_means_that_the_vendor_has_no_such_company():
    assert isinstance(classify(COMPANIES.endpoints[0], b"{}"), Unavailable)


@pytest.mark.parametrize("dataset", [WEEKLY_BARS, SPLITS, LISTINGS])
def test_the_empty_object_says_nothing_where_companies_are_not_asked_for(dataset):
    assert isinstance(classify(dataset.endpoints[0], b"{}"), Malformed)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad gateway</html>",
        b'{"Meta Data": {}, "Weekly Adj',
        b'{"Meta Data": {}}',
        b'["Weekly Adjusted Time Series"]',
        b'{"Information": "Something new that nobody has seen"}',
        b'{"Time Series (Daily)": {"2024-03-15": {}}}',
        b'{"Weekly Adjusted Time Series": null}',
        b'{"Weekly Adjusted Time Series": {"2024-03-15": {}}, "name": "Soci\xe9t\xe9"}',
        b'{"deep": ' + b"[" * 100_000,
        b"\xff\xfe",
        HEADER + ROW,
    ],
)
def test_what_is_neither_data_nor_a_known_refusal_is_malformed(body):
    assert isinstance(classify(WEEKLY, body), Malformed)


def test_a_reason_is_short_whatever_the_reply_is():
    body = json.dumps({str(number) * 10_000: 1 for number in range(100)}).encode()
    assert len(classify(WEEKLY, body).reason) < 500


def test_both_daily_endpoints_answer_under_the_same_key():
    body = b'{"Time Series (Daily)": {"2024-03-15": {}}}'
    for endpoint in DAILY_BARS.endpoints:
        assert classify(endpoint, body) == Data(body, endpoint.function)


def test_a_list_with_its_header_and_a_row_is_data_as_it_came():
    assert classify(LISTING_STATUS, HEADER + ROW) == Data(HEADER + ROW, "LISTING_STATUS")


def test_a_list_with_a_header_alone_is_empty():
    assert isinstance(classify(LISTING_STATUS, HEADER), Unavailable)


@pytest.mark.parametrize("name", [name for name in REFUSALS if name != "unknown symbol"])
def test_a_list_is_refused_in_json(name):
    field, words, expected = REFUSALS[name]
    outcome = classify(LISTING_STATUS, b"\n" + json.dumps({field: words}).encode())
    assert type(outcome) is expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad gateway</html>",
        b"code,name\r\nA,Agilent\r\n",
        HEADER + ROW + ROW[:20],
        b'{"symbol,name,exchange,assetType,ipoDate,delistingDate,status": {"A": 1}}',
        HEADER + ROW.replace(b"Agilent", b"Soci\xe9t\xe9"),
    ],
)
def test_what_is_no_list_is_malformed(body):
    assert isinstance(classify(LISTING_STATUS, body), Malformed)


def test_a_part_that_is_refused_does_not_make_its_ticker_unknown():
    field, words, _ = REFUSALS["unknown symbol"]
    refusal = json.dumps({field: words}).encode()
    assert classify(INTRADAY_BARS.endpoints[0], refusal) == Unavailable(
        "TIME_SERIES_INTRADAY has nothing of this month"
    )
    assert isinstance(classify(LISTING_STATUS, refusal), Malformed)
