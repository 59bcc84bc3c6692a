"""The market report on real servers and in a real browser, and the pictures in Dagster's UI."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from conftest import World, bucket, empty_warehouse, materializations
from playwright.sync_api import Browser, Page, sync_playwright

from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.headlines import market_headline
from stocks_assets.adapters.report.download import download
from stocks_assets.adapters.report.reading import Market, page_reader, read_market
from stocks_assets.adapters.report.rendering import Cover, overview_of, render, rows_of
from stocks_assets.adapters.report.storing import Reports
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.domain.outcomes import TransportFailed
from stocks_assets.domain.report import (
    DAILY_COLUMNS,
    INDEX,
    SHOWN,
    Health,
    bundle,
    decode,
    pack,
    price_digits,
    unpack,
)
from stocks_assets.domain.sample_market import SampleMarket
from stocks_assets.errors import SettingsError, StackError

NOW = datetime(2026, 11, 17, 3, tzinfo=UTC)
SESSION = date(2026, 11, 16)
MARKET = SampleMarket(first_session=date(2023, 6, 1))
TICKERS = MARKET.tickers(3)
ILL = TICKERS[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Moody:
    """The sample, but for one call that gets no answer."""

    def __init__(self) -> None:
        self._sample = SampleSource(MARKET, lambda: SESSION)

    def __getattr__(self, name: str):
        return getattr(self._sample, name)

    def fetch(self, dataset, ticker, part="", **how):
        if (dataset.name, ticker) == ("dividends", ILL):
            return TransportFailed("no answer within 30 s")
        return self._sample.fetch(dataset, ticker, part, **how)


@dataclass
class Reported:
    """A world after a refresh in which a call of one ticker got no answer."""

    world: World
    reports: Reports
    result: dg.ExecuteInProcessResult
    index: str

    def events(self, asset: str) -> dict[str | None, dict]:
        """Return the metadata of an asset's materializations, by partition."""
        found = materializations(self.world.instance, self.result.run_id)
        key = dg.AssetKey(asset.split("/"))
        return {one.partition: one.metadata for one in found if one.asset_key == key}


@pytest.fixture(scope="module")
def reported(servers) -> Iterator[Reported]:
    warehouse = empty_warehouse(servers)
    with bucket(servers) as store, dg.DagsterInstance.ephemeral() as instance:
        world = World(instance, warehouse, store, BronzeStore(store, warehouse))
        world.add(*TICKERS)
        result = world.refresh(Moody(), TICKERS)
        reports = Reports(store)
        index = reports.page(reports.find(), INDEX).decode()
        yield Reported(world, reports, result, index)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = os.environ.get("STOCKS_TEST_BROWSER") or next(
        filter(None, map(shutil.which, BROWSERS)), None
    )
    if path is None:
        pytest.skip(
            f"no browser: none of {', '.join(BROWSERS)} is on PATH, and STOCKS_TEST_BROWSER is not set"
        )
    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
        "--disable-background-networking",
        "--disable-component-update",
    ]
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=flags)
        yield opened
        opened.close()


@dataclass
class Visit:
    """A page open in the browser, what it asked for outside its folder, and what went wrong."""

    page: Page
    asked_for: list[str]
    wrong: list[str]

    def go(self, address: str) -> None:
        self.page.goto(address)
        self.page.wait_for_selector("main > *:not(noscript)")

    def is_as_wide_as_the_screen(self) -> bool:
        return self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    def column(self, number: int) -> list[str]:
        return self.page.locator(
            f"main table tbody tr.link td:nth-child({number})"
        ).all_inner_texts()


@pytest.fixture
def visit(browser) -> Iterator:
    opened = []

    def open_page(width: int = 1280, **more) -> Visit:
        context = browser.new_context(
            viewport={"width": width, "height": 780}, offline=True, **more
        )
        page = context.new_page()
        found = Visit(page, [], [])
        page.on(
            "request",
            lambda r: r.url.startswith(("file:", "data:")) or found.asked_for.append(r.url),
        )
        page.on("pageerror", lambda error: found.wrong.append(str(error)))
        page.on(
            "console", lambda said: found.wrong.append(said.text) if said.type == "error" else None
        )
        page.on("dialog", lambda dialog: (found.wrong.append(dialog.message), dialog.dismiss()))
        opened.append((context, found))
        return found

    yield open_page
    for context, found in opened:
        context.close()
        assert found.asked_for == []
        assert found.wrong == []


