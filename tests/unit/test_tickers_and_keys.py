from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stocks_assets.domain.bronze_key import BronzeKey, QuarantineKey, content_hash
from stocks_assets.domain.datasets import MARKET, Call
from stocks_assets.domain.tickers import decode_ticker, encode_ticker, parse_ticker
from stocks_assets.errors import InvalidKeyError, InvalidTickerError

TICKERS = st.from_regex(r"[A-Z0-9]{1,5}([.\-/][A-Z0-9]{1,4}){0,2}", fullmatch=True)
MOMENTS = st.datetimes(timezones=st.just(UTC))
KEYS = st.builds(
    BronzeKey,
    dataset=st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True),
    ticker=TICKERS | st.just(MARKET),
    fetched_at=MOMENTS,
    content_hash=st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
    part=st.sampled_from(["", "2024-03", "active", "0123456789abcdef"]),
    form=st.sampled_from(["json", "csv"]),
)


@pytest.mark.parametrize("text", ["AAPL", "BRK.B", "BF-B", "BF/B", "600104.SHH", "TSCO.LON", "T"])
def test_the_vendors_tickers_are_tickers(text):
    assert parse_ticker(text) == text


def test_a_ticker_is_written_in_capitals_without_blanks():
    assert parse_ticker(" brk.b ") == "BRK.B"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "A..B",
        "-A",
        "A-",
        "A B",
        "A'; drop table",
        "../A",
        "A/",
        "É",
        "A" * 21,
        "A_B",
        "A%",
        "A~B",
    ],
)
def test_what_is_no_ticker_is_refused_by_name(text):
    with pytest.raises(InvalidTickerError, match="is not a ticker; expected"):
        parse_ticker(text)


@given(TICKERS)
def test_an_encoded_ticker_is_one_path_segment_and_comes_back(ticker):
    segment = encode_ticker(ticker)
    assert "/" not in segment
    assert decode_ticker(segment) == ticker


@given(KEYS)
def test_a_bronze_key_comes_back_from_its_text(key):
    assert BronzeKey.parse(str(key)) == key


@given(KEYS, KEYS)
def test_keys_of_a_dataset_sort_by_the_time_of_the_reply(one, other):
    one_text = str(BronzeKey("daily_bars", one.ticker, one.fetched_at, one.content_hash))
    other_text = str(BronzeKey("daily_bars", other.ticker, other.fetched_at, other.content_hash))
    if one.fetched_at < other.fetched_at:
        assert one_text < other_text


def test_a_bronze_key_is_written_in_utc():
    moment = datetime(2026, 11, 20, 18, 30, 1, 5, tzinfo=timezone(timedelta(hours=-5)))
    key = BronzeKey("weekly_bars", "BF/B", moment, content_hash(b"{}"))
    assert str(key) == ("bronze/weekly_bars/2026-11-20/233001.000005_BF~B_44136fa355b3678a.json.gz")


def test_what_is_of_the_market_has_no_ticker_in_its_key():
    moment = datetime(2026, 11, 20, 23, tzinfo=UTC)
    key = BronzeKey("listings", MARKET, moment, "0" * 16, part="active", form="csv")
    assert str(key) == ("bronze/listings/2026-11-20/230000.000000_~_active_0000000000000000.csv.gz")
    assert key.call == Call("listings", MARKET, "active")


@given(KEYS, st.sampled_from(["BadKey", "Malformed"]))
def test_the_key_of_a_quarantined_reply_comes_back_from_its_text(key, outcome):
    quarantined = QuarantineKey(key.call, key.fetched_at, outcome)
    assert QuarantineKey.parse(str(quarantined)) == quarantined
    with pytest.raises(InvalidKeyError):
        BronzeKey.parse(str(quarantined))


@pytest.mark.parametrize(
    ("dataset", "part", "hours", "is_made_up_for"),
    [
        ("splits", "", 24, True),
        ("splits", "", 0, True),
        ("splits", "", -24, False),
        ("daily_bars", "", 24, False),
        ("splits", "2026-11", 24, False),
    ],
)
def test_an_object_is_made_up_for_by_one_as_new_of_the_same_payload_alone(
    dataset, part, hours, is_made_up_for
):
    monday = datetime(2026, 11, 16, 23, tzinfo=UTC)
    key = BronzeKey("splits", "A", monday, "0" * 16)
    other = BronzeKey(dataset, "A", monday + timedelta(hours=hours), "1" * 16, part)
    older = BronzeKey("splits", "A", monday - timedelta(days=1), "2" * 16)
    assert key.is_made_up_for_by([other, older]) is is_made_up_for
    assert not key.is_made_up_for_by([])


@given(st.text(st.characters(codec="utf-8"), max_size=3), st.integers(0, 80))
def test_what_is_taken_for_a_key_is_written_as_it_stands(strange, place):
    for good, kind in (
        ("bronze/weekly_bars/0026-01-01/000000.000000_A_0000000000000000.json.gz", BronzeKey),
        ("quarantine/weekly_bars/0026-01-01/000000.000000_A_BadKey.gz", QuarantineKey),
    ):
        text = good[:place] + strange + good[place + len(strange) :]
        with suppress(InvalidKeyError):
            assert str(kind.parse(text)) == text


def test_quarantine_has_no_key_with_foreign_digits():
    with pytest.raises(InvalidKeyError, match="is not the key of a quarantined reply"):
        QuarantineKey.parse("quarantine/weekly_bars/2026-01-0\u0661/000000.000000_A_BadKey.gz")


def test_a_time_without_a_zone_makes_no_key():
    with pytest.raises(ValueError, match="no time zone"):
        BronzeKey("weekly_bars", "A", datetime(2026, 1, 1), "0" * 16)


@pytest.mark.parametrize(
    "text",
    [
        "prices/AAPL",
        "bronze/weekly_bars/2026-13-01/000000.000000_A_0000000000000000.json.gz",
        "bronze/weekly_bars/2026-01-01/000000.000000_a_0000000000000000.json.gz",
        "bronze/weekly_bars/2026-01-01/000000.000000_A_0000000000000000.json",
        "bronze/weekly_bars/2026-01-01/A/000000-0000000000000000.json.gz",
        "bronze/weekly_bars/1-01-01/000000.000000_A_0000000000000000.json.gz",
        # Digits of Arabic, in all places where there are digits.
        "bronze/weekly_bars/\u0662\u0660\u0662\u0666-01-01/000000.000000_A_0000000000000000.json.gz",
        "bronze/weekly_bars/2026-01-01/000000.00000\u0661_A_0000000000000000.json.gz",
    ],
)
def test_what_is_no_bronze_key_is_refused_by_name(text):
    with pytest.raises(InvalidKeyError, match=r"is not a bronze key.*expected bronze/<dataset>/"):
        BronzeKey.parse(text)
