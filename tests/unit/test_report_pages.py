"""What the market report makes of its data, and that nothing in them is taken for markup."""

import base64
import hashlib
import math
import re
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stocks_assets.adapters.report.reading import Market
from stocks_assets.adapters.report.rendering import Cover, overview_of, render, rows_of
from stocks_assets.domain.report import (
    DAILY_COLUMNS,
    INDEX,
    TICKERS_IN_ONE_FILE,
    TICKERS_PER_FILE,
    Health,
    bundle,
    decode,
    encode,
    files_of,
    market_row,
    pack,
    price_digits,
    sparkline,
    unpack,
    volume_digits,
)

SESSION = date(2026, 11, 24)
HOSTILE = [
    "</script><script>document.title='taken'</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "<!--",
    "\u2028\u2029\x00é日",
]


def line(ticker: str, company: str = "A company", **more: object) -> dict:
    numbers = (
        *("change_fraction", "simple_return_1d", "simple_return_1w", "simple_return_1m"),
        *("simple_return_3m", "simple_return_6m", "simple_return_1y"),
        *("high_52w", "low_52w", "sma_50", "sma_200"),
        *("rsi_14", "volume_ratio_20", "volatility_252d", "beta_252d", "sharpe_ratio_252d"),
        *("drawdown", "maximum_drawdown"),
    )
    return {
        "ticker": ticker,
        "company_name": company,
        "sector": "ENERGY",
        "currency": "USD",
        "session_date": SESSION,
        "close": 12.3456789,
        "volume": 1000,
        "first_session": SESSION - timedelta(days=140),
        "recent_adjusted_closes": [1.0, 2.0, 3.0],
        **dict.fromkeys(numbers, 0.25),
        **more,
    }


def page(*lines: dict, bundles: dict[str, str] | None = None, file: str = INDEX) -> str:
    market = Market(lines, [], [], [], SESSION, {})
    directory = [(one["ticker"], one["company_name"], INDEX) for one in lines]
    cover = Cover(SESSION, datetime(2026, 11, 25, 1, tzinfo=UTC), directory)
    health = {one["ticker"]: Health() for one in lines}
    return render(cover, file, rows_of(market, health), bundles or {}, overview_of(market)).decode()


