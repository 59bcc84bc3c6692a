import json
from datetime import date

import polars as pl
import pytest

from stocks_assets.domain.payloads import (
    SILVER_TABLES,
    shape_companies,
    shape_corporate_actions,
    shape_daily_bars,
    shape_weekly_bars,
)
from stocks_assets.errors import PayloadError


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


def daily(series):
    return {"daily_bars": json.dumps({"Time Series (Daily)": series}).encode()}


def raw_day(**fields):
    return {
        "1. open": "10.0",
        "2. high": "12.0",
        "3. low": "9.0",
        "4. close": "11.0",
        "5. volume": "7",
    } | fields


def test_a_weekly_bar_is_keyed_on_the_monday_of_its_week():
    shaped = shape_weekly_bars("A", weekly({"2024-04-15": week(), "2024-04-12": week()}))
    assert shaped.rows.select("week_start", "session_date").rows() == [
        (date(2024, 4, 8), date(2024, 4, 12)),
        (date(2024, 4, 15), date(2024, 4, 15)),
    ]


def test_a_running_week_keeps_its_key_while_its_label_moves():
    monday = shape_weekly_bars("A", weekly({"2024-04-15": week()}))
    tuesday = shape_weekly_bars("A", weekly({"2024-04-16": week()}))
    assert monday.rows["week_start"].to_list() == tuesday.rows["week_start"].to_list()


def test_of_two_labels_in_one_week_the_later_counts():
    payload = weekly({"2024-04-15": week(close="9.5"), "2024-04-16": week(close="11.5")})
    assert shape_weekly_bars("A", payload).rows.select("session_date", "close").rows() == [
        (date(2024, 4, 16), 11.5)
    ]


def test_a_year_end_week_is_one_week():
    payload = weekly({"2026-01-02": week()})
    assert shape_weekly_bars("A", payload).rows["week_start"].to_list() == [date(2025, 12, 29)]


def test_daily_bars_of_a_free_key_have_raw_prices_and_no_adjusted_ones():
    shaped = shape_daily_bars("A", daily({"2024-04-15": raw_day()}))
    row = shaped.rows.row(0, named=True)
    assert (row["close"], row["volume"], row["adjusted_close"]) == (11.0, 7, None)


def test_the_vendors_decimals_arrive_as_the_nearest_double():
    bar = raw_day(**{"2. high": "176", "4. close": "175.27118333217"})
    shaped = shape_daily_bars("A", daily({"2024-04-15": bar}))
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
    ],
)
def test_a_row_that_breaks_a_rule_is_set_apart_with_its_raw_values(field, value, rule):
    bad = raw_day(**{field: value})
    shaped = shape_daily_bars("A", daily({"2024-04-15": bad, "2024-04-12": raw_day()}))
    assert shaped.rows["session_date"].to_list() == [date(2024, 4, 12)]
    rejected = shaped.rejected.row(0, named=True)
    assert rule in rejected["rules"]
    assert json.loads(rejected["row_values"]) == {"label": "2024-04-15"} | bad


def test_a_label_that_is_no_date_is_set_apart():
    shaped = shape_weekly_bars("A", weekly({"yesterday": week(), "2024-04-12": week()}))
    assert shaped.rows.height == 1
    assert "session_date|nullability" in shaped.rejected["rules"].to_list()[0]


def test_volumes_beyond_32_bits_and_with_a_decimal_point_are_whole_numbers():
    payload = daily({"2024-04-15": raw_day(**{"5. volume": "9876543210.0"})})
    assert shape_daily_bars("A", payload).rows["volume"].to_list() == [9_876_543_210]


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
    rows = shape_corporate_actions("A", payloads).rows.sort("ex_date")
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
    shaped = shape_corporate_actions("A", daily({"2024-04-15": adjusted}))
    assert shaped.rows.select("action_type", "dividend_amount", "split_ratio").rows() == [
        ("dividend", 0.5, None),
        ("split", None, 2.0),
    ]


