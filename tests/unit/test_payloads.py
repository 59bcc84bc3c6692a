import json
import os
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stocks_assets.domain import calendar
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.errors import PayloadError

WEEKLY = SILVER_TABLES["weekly_bars"]
DAILY = SILVER_TABLES["daily_bars"]
MONTHLY = SILVER_TABLES["monthly_bars"]
INTRADAY = SILVER_TABLES["intraday_bars"]
ACTIONS = SILVER_TABLES["corporate_actions"]
COMPANIES = SILVER_TABLES["companies"]


def evening(*day):
    """The evening of a day, when its session is over."""
    return datetime(*day, 18, 30, tzinfo=calendar.NEW_YORK)


def week(close="10.0000", adjusted="9.5000", volume="100", **fields):
    return {
        "1. open": "10.0000",
        "2. high": "12.0000",
        "3. low": "9.0000",
        "4. close": close,
        "5. adjusted close": adjusted,
        "6. volume": volume,
        "7. dividend amount": "0.0000",
    } | fields


def weekly(series):
    return {"weekly_bars": json.dumps({"Weekly Adjusted Time Series": series}).encode()}


def monthly(series):
    return {"monthly_bars": json.dumps({"Monthly Adjusted Time Series": series}).encode()}


def daily(series):
    return {"daily_bars": json.dumps({"Time Series (Daily)": series}).encode()}


def intraday(series, zone="US/Eastern"):
    return json.dumps({"Meta Data": {"6. Time Zone": zone}, "Time Series (5min)": series}).encode()


def raw_day(**fields):
    return {
        "1. open": "10.0",
        "2. high": "12.0",
        "3. low": "9.0",
        "4. close": "11.0",
        "5. volume": "7",
    } | fields


@pytest.mark.parametrize("damaged", ["2029-01-05", "2026-12-04", "not a day"])
def test_a_damaged_label_does_not_complete_the_week_that_runs(damaged):
    good = {"2026-11-24": week(), "2026-11-20": week()}
    shaped = WEEKLY.shape("A", weekly({damaged: week(), **good}), evening(2026, 11, 25))
    told = dict(shaped.rows.select("session_date", "is_complete").iter_rows())
    assert told == {date(2026, 11, 20): True, date(2026, 11, 24): False}
    assert shaped.rejected.height == 1
    # Where the exchange's calendar says nothing, the bar after it does.
    alone = WEEKLY.shape("A", weekly({"2026-11-18": week(), "2026-11-24": week()}))
    assert alone.rows.sort("session_date")["is_complete"].to_list() == [True, False]


def test_a_weekly_bar_is_keyed_on_the_monday_of_its_week():
    shaped = WEEKLY.shape("A", weekly({"2024-04-15": week(), "2024-04-12": week()}))
    assert set(shaped.rows.select("week_start", "session_date").rows()) == {
        (date(2024, 4, 8), date(2024, 4, 12)),
        (date(2024, 4, 15), date(2024, 4, 15)),
    }


def test_a_running_week_keeps_its_key_while_its_label_moves():
    monday = WEEKLY.shape("A", weekly({"2024-04-15": week()}))
    tuesday = WEEKLY.shape("A", weekly({"2024-04-16": week()}))
    assert monday.rows["week_start"].to_list() == tuesday.rows["week_start"].to_list()


def test_of_two_labels_in_one_week_the_later_counts():
    payload = weekly({"2024-04-15": week(close="9.5"), "2024-04-16": week(close="11.5")})
    assert WEEKLY.shape("A", payload).rows.select("session_date", "close").rows() == [
        (date(2024, 4, 16), 11.5)
    ]


def test_a_year_end_week_is_one_week():
    payload = weekly({"2026-01-02": week()})
    assert WEEKLY.shape("A", payload).rows["week_start"].to_list() == [date(2025, 12, 29)]


def test_daily_bars_of_a_free_key_have_raw_prices_and_no_adjusted_ones():
    shaped = DAILY.shape("A", daily({"2024-04-15": raw_day()}))
    row = shaped.rows.row(0, named=True)
    assert (row["close"], row["volume"], row["adjusted_close"]) == (11.0, 7, None)


def test_the_vendors_decimals_arrive_as_the_nearest_double():
    bar = raw_day(**{"2. high": "176", "4. close": "175.27118333217"})
    shaped = DAILY.shape("A", daily({"2024-04-15": bar}))
    assert shaped.rows["close"].to_list() == [175.27118333217]


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("1. open", "n/a", "open|nullability"),
        ("4. close", "-1.0", "close|min_exclusive"),
        ("4. close", "inf", "close|nullability"),
        ("4. close", "NaN", "close|nullability"),
        ("5. volume", "-3", "volume|min"),
        ("5. volume", "1.5", "volume|nullability"),
        ("2. high", "8.0", "high_is_not_below_low"),
        ("2. high", "10.9999", "open_and_close_lie_between_low_and_high"),
        ("3. low", "10.0001", "open_and_close_lie_between_low_and_high"),
        ("5. adjusted close", "n/a", "adjusted_close|nan"),
        ("5. adjusted close", "null", "adjusted_close|nan"),
        ("5. volume", "9223372036854775808", "volume|nullability"),
        ("5. adjusted close", "-1", "adjusted_close|min"),
        ("7. dividend amount", "-0.01", "dividend_amount|min"),
        ("8. split coefficient", "1:2", "split_coefficient|nan"),
    ],
)
def test_a_row_that_breaks_a_rule_is_set_apart_with_its_raw_values(field, value, rule):
    bad = raw_day(**{field: value})
    shaped = DAILY.shape("A", daily({"2024-04-15": bad, "2024-04-12": raw_day()}))
    assert shaped.rows["session_date"].to_list() == [date(2024, 4, 12)]
    rejected = shaped.rejected.row(0, named=True)
    assert rule in rejected["rules"]
    assert json.loads(rejected["row_values"]) == {"label": "2024-04-15"} | bad
    assert rejected["dataset"] == "daily_bars"


