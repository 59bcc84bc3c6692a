"""The universe's file, and what applying it changes."""

import pytest

from stocks_assets.adapters.universe_file import UniverseFile
from stocks_assets.domain.planner import Priority
from stocks_assets.domain.universe import Listed, find_change, parse_universe
from stocks_assets.errors import SettingsError
from stocks_assets.settings import PROJECT_ROOT, Settings

HIGH, NORMAL, LOW = Priority
LISTED = [
    Listed("C", "NYSE", "Stock"),
    Listed("A", "NASDAQ", "Stock"),
    Listed("B", "NYSE", "ETF"),
    Listed("-P-HIZ", "NYSE", "Stock"),
    Listed("D", None, None),
    Listed("E", "NYSE ARCA", "Stock"),
]


def read(text, name="universe.yaml"):
    return parse_universe(text, name)


def refusal(text, name="universe.yaml"):
    with pytest.raises(SettingsError) as refused:
        read(text, name)
    message = str(refused.value)
    assert message.startswith(name)
    assert "\n" not in message
    return message.removeprefix(name)


# The file


def test_tickers_are_named_alone_with_a_priority_or_in_a_watchlist():
    universe = read(
        "tickers: [aapl, {ticker: MSFT, priority: low}]\n"
        "watchlists:\n"
        "  chips: {priority: high, tickers: [NVDA, {ticker: TSM, priority: low}]}\n"
        "  others: {tickers: [T]}\n"
    )
    assert universe.wanted([]) == {"AAPL": None, "MSFT": LOW, "NVDA": HIGH, "TSM": LOW, "T": None}


def test_a_ticker_that_yaml_would_take_for_something_else_is_that_ticker():
    words = ["ON", "NO", "Y", "TRUE", "NULL", "600104", "0700", "1E3", "2024-01-02"]
    assert list(read(f"tickers: [{', '.join(words)}]").named) == words


def test_tickers_with_signs_are_read_in_both_forms():
    tickers = ["BRK.B", "BF-B", "BF/B", "600104.SHH"]
    assert list(read(f"tickers: [{', '.join(tickers)}]").named) == tickers
    assert list(read("\n".join(["ticker", *tickers]), "u.csv").named) == tickers


@pytest.mark.parametrize(
    ("entries", "counts"),
    [
        (["A", "A"], None),
        (["{ticker: A, priority: low}", "{ticker: a, priority: high}"], HIGH),
        (["{ticker: A, priority: high}", "{ticker: A, priority: normal}"], HIGH),
        (["{ticker: A, priority: low}", "A"], NORMAL),
        (["A", "{ticker: A, priority: high}"], HIGH),
    ],
)
def test_of_a_ticker_that_stands_there_twice_the_highest_priority_counts(entries, counts):
    assert read(f"tickers: [{', '.join(entries)}]").named == {"A": counts}


def test_a_csv_file_may_have_priorities_watchlists_empty_lines_and_a_mark_of_its_encoding(tmp_path):
    file = tmp_path / "mine.CSV"
    file.write_bytes(
        "Ticker, Priority ,watchlist\r\nON,high,chips\r\n\r\nAAPL,,\r\n brk.b ,low\r\n".encode(
            "utf-8-sig"
        )
    )
    assert UniverseFile(file).read().named == {"ON": HIGH, "AAPL": None, "BRK.B": LOW}
    assert read("ticker\nIBM", "u.csv").named == {"IBM": None}


@pytest.mark.parametrize("text", ["", "# nothing", "tickers:\nwatchlists:\nlistings:\n"])
def test_an_empty_file_names_nothing(text):
    assert read(text).wanted(LISTED) == {}


@pytest.mark.parametrize(
    ("text", "culprit", "mend"),
    [
        ("tickers: [A, B, C;D]", "tickers[2]: 'C;D' is not a ticker", "such as AAPL"),
        ("tickers: ['']", "tickers[0]: '' is not a ticker", "such as AAPL"),
        (
            "watchlists: {chips: {tickers: [A, B, {ticker: ../x}]}}",
            "watchlists.chips.tickers[2]: '../x' is not a ticker",
            "expected up to 20",
        ),
        (
            "watchlists: {chips: {priority: urgent, tickers: [A]}}",
            "watchlists.chips.priority='urgent'",
            "'high', 'normal' or 'low'",
        ),
        ("watchlists: {chips: {priority: low}}", "watchlists.chips.tickers", "is missing"),
        ("watchlists: {chips: [A]}", "watchlists.chips: ['A']", "priority, tickers"),
        ("tickers: [{name: A}]", "tickers[0].name is not known", "universe.example.yaml"),
        ("ticker: [A]", "ticker is not known here", "universe.example.yaml"),
        ("tickers: AAPL", "tickers='AAPL'", "valid list"),
        ("- A\n- B", "['A', 'B']", "tickers, watchlists, listings"),
        ("tickers: [A]\ntickers: [B]", "line 2", "'tickers' stands there twice; make one of both"),
        ("tickers: [A\nB: C", "line 2", "expected ',' or ']'"),
        ("a: 1\n---\nb: 1", "line 2", "expected a single document"),
        ("tickers: &a [*a]", "line 1", "recursive"),
        ("listings: [{exchanges: []}]", "listings[0].exchanges=[]", "at least 1"),
        ("listings: [{asset_types: [ETF]}]", "listings[0].exchanges", "is missing"),
        ("listings: [{exchanges: [X], at_most: few}]", "listings[0].at_most='few'", "integer"),
        ("listings: [{exchanges: [X], at_most: 0}]", "listings[0].at_most='0'", "or equal to 1"),
    ],
)
def test_what_is_wrong_in_yaml_is_named_by_its_path_with_the_mend(text, culprit, mend):
    message = refusal(text)
    assert culprit in message
    assert mend in message