def carried(html: str, attribute: str) -> dict:
    [text] = re.findall(rf'<script type="text/plain" {attribute}>([^<]*)</script>', html)
    return unpack(text)


# In the bucket


def test_a_refresh_makes_a_report_although_a_ticker_failed(reported):
    assert not reported.result.success
    [metadata] = reported.events("curated/market_report").values()
    assert metadata["session"].value == SESSION.isoformat()
    assert metadata["tickers"].value == len(TICKERS)
    assert metadata["tickers_to_look_at"].value == 1
    keys = set(reported.world.store.keys_after("reports/", ""))
    names = (INDEX, "report.json")
    assert keys == {f"reports/{folder}/{name}" for folder in (SESSION, "latest") for name in names}


def test_the_page_says_what_failed_and_of_whom(reported):
    rows = {row[0]: row[-1] for row in carried(reported.index, 'id="page"')["rows"]}
    assert list(rows) == sorted(TICKERS)
    failures = {ticker: health[6] for ticker, health in rows.items() if health[6]}
    assert failures == {ILL: "dividends: TransportFailed: no answer within 30 s"}


def test_the_page_of_a_ticker_has_the_figures_of_gold(reported):
    [ticker] = TICKERS[:1]
    found = carried(reported.index, f'data-ticker="{ticker}"')
    gold = reported.world.query(
        "select session_date, p.split_adjusted_close c, i.sma_200, i.macd, i.rsi_14, r.drawdown "
        "from gold.mart_adjusted_prices p join gold.mart_technical_indicators i using (ticker, session_date) "
        "join gold.mart_returns_risk r using (ticker, session_date) "
        f"where ticker = '{ticker}' and session_date > '{SESSION - timedelta(days=730)}' order by session_date"
    )
    epoch = date(1970, 1, 1)
    assert [epoch + timedelta(days=day) for day in decode(found["d"]["t"])] == gold[
        "session_date"
    ].to_list()
    digits = price_digits(gold["c"].min(), gold["c"].max())
    for short, name, kept in (
        ("c", "c", digits),
        ("s200", "sma_200", digits),
        ("m", "macd", digits),
        ("rsi", "rsi_14", 1),
        ("dd", "drawdown", 4),
    ):
        assert decode(found["d"][short]) == pytest.approx(gold[name].to_list(), abs=10**-kept)
    weeks = reported.world.query(
        f"select adjusted_close from gold.agg_weekly_prices where ticker = '{ticker}' order by week_start"
    )
    assert decode(found["w"]["c"]) == pytest.approx(weeks["adjusted_close"].to_list(), abs=0.01)
    [(actions,)] = reported.world.query(
        f"select count(*) from gold.fct_corporate_actions where ticker = '{ticker}'"
    ).rows()
    assert len(found["actions"]) == actions
    keys = {key for load in found["loads"] for key in load["bronze_keys"]}
    assert keys
    assert keys <= set(reported.world.objects())


def page_of(reported, ticker):
    """The page of one ticker as it would be made now."""
    warehouse = reported.world.warehouse
    with page_reader(warehouse, read_market(warehouse, NOW)) as reader:
        [page] = reader.pages([ticker])
    return page


def test_a_refusal_is_told_until_a_newer_object_of_the_same_payload_loads(reported):
    [ticker] = TICKERS[:1]
    key = f"bronze/splits/2026-11-30/230000.000000_{ticker}_0123456789abcdef.json.gz"
    with reported.world.warehouse.connect() as connection:
        # What was loaded after the refusal is of other payloads.
        connection.execute(
            "insert into ops.refused_objects select 'corporate_actions', %s, %s, 'no list', "
            "min(loaded_at) - interval '1 day' from ops.silver_loads where ticker = %s",
            (ticker, key, ticker),
        )
    page = page_of(reported, ticker)
    assert page.health.refused == 1
    [told] = page.bundle["refused"]
    assert (told["table_name"], told["reason"], told["bronze_key"]) == (
        *("corporate_actions", "no list", key),
    )
    with reported.world.warehouse.connect() as connection:
        connection.execute(
            "update ops.refused_objects set bronze_key = replace(bronze_key, '2026-11-30', '2026-11-01')"
        )
    assert page_of(reported, ticker).health.refused == 0
    with reported.world.warehouse.connect() as connection:
        connection.execute("delete from ops.refused_objects where reason = 'no list'")