@pytest.mark.parametrize(
    "label", ["yesterday", "2024-02-30", "2024-4-15", "24-04-15", "0000-01-03", " 2024-04-15", ""]
)
def test_a_label_that_is_no_date_is_set_apart(label):
    shaped = WEEKLY.shape("A", weekly({label: week(), "2024-04-12": week()}))
    assert shaped.rows.height == 1
    assert "session_date|nullability" in shaped.rejected["rules"].to_list()[0]


def test_a_bar_of_the_future_is_set_apart_and_the_running_week_stays():
    payload = weekly({"2024-04-19": week(), "2024-04-16": week()})
    shaped = WEEKLY.shape("A", payload, at=evening(2024, 4, 16))
    assert shaped.rows["session_date"].to_list() == [date(2024, 4, 16)]
    (rules,) = shaped.rejected["rules"]
    assert set(rules) == {"session_is_not_in_the_future", "session_is_in_the_calendar"}


def test_each_payload_is_held_against_its_own_day():
    payload = daily({"2024-04-15": raw_day(), "2024-04-16": raw_day()})
    came = {"A": evening(2024, 4, 15), "B": evening(2025, 1, 2)}
    together = DAILY.shape_many(
        dict.fromkeys(came, payload), {ticker: {"daily_bars": at} for ticker, at in came.items()}
    )
    for ticker, at in came.items():
        alone = DAILY.shape(ticker, payload, at)
        assert together[ticker].rows.equals(alone.rows)
        assert together[ticker].rejected.equals(alone.rejected)
    assert together["A"].rows["session_date"].to_list() == [date(2024, 4, 15)]
    assert together["B"].rejected.is_empty()


@pytest.mark.parametrize(
    ("ticker", "at", "last"),
    [
        ("A", datetime(2026, 9, 11, 12, tzinfo=calendar.NEW_YORK), 10),
        ("A", datetime(2026, 9, 11, 15, 59, 59, tzinfo=calendar.NEW_YORK), 10),
        ("A", datetime(2026, 9, 11, 16, tzinfo=calendar.NEW_YORK), 11),
        ("AZN.LON", datetime(2026, 9, 11, 12, tzinfo=calendar.NEW_YORK), 10),
        ("AZN.LON", datetime(2026, 9, 11, 16, tzinfo=calendar.NEW_YORK), 11),
    ],
)
def test_a_bar_of_a_session_that_is_not_over_is_not_taken(ticker, at, last):
    payload = daily({"2026-09-11": raw_day(), "2026-09-10": raw_day()})
    shaped = DAILY.shape(ticker, payload, at)
    assert shaped.rows["session_date"].max() == date(2026, 9, last)
    assert shaped.rejected.is_empty()
    assert shaped.left_out == 0
    # What is stored under its key stays.
    kept = [] if last == 11 else [(ticker, date(2026, 9, 11))]
    assert shaped.doubtful_keys(ticker).select("ticker", "session_date").rows() == kept


def test_an_early_close_ends_the_session():
    payload = daily({"2026-11-27": raw_day()})
    early = datetime(2026, 11, 27, 13, tzinfo=calendar.NEW_YORK)
    assert DAILY.shape("A", payload, early).rows.height == 1
    assert DAILY.shape("A", payload, early - timedelta(seconds=1)).rows.is_empty()


def test_a_week_is_complete_when_its_last_session_is_over():
    payload = weekly({"2026-09-11": week(), "2026-09-04": week()})
    for hour, is_complete in ((12, False), (16, True)):
        shaped = WEEKLY.shape("A", payload, datetime(2026, 9, 11, hour, tzinfo=calendar.NEW_YORK))
        assert shaped.rows.sort("session_date")["is_complete"].to_list() == [True, is_complete]


def test_a_week_elsewhere_is_complete_once_a_bar_follows():
    # New York is closed on Friday the 3rd, and London is not.
    shaped = WEEKLY.shape("AZN.LON", weekly({"2026-07-02": week()}), evening(2026, 7, 2))
    assert shaped.rows["is_complete"].to_list() == [False]
    both = weekly({"2026-07-06": week(), "2026-07-03": week()})
    shaped = WEEKLY.shape("AZN.LON", both, evening(2026, 7, 6))
    assert shaped.rows.sort("session_date")["is_complete"].to_list() == [True, False]


def test_a_file_says_itself_what_is_over():
    rows = [
        {
            "session_date": "2026-09-11",
            "open": "1",
            "high": "1",
            "low": "1",
            "close": "1",
            "volume": "5",
        }
    ]
    body = json.dumps({"precedence": "fill", "rows": rows}).encode()
    noon = datetime(2026, 9, 11, 12, tzinfo=calendar.NEW_YORK)
    assert DAILY.shape("A", {"dropped_daily_bars/f": body}, noon).rows.height == 1


def test_a_file_fills_a_session_that_was_not_over_when_the_vendor_gave_it():
    day = {"session_date": "2026-09-11"}
    prices = dict.fromkeys(("open", "high", "low", "close"), "1") | {"volume": "5"}
    body = json.dumps({"precedence": "fill", "rows": [day | prices]}).encode()
    payloads = daily({"2026-09-11": raw_day(), "2026-09-10": raw_day()})
    payloads["dropped_daily_bars/f"] = body
    noon, evening_of_it = (
        datetime(2026, 9, 11, hour, tzinfo=calendar.NEW_YORK) for hour in (12, 20)
    )
    for came, close in ((noon, 1.0), (evening_of_it, 11.0)):
        at = {"A": {"daily_bars": came, "dropped_daily_bars/f": evening_of_it}}
        shaped = DAILY.shape_many({"A": payloads}, at)["A"]
        assert shaped.rejected.is_empty()
        assert shaped.rows.sort("session_date")["close"].to_list() == [11.0, close]


