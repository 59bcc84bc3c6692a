import json

import pytest

from stocks_assets.domain.datasets import COMPANIES, DAILY_BARS, SPLITS, WEEKLY_BARS
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
PLANS = "Please subscribe to any of the premium plans at https://www.alphavantage.co/premium/"

REFUSALS = {
    "day quota": (
        "Information",
        "We have detected your API key as SECRET123 and our standard API rate limit is 25 requests "
        f"per day. {PLANS} to instantly remove all daily rate limits.",
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
    body = b'{"Meta Data": {}, "Weekly Adjusted Time Series": {}}'
    assert classify(WEEKLY, body) == Data(body, "TIME_SERIES_WEEKLY_ADJUSTED")


def test_splits_of_a_company_that_never_split_are_data():
    body = b'{"symbol": "IBM", "data": []}'
    assert isinstance(classify(SPLITS.endpoints[0], body), Data)


def test_the_empty_object_means_that_the_vendor_has_no_such_thing():
    assert isinstance(classify(COMPANIES.endpoints[0], b"{}"), Unavailable)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad gateway</html>",
        b'{"Meta Data": {}, "Weekly Adj',
        b'{"Meta Data": {}}',
        b'["Weekly Adjusted Time Series"]',
        b'{"Information": "Something new that nobody has seen"}',
        b'{"Time Series (Daily)": {}}',
        b"\xff\xfe",
    ],
)
def test_what_is_neither_data_nor_a_known_refusal_is_malformed(body):
    assert isinstance(classify(WEEKLY, body), Malformed)


def test_both_daily_endpoints_answer_under_the_same_key():
    body = b'{"Time Series (Daily)": {}}'
    for endpoint in DAILY_BARS.endpoints:
        assert classify(endpoint, body) == Data(body, endpoint.function)