def test_all_restatements_count_of_which_the_newest_are_listed(reported):
    [ticker] = TICKERS[:1]
    before = page_of(reported, ticker).health.restatements
    with reported.world.warehouse.connect() as connection:
        connection.execute(
            "insert into silver.restated_closes (table_name, ticker, restated_at, class, keys, "
            "old_values, new_values, old_bronze_keys, new_bronze_key) "
            "select 'weekly_bars', %s, now() - n * interval '1 hour', 'dividend', "
            "array['2026-11-09'::date], array[2.0], array[1.0], array['a'], 'b' "
            "from generate_series(1, %s) n",
            (ticker, SHOWN + 5),
        )
    page = page_of(reported, ticker)
    with reported.world.warehouse.connect() as connection:
        connection.execute("delete from silver.restated_closes where new_bronze_key = 'b'")
    assert page.health.restatements == before + SHOWN + 5
    assert len(page.bundle["restatements"]) == SHOWN


@pytest.fixture
def ahead(reported) -> Iterator[str]:
    """A ticker that alone has the session after the last one, in other money than all others."""
    first, *_ = TICKERS
    copied = (
        "insert into gold.{table} select (jsonb_populate_record(rows, jsonb_build_object("
        "'session_date', rows.session_date + 1) || '{more}')).* from gold.{table} rows "
        "where session_date = '{day}' and {condition}"
    )
    with reported.world.warehouse.connect() as connection:
        for table, more, condition in (
            ("fct_daily_prices", "{}", f"ticker = '{first}'"),
            ("mart_daily_market_summary", '{"tickers": 1}', "true"),
            ("mart_market_breadth", '{"tickers": 1}', "true"),
            ("mart_sector_performance", '{"tickers": 1}', "true"),
        ):
            connection.execute(
                copied.format(table=table, more=more, condition=condition, day=SESSION)
            )
        connection.execute("create table public.kept as select * from gold.mart_latest_prices")
        connection.execute(
            "update gold.mart_latest_prices set session_date = session_date + 1, currency = 'GBX' "
            "where ticker = %s",
            (first,),
        )
    yield first
    with reported.world.warehouse.connect() as connection:
        for table in (
            *("fct_daily_prices", "mart_daily_market_summary"),
            *("mart_market_breadth", "mart_sector_performance"),
        ):
            connection.execute(f"delete from gold.{table} where session_date > '{SESSION}'")
        connection.execute("delete from gold.mart_latest_prices")
        connection.execute("insert into gold.mart_latest_prices select * from public.kept")
        connection.execute("drop table public.kept")


def test_the_session_of_the_market_is_not_that_of_the_first_ticker_to_have_the_next(
    reported, ahead, visit, tmp_path
):
    warehouse = reported.world.warehouse
    market = read_market(warehouse, NOW)
    assert market.session == SESSION
    assert {row["session_date"] for row in market.sectors} == {SESSION}
    overview = overview_of(market)
    assert overview["session"] == [SESSION.isoformat(), len(TICKERS), len(TICKERS)]
    assert overview["breadth"][-1][0] == SESSION.isoformat()
    for mart in ("mart_latest_prices", "mart_sector_performance"):
        headline = market_headline(warehouse, mart)
        assert headline.count("\n") >= 4
        assert ahead not in headline
    path = tmp_path / "index.html"
    reported.reports.make(warehouse, NOW, keep=30)
    path.write_bytes(reported.reports.page(reported.reports.find(), INDEX))
    found = visit()
    found.go(path.as_uri())
    tiles = found.page.locator(".tiles").inner_text()
    assert f"Session\n{SESSION}\n3 of 3 tickers" in tiles
    assert "in 2 of 3 tickers, those in USD" in tiles
    movers = found.page.locator("section", has_text="Gained most").inner_text()
    assert f"2 of 3 tickers: those whose last session is {SESSION}." in movers
    assert ahead not in movers