def test_a_day_without_a_session_is_set_apart_where_the_exchange_is_known():
    holiday = daily({"2024-07-04": raw_day(), "2024-07-05": raw_day()})
    new_york = DAILY.shape("BRK.B", holiday)
    assert new_york.rows["session_date"].to_list() == [date(2024, 7, 5)]
    assert new_york.rejected["rules"].to_list() == [["session_is_in_the_calendar"]]
    assert DAILY.shape("TSCO.LON", holiday).rows.height == 2


@pytest.mark.parametrize(
    ("ticker", "count"), [("TSCO.LON", 1), ("SHOP.TRT", 1), ("600519.SHH", 1), ("TCS.BSE", 3)]
)
def test_a_weekend_is_no_session_of_an_exchange_that_never_opens_then(ticker, count):
    days = daily(dict.fromkeys(["2023-03-10", "2023-03-11", "2023-03-12"], raw_day()))
    shaped = DAILY.shape(ticker, days)
    assert (shaped.rows.height, shaped.rejected.height) == (count, 3 - count)
    broken = [["session_is_in_the_calendar"]] * (3 - count)
    assert shaped.rejected["rules"].to_list() == broken


def test_a_bad_bar_takes_no_good_one_of_its_week_along():
    payload = weekly({"2024-04-16": week(close="n/a"), "2024-04-15": week()})
    shaped = WEEKLY.shape("A", payload)
    assert shaped.rows["session_date"].to_list() == [date(2024, 4, 15)]
    assert shaped.rejected.height == 1


def repeated(*bars):
    """Daily bars under one label."""
    series = ", ".join(f'"2024-04-15": {json.dumps(bar)}' for bar in bars)
    return {"daily_bars": f'{{"Time Series (Daily)": {{{series}}}}}'.encode()}


def test_of_bars_with_one_label_the_first_counts_and_one_that_differs_is_set_apart():
    first, other = raw_day(), raw_day(**{"4. close": "9.5"})
    shaped = DAILY.shape("A", repeated(first, other, first))
    assert shaped.rows["close"].to_list() == [11.0]
    assert shaped.rejected["rules"].to_list() == [["primary_key"]]
    assert json.loads(shaped.rejected["row_values"][0])["4. close"] == "9.5"


@pytest.mark.parametrize("order", [1, -1], ids=["newest first", "oldest first"])
def test_of_bars_with_one_label_the_one_counts_that_stands_in_order(order):
    days = ["2024-04-18", "2024-04-12", "2024-04-16", "2024-04-15", "2024-04-12", "2024-04-11"]
    bars = [(day, raw_day(**{"4. close": f"9.{n}"})) for n, day in enumerate(days)][::order]
    series = ", ".join(f'"{day}": {json.dumps(bar)}' for day, bar in bars)
    shaped = DAILY.shape("A", {"daily_bars": f'{{"Time Series (Daily)": {{{series}}}}}'.encode()})
    closes = dict(shaped.rows.select("session_date", "close").iter_rows())
    assert closes[date(2024, 4, 12)] == 9.4
    assert json.loads(shaped.rejected["row_values"][0])["4. close"] == "9.1"
    assert shaped.rejected["rules"].to_list() == [["primary_key"]]


def test_a_bar_that_stands_behind_a_bad_one_of_its_label_is_found():
    shaped = DAILY.shape("A", repeated(raw_day(**{"1. open": None}), raw_day()))
    assert shaped.rows.height == shaped.rejected.height == 1


def test_what_is_wrong_with_one_bar_costs_no_other():
    series = {
        "2024-04-15": raw_day(),
        "2024-04-12": 5,
        "2024-04-11": None,
        "2024-04-10": [],
        "2024-04-09": {},
        "2024-04-08": raw_day(**{"4. close": True}),
        "2024-04-05": raw_day(**{"4. close": {}}),
    }
    shaped = DAILY.shape("A", daily(series))
    assert shaped.rows["session_date"].to_list() == [date(2024, 4, 15)]
    assert shaped.rejected.height == 6


def test_numbers_that_are_no_strings_are_numbers():
    bar = {"1. open": 10, "2. high": 12.0, "3. low": 9, "4. close": 11.25, "5. volume": 7}
    row = DAILY.shape("A", daily({"2024-04-15": bar})).rows.row(0, named=True)
    assert (row["open"], row["close"], row["volume"]) == (10.0, 11.25, 7)


def test_what_postgresql_cannot_store_is_marked_in_the_raw_values():
    bar = raw_day(**{"4. close": "1\0", "note": ["\ud800"]})
    shaped = DAILY.shape("A", daily({"2024-04-15": bar}))
    values = json.loads(shaped.rejected["row_values"][0])
    assert (values["4. close"], values["note"]) == ("1\N{REPLACEMENT CHARACTER}", ["?"])


def test_a_month_is_keyed_on_its_first_day_and_its_later_label_counts():
    payload = monthly(
        {
            "2024-04-15": week(),
            "2024-03-28": week(close="11.5"),
            "2024-03-27": week(close="9.5"),
        }
    )
    shaped = MONTHLY.shape("A", payload)
    assert set(shaped.rows.select("month_start", "session_date", "close").rows()) == {
        (date(2024, 4, 1), date(2024, 4, 15), 10.0),
        (date(2024, 3, 1), date(2024, 3, 28), 11.5),
    }
    assert shaped.rejected.is_empty()


def test_five_minutes_start_at_a_moment_and_belong_to_a_day_in_new_york():
    payloads = {
        "intraday_bars/2024-03": intraday({"2024-03-08 15:55:00": raw_day()}),
        "intraday_bars/2024-07": intraday({"2024-07-01 15:55:00": raw_day()}),
        "intraday_bars/2024-08": intraday({"2024-08-01 20:30:00": raw_day()}, zone="UTC"),
    }
    shaped = INTRADAY.shape("A", payloads)
    assert not shaped.is_whole
    utc = ZoneInfo("UTC")
    assert shaped.rows.select("dataset", "starts_at", "session_date").rows() == [
        ("intraday_bars/2024-03", datetime(2024, 3, 8, 20, 55, tzinfo=utc), date(2024, 3, 8)),
        ("intraday_bars/2024-07", datetime(2024, 7, 1, 19, 55, tzinfo=utc), date(2024, 7, 1)),
        ("intraday_bars/2024-08", datetime(2024, 8, 1, 20, 30, tzinfo=utc), date(2024, 8, 1)),
    ]