class Tags(HTMLParser):
    """The tags of a page, and the text in each script, as a browser takes them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        self.tags.append((f"/{tag}", {}))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)

    def run(self) -> list[str]:
        return [text for attributes, text in self.scripts if "type" not in attributes]

    def carried(self, **wanted: str) -> str:
        [text] = [t for a, t in self.scripts if wanted.items() <= a.items()]
        return text.strip()


@given(
    st.lists(st.none() | st.floats(-1e7, 1e7)),
    st.integers(-4, 8),
)
def test_numbers_come_back_as_precise_as_they_were_kept(values, digits):
    found = decode(encode(pl.Series(values, dtype=pl.Float64), digits))
    assert len(found) == len(values)
    for kept, value in zip(found, values, strict=True):
        assert (kept is None) == (value is None)
        if value is not None:
            assert kept == pytest.approx(value, abs=0.5000001 * 10**-digits, rel=1e-12)


def test_what_is_no_number_is_none():
    assert decode(encode(pl.Series([1.0, math.nan, math.inf, 1e300, 2.0]), 2)) == [
        *(1.0, None, None, None, 2.0),
    ]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_what_is_packed_comes_back_and_is_letters_and_digits_alone(value):
    text = pack(value)
    assert unpack(text) == value
    assert re.fullmatch(r"[A-Za-z0-9+/=]*", text)


def test_digits_follow_the_price():
    prices = (5000, 312.5, 61, 4.4, 0.05)
    assert [price_digits(price, price) for price in prices] == [2, 2, 3, 4, 6]
    assert [price_digits(price, price) for price in (None, 0, math.nan, math.inf)] == [2] * 4
    assert price_digits(0.0832, 5412.87) == 5
    assert price_digits(1e-30, 5412.87) == 10
    assert price_digits(1e-6, 1e9) == 5


def test_the_lowest_prices_keep_their_digits_beside_high_ones():
    lows = [0.0832, 0.5, 5200.0]
    daily = pl.DataFrame(
        {
            **dict.fromkeys(DAILY_COLUMNS, [1.0] * 3),
            "session_date": [SESSION] * 3,
            "split_adjusted_low": lows,
            "split_adjusted_high": [0.1, 0.6, 5412.87],
        }
    )
    weekly = pl.DataFrame({"session_date": [SESSION] * 3, "adjusted_close": lows})
    found = bundle(daily, weekly, {})
    assert decode(found["d"]["l"]) == decode(found["w"]["c"]) == lows
    assert decode(found["d"]["h"])[-1] == 5412.87


@pytest.mark.parametrize(
    ("highest", "digits"),
    [(None, 0), (9999, 0), (123_456, -2), (1.23e9, -3), (4e16, -3), (5e17, -3), (5e19, -5)],
)
def test_volumes_are_kept_to_thousands_at_least(highest, digits):
    assert volume_digits(highest) == digits


def test_a_small_volume_beside_a_large_one_is_not_none():
    volumes = [350_000.0, 1.23e9]
    daily = pl.DataFrame(
        {
            **dict.fromkeys(DAILY_COLUMNS, [1.0] * 2),
            "session_date": [SESSION] * 2,
            "split_adjusted_volume": volumes,
        }
    )
    weekly = pl.DataFrame({"session_date": [SESSION], "adjusted_close": [1.0]})
    assert decode(bundle(daily, weekly, {})["d"]["v"]) == volumes


def test_the_return_of_a_day_has_its_dividend_and_the_change_of_the_price_has_not():
    row = market_row(line("AAA", change_fraction=-0.2, simple_return_1d=0.0), Health())
    assert row[6:8] == [-0.2, 0.0]


def test_figures_have_all_the_digits_that_are_shown_of_them():
    figures = {
        "high_52w": 5412.87,
        "low_52w": 1234.56,
        "sma_50": 98765.43,
        "simple_return_1y": 10.4934,
        "volume_ratio_20": 123.45,
        "volatility_252d": 1.2346,
    }
    row = market_row(line("AAA", **figures), Health())
    assert set(figures.values()) <= {value for value in row if isinstance(value, float)}


def test_a_sparkline_goes_from_the_lowest_to_the_highest():
    assert sparkline([1.0, 3.0, 2.0]) == "!~O"
    assert sparkline([5.0, 5.0]) == "!!"
    assert sparkline([]) == sparkline(None) == ""


def test_few_tickers_are_in_one_file():
    tickers = [f"T{n}" for n in range(TICKERS_IN_ONE_FILE)]
    assert files_of(tickers) == [(INDEX, tickers)]
    assert files_of([]) == [(INDEX, [])]


def test_many_tickers_are_in_files_of_their_own_and_the_overview_comes_last():
    tickers = [f"T{n}" for n in range(TICKERS_IN_ONE_FILE + 1)]
    files = files_of(tickers)
    assert files[-1] == (INDEX, ())
    assert [t for _, those in files for t in those] == tickers
    assert len({name for name, _ in files}) == len(files)
    assert max(len(those) for _, those in files) == TICKERS_PER_FILE


def test_a_bundle_has_what_the_frames_have():
    days = [SESSION - timedelta(days=n) for n in (3, 2, 1)]
    columns = {name: [10.0, 10.5, None] for name in DAILY_COLUMNS}
    daily = pl.DataFrame({**columns, "session_date": days, "drawdown": [0.0, -0.1, -0.25]})
    weekly = pl.DataFrame({"session_date": days[:2], "adjusted_close": [9.87, 10.5]})
    more = {"loads": [{"loaded_at": datetime(2026, 11, 24, 1, 2, tzinfo=UTC), "share": math.nan}]}
    found = unpack(pack(bundle(daily, weekly, more)))
    assert decode(found["d"]["c"]) == [10.0, 10.5, None]
    assert decode(found["d"]["dd"]) == [0.0, -0.1, -0.25]
    assert decode(found["w"]["c"]) == [9.87, 10.5]
    epoch = date(1970, 1, 1)
    assert [epoch + timedelta(days=day) for day in decode(found["d"]["t"])] == days
    assert found["loads"] == [{"loaded_at": "2026-11-24 01:02", "share": None}]


def test_health_is_good_where_nothing_asks_for_a_look():
    assert Health(unavailable=3, restatements=2).is_good
    for ill in ({"rejected": 1}, {"refused": 1}, {"missing": 1}, {"differences": 1}, {"behind": 1}):
        assert not Health(**ill).is_good
    assert not Health(failure="no answer").is_good


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_whatever_they_are(name):
    text = page(line(name, name), bundles={name: pack({"profile": {"description": name}})})
    tags = Tags(text)
    assert len(tags.run()) == 2
    assert not [tag for tag, _ in tags.tags if tag in ("img", "iframe", "object", "embed")]
    assert not [a for _, attrs in tags.tags for a in attrs if a.startswith("on")]
    carried = unpack(tags.carried(id="page"))
    assert carried["directory"] == [[name, name, 0]]
    assert carried["rows"][0][:2] == [name, name]
    [ticker] = [a["data-ticker"] for a, _ in tags.scripts if "data-ticker" in a]
    # HTML has no NUL.
    assert ticker.replace("\ufffd", "\x00") == name
    if "<" in name:
        assert name not in text


def test_only_the_scripts_of_the_page_may_run_and_nothing_may_be_asked_for():
    tags = Tags(page(line("AAA")))
    [policy] = [
        attrs["content"]
        for tag, attrs in tags.tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    allowed = set(re.findall(r"'sha256-([^']+)'", rules["script-src"]))
    assert allowed == {
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in tags.run()
    }
    assert "unsafe" not in rules["script-src"]


def test_a_page_refers_to_nothing_outside_but_who_made_the_charts():
    tags = Tags(page(line("AAA")))
    assert not [attrs for tag, attrs in tags.tags if "src" in attrs]
    targets = {(tag, a["href"]) for tag, a in tags.tags if "href" in a}
    outside = {(tag, to) for tag, to in targets if not to.startswith(("#", "data:"))}
    assert outside == {("a", "https://www.tradingview.com/")}


def test_a_page_of_tickers_has_no_overview_but_knows_where_all_are():
    cover = Cover(
        SESSION,
        datetime(2026, 11, 25, tzinfo=UTC),
        [("AAA", "A", "tickers-001.html"), ("BBB", "B", "tickers-002.html")],
    )
    text = render(cover, "tickers-001.html", {"AAA": ["AAA"]}, {"AAA": pack({})}, None).decode()
    carried = unpack(Tags(text).carried(id="page"))
    assert carried["overview"] is None
    assert carried["files"] == ["tickers-001.html", "tickers-002.html"]
    assert carried["directory"] == [["AAA", "A", 0], ["BBB", "B", 1]]
    assert carried["home"] == INDEX


def sessions_of(*tickers: int) -> tuple[list[dict], list[dict]]:
    """Rows of the marts of breadth and summary: sessions up to SESSION that so many tickers have."""
    days = [SESSION - timedelta(days=n) for n in range(len(tickers))][::-1]
    counts = ("advancers", "decliners", "unchanged", "new_highs", "new_lows", "with_52w_range")
    breadth = [
        {
            **dict.fromkeys(counts, 1),
            "session_date": day,
            "tickers": count,
            "share_above_sma_50": 0.5,
            "share_above_sma_200": 0.5,
        }
        for day, count in zip(days, tickers, strict=True)
    ]
    returns = ("mean_simple_return_1d", "median_simple_return_1d", "benchmark_simple_return_1d")
    summary = [
        {
            "session_date": day,
            "tickers": count,
            "benchmark_ticker": "BBB",
            **dict.fromkeys(returns, count / 1000),
        }
        for day, count in zip(days, tickers, strict=True)
    ]
    return breadth, summary


def test_the_overview_is_of_the_session_that_most_tickers_have():
    today, before = SESSION, SESSION - timedelta(days=1)
    market = Market([line("AAA")], *sessions_of(500, 3, 498, 40), [], SESSION, {})
    assert market.session == before
    found = overview_of(market)
    assert found["session"] == [before.isoformat(), 498, 500]
    assert found["summary"]["mean"] == 0.498
    shown = [row[0] for row in found["breadth"]]
    assert shown == [(today - timedelta(days=n)).isoformat() for n in (3, 1)]
    assert [row[0] for row in found["benchmark"]] == shown


def test_where_there_are_weeks_alone_the_session_is_that_of_most_of_them():
    friday = SESSION - timedelta(days=4)
    lines = [line(name, session_date=friday) for name in ("AAA", "BBB", "CCC")]
    market = Market([*lines, line("DDD")], [], [], [], SESSION, {})
    assert market.session == friday
    assert overview_of(market)["session"] == [friday.isoformat(), 3, 3]


def test_there_is_a_page_before_there_are_prices():
    cover = Cover(None, datetime(2026, 11, 25, tzinfo=UTC), [])
    market = Market([], [], [], [], SESSION, {})
    assert "no session yet" in render(cover, INDEX, {}, {}, overview_of(market)).decode()