@pytest.mark.parametrize(
    ("text", "culprit", "mend"),
    [
        ("ticker\nA\n\nB;C", "line 4: 'B;C' is not a ticker", "such as AAPL"),
        ("ticker,priority\nA,urgent", "line 2 priority='urgent'", "'high', 'normal' or 'low'"),
        ("ticker,priority\n,high", "line 2 ticker", "is missing"),
        ("ticker\nA,high", "line 2 has more values", "than the header has names"),
        ('ticker\n"A', "line 2", "no CSV that can be read"),
        ("ticker;priority\nA;high", "'ticker;priority'", "expected ticker,priority,watchlist"),
        ("AAPL\nMSFT", "line 1: 'aapl' is no header", "expected ticker,priority,watchlist"),
        ("ticker,ticker\nA,B", "line 1", "expected ticker,priority,watchlist"),
        ("", "line 1: '' is no header", "expected ticker,priority,watchlist"),
    ],
)
def test_what_is_wrong_in_csv_is_named_by_its_line_with_the_mend(text, culprit, mend):
    message = refusal(text, "mine.csv")
    assert culprit in message
    assert mend in message


def test_all_problems_are_told_at_once_and_many_are_counted():
    message = refusal("tickers: [A;B, C D]\nwatchlists: {x: {priority: urgent, tickers: []}}\nz: 1")
    assert all(culprit in message for culprit in ("'A;B'", "'C D'", "'urgent'", "z is not known"))
    assert "and 90 more" in refusal("\n".join(["ticker", *["?"] * 100]), "mine.csv")


def test_the_example_is_read():
    wanted = UniverseFile(PROJECT_ROOT / "universe.example.yaml").read().wanted(LISTED)
    assert wanted["NVDA"] is wanted["AMD"] is HIGH
    assert (wanted["AAPL"], wanted["TSM"], wanted["C"]) == (None, NORMAL, LOW)


def test_a_file_that_a_setting_names_must_be_there_and_another_need_not(tmp_path):
    absent = tmp_path / "universe.yaml"
    assert UniverseFile(absent).read() is None
    named = UniverseFile.from_settings(Settings(STOCKS_UNIVERSE_FILE=str(absent)))
    with pytest.raises(SettingsError, match=r"STOCKS_UNIVERSE_FILE=.* is not there; put it there"):
        named.read()
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        UniverseFile(tmp_path).read()
    absent.write_bytes(b"tickers: [\xff]")
    with pytest.raises(SettingsError, match="byte 10 is no UTF-8; save it as UTF-8"):
        named.read()


# Rules over the list of securities


def rule(text):
    return read(f"listings: [{{{text}}}]")


def test_a_rule_takes_what_is_listed_on_its_exchanges_of_its_kinds_in_any_case():
    stocks = rule("exchanges: [nyse, NASDAQ], asset_types: [stock]")
    assert list(stocks.wanted(LISTED)) == ["A", "C"]
    assert list(rule("exchanges: [NYSE]").wanted(LISTED)) == ["B", "C"]
    assert rule("exchanges: [BATS]").wanted(LISTED) == {}


def test_a_rule_with_a_number_takes_the_first_and_then_stays_with_them():
    some = rule("exchanges: [NYSE, NASDAQ], at_most: 2, priority: low")
    assert some.wanted(LISTED) == {"A": LOW, "B": LOW}
    assert some.wanted(LISTED, {"C"}) == {"C": LOW, "A": LOW}


def test_a_named_ticker_is_not_made_low_by_a_rule_that_takes_it_too():
    universe = read("tickers: [A]\nlistings: [{exchanges: [NASDAQ], priority: low}]")
    assert universe.wanted(LISTED) == {"A": NORMAL}


# What applying it changes


def test_new_tickers_are_added_and_only_what_the_file_once_named_is_removed():
    change = find_change(
        {"A": None, "NEW": HIGH},
        universe=["OLD", "A", "BY.HAND", "OLDER"],
        named_before={"A", "OLDER", "OLD", "GONE"},
        priorities={},
    )
    assert change.add == ["NEW"]
    assert change.remove == ["OLD", "OLDER"]
    assert change.priorities == {"NEW": HIGH}


def test_a_priority_is_set_where_the_file_states_another_than_there_is():
    change = find_change(
        {"SAME": HIGH, "UNSTATED": None, "NORMAL": NORMAL, "AGAIN": NORMAL, "LESS": LOW},
        universe=["SAME", "UNSTATED", "NORMAL", "AGAIN", "LESS"],
        named_before=set(),
        priorities={"SAME": HIGH, "UNSTATED": HIGH, "AGAIN": LOW, "LESS": HIGH},
    )
    assert (change.add, change.remove) == ([], [])
    assert change.priorities == {"AGAIN": NORMAL, "LESS": LOW}