def test_a_time_that_clocks_show_twice_or_never_is_set_apart_with_its_own_input():
    payloads = {
        "intraday_bars/2024-03": intraday({"2024-03-10 02:30:00": raw_day()}),
        "intraday_bars/2024-11": intraday(
            {"2024-11-03 01:30:00": raw_day(), "2024-11-04 09:30:00": raw_day()}
        ),
    }
    shaped = INTRADAY.shape("A", payloads)
    assert shaped.rows["session_date"].to_list() == [date(2024, 11, 4)]
    assert shaped.rejected["dataset"].to_list() == list(payloads)
    assert ["02:30" in row for row in shaped.rejected["row_values"]] == [True, False]


def test_five_minutes_of_another_month_than_that_of_the_payload_are_set_apart():
    series = {"2024-03-08 15:55:00": raw_day(), "2023-03-08 15:55:00": raw_day()}
    shaped = INTRADAY.shape("A", {"intraday_bars/2024-03": intraday(series)})
    assert shaped.rows["session_date"].to_list() == [date(2024, 3, 8)]
    assert "2023-03-08" in shaped.rejected["row_values"][0]


@pytest.mark.parametrize(
    ("size", "is_whole"), [("Full size", True), ("Compact", False), (None, False)]
)
def test_five_minutes_are_the_whole_of_their_month_if_the_vendor_says_so(size, is_whole):
    document = json.loads(intraday({"2024-12-06 15:55:00": raw_day()}))
    document["Meta Data"]["5. Output Size"] = size
    shaped = INTRADAY.shape("A", {"intraday_bars/2024-12": json.dumps(document).encode()})
    assert shaped.is_whole is is_whole
    new_york = ZoneInfo("America/New_York")
    months = [datetime(2024, 12, 1, tzinfo=new_york), datetime(2025, 1, 1, tzinfo=new_york)]
    assert list(shaped.within) == months


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", None, 5])
def test_five_minutes_of_an_unknown_time_zone_are_refused(zone):
    body = intraday({"2024-03-08 15:55:00": raw_day()}, zone)
    with pytest.raises(PayloadError, match="intraday_bars/2024-03 cannot be read"):
        INTRADAY.shape("A", {"intraday_bars/2024-03": body})


def test_volumes_beyond_32_bits_and_with_a_decimal_point_are_whole_numbers():
    payload = daily({"2024-04-15": raw_day(**{"5. volume": "9876543210.0"})})
    assert DAILY.shape("A", payload).rows["volume"].to_list() == [9_876_543_210]


def actions(**payloads):
    return {
        name: json.dumps({"symbol": "A", "data": data}).encode() for name, data in payloads.items()
    }


def test_splits_and_dividends_become_actions_on_their_ex_dates():
    payloads = actions(
        splits=[{"effective_date": "2020-08-31", "split_factor": "4.0000"}],
        dividends=[
            {
                "ex_dividend_date": "2020-08-07",
                "declaration_date": "2020-07-30",
                "record_date": "2020-08-10",
                "payment_date": "None",
                "amount": "0.82",
            }
        ],
    )
    rows = ACTIONS.shape("A", payloads).rows.sort("ex_date")
    assert rows.select(
        "ex_date", "action_type", "dividend_amount", "split_ratio", "record_date", "payment_date"
    ).rows() == [
        (date(2020, 8, 7), "dividend", 0.82, None, date(2020, 8, 10), None),
        (date(2020, 8, 31), "split", None, 4.0, None, None),
    ]


def test_events_inside_daily_bars_fill_in_for_datasets_that_are_not_there():
    adjusted = raw_day(
        **{
            "5. adjusted close": "1",
            "6. volume": "7",
            "7. dividend amount": "0.5",
            "8. split coefficient": "2.0",
        }
    )
    shaped = ACTIONS.shape("A", daily({"2024-04-15": adjusted}))
    assert shaped.rows.select("action_type", "dividend_amount", "split_ratio").rows() == [
        ("dividend", 0.5, None),
        ("split", None, 2.0),
    ]


def test_a_dataset_of_its_own_counts_before_the_daily_bars():
    adjusted = raw_day(**{"7. dividend amount": "0.5000", "8. split coefficient": "1.0"})
    payloads = daily({"2024-04-15": adjusted}) | actions(
        dividends=[{"ex_dividend_date": "2024-04-15", "amount": "0.49999"}]
    )
    rows = ACTIONS.shape("A", payloads).rows
    assert rows["dividend_amount"].to_list() == [0.49999]
    assert rows["dataset"].to_list() == ["dividends"]


def test_a_regular_and_a_special_dividend_of_one_ex_date_add_up():
    line = {"ex_dividend_date": "2024-11-15", "amount": "1.16"}
    special = {"ex_dividend_date": "2024-11-15", "amount": "15"}
    shaped = ACTIONS.shape("A", actions(dividends=[line, special, line]))
    assert shaped.rows["dividend_amount"].to_list() == [16.16]
    assert shaped.rejected.is_empty()


def dividend(amount="1.16", **dates):
    return {"ex_dividend_date": "2024-11-15", "amount": amount} | dates


