import gzip
import io
import json
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.datasets import LARGEST_REPLY
from stocks_assets.domain.dropped_files import (
    _LONGEST_VALUE,
    _ROWS_THAT_FIT,
    PRICES,
    InboxPath,
    payload,
    read_file,
    written_day,
)
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.errors import PayloadError

DAILY = SILVER_TABLES["daily_bars"]
ACTIONS = SILVER_TABLES["corporate_actions"]
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
LIMIT = 1_000_000

PRICES_HEADER = "ticker,session_date,open,high,low,close,volume"
MONDAY, TUESDAY = date(2024, 4, 15), date(2024, 4, 16)


def read(key, body, limit=LIMIT):
    return read_file(
        InboxPath.parse(key), body if isinstance(body, bytes) else body.encode(), limit
    )


def price_file(*rows, header=PRICES_HEADER):
    return "\n".join([header, *rows]) + "\n"


def bar(day="2024-04-15", close="11", ticker="IBM"):
    return f"{ticker},{day},10,12,9,{close},7"


def parquet(**columns):
    file = io.BytesIO()
    pl.DataFrame(columns).write_parquet(file)
    return file.getvalue()


def kept(key, body, ticker="IBM"):
    """What silver gets of a file: the name of its payload, and the payload."""
    path = InboxPath.parse(key)
    file = read(key, body)
    return {f"{file.dataset.name}/{path.part}": payload(path, file.rows[ticker])}


def vendor(**closes):
    """The vendor's daily bars of a premium key; a day is written d15."""
    return {
        "daily_bars": json.dumps(
            {
                "Time Series (Daily)": {
                    f"2024-04-{day[1:]}": {
                        "1. open": "10",
                        "2. high": "12",
                        "3. low": "9",
                        "4. close": close,
                        "5. adjusted close": close,
                        "6. volume": "7",
                        "7. dividend amount": "0.0",
                        "8. split coefficient": "1.0",
                    }
                    for day, close in closes.items()
                }
            }
        ).encode()
    }


def closes(payloads):
    shaped = DAILY.shape("IBM", payloads)
    return dict(shaped.rows.sort("session_date").select("session_date", "close").rows()), shaped


# Where a file lies


@pytest.mark.parametrize(
    ("key", "precedence", "kind"),
    [
        ("inbox/prices/IBM.csv", "fill", "prices"),
        ("inbox/actions/2024/q1/all.json", "fill", "actions"),
        ("inbox/override/prices/IBM.csv", "override", "prices"),
        ("inbox/Override/Actions/IBM.csv", "override", "actions"),
        ("inbox/IBM.csv", "fill", None),
        ("inbox/override/IBM.csv", "override", None),
        ("inbox/vendors/prices/IBM.csv", "fill", None),
    ],
)
def test_the_folder_tells_what_a_file_is_about_and_whether_it_wins(key, precedence, kind):
    path = InboxPath.parse(key)
    assert (path.precedence, path.kind.folder if path.kind else None) == (precedence, kind)
    assert not path.withdraws


def test_a_file_below_withdraw_means_the_path_that_it_repeats():
    path = InboxPath.parse("inbox/withdraw/override/prices/IBM.csv")
    meant = InboxPath.parse("inbox/override/prices/IBM.csv")
    assert path.withdraws
    assert (path.source, path.part, path.precedence) == (meant.key, meant.part, "override")


@given(st.text(max_size=300), st.text(max_size=300))
def test_each_path_has_a_part_of_its_own_that_a_bronze_key_can_have(one, other):
    parts = [InboxPath.parse(f"inbox/{text}").part for text in (one, other)]
    for part in parts:
        assert len(part) <= 49
        key = BronzeKey(
            "dropped_daily_bars", "IBM", datetime.fromisoformat("2024-04-15T00Z"), "0" * 16, part
        )
        assert BronzeKey.parse(str(key)) == key
    if not any(text.lower().startswith("withdraw/") for text in (one, other)):
        assert (parts[0] == parts[1]) == (one == other)


def test_marks_of_folders_and_hidden_files_are_no_files():
    assert not InboxPath.is_file("inbox/prices/")
    assert not InboxPath.is_file("inbox/prices/.DS_Store")
    assert InboxPath.is_file("inbox/prices/IBM.csv")


# What a file says


