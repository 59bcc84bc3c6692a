import hashlib
import json
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stocks_assets.domain.calendar import sessions
from stocks_assets.domain.sample_companies import company, rank_of
from stocks_assets.domain.sample_market import SampleMarket

MARKET = SampleMarket()
TODAY = date(2026, 11, 20)
DOZEN = MARKET.tickers(12)
FUND, LATE, DELISTED, REVERSED, PAYER_THAT_SPLIT = DOZEN[0], "ORBL", "GLSW", "BRZN", "KLVN"

DAILY_FIELDS = ["1. open", "2. high", "3. low", "4. close", "5. volume"]
ADJUSTED_FIELDS = [
    "1. open",
    "2. high",
    "3. low",
    "4. close",
    "5. adjusted close",
    "6. volume",
    "7. dividend amount",
]
DATA_KEYS = {
    "TIME_SERIES_DAILY": ("Time Series (Daily)", DAILY_FIELDS),
    "TIME_SERIES_DAILY_ADJUSTED": (
        "Time Series (Daily)",
        [*ADJUSTED_FIELDS, "8. split coefficient"],
    ),
    "TIME_SERIES_WEEKLY_ADJUSTED": ("Weekly Adjusted Time Series", ADJUSTED_FIELDS),
    "TIME_SERIES_MONTHLY_ADJUSTED": ("Monthly Adjusted Time Series", ADJUSTED_FIELDS),
}
RAW = ["1. open", "2. high", "3. low", "4. close", "6. volume", "7. dividend amount"]
OVERVIEW_FIELDS = [
    "Symbol",
    "AssetType",
    "Name",
    "Description",
    "CIK",
    "Exchange",
    "Currency",
    "Country",
    "Sector",
    "Industry",
    "Address",
    "OfficialSite",
    "FiscalYearEnd",
    "LatestQuarter",
    "MarketCapitalization",
    "EBITDA",
    "PERatio",
    "PEGRatio",
    "BookValue",
    "DividendPerShare",
    "DividendYield",
    "EPS",
    "RevenuePerShareTTM",
    "ProfitMargin",
    "OperatingMarginTTM",
    "ReturnOnAssetsTTM",
    "ReturnOnEquityTTM",
    "RevenueTTM",
    "GrossProfitTTM",
    "DilutedEPSTTM",
    "QuarterlyEarningsGrowthYOY",
    "QuarterlyRevenueGrowthYOY",
    "AnalystTargetPrice",
    "TrailingPE",
    "ForwardPE",
    "PriceToSalesRatioTTM",
    "PriceToBookRatio",
    "EVToRevenue",
    "EVToEBITDA",
    "Beta",
    "52WeekHigh",
    "52WeekLow",
    "50DayMovingAverage",
    "200DayMovingAverage",
    "SharesOutstanding",
    "DividendDate",
    "ExDividendDate",
]


def ask(function, ticker, last=TODAY, market=MARKET, **parameters):
    return json.loads(market.reply(function, ticker, last, **parameters))


def bars(ticker, last=TODAY, function="TIME_SERIES_DAILY_ADJUSTED", **parameters):
    """Rows by date, oldest first, as printed."""
    reply = ask(function, ticker, last, **parameters)
    return dict(reversed(reply[DATA_KEYS[function][0]].items()))


def numbers(rows, field):
    return [float(row[field]) for row in rows.values()]


def test_the_same_question_gets_the_same_bytes_for_ever():
    reply = MARKET.reply("TIME_SERIES_DAILY", "KLVN", date(2026, 3, 6), outputsize="compact")
    assert hashlib.sha256(reply).hexdigest() == (
        "f14e9f970c47a15f3b58a9e3af4b7e1a4cc5684b628f32ea30b35e53ed1df08c"
    )


def test_another_seed_is_another_market_of_the_same_companies():
    other = SampleMarket(seed=7)
    assert other.tickers(30) == MARKET.tickers(30)
    assert other.reply("SPLITS", "KLVN", TODAY) != MARKET.reply("SPLITS", "KLVN", TODAY)