@pytest.mark.parametrize(
    ("lines", "amount", "payment_date"),
    [
        (({}, {"payment_date": "2024-12-02"}), 1.16, date(2024, 12, 2)),
        (({"payment_date": "2024-12-02"}, {"payment_date": "None"}), 1.16, date(2024, 12, 2)),
        (
            ({"payment_date": "2024-12-02"}, {"payment_date": "2024-12-09"}),
            2.32,
            date(2024, 12, 2),
        ),
        (
            ({"payment_date": "2024-12-02"}, {}, {"payment_date": "2024-12-09"}),
            2.32,
            date(2024, 12, 2),
        ),
    ],
)
def test_a_dividend_that_is_listed_twice_counts_once_unless_its_dates_differ(
    lines, amount, payment_date
):
    shaped = ACTIONS.shape("A", actions(dividends=[dividend(**line) for line in lines]))
    assert shaped.rows.select("dividend_amount", "payment_date").rows() == [(amount, payment_date)]


def test_of_different_splits_on_one_ex_date_the_first_counts():
    splits = [{"effective_date": "2024-04-15", "split_factor": ratio} for ratio in ("2", "2", "3")]
    shaped = ACTIONS.shape("A", actions(splits=splits))
    assert shaped.rows["split_ratio"].to_list() == [2.0]
    assert shaped.rejected["rules"].to_list() == [["primary_key"]]
    assert json.loads(shaped.rejected["row_values"][0]) == splits[2]


def test_each_action_that_cannot_be_read_is_told():
    lines = [{"ex_dividend_date": day, "amount": "1"} for day in ("2023-02-30", "2023-02-31")]
    lines += [dividend("abc"), dividend("xyz"), dividend("xyz")]
    shaped = ACTIONS.shape("A", actions(dividends=lines))
    assert [json.loads(row) for row in shaped.rejected["row_values"]] == lines


@pytest.mark.parametrize("field", ["declaration_date", "record_date", "payment_date"])
@pytest.mark.parametrize("value", ["garbage", "2024-13-45", True, " ", "None", "0000-00-00", None])
def test_a_further_date_of_a_dividend_is_a_date_or_none(field, value):
    lines = [dividend(**{field: value}), dividend() | {"ex_dividend_date": "2024-08-15"}]
    bar = adjusted_day(**{"7. dividend amount": "1.16"})
    shaped = ACTIONS.shape("A", actions(dividends=lines) | daily({"2024-11-15": bar}))
    if value in (" ", "None", "0000-00-00", None):
        assert shaped.rejected.is_empty()
        return
    # Nor do bars say it, which know no further dates.
    assert shaped.rows["ex_date"].to_list() == [date(2024, 8, 15)]
    assert shaped.rejected["rules"].to_list() == [["what_is_given_can_be_read"]]
    assert json.loads(shaped.rejected["row_values"][0]) == lines[0]
    in_doubt = shaped.doubtful_keys("A").select("ex_date", "action_type").rows()
    assert in_doubt == [(date(2024, 11, 15), "dividend")]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Beta", "abc"),
        ("EPS", "1e400"),
        ("MarketCapitalization", "12x"),
        ("LatestQuarter", "2024-13-31"),
        ("DividendDate", True),
    ],
)
def test_a_company_of_which_something_cannot_be_read_is_set_apart(field, value):
    body = {"Symbol": "A", "Name": "A Company", field: value}
    shaped = COMPANIES.shape("A", {"companies": json.dumps(body).encode()})
    assert shaped.rows.is_empty()
    assert shaped.rejected["rules"].to_list() == [["what_is_given_can_be_read"]]


def test_a_dividend_without_a_date_or_amount_is_set_apart_and_the_others_stay():
    dividends = [
        {"ex_dividend_date": "2024-11-15", "amount": "1"},
        {"ex_dividend_date": "None", "amount": "1"},
        {"ex_dividend_date": "2024-11-15", "amount": "None"},
        {"ex_dividend_date": "2024-08-15", "amount": "-1\u0000"},
    ]
    shaped = ACTIONS.shape("A", actions(dividends=dividends))
    assert shaped.rows["dividend_amount"].to_list() == [1.0]
    assert shaped.rejected.height == 3
    assert "\\u0000" not in "".join(shaped.rejected["row_values"])


@pytest.mark.parametrize(
    ("ticker", "ex_date", "rule"),
    [
        ("A", "2024-02-10", "ex_date_is_in_the_calendar"),
        ("A", "2023-12-25", "ex_date_is_in_the_calendar"),
        ("A", "1024-01-02", "ex_date_is_in_the_calendar"),
        ("A", "2999-01-02", "ex_date_is_at_most_a_year_ahead"),
        ("A", "2025-04-16", "ex_date_is_at_most_a_year_ahead"),
        ("A", "2025-04-15", None),
        ("TSCO.LON", "2023-12-27", None),
        ("TSCO.LON", "2024-02-10", "ex_date_is_in_the_calendar"),
        ("TSCO.LON", "1024-01-02", "ex_date_is_in_the_calendar"),
        ("TSCO.LON", "2999-01-02", "ex_date_is_at_most_a_year_ahead"),
        ("RELIANCE.BSE", "2024-01-20", None),
    ],
)
def test_an_ex_date_is_a_session_and_not_far_ahead(ticker, ex_date, rule):
    payloads = actions(
        splits=[{"effective_date": ex_date, "split_factor": "2"}],
        dividends=[
            {"ex_dividend_date": ex_date, "amount": "1"},
            {"ex_dividend_date": "2024-04-15", "amount": "1"},
        ],
    )
    shaped = ACTIONS.shape(ticker, payloads, at=evening(2024, 4, 15))
    assert shaped.rows.height == (1 if rule else 3)
    assert all(rule in rules for rules in shaped.rejected["rules"])
    in_doubt = shaped.doubtful_keys(ticker).select("ex_date", "action_type").rows()
    assert sorted(in_doubt, key=str) == ([(None, "dividend"), (None, "split")] if rule else [])


def test_an_ex_date_may_be_in_the_future_but_no_bar_can():
    adjusted = raw_day(**{"7. dividend amount": "0.5000"})
    payloads = daily({"2024-05-15": adjusted}) | actions(
        dividends=[{"ex_dividend_date": "2024-06-14", "amount": "1"}]
    )
    shaped = ACTIONS.shape("A", payloads, at=evening(2024, 4, 15))
    assert shaped.rows["ex_date"].to_list() == [date(2024, 6, 14)]
    assert shaped.rejected["dataset"].to_list() == ["daily_bars"]