def test_amounts_of_different_currencies_are_no_sum(reported, ahead):
    traded = read_market(reported.world.warehouse, NOW).traded
    [(value,)] = reported.world.query(
        "select sum(close * volume order by ticker) from gold.fct_daily_prices "
        f"where session_date = '{SESSION}' and ticker <> '{ahead}'"
    ).rows()
    assert traded == {"currency": "USD", "tickers": len(TICKERS) - 1, "value": value}


def test_a_report_that_would_say_the_same_is_not_made_again(reported):
    reports, warehouse = reported.reports, reported.world.warehouse
    before = reports.make(warehouse, NOW, keep=30)
    assert reports.make(warehouse, NOW + timedelta(hours=1), keep=30, only_changed=True) is None
    assert reports.find() == before
    with warehouse.connect() as connection:
        connection.execute(
            "update ops.silver_loads set loaded_at = now() where ticker = %s", (ILL,)
        )
    after = reports.make(warehouse, NOW + timedelta(hours=2), keep=30, only_changed=True)
    assert after is not None
    assert reports.find().made_at == "2026-11-17T05:00:00+00:00"


def test_older_reports_go_and_what_is_no_report_stays(reported):
    store = reported.world.store
    for key in (
        "2020-01-02/index.html",
        "2020-01-03/index.html",
        "notes.html",
        f"{SESSION}/tickers-001.html",
        "latest/tickers-001.html",
    ):
        store.put_page([f"reports/{key}"], b"old", "text/html")
    reported.reports.make(reported.world.warehouse, NOW, keep=2)
    keys = set(store.keys_after("reports/", ""))
    assert keys == {
        "reports/2020-01-03/index.html",
        "reports/notes.html",
        *(
            f"reports/{folder}/{name}"
            for folder in (SESSION, "latest")
            for name in (INDEX, "report.json")
        ),
    }


def test_a_download_is_the_report_as_it_was_made(reported, tmp_path):
    report = reported.reports.find()
    page = download(reported.reports, report, tmp_path / "made" / "here", ILL)
    assert page.path == tmp_path / "made" / "here" / INDEX
    assert page.url.endswith(f"/made/here/index.html#/{ILL}")
    assert page.path.read_bytes() == reported.reports.page(report, INDEX)
    file = download(reported.reports, report, tmp_path / "my report.html")
    assert file.path == tmp_path / "my report.html"
    assert file.url.endswith("/my%20report.html")


def test_what_cannot_be_downloaded_is_told(reported, tmp_path):
    report = reported.reports.find()
    with pytest.raises(SettingsError, match="has no ticker 'NOPE'"):
        download(reported.reports, report, tmp_path, "NOPE")
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot be written"):
        download(reported.reports, report, tmp_path / "file" / "folder")
    with pytest.raises(StackError, match="there is no report of 2001-02-03"):
        reported.reports.find(date(2001, 2, 3))
    elsewhere = {**asdict(report), "folder": str(tmp_path)}
    reported.world.store.put_page(
        ["reports/2001-02-03/report.json"], json.dumps(elsewhere).encode(), "application/json"
    )
    with pytest.raises(StackError, match="there is no report of 2001-02-03"):
        reported.reports.find(date(2001, 2, 3))
    many = Reports(reported.world.store, in_one_file=1, per_file=2)
    large = many.make(reported.world.warehouse, NOW, keep=30)
    with pytest.raises(SettingsError, match="has 3 files, as it has many tickers: name a folder"):
        download(many, large, tmp_path / "one.html")
    reported.world.store.put_page([f"reports/{SESSION}/index.html"], b"another", "text/html")
    with pytest.raises(StackError, match="is of another report by now"):
        download(many, large, tmp_path / "three")
    reported.reports.make(reported.world.warehouse, NOW, keep=30)


# In Dagster's UI