def test_a_dataset_of_its_own_counts_before_the_daily_bars():
    adjusted = raw_day(**{"7. dividend amount": "0.5000", "8. split coefficient": "1.0"})
    payloads = daily({"2024-04-15": adjusted}) | actions(
        dividends=[{"ex_dividend_date": "2024-04-15", "amount": "0.49999"}]
    )
    rows = shape_corporate_actions("A", payloads).rows
    assert rows["dividend_amount"].to_list() == [0.49999]
    assert rows["dataset"].to_list() == ["dividends"]


def test_a_regular_and_a_special_dividend_of_one_ex_date_add_up():
    line = {"ex_dividend_date": "2024-11-15", "amount": "1.16"}
    special = {"ex_dividend_date": "2024-11-15", "amount": "15"}
    shaped = shape_corporate_actions("A", actions(dividends=[line, special, line]))
    assert shaped.rows["dividend_amount"].to_list() == [16.16]
    assert shaped.rejected.is_empty()


def test_a_dividend_without_a_date_or_amount_is_set_apart_and_the_others_stay():
    dividends = [
        {"ex_dividend_date": "2024-11-15", "amount": "1"},
        {"ex_dividend_date": "None", "amount": "1"},
        {"ex_dividend_date": "2024-11-15", "amount": "None"},
        {"ex_dividend_date": "2024-08-15", "amount": "-1\u0000"},
    ]
    shaped = shape_corporate_actions("A", actions(dividends=dividends))
    assert shaped.rows["dividend_amount"].to_list() == [1.0]
    assert shaped.rejected.height == 3
    assert "\\u0000" not in "".join(shaped.rejected["row_values"])


def test_only_payloads_of_the_adjusted_endpoint_are_whole_histories():
    assert not shape_daily_bars("A", daily({"2024-04-15": raw_day()})).is_whole
    adjusted = raw_day(**{"5. adjusted close": "1", "6. volume": "7"})
    assert shape_daily_bars("A", daily({"2024-04-15": adjusted})).is_whole


def test_a_reverse_and_a_fractional_split_keep_their_ratio():
    splits = [
        {"effective_date": "2023-08-07", "split_factor": "0.1250"},
        {"effective_date": "2021-11-04", "split_factor": "1.0460"},
    ]
    rows = shape_corporate_actions("A", actions(splits=splits)).rows
    assert rows["split_ratio"].to_list() == [1.046, 0.125]


def test_a_company_that_never_paid_nor_split_has_no_actions():
    assert shape_corporate_actions("A", actions(splits=[], dividends=[])).rows.is_empty()


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
    row = shape_companies("A", {"companies": json.dumps(body).encode()}).rows.row(0, named=True)
    assert (row["company_name"], row["sector"], row["beta"], row["ebitda"]) == (
        "A Company",
        None,
        None,
        None,
    )
    assert (row["market_capitalization"], row["latest_quarter"]) == (3 * 10**12, date(2024, 3, 31))


@pytest.mark.parametrize("body", [b"", b"[]", b'{"Weekly Adjusted Time Series": 5}'])
def test_a_payload_of_another_shape_is_refused_as_a_whole(body):
    with pytest.raises(PayloadError, match="weekly_bars cannot be read"):
        shape_weekly_bars("A", {"weekly_bars": body})


def test_every_shaped_frame_has_the_columns_and_types_of_its_schema():
    shaped = {
        "weekly_bars": shape_weekly_bars("A", weekly({"2024-04-15": week()})),
        "daily_bars": shape_daily_bars("A", daily({"2024-04-15": raw_day()})),
        "corporate_actions": shape_corporate_actions("A", actions(splits=[])),
        "companies": shape_companies("A", {"companies": b'{"Symbol": "A", "Name": "A"}'}),
    }
    assert shaped.keys() == SILVER_TABLES.keys()
    for name, table in SILVER_TABLES.items():
        rows = shaped[name].rows
        assert set(rows.columns) == {*table.columns, "dataset"}
        assert rows.schema["ticker"] == pl.String