def adjusted_day(**fields):
    further = {
        "5. adjusted close": "11.0",
        "7. dividend amount": "0.0",
        "8. split coefficient": "1.0",
    }
    bar = raw_day(**further, **{"6. volume": "7"})
    del bar["5. volume"]
    return bar | fields


@pytest.mark.parametrize(
    ("bar", "size", "is_whole"),
    [
        (adjusted_day(), "Full size", True),
        (adjusted_day(), "Compact", False),
        (adjusted_day(), "compact ", False),
        (adjusted_day(), None, True),
        (adjusted_day(), 5, True),
        (raw_day(), "Full size", True),
        (raw_day(), "Compact", False),
        (raw_day(), None, False),
    ],
)
@pytest.mark.parametrize("further", [{}, {"unknown": {}}], ids=["quick", "with care"])
def test_daily_bars_are_a_whole_history_if_the_vendor_says_so(bar, size, is_whole, further):
    document = {"Meta Data": {"4. Output Size": size}, "Time Series (Daily)": {"2024-04-15": bar}}
    body = json.dumps(document | further).encode()
    assert DAILY.shape("A", {"daily_bars": body}).is_whole is is_whole


def test_as_many_adjusted_bars_as_a_compact_reply_has_are_no_whole_history_by_themselves():
    days = [str(day) for day in calendar.sessions(date(2024, 1, 2), date(2024, 6, 28))]
    for count, is_whole in ((99, True), (100, False), (101, True)):
        payload = daily(dict.fromkeys(days[:count], adjusted_day()))
        assert DAILY.shape("A", payload).is_whole is is_whole


def test_a_bar_without_its_adjusted_close_leaves_the_history_whole():
    lacking = adjusted_day(**{"5. adjusted close": None})
    shaped = DAILY.shape("A", daily({"2024-04-15": adjusted_day(), "2024-04-12": lacking}))
    assert shaped.is_whole


@pytest.mark.parametrize("field", list(adjusted_day())[4:])
@pytest.mark.parametrize("missing", ["null", "absent"])
def test_a_bar_of_the_adjusted_endpoint_has_all_that_it_gives(field, missing):
    lacking = adjusted_day(**{field: None})
    if missing == "absent":
        del lacking[field]
    shaped = DAILY.shape("A", daily({"2024-04-15": lacking, "2024-04-12": raw_day()}))
    assert shaped.rows["session_date"].to_list() == [date(2024, 4, 12)]
    assert json.loads(shaped.rejected["row_values"][0]) == {"label": "2024-04-15"} | lacking


@pytest.mark.parametrize("damage", [None, "n/a", "-1", {}])
def test_an_action_of_which_a_bar_says_nothing_sound_is_in_doubt(damage):
    fields = ("7. dividend amount", "8. split coefficient")
    series = {
        "2024-04-15": adjusted_day(**dict.fromkeys(fields, damage)),
        "2024-04-12": adjusted_day(),
        "no date": adjusted_day(**{fields[0]: damage}),
        "2024-04-11": damage,
    }
    shaped = ACTIONS.shape("A", daily(series))
    assert (shaped.rows.height, shaped.rejected.height) == (0, 0)
    dividends = [
        (date(2024, 4, 15), "dividend"),
        (None, "dividend"),
        (date(2024, 4, 11), "dividend"),
    ]
    splits = [(date(2024, 4, 15), "split"), (date(2024, 4, 11), "split")]
    in_doubt = shaped.doubtful_keys("A").select("ex_date", "action_type").rows()
    assert in_doubt == dividends + splits


def test_an_action_that_bars_of_one_label_do_not_agree_on_is_in_doubt():
    dividends = ["0.5", "0.7"]
    bars = [adjusted_day(**{"7. dividend amount": amount}) for amount in dividends]
    shaped = ACTIONS.shape("A", repeated(*bars))
    assert shaped.rows.is_empty()
    assert shaped.doubtful_keys("A").rows() == [("A", date(2024, 4, 15), "dividend", None)] * 2
    again = ACTIONS.shape("A", repeated(bars[0], bars[0]))
    assert again.rows["dividend_amount"].to_list() == [0.5]


def test_daily_bars_that_are_no_whole_history_tell_of_the_actions_of_their_own_sessions():
    series = {"2024-04-15": adjusted_day(), "2024-04-12": raw_day(**{"7. dividend amount": "0.5"})}
    document = {"Meta Data": {"4. Output Size": "Compact"}, "Time Series (Daily)": series}
    shaped = ACTIONS.shape("A", {"daily_bars": json.dumps(document).encode()})
    assert set(shaped.told_by_bars.rows()) == {
        ("A", date(2024, 4, 15), "dividend"),
        ("A", date(2024, 4, 15), "split"),
        ("A", date(2024, 4, 12), "dividend"),
    }
    assert ACTIONS.shape("A", daily({"2024-04-15": raw_day()})).told_by_bars.is_empty()
    assert ACTIONS.shape("A", daily({"2024-04-15": adjusted_day()})).told_by_bars is None
    assert ACTIONS.shape("A", actions(splits=[])).told_by_bars is None


def test_a_reverse_and_a_fractional_split_keep_their_ratio():
    splits = [
        {"effective_date": "2023-08-07", "split_factor": "0.1250"},
        {"effective_date": "2021-11-04", "split_factor": "1.0460"},
    ]
    rows = ACTIONS.shape("A", actions(splits=splits)).rows
    assert rows["split_ratio"].to_list() == [0.125, 1.046]


def test_a_company_that_never_paid_nor_split_has_no_actions():
    assert ACTIONS.shape("A", actions(splits=[], dividends=[])).rows.is_empty()