@pytest.mark.parametrize("ticker", DOZEN)
def test_later_sessions_leave_raw_rows_as_they_were(ticker):
    earlier, later = bars(ticker, date(2021, 6, 2)), bars(ticker)
    assert len(earlier) > 500
    for day, row in earlier.items():
        assert [row[field] for field in [*RAW, "8. split coefficient"]] == [
            later[day][field] for field in [*RAW, "8. split coefficient"]
        ]


def test_a_dividend_restates_the_adjusted_closes_before_it():
    ex_date = date.fromisoformat(ask("DIVIDENDS", FUND)["data"][0]["ex_dividend_date"])
    before = bars(FUND, ex_date - timedelta(days=1))
    after = bars(FUND, ex_date)
    for day, row in before.items():
        assert float(after[day]["5. adjusted close"]) < float(row["5. adjusted close"])


@pytest.mark.parametrize("ticker", [FUND, REVERSED, PAYER_THAT_SPLIT, "CRVO"])
def test_adjusted_closes_follow_the_vendors_rule(ticker):
    rows = bars(ticker)
    factor = 1.0
    for row in reversed(rows.values()):
        close, dividend = float(row["4. close"]), float(row["7. dividend amount"])
        assert row["5. adjusted close"] == f"{close * factor:.4f}"
        factor = factor / float(row["8. split coefficient"]) * close / (close + dividend)


@pytest.mark.parametrize("ticker", DOZEN)
def test_bars_are_possible(ticker):
    for row in bars(ticker).values():
        opened, high, low, close = (float(row[field]) for field in RAW[:4])
        assert 0 < low <= min(opened, close) <= max(opened, close) <= high
        assert int(row["6. volume"]) > 0


@pytest.mark.parametrize("ticker", DOZEN)
def test_prices_stay_believable_for_ten_years(ticker):
    rows = bars(ticker)
    returns = [
        float(row["8. split coefficient"]) * float(row["4. close"]) / float(before["4. close"]) - 1
        for before, row in pairwise(rows.values())
    ]
    closes = numbers(rows, "4. close")
    assert min(closes) > 1
    assert max(closes) < 600
    assert max(map(abs, returns)) < 0.4
    assert sum(map(abs, returns)) / len(returns) > 0.003
    gaps = [
        float(row["1. open"]) != float(before["4. close"])
        for before, row in pairwise(rows.values())
    ]
    assert sum(gaps) > 0.8 * len(gaps)


def test_the_benchmark_has_bear_markets_and_restless_spells():
    closes = numbers(bars(FUND), "4. close")
    peak, drawdown = 0.0, 0.0
    for close in closes:
        peak = max(peak, close)
        drawdown = min(drawdown, close / peak - 1)
    assert -0.6 < drawdown < -0.2
    moves = [abs(after / before - 1) for before, after in pairwise(closes)]
    average = sum(moves) / len(moves)
    together = sum((a - average) * (b - average) for a, b in pairwise(moves))
    assert together / sum((move - average) ** 2 for move in moves) > 0.1


@pytest.mark.parametrize("ticker", DOZEN)
def test_splits_and_dividends_agree_with_the_daily_bars(ticker):
    rows = bars(ticker)
    splits = {
        day: float(row["8. split coefficient"])
        for day, row in rows.items()
        if row["8. split coefficient"] != "1.0"
    }
    dividends = {
        day: float(row["7. dividend amount"])
        for day, row in rows.items()
        if row["7. dividend amount"] != "0.0000"
    }
    told_splits = ask("SPLITS", ticker)["data"]
    told_dividends = ask("DIVIDENDS", ticker)["data"]
    assert {row["effective_date"]: float(row["split_factor"]) for row in told_splits} == splits
    assert {row["ex_dividend_date"]: float(row["amount"]) for row in told_dividends} == dividends
    for told, key in ((told_splits, "effective_date"), (told_dividends, "ex_dividend_date")):
        dates = [row[key] for row in told]
        assert dates == sorted(dates, reverse=True)


def test_a_split_day_trades_on_the_new_scale():
    rows = list(bars(PAYER_THAT_SPLIT).values())
    split_days = [
        (before, row) for before, row in pairwise(rows) if float(row["8. split coefficient"]) > 1
    ]
    assert split_days
    for before, row in split_days:
        for field in RAW[:4]:
            scaled = float(row[field]) * float(row["8. split coefficient"])
            assert scaled == pytest.approx(float(before["4. close"]), rel=0.15)