def test_a_file_is_parted_by_ticker_and_its_texts_stay_as_they_are():
    file = read("inbox/prices/all.csv", price_file(bar(close="11.50"), bar(ticker=" brk.b ")))
    assert {ticker: rows.rows(named=True) for ticker, rows in file.rows.items()} == {
        "IBM": [
            {
                "session_date": "2024-04-15",
                "open": "10",
                "high": "12",
                "low": "9",
                "close": "11.50",
                "volume": "7",
            }
        ],
        "BRK.B": [
            {
                "session_date": "2024-04-15",
                "open": "10",
                "high": "12",
                "low": "9",
                "close": "11",
                "volume": "7",
            }
        ],
    }


@pytest.mark.parametrize(
    "header",
    [
        "Symbol,Date,Open,High,Low,Close,Volume",
        "SYMBOL , Trade Date , OPEN_PRICE, High Price,low-price,Close/Last,Vol.",
        "\N{ZERO WIDTH NO-BREAK SPACE}ticker,timestamp,o,h,l,c,v",
        '"Ticker","Session Date","Open","High","Low","Close*","Volume"',
    ],
)
def test_headers_go_by_other_names_in_any_spelling(header):
    rows = read("inbox/prices/x.csv", price_file(bar(), header=header)).rows
    assert rows["IBM"].columns == ["session_date", "open", "high", "low", "close", "volume"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_the_one_that_makes_headers(separator):
    body = price_file(bar()).replace(",", separator)
    assert read("inbox/prices/x.csv", body).rows["IBM"]["close"].to_list() == ["11"]


def test_blank_lines_and_empty_cells_are_nothing():
    header = f"{PRICES_HEADER},Adj Close,"
    body = price_file("", f"{bar()}, ,", ",,,,,,,,", "", header=header)
    rows = read("inbox/prices/x.csv", body).rows["IBM"]
    assert rows.height == 1
    assert rows["adjusted_close"].to_list() == [None]


def test_columns_that_mean_nothing_here_are_named():
    body = price_file(f"{bar()},x,y", header=f"{PRICES_HEADER},VWAP,action_type")
    assert read("inbox/prices/x.csv", body).ignored == ["VWAP", "action_type"]


@pytest.mark.parametrize(
    ("name", "ticker"),
    [("IBM.csv", "IBM"), ("brk.b.csv", "BRK.B"), ("BF~B.csv.gz", "BF/B"), ("IBM.CSV", "IBM")],
)
def test_without_a_column_for_it_the_files_name_is_the_ticker(name, ticker):
    body = price_file("2024-04-15,10,12,9,11,7", header=PRICES_HEADER.removeprefix("ticker,"))
    assert list(read(f"inbox/prices/{name}", body).rows) == [ticker]


@pytest.mark.parametrize(
    "document",
    [
        [
            {
                "symbol": "IBM",
                "date": "2024-04-15",
                "open": 10,
                "high": 12.0,
                "low": 9,
                "close": 11.50,
                "volume": 7,
            }
        ],
        {
            "rows": [
                {
                    "symbol": "IBM",
                    "date": "2024-04-15",
                    "open": "10",
                    "high": "12.0",
                    "low": 9,
                    "close": "11.5",
                    "volume": 7,
                    "note": None,
                }
            ]
        },
    ],
)
def test_json_is_an_array_of_objects_or_has_one(document):
    rows = read("inbox/prices/x.json", json.dumps(document)).rows["IBM"]
    assert rows["high"].to_list() == ["12.0"]
    assert rows["close"].cast(pl.Float64).to_list() == [11.5]


def test_the_numbers_of_json_stay_as_they_are_written():
    text = '[{"ticker":"IBM","date":"2024-04-15","open":1e1,"high":12.10,"low":NaN,"close":11,"volume":7}]'
    row = read("inbox/prices/x.json", text).rows["IBM"].row(0, named=True)
    assert (row["open"], row["high"], row["low"]) == ("1e1", "12.10", "NaN")


def test_parquet_has_types_and_they_become_the_texts_that_other_files_have():
    body = parquet(
        symbol=pl.Series(["IBM", "IBM"], dtype=pl.Categorical),
        date=[datetime(2024, 4, 15), datetime(2024, 4, 16, 16)],
        open=pl.Series([172.69, 0.1], dtype=pl.Float32),
        high=pl.Series(["175.10", "1"], dtype=pl.String).cast(pl.Decimal(10, 2)),
        low=[9.0, 1e-7],
        close=[11.5, None],
        volume=[2**53 + 1, 7],
        vwap=[[1.0], [2.0]],
    )
    file = read("inbox/prices/x.parquet", body)
    assert file.rows["IBM"].rows() == [
        ("2024-04-15 00:00:00", "172.69", "175.10", "9.0", "11.5", "9007199254740993"),
        ("2024-04-16 16:00:00", "0.1", "1.00", "1e-7", None, "7"),
    ]
    assert file.ignored == ["vwap"]


def test_a_file_may_be_compressed_whatever_its_name_says():
    packed = gzip.compress(price_file(bar()).encode())
    for name in ("x.csv.gz", "x.csv"):
        assert list(read(f"inbox/prices/{name}", packed).rows) == ["IBM"]


def test_a_file_in_no_known_folder_is_told_by_its_columns():
    assert read("inbox/x.csv", price_file(bar())).dataset.name == "dropped_daily_bars"
    actions = "ticker,date,type,amount\nIBM,2024-02-08,dividend,1.66\n"
    assert read("inbox/x.csv", actions).dataset.name == "dropped_actions"


def test_rows_whose_ticker_is_none_are_counted_and_the_others_are_taken():
    body = price_file(bar(), bar(ticker="A B"), bar(ticker="A B"), bar(ticker=""))
    file = read("inbox/prices/x.csv", body)
    assert list(file.rows) == ["IBM"]
    assert file.not_tickers == {"A B": 2, "": 1}


# What is refused whole

NO_TICKER = price_file("2024-04-15,10,12,9,11,7", header=PRICES_HEADER.removeprefix("ticker,"))


@pytest.mark.parametrize(
    ("key", "body", "reason"),
    [
        ("inbox/prices/x.xlsx", b"PK", r"its name ends neither in \.csv"),
        ("inbox/prices/IBM", price_file(bar()), r"its name ends neither in \.csv"),
        ("inbox/prices/x.csv", b"", "it has no column session_date, open"),
        ("inbox/prices/x.csv", b"\xff\xfea\x00", "line 1 is no UTF-8"),
        ("inbox/prices/x.csv", price_file(), "it has no row"),
        ("inbox/prices/x.csv", "ticker,date,open,high,low,volume\n", "no column close"),
        ("inbox/prices/x.csv", "a,b\n1,2\n", "its columns are: a, b"),
        ("inbox/x.csv", "a,b\n1,2\n", r"\(prices\) or ex_date, .*\(actions\)"),
        ("inbox/prices/x.csv", price_file(f"{bar()},8"), "line 2 has more fields"),
        ("inbox/prices/x.csv", price_file('IBM,"2024-04-15,10,12,9,11,7'), "line 2 is no CSV"),
        ("inbox/prices/x.csv", price_file(f"{bar()},8", header=f"{PRICES_HEADER},Vol"), "'volume' and 'Vol' both mean volume"),
        ("inbox/prices/my_file.csv", NO_TICKER, "'my_file' is no ticker"),
        ("inbox/prices/x.csv", price_file(bar(ticker="A B")), "no row has a ticker; there stands 'A B'"),
        ("inbox/prices/x.csv", price_file(bar("45397")), "no row has a session_date"),
        ("inbox/prices/x.csv", price_file(bar(), bar(close="9" * 101)), "row 2: close '9+' .* too long"),
        ("inbox/prices/x.csv", price_file('IBM,2024-04-15,10,12,9,"1,234",7'), "row 1: close '1,234' can be two numbers"),
        ("inbox/prices/x.csv.gz", gzip.compress(b"x" * 100, mtime=0)[:-9], "it cannot be unpacked"),
        ("inbox/prices/x.csv.gz", gzip.compress(b"x" * (LIMIT + 1), mtime=0), "it unpacks to more than 1,000,000 bytes"),
        ("inbox/prices/x.json", "{", "it is no JSON"),
        ("inbox/prices/x.json", "[" * 100_000, "it is no JSON"),
        ("inbox/prices/x.json", '{"date": {"0": "2024-04-15"}}', "neither an array of objects"),
        ("inbox/prices/x.json", '[{"date": "2024-04-15"}, 7]', "neither an array of objects"),
        ("inbox/prices/x.json", "[]", "no column session_date"),
        ("inbox/prices/x.parquet", b"PAR1 and no more", "no Parquet that can be read"),
        ("inbox/prices/x.parquet", parquet(symbol=["IBM"], date=["2024-04-15"], open=[[1.0]], high=[1.0], low=[1.0], close=[1.0], volume=[1]), "column 'open' is of type List"),
        ("inbox/prices/x.parquet", parquet(date=pl.repeat(MONDAY, LIMIT // 8 + 1, eager=True)), "it unpacks to more than"),
    ],
)  # fmt: skip
def test_a_file_is_refused_with_what_is_wrong(key, body, reason):
    with pytest.raises(PayloadError, match=reason):
        read(key, body)


def test_what_makes_an_object_that_no_load_would_read_is_refused():
    """Rows of one ticker, with the names of their fields: more than the file had."""
    rows = 80_000
    long = parquet(
        ticker=pl.repeat("IBM", rows, eager=True),
        date=pl.repeat("2024-04-15", rows, eager=True),
        **{
            name: pl.repeat("1" * 100, rows, eager=True)
            for name in ("open", "high", "low", "close", "volume", "adj close", "dividend", "split")
        },
    )
    with pytest.raises(PayloadError, match=r"its 80,000 rows of IBM make .* more than 67,108,864"):
        read("inbox/prices/x.parquet", long, limit=100 * 10**6)
    parted = pl.read_parquet(io.BytesIO(long)).with_columns(
        ticker=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("IBM")).otherwise(pl.lit("A"))
    )
    halves = parquet(**parted.to_dict())
    assert set(read("inbox/prices/x.parquet", halves, limit=100 * 10**6).rows) == {"A", "IBM"}


def test_rows_that_are_not_measured_fit_whatever_they_say():
    worst = dict.fromkeys(PRICES.headers.values(), "\U0001f4a5" * _LONGEST_VALUE)
    body = payload(InboxPath.parse("inbox/x.csv"), pl.DataFrame([worst]))
    assert len(body) * _ROWS_THAT_FIT < LARGEST_REPLY


@pytest.mark.parametrize(
    "day", ["03/04/2024", "13/04/2024", "3.4.2024", "03-04-24", "24-04-15", "4/15/2024 16:00:00"]
)
def test_a_date_that_can_be_two_refuses_the_file_and_says_how_to_write_it(day):
    with pytest.raises(
        PayloadError, match=r"row 2: session_date '.*' can be two dates; write it as 2024-04-03"
    ):
        read("inbox/prices/x.csv", price_file(bar(), bar(day)))


@pytest.mark.parametrize(
    "day",
    [
        "2024-04-15",
        "2024/04/15",
        "2024.04.15",
        "20240415",
        "2024-04-15 00:00:00",
        "2024-04-15T00:00:00.000Z",
        "2024-04-15 00:00:00-04:00",
        "15 Apr 2024",
        "15-Apr-2024",
        "15 april 2024",
        "Apr 15, 2024",
        "April 15 2024",
    ],
)
def test_a_date_that_can_be_but_one_may_be_written_in_many_ways(day):
    assert pl.DataFrame({"day": [day]}).select(written_day("day")).item() == MONDAY


@pytest.mark.parametrize(
    "day",
    [
        "",
        "x",
        "2024-04-31",
        "2024-4-15",
        "2024-04/15",
        "0024-04-15",
        "2024-04-15 16:00",
        "15 Foo 2024",
        "45397",
        None,
    ],
)
def test_what_is_no_date_is_null(day):
    frame = pl.DataFrame({"day": [day]}, schema={"day": pl.String})
    assert frame.select(written_day("day")).item() is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["csv", "json", "parquet", "csv.gz"]))
def test_no_bytes_come_to_anything_but_rows_or_a_reason(noise, form):
    for body in (noise, price_file(bar()).encode() + noise, gzip.compress(noise, mtime=0)):
        try:
            file = read(f"inbox/prices/IBM.{form}", body)
        except PayloadError:
            continue
        assert file.rows
        assert all(rows.height for rows in file.rows.values())


# What silver makes of it


def test_a_file_alone_makes_daily_bars_that_are_not_a_whole_history():
    rows, shaped = closes(kept("inbox/prices/IBM.csv", price_file(bar(), bar("2024-04-16"))))
    assert rows == {MONDAY: 11.0, TUESDAY: 11.0}
    assert not shaped.is_whole


def test_a_file_that_fills_gives_what_the_vendor_has_not():
    file = kept("inbox/prices/x.csv", price_file(bar(close="9.5"), bar("2024-04-16", close="9.5")))
    rows, shaped = closes(vendor(d15="11") | file)
    assert rows == {MONDAY: 11.0, TUESDAY: 9.5}
    assert shaped.rejected.is_empty()
    assert shaped.is_whole
    sources = dict(shaped.rows.select("session_date", "dataset").rows())
    assert sources == {MONDAY: "daily_bars", TUESDAY: next(iter(file))}


def test_a_file_that_overrides_wins_over_the_vendor_and_over_those_that_fill():
    override = kept("inbox/override/prices/x.csv", price_file(bar(close="9.5")))
    fill = kept(
        "inbox/prices/x.csv", price_file(bar(close="10.5"), bar("2024-04-16", close="10.5"))
    )
    rows, _ = closes(override | vendor(d15="11", d17="11") | fill)
    assert rows == {MONDAY: 9.5, TUESDAY: 10.5, date(2024, 4, 17): 11.0}


def test_of_files_that_fill_the_later_counts():
    one = kept("inbox/prices/z.csv", price_file(bar(close="9.5")))
    other = kept("inbox/prices/a.csv", price_file(bar(close="10.5")))
    assert closes(one | other)[0] == {MONDAY: 10.5}
    assert closes(other | one)[0] == {MONDAY: 9.5}


def test_a_row_that_breaks_a_rule_gives_way_and_is_shown_as_it_was_written():
    bad = kept("inbox/override/prices/x.csv", price_file(bar(close="99"), bar("x")))
    rows, shaped = closes(bad | vendor(d15="11"))
    assert rows == {MONDAY: 11.0}
    values = [json.loads(text) for text in shaped.rejected["row_values"]]
    assert sorted((row["session_date"], row["close"]) for row in values) == [
        ("2024-04-15", "99"),
        ("x", "11"),
    ]
    assert shaped.rejected["dataset"].unique().to_list() == [next(iter(bad))]


def test_a_vendors_bar_that_breaks_a_rule_gives_way_to_a_file():
    fill = kept("inbox/prices/x.csv", price_file(bar(close="10.5")))
    rows, shaped = closes(vendor(d15="99") | fill)
    assert rows == {MONDAY: 10.5}
    assert shaped.rejected.height == 1


def test_a_session_that_a_file_has_twice_is_rejected_once_where_it_says_otherwise():
    file = kept("inbox/override/prices/x.csv", price_file(bar(), bar(), bar(close="10")))
    rows, shaped = closes(vendor(d15="9") | file)
    assert rows == {MONDAY: 11.0}
    assert shaped.rejected["rules"].to_list() == [["primary_key"]]


def test_what_people_write_where_there_is_nothing_is_no_value():
    header = f"{PRICES_HEADER},Adj Close,Dividends,Stock Splits"
    body = price_file(f"{bar()},NaN,N/A,0.0", f"{bar('16 Apr 2024')},none,,2", header=header)
    _, shaped = closes(kept("inbox/prices/x.csv", body))
    columns = ("session_date", "adjusted_close", "dividend_amount", "split_coefficient")
    assert sorted(shaped.rows.select(columns).rows()) == [
        (MONDAY, None, None, 1.0),
        (TUESDAY, None, None, 2.0),
    ]
    assert shaped.rejected.is_empty()


def test_rows_that_were_taken_back_are_no_rows():
    path = InboxPath.parse("inbox/override/prices/x.csv")
    taken_back = {f"dropped_daily_bars/{path.part}": payload(path, None)}
    assert closes(taken_back | vendor(d15="11"))[0] == {MONDAY: 11.0}
    assert closes(taken_back)[0] == {}


@pytest.mark.parametrize("body", [b"{}", b"[", b'{"precedence": "no", "rows": []}'])
def test_an_object_that_no_take_up_wrote_cannot_be_read(body):
    with pytest.raises(PayloadError, match="payload of dropped_daily_bars/x cannot be read"):
        DAILY.shape("IBM", {"dropped_daily_bars/x": body})


def actions(payloads):
    shaped = ACTIONS.shape("IBM", payloads)
    values = pl.coalesce("dividend_amount", "split_ratio").alias("value")
    return sorted(shaped.rows.select("ex_date", "action_type", values).rows()), shaped


ACTIONS_HEADER = "ticker,ex_date,action_type,amount"


def test_actions_of_a_file_have_their_kind_amount_and_dates():
    body = (
        "symbol,Ex-Date,Type,Dividend Amount,Split Ratio,Pay Date\n"
        "IBM,8 Feb 2024,Cash Dividend,1.66,,2024-03-09\n"
        "IBM,2024-06-10,SPLIT,,0.125,\n"
    )
    rows, shaped = actions(kept("inbox/actions/x.csv", body))
    assert rows == [
        (date(2024, 2, 8), "dividend", 1.66),
        (date(2024, 6, 10), "split", 0.125),
    ]
    assert date(2024, 3, 9) in shaped.rows["payment_date"].to_list()


def test_actions_of_no_known_kind_or_amount_are_rejected_as_they_were_written():
    body = f"{ACTIONS_HEADER}\nIBM,2024-02-08,merger,1\nIBM,2024-02-08,warrant,2\nIBM,2024-02-09,split,4:1\n"
    rows, shaped = actions(kept("inbox/actions/x.csv", body))
    assert rows == []
    raw = [json.loads(text) for text in shaped.rejected["row_values"]]
    assert sorted((row["action_type"], row["amount"]) for row in raw) == [
        ("merger", "1"),
        ("split", "4:1"),
        ("warrant", "2"),
    ]


def test_the_vendors_actions_count_before_those_that_fill_and_after_those_that_override():
    splits = {
        "splits": json.dumps(
            {"data": [{"effective_date": "2024-04-15", "split_factor": "2"}]}
        ).encode()
    }
    body = f"{ACTIONS_HEADER}\nIBM,2024-04-15,split,3\nIBM,2024-04-16,dividend,0.5\n"
    fill = kept("inbox/actions/x.csv", body)
    override = kept("inbox/override/actions/x.csv", body)
    dividend = (TUESDAY, "dividend", 0.5)
    assert actions(splits | fill)[0] == [(MONDAY, "split", 2.0), dividend]
    assert actions(splits | override)[0] == [(MONDAY, "split", 3.0), dividend]


def test_a_dividend_inside_a_files_bar_counts_where_no_stronger_bar_says_there_was_none():
    body = price_file(
        f"{bar()},0.5", f"{bar('2024-04-16')},0.5", header=f"{PRICES_HEADER},dividend"
    )
    fill = kept("inbox/prices/x.csv", body)
    override = kept("inbox/override/prices/x.csv", body)
    assert actions(fill | vendor(d15="11"))[0] == [(TUESDAY, "dividend", 0.5)]
    assert actions(override | vendor(d15="11"))[0] == [
        (MONDAY, "dividend", 0.5),
        (TUESDAY, "dividend", 0.5),
    ]


def test_a_dividend_inside_a_files_bar_counts_where_the_vendors_bar_says_nothing_of_dividends():
    raw = {"1. open": "10", "2. high": "12", "3. low": "9", "4. close": "11", "5. volume": "7"}
    free = {"daily_bars": json.dumps({"Time Series (Daily)": {"2024-04-15": raw}}).encode()}
    body = price_file(f"{bar()},0.5", header=f"{PRICES_HEADER},dividend")
    assert actions(free | kept("inbox/prices/x.csv", body))[0] == [(MONDAY, "dividend", 0.5)]


# The examples of the documentation


@pytest.mark.parametrize(
    ("name", "dataset", "rows"),
    [
        ("prices.csv", "dropped_daily_bars", {"ACME": 3, "EXMPL": 1}),
        ("prices.json", "dropped_daily_bars", {"ACME": 2}),
        ("actions.csv", "dropped_actions", {"ACME": 2, "EXMPL": 1}),
    ],
)
def test_the_examples_are_taken_without_a_complaint(name, dataset, rows):
    path = InboxPath.parse(f"inbox/{name}")
    file = read(path.key, (EXAMPLES / name).read_bytes())
    assert (file.dataset.name, {ticker: part.height for ticker, part in file.rows.items()}) == (
        dataset,
        rows,
    )
    assert not file.not_tickers
    assert not file.ignored
    table = DAILY if dataset == "dropped_daily_bars" else ACTIONS
    for ticker, part in file.rows.items():
        shaped = table.shape(ticker, {f"{dataset}/{path.part}": payload(path, part)})
        assert shaped.rejected.is_empty()
        assert shaped.rows.height == part.height
