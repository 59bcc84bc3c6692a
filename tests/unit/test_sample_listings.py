import csv
import io
import json
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stocks_assets.domain.calendar import sessions
from stocks_assets.domain.sample_listings import LISTED_COMPANIES
from stocks_assets.domain.sample_market import SampleMarket

MARKET = SampleMarket()
TODAY = date(2026, 11, 20)
SESSIONS = sessions(MARKET.first_session, TODAY)
FUND, LATE, DELISTED, RENAMED, REUSED = "ALLM", "ORBL", "GLSW", "TYDE", "WNDL"
OLD_TICKER = "TFPC"
# Ranks end in 7 and 10 where companies list late and are delisted.
SOME = [*MARKET.tickers(28), *(MARKET.tickers(50)[rank] for rank in (30, 47))]


def listings(state, last=TODAY, market=MARKET):
    """Rows as printed, each a dict."""
    body = market.reply("LISTING_STATUS", "", last, state=state).decode()
    return list(csv.DictReader(io.StringIO(body, newline="")))


def of(symbol, state, last=TODAY):
    return [row for row in listings(state, last) if row["symbol"] == symbol]


def trading_days(ticker):
    reply = json.loads(MARKET.reply("TIME_SERIES_DAILY", ticker, TODAY))
    return sorted(reply["Time Series (Daily)"])


@pytest.mark.parametrize("state", ["active", "delisted"])
def test_a_list_has_the_vendors_layout(state):
    lines = MARKET.reply("LISTING_STATUS", "", TODAY, state=state).decode().split("\r\n")
    assert lines[0] == "symbol,name,exchange,assetType,ipoDate,delistingDate,status"
    assert lines[-1] == ""
    assert not any("\n" in line or "\r" in line for line in lines)
    rows = listings(state)
    assert len(rows) == len(lines) - 2 > 20
    assert [row["symbol"] for row in rows] == sorted(row["symbol"] for row in rows)
    assert {row["status"] for row in rows} == {state.title()}
    assert {row["exchange"] for row in rows} == {"NASDAQ", "NYSE"}
    for row in rows:
        date.fromisoformat(row["ipoDate"])
    gone = [row["delistingDate"] for row in rows]
    if state == "active":
        assert set(gone) == {"null"}
    else:
        assert all(date.fromisoformat(day) <= TODAY for day in gone)


def test_a_fund_is_an_etf_and_a_company_a_stock():
    kinds = {row["symbol"]: row["assetType"] for row in listings("active")}
    assert kinds.pop(FUND) == "ETF"
    assert set(kinds.values()) == {"Stock"}


def test_every_company_of_the_lists_is_on_one_of_them():
    symbols = [row["symbol"] for state in ("active", "delisted") for row in listings(state)]
    assert sorted(symbols) == sorted([*MARKET.tickers(LISTED_COMPANIES), OLD_TICKER, REUSED])


@pytest.mark.parametrize("ticker", SOME)
def test_a_listing_agrees_with_the_bars_and_the_overview(ticker):
    days = trading_days(ticker)
    gone = days[-1] < TODAY.isoformat()
    row = of(ticker, "delisted" if gone else "active")[-1]
    about = json.loads(MARKET.reply("OVERVIEW", ticker, TODAY))
    assert (row["name"], row["exchange"]) == (about["Name"], about["Exchange"])
    assert row["ipoDate"] == days[0]
    if gone:
        following = SESSIONS[SESSIONS.index(date.fromisoformat(days[-1])) + 1]
        assert row["delistingDate"] == following.isoformat()


def test_some_of_those_companies_list_late_and_some_are_delisted():
    lives = {ticker: trading_days(ticker) for ticker in SOME}
    late = [ticker for ticker, days in lives.items() if days[0] > SESSIONS[0].isoformat()]
    gone = [ticker for ticker, days in lives.items() if days[-1] < SESSIONS[-1].isoformat()]
    assert (late[0], len(late)) == (LATE, 3)
    assert (gone[0], len(gone)) == (DELISTED, 2)


def test_a_company_is_on_no_list_before_its_first_session():
    first = date.fromisoformat(trading_days(LATE)[0])
    before = first - timedelta(days=1)
    assert of(LATE, "active", before) == of(LATE, "delisted", before) == []
    assert [row["ipoDate"] for row in of(LATE, "active", first)] == [first.isoformat()]


def test_a_company_is_delisted_once_a_session_has_passed_without_it():
    last = date.fromisoformat(trading_days(DELISTED)[-1])
    following = SESSIONS[SESSIONS.index(last) + 1]
    assert of(DELISTED, "active", last)
    assert not of(DELISTED, "delisted", last)
    assert not of(DELISTED, "active", following)
    assert of(DELISTED, "delisted", following)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(SESSIONS), st.sampled_from(SESSIONS))
def test_the_past_is_told_alike_on_any_later_session(one, other):
    earlier, later = sorted((one, other))
    identity = ("symbol", "name", "exchange", "assetType", "ipoDate")

    def rows(state, last):
        return {tuple(row[name] for name in identity): row for row in listings(state, last)}

    gone = rows("delisted", later)
    assert rows("delisted", earlier).items() <= gone.items()
    assert rows("active", earlier).keys() <= rows("active", later).keys() | gone.keys()
    assert not rows("active", later).keys() & gone.keys()


def test_a_renamed_company_has_its_old_ticker_delisted_and_its_first_date_kept():
    [new], [old] = of(RENAMED, "active"), of(OLD_TICKER, "delisted")
    assert (old["name"], old["ipoDate"]) == (new["name"], new["ipoDate"])
    assert OLD_TICKER not in MARKET
    assert RENAMED in MARKET


def test_a_company_goes_by_one_ticker_on_any_day():
    renamed = date.fromisoformat(of(OLD_TICKER, "delisted")[0]["delistingDate"])
    before = renamed - timedelta(days=1)
    assert of(OLD_TICKER, "active", before)
    assert not of(RENAMED, "active", before)
    assert not of(OLD_TICKER, "active", renamed)
    assert of(RENAMED, "active", renamed)


def test_a_reused_ticker_is_on_both_lists_with_two_lives_that_do_not_meet():
    [now], [then] = of(REUSED, "active"), of(REUSED, "delisted")
    assert then["name"] != now["name"]
    assert then["ipoDate"] < then["delistingDate"] < now["ipoDate"]


def test_a_name_with_a_comma_is_quoted():
    body = MARKET.reply("LISTING_STATUS", "", TODAY, state="delisted").decode()
    assert '\r\nWNDL,"Windle, Lark & Sons Co",NYSE,Stock,' in body
    assert of(REUSED, "delisted")[0]["name"] == "Windle, Lark & Sons Co"


def test_a_young_market_has_both_cases_within_its_second_month():
    market = SampleMarket(first_session=date(2025, 1, 2))
    active = {row["symbol"]: row for row in listings("active", date(2025, 2, 28), market)}
    delisted = {row["symbol"]: row for row in listings("delisted", date(2025, 2, 28), market)}
    assert delisted.keys() == {OLD_TICKER, REUSED}
    assert active.keys() >= {RENAMED, REUSED}


def test_before_the_first_session_the_lists_are_empty():
    for state in ("active", "delisted"):
        assert listings(state, MARKET.first_session - timedelta(days=1)) == []


def test_another_seed_lists_the_same_companies_with_days_of_its_own():
    other = SampleMarket(seed=7)
    rows, others = listings("delisted"), listings("delisted", market=other)
    assert [row["symbol"] for row in rows] == [row["symbol"] for row in others]
    assert [row["delistingDate"] for row in rows] != [row["delistingDate"] for row in others]