def test_bars_carry_a_chart_and_marts_a_table(reported):
    for name in ("daily_bars", "weekly_bars", "monthly_bars"):
        for ticker, metadata in reported.events(f"silver/{name}").items():
            assert ticker in TICKERS
            assert metadata["chart"].value.startswith("![Adjusted closes of the last ")
            assert "](data:image/svg+xml;base64," in metadata["chart"].value
    for mart in (
        "mart_latest_prices",
        "mart_ticker_summary",
        "mart_market_breadth",
        "mart_daily_market_summary",
        "mart_sector_performance",
    ):
        [metadata] = reported.events(f"gold/{mart}").values()
        assert metadata["headline"].value.count("\n") >= 4
    for mart in (
        "mart_adjusted_prices",
        "mart_technical_indicators",
        "mart_returns_risk",
        "agg_weekly_prices",
        "agg_monthly_prices",
    ):
        tables = {
            ticker: metadata["headline"].value
            for ticker, metadata in reported.events(f"gold/{mart}").items()
        }
        assert set(tables) == set(TICKERS)
        assert len(set(tables.values())) == len(TICKERS)
    latest = reported.events("gold/mart_technical_indicators")[TICKERS[0]]["headline"].value
    [(close,)] = reported.world.query(
        f"select close from gold.mart_latest_prices where ticker = '{TICKERS[0]}'"
    ).rows()
    assert f"\n{SESSION}|{close:,.2f}|" in latest


# In the browser


@pytest.fixture(scope="module")
def written(reported, tmp_path_factory) -> str:
    """The address of the report as one file."""
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(reported.index)
    return path.as_uri()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_is_drawn_on_phones_and_desks(written, visit, width, scheme):
    found = visit(width, color_scheme=scheme)
    found.go(f"{written}#/")
    assert found.is_as_wide_as_the_screen()
    assert found.page.locator("html").get_attribute("data-theme") == scheme
    assert found.page.locator("main canvas").count() > 0
    assert [text.split()[0] for text in found.column(1)] == sorted(TICKERS)
    for span in ("3M", "All"):
        found.go(f"{written}#/{ILL}")
        found.page.get_by_role("button", name=span, exact=True).click()
        assert found.page.locator("main canvas").count() > 0
        assert found.is_as_wide_as_the_screen()
    assert found.page.locator("h1").inner_text().startswith(ILL)
    assert (
        "The last call failed: dividends: TransportFailed: no answer within 30 s"
        in found.page.locator("#quality").inner_text()
    )


def test_a_ticker_is_found_with_the_keyboard_alone(written, visit):
    found = visit()
    found.go(written)
    found.page.keyboard.press("/")
    found.page.keyboard.type(TICKERS[2].lower())
    assert found.page.get_by_role("option").first.inner_text().startswith(TICKERS[2])
    found.page.keyboard.press("Enter")
    found.page.locator("h1", has_text=TICKERS[2]).wait_for()
    found.page.keyboard.press("ArrowLeft")
    previous = sorted(TICKERS)[sorted(TICKERS).index(TICKERS[2]) - 1]
    found.page.locator("h1", has_text=previous).wait_for()


def test_a_click_on_a_column_sorts_by_it_and_another_one_turns_it_round(reported, written, visit):
    expected = [
        ticker
        for (ticker,) in reported.world.query(
            "select ticker from gold.mart_latest_prices order by simple_return_1y desc"
        ).rows()
    ]
    found = visit()
    found.go(written)
    head = found.page.locator("main table th", has=found.page.get_by_role("button", name="1Y")).last
    head.get_by_role("button").click()
    assert [text.split()[0] for text in found.column(1)] == expected
    found.page.locator("th[aria-sort=descending] button").click()
    assert [text.split()[0] for text in found.column(1)] == expected[::-1]
    found.page.get_by_label("Of which sector").select_option("!")
    assert [text.split()[0] for text in found.column(1)] == [ILL]


def test_a_report_of_many_files_is_one_to_walk_through(reported, visit, tmp_path):
    reports = Reports(reported.world.store, in_one_file=1, per_file=2)
    large = reports.make(reported.world.warehouse, NOW, keep=30)
    assert list(large.files) == ["tickers-001.html", "tickers-002.html", INDEX]
    first, *_, last = sorted(TICKERS)
    page = download(reports, large, tmp_path, last)
    reported.reports.make(reported.world.warehouse, NOW, keep=30)
    found = visit()
    found.go(page.url)
    assert found.page.url.endswith(f"tickers-002.html#/{last}")
    found.page.get_by_role("link", name="← All tickers").click()
    found.page.locator("main tr.link").first.wait_for()
    assert found.page.url.endswith("index.html#/")
    found.page.locator("main tr.link").first.click()
    found.page.locator("h1", has_text=first).wait_for()
    assert found.page.url.endswith(f"tickers-001.html#/{first}")


