"""What a series of gold is: a security's, exact to the day where days are known, right or null."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from gold_history import ACTIONS, DAILY, IN_A_LIST, IN_BARS, Silver, longer_bars, query
from polars.testing import assert_frame_equal
from test_gold_project import ANALYSES
from test_gold_references import LAST, MARKET, sample_bars, store

from stocks_assets.adapters.report.reading import page_reader, read_market

SERIES = {
    "gold.fct_daily_prices": "session_date",
    "gold.mart_adjusted_prices": "session_date",
    "gold.mart_technical_indicators": "session_date",
    "gold.mart_returns_risk": "session_date",
    "gold.agg_weekly_prices": "session_date",
    "gold.agg_monthly_prices": "session_date",
}
NAMES = ("ticker", "security_key", "history_hash", "company_name")


def moved_to(bars, ticker):
    return bars.with_columns(pl.lit(ticker).alias("ticker"))


def test_each_security_of_a_reused_ticker_is_what_it_would_be_under_a_ticker_of_its_own(
    warehouse, dbt
):
    one, other = MARKET.tickers(2)[0], MARKET.tickers(8)[-1]
    bars = sample_bars([one, other]).with_columns(pl.lit(None).alias("adjusted_close"))
    days = bars["session_date"].unique().sort()
    # The older one ends on a Wednesday; the newer one starts in the same week and month.
    end = next(day for day in days[800:] if day.weekday() == 2 and day.day > 7)
    old = bars.filter((pl.col("ticker") == one) & (pl.col("session_date") <= end))
    new = bars.filter((pl.col("ticker") == other) & (pl.col("session_date") > end))
    silver = Silver(warehouse)
    silver.calendar(date(2019, 1, 1), date(2027, 12, 31))
    listings = [(end, "delisted"), (date(9999, 12, 31), "active")]
    silver.load(
        "listings",
        pl.DataFrame([{"ticker": "TWO", "delisted_on": day, "status": s} for day, s in listings]),
    )
    alike = [moved_to(old, "OLD"), moved_to(new, "NEW")]
    twice = [moved_to(old, "TWO"), moved_to(new, "TWO")]
    benchmark = bars.filter(pl.col("ticker") == "ALLM")
    store(silver, pl.concat([*alike, *twice, benchmark]))
    dbt("build", "--exclude-resource-type", "unit_test")

    for table, period in SERIES.items():
        rows = query(warehouse, f"select * from {table} order by ticker, {period}")
        rows = rows.with_columns(
            pl.when(pl.col("ticker") != "TWO")
            .then("ticker")
            .when(pl.col("session_date") <= end)
            .then(pl.lit("first"))
            .otherwise(pl.lit("second"))
            .alias("series")
        )
        keys = rows.group_by("series").agg(pl.col("security_key").n_unique())
        assert set(keys["security_key"]) == {1}, table
        for mine, its_own in (("first", "OLD"), ("second", "NEW")):
            found, wanted = (
                rows.filter(pl.col("series") == name).drop(*NAMES, "series", strict=False)
                for name in (mine, its_own)
            )
            assert found.height > 300 or "agg" in table, table
            assert found.equals(wanted), (table, mine)
    for table in ("mart_latest_prices", "mart_ticker_summary"):
        rows = query(warehouse, f"select * from gold.{table} where ticker in ('NEW', 'TWO')")
        found, wanted = (
            rows.filter(pl.col("ticker") == name).drop(*NAMES, strict=False)
            for name in ("TWO", "NEW")
        )
        assert found.equals(wanted), table
    of_one = [name for name in ANALYSES if name != "correlation_of_returns"]
    dbt("compile", "--select", *of_one)
    for name in of_one:
        rows = dbt.analysis(name).drop("security_key")
        found = rows.filter(pl.col("ticker") == "TWO").drop("ticker")
        wanted = rows.filter(pl.col("ticker").is_in(["OLD", "NEW"])).drop("ticker")
        assert found.height > 0, name
        assert_frame_equal(found, wanted, check_row_order=False)
    [key] = query(
        warehouse, "select security_key from gold.dim_security where ticker = 'TWO' and is_current"
    )["security_key"]
    assert (
        query(
            warehouse, "select security_key from gold.mart_latest_prices where ticker = 'TWO'"
        ).item()
        == key
    )


def test_the_report_of_a_reused_ticker_is_of_the_company_that_has_it_now(warehouse, dbt):
    one, other = MARKET.tickers(2)[0], MARKET.tickers(8)[-1]
    bars = sample_bars([one, other]).filter(pl.col("session_date") > date(2023, 1, 1))
    # Where the vendor's adjusted closes are wrong, the report counts differences.
    wrong = pl.when(pl.col("session_date").dt.month() == 6).then(1.1).otherwise(1.0)
    bars = bars.with_columns(pl.col("adjusted_close") * wrong)
    end = date(2025, 10, 15)
    old = bars.filter((pl.col("ticker") == one) & (pl.col("session_date") <= end))
    new = bars.filter((pl.col("ticker") == other) & (pl.col("session_date") > end))
    silver = Silver(warehouse)
    silver.calendar(date(2019, 1, 1), date(2027, 12, 31))
    listings = [
        (t, d, s)
        for t in ("TWO", "LATE")
        for d, s in ((end, "delisted"), (date(9999, 12, 31), "active"))
    ]
    silver.load(
        "listings",
        pl.DataFrame(listings, schema=["ticker", "delisted_on", "status"], orient="row"),
    )
    store(
        silver,
        pl.concat(
            moved_to(frame, ticker)
            for frame, ticker in (
                (old, "TWO"),
                (new, "TWO"),
                (new, "NEW"),
                (old, "LATE"),
                (new, "LATE"),
            )
        ),
    )
    # Of the company that came later there are weeks alone.
    is_late = (pl.col("ticker") == "LATE") & (pl.col("session_date") > end)
    silver.load("daily_bars", silver.stored["daily_bars"].filter(~is_late).drop("row_version"))
    dbt("run")
    now = datetime(2026, 11, 14, 3, tzinfo=UTC)
    market = read_market(warehouse, now)
    with page_reader(warehouse, market) as reader:
        pages = {page.ticker: page for page in reader.pages(["LATE", "NEW", "TWO"])}
    assert pages["NEW"].health.differences > 0
    assert pages["TWO"].bundle == pages["NEW"].bundle
    assert pages["TWO"].health == pages["NEW"].health
    late = pages["LATE"].bundle
    assert late["w"]["t"] == pages["NEW"].bundle["w"]["t"]
    assert late["actions"] == pages["NEW"].bundle["actions"]
    assert late["d"]["t"]["d"] == []
    of_days = ("first_session", "last_session", "sessions", "volatility", "dividends", "splits")
    assert [late["summary"][name] for name in of_days] == [None] * len(of_days)
    [line] = [line for line in market.lines if line["ticker"] == "LATE"]
    assert (line["price_source"], line["maximum_drawdown"]) == ("weekly", None)


def test_prices_next_to_nothing_stop_nobody(warehouse, dbt):
    """A company that pays out all that it has, and one whose adjusted closes are printed as zero."""
    silver = Silver(warehouse)
    silver.calendar(date(2019, 1, 1), date(2027, 12, 31))
    fridays = [date(2026, 9, 4) + timedelta(weeks=number) for number in range(10)]

    def weeks(ticker, closes, adjusted, dividend=0.0):
        return pl.DataFrame(
            {
                "ticker": ticker,
                "week_start": [day - timedelta(days=4) for day in fridays],
                "session_date": fridays,
                **dict.fromkeys(("open", "high", "low", "close"), closes),
                "volume": 1000,
                "adjusted_close": adjusted,
                "dividend_amount": [*[0.0] * 9, dividend],
                "is_complete": True,
            }
        )

    paid_out = weeks("SPAC", [*[10.2] * 9, 0.01], [*[0.01] * 10], 10.2)
    dust = weeks("DUST", [0.0004] * 10, [0.0001, 0.0] * 5)
    silver.load("weekly_bars", pl.concat([paid_out, dust]))
    dbt("build", "--exclude-resource-type", "unit_test")
    rows = query(warehouse, "select * from gold.agg_weekly_prices order by ticker, week_start")
    assert rows.group_by("ticker", maintain_order=True).len().rows() == [("DUST", 10), ("SPAC", 10)]
    assert (rows["adjusted_close"] > 0).all()
    assert rows.filter(pl.col("ticker") == "DUST")["adjusted_close"].to_list() == [0.0004] * 10
    assert query(warehouse, "select * from gold.mart_latest_prices").height == 2


def with_a_split(bars, ticker, day):
    """The bars of another ticker, that is split 2:1 on `day`."""
    prices = ("open", "high", "low", "close", "dividend_amount")
    after = pl.col("session_date") >= day
    return bars.with_columns(
        pl.lit(ticker).alias("ticker"),
        *(pl.when(after).then(pl.col(n) / 2).otherwise(n).alias(n) for n in prices),
        pl.col("adjusted_close") / 2,
        pl.when(after).then(pl.col("volume") * 2).otherwise("volume").alias("volume"),
        pl.when(pl.col("session_date") == day)
        .then(2.0)
        .otherwise("split_coefficient")
        .alias("split_coefficient"),
    )


def of_a_free_key(silver, bars, actions=None):
    """A hundred raw daily bars, adjusted weekly and monthly bars, and the actions."""
    raw = (
        bars.group_by("ticker")
        .tail(100)
        .with_columns(
            *(
                pl.lit(None).alias(n)
                for n in ("adjusted_close", "dividend_amount", "split_coefficient")
            )
        )
    )
    silver.load("daily_bars", raw.select(list(DAILY)).cast(DAILY))
    silver.load("weekly_bars", longer_bars(bars, "week_start", "1w"))
    silver.load("monthly_bars", longer_bars(bars, "month_start", "1mo"))
    silver.load("corporate_actions", all_actions(bars) if actions is None else actions)


def all_actions(bars):
    parts = [
        bars.filter(condition).select(
            "ticker",
            pl.col("session_date").alias("ex_date"),
            pl.lit(kind).alias("action_type"),
            pl.when(kind == "dividend").then("dividend_amount").alias("dividend_amount"),
            pl.when(kind == "split").then("split_coefficient").alias("split_ratio"),
        )
        for kind, condition in (
            ("dividend", pl.col("dividend_amount") > 0),
            ("split", pl.col("split_coefficient") != 1),
        )
    ]
    return pl.concat([part.cast(ACTIONS) for part in parts])


def test_a_free_key_has_the_range_of_52_weeks_and_not_of_its_hundred_sessions(warehouse, dbt):
    bars = sample_bars([MARKET.tickers(3)[1]])
    ticker = bars["ticker"][0]
    silver = Silver(warehouse)
    silver.calendar(date(2019, 1, 1), date(2027, 12, 31))
    of_a_free_key(silver, bars)
    dbt("run", tickers=[ticker])
    monday = LAST - timedelta(days=LAST.weekday())
    year = bars.filter(pl.col("session_date") >= monday - timedelta(weeks=51))
    later = pl.col("split_coefficient").cum_prod(reverse=True) / pl.col("split_coefficient")
    wanted = year.select((pl.col("high") / later).max(), (pl.col("low") / later).min()).row(0)
    latest = query(warehouse, "select * from gold.mart_latest_prices").row(0, named=True)
    assert (latest["price_source"], latest["range_source"]) == ("daily", "weekly")
    assert (latest["high_52w"], latest["low_52w"]) == pytest.approx(wanted, rel=1e-12)
    assert latest["simple_return_1y"] is not None
    indicators = query(warehouse, "select * from gold.mart_technical_indicators")
    assert indicators["high_52w"].null_count() == indicators.height == 100

    # A split inside a week mixes the scales of the weekly bar: no range for a year. On a Monday, or in
    # a week of daily bars, it does not.
    past = bars["session_date"].to_list()
    days = {
        "MID": next(day for day in past[-180:] if day.weekday() == 3),
        "MON": next(day for day in past[-180:] if day.weekday() == 0),
        "NEW": next(day for day in past[-60:] if day.weekday() == 3),
    }
    of_a_free_key(silver, pl.concat([with_a_split(bars, t, day) for t, day in days.items()]))
    dbt("run", tickers=[ticker, *days])
    found = query(warehouse, "select * from gold.mart_latest_prices")
    ranges = {row["ticker"]: row for row in found.iter_rows(named=True)}
    assert ranges.keys() == days.keys()
    assert (ranges["MID"]["high_52w"], ranges["MID"]["range_source"]) == (None, None)
    halved = [value / 2 for value in wanted]
    for name in ("MON", "NEW"):
        own = ranges[name]
        assert [own["high_52w"], own["low_52w"]] == pytest.approx(halved, rel=1e-12), name
    assert all(row["simple_return_1y"] is not None for row in ranges.values())


def test_the_adjusted_closes_of_a_free_key_are_reconciled_week_by_week(warehouse, dbt):
    ticker = next(
        t
        for t in MARKET.tickers(30)
        if (sample_bars([t]).head(-150)["split_coefficient"] != 1).any()
    )
    bars = sample_bars([ticker])
    silver = Silver(warehouse)
    silver.calendar(date(2019, 1, 1), date(2027, 12, 31))
    of_a_free_key(silver, bars)
    check = ("--select", "+recon_weekly_adjusted_close", "--exclude-resource-type", "unit_test")
    dbt("build", *check)
    found = query(warehouse, "select * from gold.recon_weekly_adjusted_close")
    assert found.is_empty(), found
    assert dbt.status("weekly_adjusted_closes_are_those_of_the_vendor") == "pass"

    # Neither the actions nor the weekly bars know of a dividend, and the actions lack a split.
    dividends = bars.filter(pl.col("dividend_amount") > 0)["session_date"]
    split_on = bars.filter(pl.col("split_coefficient") != 1)["session_date"][0]
    lost = [dividends[3], split_on]
    of_a_free_key(silver, bars, all_actions(bars).filter(~pl.col("ex_date").is_in(lost)))
    weeks = longer_bars(bars, "week_start", "1w").with_columns(
        pl.when(pl.col("week_start") == lost[0] - timedelta(days=lost[0].weekday()))
        .then(0.0)
        .otherwise("dividend_amount")
        .alias("dividend_amount")
    )
    silver.load("weekly_bars", weeks)
    dbt("build", *check, tickers=[ticker])
    assert dbt.status("weekly_adjusted_closes_are_those_of_the_vendor") == "warn"
    found = query(warehouse, "select * from gold.recon_weekly_adjusted_close order by week_start")
    findings = {row["week_start"]: row for row in found.iter_rows(named=True)}
    mondays = [day - timedelta(days=day.weekday()) for day in lost]
    assert set(findings) == set(mondays)
    assert findings[mondays[0]]["finding"] == "dividend missing or too small"
    paid = bars.filter(pl.col("session_date") == lost[0])["dividend_amount"].item()
    assert findings[mondays[0]]["implied_dividend"] == pytest.approx(paid, rel=0.2)
    assert findings[mondays[1]]["finding"] == "split missing or wrong"
    ratio = bars.filter(pl.col("session_date") == split_on)["split_coefficient"].item()
    assert findings[mondays[1]]["implied_split"] == pytest.approx(ratio, rel=1e-3)


def test_a_dividend_that_restates_the_vendors_closes_adds_a_session_and_rewrites_none(
    warehouse, dbt
):
    ticker = MARKET.tickers(1)[0]
    whole = sample_bars([ticker])
    paid_on = whole.filter(pl.col("dividend_amount") > 0)["session_date"][-1]
    upto = whole.filter(pl.col("session_date") <= paid_on)
    # As the payload of the session before has them: without the dividend.
    factor = pl.col("close").last() / pl.col("adjusted_close").last()
    before = upto.head(-1).with_columns((pl.col("adjusted_close") * factor).round(4))
    silver = Silver(warehouse)
    silver.calendar(date(2019, 1, 1), date(2027, 12, 31))
    store(silver, before)
    dbt("run", tickers=[ticker])
    store(silver, upto)
    assert silver.loads > 2
    dbt("run", tickers=[ticker])
    kept = dict(
        query(
            warehouse,
            "select model, kept_through from ops.gold_changes join ops.gold_offsets "
            "using (model, run_id)",
        ).rows()
    )
    last = before["session_date"][-1]
    for model in ("fct_daily_prices", "int_daily_indicators", "int_daily_returns"):
        assert kept[model] == last, (model, kept)
    # Reconciliation alone looks at all of them again, and agrees.
    assert kept["int_vendor_closes"] is None
    assert kept["recon_adjusted_close"] is None
    assert query(warehouse, "select * from gold.recon_adjusted_close").is_empty()


@pytest.mark.parametrize("has_gaps", [False, True])
def test_months_of_daily_bars_are_exact_to_the_day(warehouse, dbt, has_gaps):
    ticker = next(
        t for t in MARKET.tickers(30) if (sample_bars([t])["split_coefficient"] != 1).any()
    )
    bars = sample_bars([ticker])
    silver = Silver(warehouse)
    silver.calendar(date(2019, 1, 1), date(2027, 12, 31))
    if has_gaps:
        # Listed amid a month, and halted for a day: nobody has more than these days.
        quiet = (pl.col("dividend_amount") == 0) & (pl.col("split_coefficient") == 1)
        halt = bars.slice(300).filter(quiet)["session_date"][0]
        bars = bars.slice(12).filter(pl.col("session_date") != halt)
        store(silver, bars.with_columns(pl.lit(None).alias("adjusted_close")))
    else:
        store(silver, bars)
        silver.load("monthly_bars", longer_bars(bars, "month_start", "1mo"))
    dbt("run", tickers=[ticker])
    split = pl.col("split_coefficient")
    step = split * (pl.col("close") + pl.col("dividend_amount")) / pl.col("close").shift(1)
    later = pl.col("later")
    expected = (
        bars.sort("session_date")
        .with_columns(
            pl.col("session_date").dt.truncate("1mo").alias("month_start"),
            step.fill_null(1).cum_prod().alias("index"),
            (split.cum_prod(reverse=True) / split).alias("later"),
        )
        .with_columns((later / later.last().over("month_start")).alias("scale"))
        .group_by("month_start", maintain_order=True)
        .agg(
            pl.col("session_date").last(),
            (pl.col("open") / pl.col("scale")).first(),
            (pl.col("high") / pl.col("scale")).max(),
            (pl.col("low") / pl.col("scale")).min(),
            pl.col("close").last(),
            (pl.col("volume") * pl.col("scale")).sum().round().cast(pl.Int64),
            pl.col("index").last(),
        )
    )
    months = query(warehouse, "select * from gold.agg_monthly_prices order by month_start")
    assert months["source"].unique().to_list() == ["daily"]
    assert months["session_date"].equals(expected["session_date"])
    # Half shares may be rounded either way.
    assert (months["volume"] - expected["volume"]).abs().max() <= 1
    adjusted = expected["close"].last() * expected["index"] / expected["index"].last()
    assert (months["adjusted_close"] / adjusted - 1).abs().max() < 1e-9
    for name in ("open", "high", "low"):
        wanted = expected[name] * adjusted / expected["close"]
        assert (months[f"adjusted_{name}"] / wanted - 1).abs().max() < 1e-9, name
    growth = expected["index"] / expected["index"].shift(1) - 1
    assert (months["simple_return_1m"] - growth).abs().max() < 1e-9


def closes(ticker, days_and_closes):
    """Flat daily bars of given closes, without what the bars of a free key lack."""
    return pl.DataFrame(
        [
            {"ticker": ticker, "session_date": date(2026, 3, day), "volume": 100}
            | dict.fromkeys(("open", "high", "low", "close"), close)
            for day, close in days_and_closes.items()
        ],
        schema=DAILY,
    )


def action(ticker, day, amount, source=IN_A_LIST, kind="split"):
    return {
        "ticker": ticker,
        "ex_date": date(2026, 3, day),
        "action_type": kind,
        "dividend_amount": amount if kind == "dividend" else None,
        "split_ratio": amount if kind == "split" else None,
        "bronze_key": source,
    }


def test_what_happens_in_a_halt_counts_in_the_bar_after_it_and_one_action_once(warehouse, dbt):
    silver = Silver(warehouse)
    silver.calendar(date(2026, 1, 1), date(2027, 12, 31))
    bars = [
        # Halted from the 10th to the 12th, for a reverse split of 1 for 10 and a dividend before it.
        closes("HALT", {6: 0.5, 9: 0.5, 13: 5.2, 16: 5.2}),
        # The list has the 4 for 1 split a day before the bars.
        closes("TWICE", {9: 400.0, 10: 400.0, 11: 100.0, 12: 100.0}),
        # Its split fell before its first bar.
        closes("LATER", {9: 10.0, 10: 10.0}),
    ]
    silver.load("daily_bars", pl.concat(bars))
    actions = [
        action("HALT", 10, 0.01, kind="dividend"),
        action("HALT", 11, 0.1),
        action("TWICE", 10, 4.0),
        action("TWICE", 11, 4.0, source=IN_BARS),
        action("LATER", 6, 2.0),
    ]
    silver.load("corporate_actions", pl.DataFrame(actions, schema=ACTIONS | {"bronze_key": str}))
    dbt("build", "--exclude-resource-type", "unit_test", tickers=["HALT", "LATER", "TWICE"])

    prices = query(warehouse, "select * from gold.fct_daily_prices order by ticker, session_date")

    def of(ticker, name):
        return prices.filter(pl.col("ticker") == ticker)[name].to_list()

    assert of("HALT", "split_ratio") == [1, 1, pytest.approx(0.1), 1]
    # A cent per old share is ten per new one.
    assert of("HALT", "dividend_amount") == [0, 0, pytest.approx(0.1), 0]
    growth = 0.1 * (5.2 + 0.1) / 0.5
    assert of("HALT", "simple_return_1d") == [None, 0, pytest.approx(growth - 1), 0]
    assert of("TWICE", "split_ratio") == [1, 1, 4, 1]
    assert of("TWICE", "simple_return_1d") == [None, 0, 0, 0]
    assert of("LATER", "split_ratio") == [1, 1]
    adjusted = query(
        warehouse,
        "select split_factor from gold.mart_adjusted_prices where ticker = 'TWICE' "
        "order by session_date",
    )
    assert adjusted["split_factor"].to_list() == [4, 4, 1, 1]
    listed = query(warehouse, "select ticker, ex_date from gold.fct_corporate_actions")
    assert (("TWICE", date(2026, 3, 10)) in listed.rows()) is False
    # It is said which action a list has under another date.
    assert dbt.status("corporate_actions_have_one_date") == "warn"
    assert dbt.status("corporate_actions_have_a_daily_bar") == "pass"