def test_the_nulls_of_an_overview_are_nulls():
    body = {
        "Symbol": "A",
        "Name": "A Company",
        "Sector": "None",
        "Beta": "-",
        "EBITDA": "None",
        "MarketCapitalization": "3000000000000",
        "LatestQuarter": "2024-03-31",
    }
    row = COMPANIES.shape("A", {"companies": json.dumps(body).encode()}).rows.row(0, named=True)
    assert (row["company_name"], row["sector"], row["beta"], row["ebitda"]) == (
        "A Company",
        None,
        None,
        None,
    )
    assert (row["market_capitalization"], row["latest_quarter"]) == (3 * 10**12, date(2024, 3, 31))


def test_a_name_with_characters_that_are_none_is_marked():
    body = b'{"Symbol": "A", "Name": "A\\u0000B\\ud800"}'
    rows = COMPANIES.shape("A", {"companies": body}).rows
    assert rows["company_name"].to_list() == ["A\N{REPLACEMENT CHARACTER}B?"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"Weekly Adjusted Time Series": 5}',
        b'{"Weekly Adjusted Time Series": {"2024-04-15": {"1. open": "1',
        b'{"Weekly Adjusted Time Series": ' + b"[" * 100_000,
        b'{"Weekly Adjusted Time Series": {}, "": ' + b"[" * 100_000,
    ],
)
def test_a_payload_of_another_shape_is_refused_as_a_whole(body):
    with pytest.raises(PayloadError, match="weekly_bars cannot be read"):
        WEEKLY.shape("A", {"weekly_bars": body})


def test_an_empty_series_is_no_whole_history():
    assert not WEEKLY.shape("A", weekly({})).is_whole


def test_a_ticker_that_cannot_be_read_and_a_bad_bar_concern_no_other_ticker():
    batch = {
        "GOOD": weekly({"2024-04-12": week(), "2024-04-05": week()}),
        "TORN": {"weekly_bars": b"{"},
        "HALF": weekly({"2024-04-12": week(), "2024-04-05": week(close="0")}),
        "NONE": weekly({}),
    }
    shaped = WEEKLY.shape_many(batch)
    assert isinstance(shaped.pop("TORN"), PayloadError)
    assert list(shaped) == ["GOOD", "HALF", "NONE"]
    for ticker, part in shaped.items():
        alone = WEEKLY.shape(ticker, batch[ticker])
        assert part.rows.equals(alone.rows)
        assert part.rejected.equals(alone.rejected)
    assert [part.rows.height for part in shaped.values()] == [2, 1, 0]
    assert [part.rejected.height for part in shaped.values()] == [0, 1, 0]


def test_no_batch_is_no_shape():
    assert WEEKLY.shape_many({}) == {}


def test_every_shaped_frame_has_the_columns_and_types_of_its_schema():
    payloads = {
        "listings": {
            "listings/active": b"symbol,name,exchange,assetType,ipoDate,delistingDate,status"
        },
        "weekly_bars": weekly({"2024-04-15": week()}),
        "daily_bars": daily({"2024-04-15": raw_day()}),
        "monthly_bars": monthly({}),
        "intraday_bars": {"intraday_bars/2024-04": intraday({})},
        "corporate_actions": actions(splits=[]),
        "companies": {"companies": b'{"Symbol": "A", "Name": "A"}'},
    }
    assert payloads.keys() == SILVER_TABLES.keys()
    for name, table in SILVER_TABLES.items():
        shaped = table.shape("A", payloads[name])
        types = table.schema.create_empty().select(table.columns).schema
        assert dict(shaped.rows.schema) == {**types, "dataset": pl.String()}
        expected = ["dataset", "row_values", "rules", *table.primary_key]
        assert shaped.rejected.columns == expected


SESSIONS = calendar.sessions(date(2024, 1, 2), date(2024, 6, 28))
YEAR = calendar.sessions(date(2023, 1, 1), date(2023, 12, 31))
LABELS = {
    "weekly_bars": [str(date(2024, 1, 5) + timedelta(weeks=week)) for week in range(12)],
    "daily_bars": [str(day) for day in SESSIONS[:12]],
    "monthly_bars": [str(max(day for day in YEAR if day.month == month)) for month in range(1, 13)],
    "intraday_bars": [f"2024-03-08 09:{minute:02}:00" for minute in range(0, 60, 5)],
}
# What makes a bar bad, wherever it stands, and what makes it none the worse.
BAD_VALUES = [
    *(None, True, "", "n/a", "NaN", "inf", "-1", " 10", "10 ", "1_0", "1,0", "0x10", "null"),
    *("1e400", float("nan"), [], {}, ["10"], "10\0", "\ud800"),
]
BAD_VOLUMES = [*BAD_VALUES, "1.5", 1.5, "9223372036854775808", "1e30"]
GOOD_PRICES = [
    "10",
    "10.0000",
    10,
    10.5,
    "1e1",
    "1E+1",
    "+10",
    "010",
    "10.",
    "11.00000000000000001",
]
GOOD_VOLUMES = ["0", "7.0", 7, 7.0, "1e3", "+7", "007", "9007199254740993.0", "9223372036854775807"]
BAD_LABELS = {
    "weekly_bars": ["2024-02-30", "2024-1-5", "24-01-05", "2999-01-04", "", "2024-01-06"],
    "daily_bars": ["2024-01-06", "2024-01-15", "1959-12-31", "2999-01-04", " 2024-01-02"],
    "monthly_bars": ["2024-13-01", "+2024-01-05", "12024-01-05", "20240105"],
    "intraday_bars": ["2024-03-08", "2024-03-10 02:30:00", "2024-03-08 09:30:60", "2024-03-09 10:00:00"],
}  # fmt: skip
DATA_KEYS = {
    "weekly_bars": "Weekly Adjusted Time Series",
    "daily_bars": "Time Series (Daily)",
    "monthly_bars": "Monthly Adjusted Time Series",
    "intraday_bars": "Time Series (5min)",
}
ADJUSTED = {"5. adjusted close": "9.5", "6. volume": "7", "7. dividend amount": "0.0000"}