def test_a_fallen_company_splits_in_reverse():
    assert [row["split_factor"] for row in ask("SPLITS", REVERSED)["data"]] == ["0.1000"]
    assert "0.1000" in {row["8. split coefficient"] for row in bars(REVERSED).values()}


def test_dividends_are_quarterly_and_grow():
    told = ask("DIVIDENDS", FUND)["data"]
    dates = [date.fromisoformat(row["ex_dividend_date"]) for row in reversed(told)]
    amounts = [float(row["amount"]) for row in reversed(told)]
    assert {(after - before).days // 10 for before, after in pairwise(dates)} <= {8, 9}
    assert amounts == sorted(amounts)
    assert amounts[-1] < 3 * amounts[0]
    assert list(told[0]) == [
        "ex_dividend_date",
        "declaration_date",
        "record_date",
        "payment_date",
        "amount",
    ]


def test_some_six_in_ten_companies_pay_dividends():
    payers = [t for t in MARKET.tickers(80) if ask("DIVIDENDS", t)["data"]]
    assert 40 <= len(payers) <= 56
    assert 5 <= len(set(payers) & set(DOZEN)) <= 9


def test_one_of_the_first_dozen_lists_late_and_one_is_delisted():
    every = [day.isoformat() for day in sessions(MARKET.first_session, TODAY)]
    days = {ticker: list(bars(ticker)) for ticker in DOZEN}
    assert [ticker for ticker in DOZEN if days[ticker][0] > every[0]] == [LATE]
    assert [ticker for ticker in DOZEN if days[ticker][-1] < every[-1]] == [DELISTED]
    for traded in days.values():
        assert traded == every[every.index(traded[0]) : every.index(traded[-1]) + 1]


def test_about_one_in_twenty_lists_late_and_as_many_are_delisted():
    spans = [list(bars(ticker, outputsize="compact")) for ticker in MARKET.tickers(60)]
    assert sum(span[-1] < TODAY.isoformat() for span in spans) == 3
    early = date(2018, 1, 3)
    unlisted = [t for t in MARKET.tickers(60) if "Error Message" in ask("SPLITS", t, early)]
    assert len(unlisted) == 3


def test_a_delisted_company_still_has_an_overview_and_a_last_refresh_of_its_own():
    assert ask("OVERVIEW", DELISTED)["Symbol"] == DELISTED
    last = ask("TIME_SERIES_DAILY", DELISTED)["Meta Data"]["3. Last Refreshed"]
    assert last == list(bars(DELISTED))[-1] < TODAY.isoformat()


def test_a_company_is_unknown_until_it_lists():
    assert ask("OVERVIEW", LATE, date(2018, 1, 3)) == {}
    assert "Error Message" in ask("TIME_SERIES_DAILY", LATE, date(2018, 1, 3))


@pytest.mark.parametrize("ticker", [FUND, PAYER_THAT_SPLIT, LATE, DELISTED])
@pytest.mark.parametrize(
    ("function", "width"),
    [("TIME_SERIES_WEEKLY_ADJUSTED", None), ("TIME_SERIES_MONTHLY_ADJUSTED", 7)],
)
@pytest.mark.parametrize("last", [TODAY, date(2026, 11, 17)])
def test_longer_bars_agree_with_the_daily_ones(ticker, function, width, last):
    def period(day):
        if width:
            return day[:width]
        monday = date.fromisoformat(day)
        return (monday - timedelta(days=monday.weekday())).isoformat()

    daily = {}
    for day, row in bars(ticker, last).items():
        daily.setdefault(period(day), []).append((day, row))
    longer = bars(ticker, last, function)
    assert [period(day) for day in longer] == list(daily)
    for (label, bar), within in zip(longer.items(), daily.values(), strict=True):
        rows = [row for _, row in within]
        assert label == within[-1][0]
        assert bar["1. open"] == rows[0]["1. open"]
        assert float(bar["2. high"]) == max(float(row["2. high"]) for row in rows)
        assert float(bar["3. low"]) == min(float(row["3. low"]) for row in rows)
        assert bar["4. close"] == rows[-1]["4. close"]
        assert bar["5. adjusted close"] == rows[-1]["5. adjusted close"]
        assert int(bar["6. volume"]) == sum(int(row["6. volume"]) for row in rows)
        dividend = sum(float(row["7. dividend amount"]) for row in rows)
        assert bar["7. dividend amount"] == f"{dividend:.4f}"


def test_the_running_week_moves_its_label_from_day_to_day():
    tuesday, wednesday = (
        list(bars(FUND, day, "TIME_SERIES_WEEKLY_ADJUSTED"))
        for day in (date(2026, 11, 17), date(2026, 11, 18))
    )
    assert tuesday[-1] == "2026-11-17"
    assert wednesday == [*tuesday[:-1], "2026-11-18"]


@pytest.mark.parametrize("function", DATA_KEYS)
def test_bars_have_the_recorded_layout(function):
    data_key, fields = DATA_KEYS[function]
    body = MARKET.reply(function, "QNL.B", TODAY)
    reply = json.loads(body)
    assert body == json.dumps(reply, indent=4).encode()
    assert list(reply) == ["Meta Data", data_key]
    daily = function.startswith("TIME_SERIES_DAILY")
    assert list(reply["Meta Data"]) == [
        "1. Information",
        "2. Symbol",
        "3. Last Refreshed",
        *(["4. Output Size", "5. Time Zone"] if daily else ["4. Time Zone"]),
    ]
    assert reply["Meta Data"]["2. Symbol"] == "QNL.B"
    assert reply["Meta Data"]["3. Last Refreshed"] == TODAY.isoformat()
    assert list(reply["Meta Data"].values())[-1] == "US/Eastern"
    assert list(reply[data_key]) == sorted(reply[data_key], reverse=True)
    for row in reply[data_key].values():
        assert list(row) == fields
        assert row["4. close"].endswith("00")
        assert len(row["4. close"].partition(".")[2]) == 4


def test_a_compact_reply_is_the_newest_hundred_rows_of_the_full_one():
    for function in ("TIME_SERIES_DAILY", "TIME_SERIES_DAILY_ADJUSTED"):
        full = ask(function, "OAKM")
        compact = ask(function, "OAKM", outputsize="compact")
        rows = list(full["Time Series (Daily)"].items())
        assert list(compact["Time Series (Daily)"].items()) == rows[:100]
        assert full["Meta Data"]["4. Output Size"] == "Full size"
        assert compact["Meta Data"]["4. Output Size"] == "Compact"


def test_a_last_session_that_is_no_session_means_the_one_before_it():
    saturday = TODAY + timedelta(days=1)
    assert MARKET.reply("OVERVIEW", "OAKM", saturday) == MARKET.reply("OVERVIEW", "OAKM", TODAY)


@pytest.mark.parametrize("ticker", DOZEN)
def test_an_overview_has_the_vendors_fields_and_agrees_with_the_prices(ticker):
    about = ask("OVERVIEW", ticker)
    assert list(about) == OVERVIEW_FIELDS
    assert all(isinstance(text, str) for text in about.values())
    rows = bars(ticker)
    last = list(rows.values())[-1]
    worth = int(about["SharesOutstanding"]) * float(last["4. close"])
    assert float(about["MarketCapitalization"]) == pytest.approx(worth, abs=1)
    assert float(about["52WeekLow"]) <= float(last["3. low"])
    assert float(about["52WeekHigh"]) >= float(last["2. high"])
    dividends = ask("DIVIDENDS", ticker)["data"]
    if dividends:
        assert about["ExDividendDate"] == dividends[0]["ex_dividend_date"]
    else:
        assert about["DividendYield"] == about["ExDividendDate"] == "None"


def test_the_52_week_range_is_on_the_scale_of_the_last_session():
    split_day = ask("SPLITS", PAYER_THAT_SPLIT)["data"][0]
    day, ratio = date.fromisoformat(split_day["effective_date"]), float(split_day["split_factor"])
    before, after = (
        ask("OVERVIEW", PAYER_THAT_SPLIT, last) for last in (day - timedelta(days=1), day)
    )
    assert float(after["52WeekLow"]) == pytest.approx(float(before["52WeekLow"]) / ratio, rel=0.01)
    assert int(after["SharesOutstanding"]) == ratio * int(before["SharesOutstanding"])


def test_the_benchmark_is_a_fund_without_earnings():
    about = ask("OVERVIEW", FUND)
    assert (about["AssetType"], about["EPS"], about["TrailingPE"]) == ("ETF", "None", "-")


@pytest.mark.parametrize("ticker", ["NOSUCH", "klvn", "", "AAAAA", "../ORBL", "ORBL "])
def test_an_unknown_ticker_hears_the_vendors_words(ticker):
    assert ticker not in MARKET
    assert ask("OVERVIEW", ticker) == {}
    for function in (*DATA_KEYS, "SPLITS", "DIVIDENDS"):
        assert ask(function, ticker) == {
            "Error Message": "Invalid API call. Please retry or visit the documentation "
            f"(https://www.alphavantage.co/documentation/) for {function}."
        }


def test_a_function_the_market_does_not_speak_is_refused_with_those_it_does():
    with pytest.raises(ValueError, match="is not one of TIME_SERIES_DAILY, "):
        MARKET.reply("NEWS_SENTIMENT", "KLVN", TODAY)


def test_an_unknown_output_size_is_refused():
    with pytest.raises(ValueError, match="'huge' is neither"):
        MARKET.reply("TIME_SERIES_DAILY", "KLVN", TODAY, outputsize="huge")


@pytest.mark.parametrize(
    ("function", "arguments", "complaint"),
    [
        ("TIME_SERIES_INTRADAY", {"month": "2024-03"}, "interval of .* 30min or 60min, .* None"),
        ("TIME_SERIES_INTRADAY", {"interval": "5min"}, "month of .* such as 2024-03, .* None"),
        ("TIME_SERIES_INTRADAY", {"interval": "5", "month": "2024-03"}, "and not '5'"),
        ("TIME_SERIES_INTRADAY", {"interval": "05min", "month": "2024-03"}, "and not '05min'"),
        ("TIME_SERIES_INTRADAY", {"interval": "5min", "month": "2024-3"}, "and not '2024-3'"),
        ("TIME_SERIES_INTRADAY", {"interval": "5min", "month": "2024-13"}, "and not '2024-13'"),
        ("TIME_SERIES_INTRADAY", {"interval": "5min", "month": "2024-03\n"}, "and not '2024-03"),
        (
            "TIME_SERIES_INTRADAY",
            {"interval": "5min", "month": "2024-03", "state": "active"},
            "takes no state, but got 'active'",
        ),
        ("LISTING_STATUS", {}, "state of LISTING_STATUS is active or delisted, and not None"),
        ("LISTING_STATUS", {"state": "gone"}, "and not 'gone'"),
        ("LISTING_STATUS", {"state": "active", "month": "2024-03"}, "takes no month"),
        ("LISTING_STATUS", {"state": "active"}, "of the whole market, and not of 'KLVN'"),
        ("TIME_SERIES_DAILY", {"interval": "5min"}, "takes no interval, but got '5min'"),
        ("OVERVIEW", {"month": "2024-03"}, "takes no month"),
    ],
)
def test_an_argument_that_is_missing_malformed_or_of_another_function_is_refused(
    function, arguments, complaint
):
    with pytest.raises(ValueError, match=complaint):
        MARKET.reply(function, "KLVN", TODAY, **arguments)


def test_tickers_are_distinct_and_every_shorter_list_begins_a_longer_one():
    tickers = MARKET.tickers(20_000)
    assert len(set(tickers)) == 20_000
    assert tickers[:12] == DOZEN
    assert any("." in ticker for ticker in DOZEN)
    with pytest.raises(ValueError, match="20001 tickers"):
        MARKET.tickers(20_001)


@settings(max_examples=200)
@given(st.integers(0, 19_999))
def test_rank_and_ticker_lead_to_each_other(rank):
    assert rank_of(company(rank).ticker) == rank


@settings(max_examples=200)
@given(st.text("ABDELORSTV", min_size=5, max_size=5))
def test_a_word_is_a_ticker_only_if_some_company_bears_it(word):
    rank = rank_of(word)
    assert (word in MARKET) == (rank is not None)
    assert rank is None or company(rank).ticker == word