def line(ticker, **more):
    """What the marts say of a ticker in its last session."""
    numbers = (
        *("change_fraction", "simple_return_1d", "simple_return_1w", "simple_return_1m"),
        *("simple_return_3m", "simple_return_6m", "simple_return_1y"),
        *("high_52w", "low_52w", "sma_50", "sma_200", "rsi_14", "volume_ratio_20"),
        *("volatility_252d", "beta_252d", "sharpe_ratio_252d", "drawdown", "maximum_drawdown"),
    )
    return {
        "ticker": ticker,
        "company_name": ticker,
        "sector": "ENERGY",
        "currency": "USD",
        "session_date": SESSION,
        "close": 1.5,
        "volume": 1,
        "first_session": SESSION - timedelta(days=140),
        "recent_adjusted_closes": None,
        **dict.fromkeys(numbers, 0.1),
        **more,
    }


def written_page(lines, **more):
    """A page of tickers that have no bars to draw; `more` is what their pages show."""
    columns = dict.fromkeys([*DAILY_COLUMNS, "adjusted_close"], pl.Float64())
    nothing = pl.DataFrame(schema={**columns, "session_date": pl.Date()})
    lists = (
        *("actions", "restatements", "rejected", "refused", "differences", "gaps"),
        *("loads", "fetches"),
    )
    shown = {"summary": {}, "profile": {}, **dict.fromkeys(lists, ()), **more}
    packed = pack(bundle(nothing, nothing, shown))
    market = Market(lines, [], [], [], SESSION, {})
    names = [one["ticker"] for one in lines]
    cover = Cover(SESSION, NOW, [(name, name, INDEX) for name in names])
    rows = rows_of(market, dict.fromkeys(names, Health()))
    return render(cover, INDEX, rows, dict.fromkeys(names, packed), overview_of(market))


def test_a_special_dividend_is_no_loss(visit, tmp_path):
    lines = [
        line("PAYS", close=80.0, change_fraction=-0.2, simple_return_1d=0.0),
        line("LOSES", close=99.0, change_fraction=-0.01, simple_return_1d=-0.01),
    ]
    path = tmp_path / "index.html"
    path.write_bytes(written_page(lines))
    found = visit()
    found.go(path.as_uri())
    assert found.page.locator(".move b:first-child").all_inner_texts() == ["LOSES"]
    found.go(f"{path.as_uri()}#/PAYS")
    assert "20.00 % on the day" in found.page.locator(".quote").inner_text()
    returns = found.page.locator("section", has_text="Returns, dividends reinvested")
    assert returns.locator("tr", has_text="1 day").inner_text().split("\t")[-1] == "0.0 %"


def test_a_drawdown_says_since_when(visit, tmp_path):
    path = tmp_path / "index.html"
    path.write_bytes(written_page([line("AAA", drawdown=-0.1, maximum_drawdown=-0.2)]))
    since = f"since {SESSION - timedelta(days=140)}"
    found = visit()
    found.go(path.as_uri())
    [cells] = found.page.locator("main tr.link").all_inner_texts()
    assert f"10.0 %\n{since}" in cells
    found.go(f"{path.as_uri()}#/AAA")
    risk = found.page.locator("section", has_text="Range, trend and risk").inner_text()
    assert f"Drawdown {since}" in risk
    assert f"Deepest drawdown {since}" in risk


def test_names_that_are_markup_are_shown_and_do_nothing(visit, tmp_path: Path):
    names = [
        "</script><script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "javascript:alert(1)",
        'A&B "C"',
    ]
    lines = [line(name, company_name=name, sector=name, currency=name) for name in names]
    path = tmp_path / "index.html"
    path.write_bytes(
        written_page(
            lines,
            profile={"has_profile": True, "description": names[1], "industry": names[0]},
            rejected=[
                {
                    "table_name": names[0],
                    "rules": names,
                    "row_values": names[1],
                    "bronze_key": names[0],
                }
            ],
            gaps=[{"text": names[1], "may_be_had": True}],
        )
    )
    found = visit()
    found.go(path.as_uri())
    assert len(found.column(1)) == len(names)
    for name in names:
        found.go(path.as_uri())
        found.page.locator("main tr.link td.name a", has_text=name).first.click()
        found.page.locator("h1", has_text=name).wait_for()
        assert found.page.locator("main img").count() == 0
    assert found.page.title().startswith(names[-1])