def sound_bar(table):
    prices = {"1. open": "10.0", "2. high": "12.0", "3. low": "9.0", "4. close": "11.0"}
    if table == "intraday_bars":
        return prices | {"5. volume": "7"}
    return prices | ADJUSTED | ({"8. split coefficient": "1.0"} if table == "daily_bars" else {})


def as_payloads(table, pairs, **further):
    """JSON by hand: a label may be given twice. Fields that are not known can be added."""
    series = ", ".join(f"{json.dumps(label)}: {json.dumps(bar)}" for label, bar in pairs)
    start = "".join(f"{json.dumps(name)}: {json.dumps(value)}, " for name, value in further.items())
    head = '"Meta Data": {"6. Time Zone": "US/Eastern"}'
    body = f'{{{start}{head}, "{DATA_KEYS[table]}": {{{series}}}}}'
    return {"intraday_bars/2024-03" if table == "intraday_bars" else table: body.encode()}


def with_care(payloads):
    """The same payload with an object that is no bar, which rules the quick way out."""
    return {name: b'{"unknown": {}, ' + body[1:] for name, body in payloads.items()}


def shape_or_error(table, payloads):
    try:
        return SILVER_TABLES[table].shape("A", payloads)
    except PayloadError:
        return None


def assert_read_alike(table, payloads):
    quick, careful = shape_or_error(table, payloads), shape_or_error(table, with_care(payloads))
    assert (quick is None) == (careful is None)
    if quick and careful:
        assert quick.rows.equals(careful.rows)
        assert quick.rejected.equals(careful.rejected)
        assert quick.is_whole == careful.is_whole
    return quick


@st.composite
def damaged(draw):
    """A table, its labels and bars, and whether each is good."""
    table = draw(st.sampled_from(list(LABELS)))
    labels = draw(st.lists(st.sampled_from(LABELS[table]), unique=True, max_size=6))
    bars = []
    for label in labels:
        bar = sound_bar(table)
        volume = "5. volume" if table == "intraday_bars" else "6. volume"
        field = draw(st.sampled_from(list(bar)))
        if field == volume:
            good_values, bad_values = GOOD_VOLUMES, BAD_VOLUMES
        elif field in {"1. open", "4. close"}:
            good_values, bad_values = GOOD_PRICES, [*BAD_VALUES, "0", "12.0001", "8.9999"]
        else:
            good_values, bad_values = [bar[field], float(bar[field])], BAD_VALUES
        damage = draw(st.sampled_from(["none", "good value", "bad value", "bad label", "bad bar"]))
        if damage == "good value":
            bar[field] = draw(st.sampled_from(good_values))
        elif damage == "bad value":
            bar[field] = draw(st.sampled_from(bad_values))
        elif damage == "bad label":
            label = draw(st.sampled_from(BAD_LABELS[table]))  # noqa: PLW2901
        elif damage == "bad bar":
            bar = draw(st.sampled_from([None, 5, "bar", [], {}]))
        bars.append((label, bar, damage in {"none", "good value"}))
    return table, bars


@settings(max_examples=60, deadline=None)
@given(damaged())
def test_of_damaged_payloads_all_good_bars_load_and_no_bad_one_does(case):
    table, bars = case
    shaped = assert_read_alike(table, as_payloads(table, [(label, bar) for label, bar, _ in bars]))
    good = {label for label, _, is_good in bars if is_good}
    if table == "intraday_bars":
        starts_at = pl.col("starts_at").dt.convert_time_zone("US/Eastern").dt.strftime("%F %T")
        loaded = shaped.rows.select(starts_at)["starts_at"]
    else:
        loaded = shaped.rows["session_date"].cast(pl.String)
    assert sorted(loaded) == sorted(good)
    bad = [json.dumps(label) for label, _, is_good in bars if not is_good]
    assert shaped.rejected.height == len(bad)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(LABELS)),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3)), max_size=3),
    st.booleans(),
)
def test_torn_payloads_are_read_alike_the_quick_way_and_with_care(table, edits, repeat):
    pairs = [(label, sound_bar(table)) for label in LABELS[table][:3]]
    payloads = as_payloads(table, pairs + pairs[:repeat])
    ((name, body),) = payloads.items()
    for at, patch in edits:
        at = 1 + at % len(body)  # noqa: PLW2901
        body = body[:at] + patch + body[at + len(patch) :]
    assert_read_alike(table, {name: body})


NUMBERS = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.floats().map(repr),
    st.integers().map(str),
    st.text("0123456789.eE+-_ ", max_size=8),
    st.floats(),
    st.integers(),
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(LABELS)), st.lists(NUMBERS, min_size=1, max_size=8), st.data())
def test_numbers_come_to_the_same_the_quick_way_and_with_care(table, values, data):
    bar = sound_bar(table)
    fields = st.sampled_from(list(bar))
    pairs = [
        (label, bar | {data.draw(fields): value})
        for label, value in zip(LABELS[table], values, strict=False)
    ]
    assert_read_alike(table, as_payloads(table, pairs))


def recorded_payloads():
    root = Path(__file__).resolve().parents[2]
    folder = root / os.environ.get("STOCKS_TEST_DATA", "../shared/data") / "alpha_vantage"
    return sorted(folder.glob("TIME_SERIES_*_ADJUSTED/*/*.json"))


def test_recorded_payloads_follow_every_rule():
    recorded = recorded_payloads()
    if not recorded:
        pytest.skip("no recorded payloads; set STOCKS_TEST_DATA to have them tested")
    for path in recorded:
        table = next(name for name in ("weekly", "daily") if name.upper() in str(path)) + "_bars"
        shaped = SILVER_TABLES[table].shape(path.stem, {table: path.read_bytes()})
        assert shaped.rejected.is_empty(), path
        assert not shaped.rows.is_empty(), path
