"""Gold against references: TA-Lib for indicators, the vendor and the definitions for the rest."""

import json
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
import talib
from gold_history import ACTIONS, DAILY, Silver, longer_bars, query

from stocks_assets.domain.calendar import sessions
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.domain.sample_market import SampleMarket

LAST = date(2026, 11, 13)
EVENING = datetime(2026, 11, 13, 23, tzinfo=UTC)
DAYS = sessions(date(2019, 1, 2), LAST)
MARKET = SampleMarket(first_session=date(2019, 1, 2))
TOLERANCE = 1e-9
DIFFERENCES = ("macd", "macd_signal", "macd_histogram", "bollinger_lower")
RECONCILE = (
    *("build", "--select", "+recon_adjusted_close"),
    *("--exclude-resource-type", "unit_test"),
)
RECONCILIATION = "adjusted_closes_are_those_of_the_vendor"


def shaped(name, ticker, body):
    """The good rows of the payload that a silver table of the same name is made from."""
    return SILVER_TABLES[name].shape(ticker, {name: body}, EVENING).rows.drop("dataset")


def store(silver, bars):
    """Store daily bars, with the actions inside them and the weeks that they make."""
    bars = bars.select(list(DAILY)).cast(DAILY).sort("ticker", "session_date")
    silver.load("daily_bars", bars)
    if bars["adjusted_close"].null_count() == 0:
        silver.load("weekly_bars", longer_bars(bars, "week_start", "1w"))
    parts = [
        bars.filter(condition).select(
            "ticker",
            pl.col("session_date").alias("ex_date"),
            pl.lit(kind).alias("action_type"),
            (amount if kind == "dividend" else pl.lit(None)).alias("dividend_amount"),
            (amount if kind == "split" else pl.lit(None)).alias("split_ratio"),
        )
        for kind, amount, condition in (
            ("dividend", pl.col("dividend_amount"), pl.col("dividend_amount") > 0),
            ("split", pl.col("split_coefficient"), pl.col("split_coefficient") != 1),
        )
    ]
    silver.load("corporate_actions", pl.concat([part.cast(ACTIONS) for part in parts]))


def sample_bars(tickers):
    frames = []
    for ticker in tickers:
        body = MARKET.reply("TIME_SERIES_DAILY_ADJUSTED", ticker, LAST)
        frames.append(shaped("daily_bars", ticker, body))
    return pl.concat(frames).sort("ticker", "session_date")


def recorded_bars(recordings, ticker):
    path = recordings / "TIME_SERIES_DAILY_ADJUSTED" / "2013-03-01" / f"{ticker}.json"
    return shaped("daily_bars", ticker, path.read_bytes())


def priced(ticker, close, split=1.0, *, first=DAYS[0], without=()):
    """Daily bars of one ticker from closes as traded and split ratios, on sessions from `first` on."""
    days = [day for day in DAYS if day >= first and day not in without][: len(close)]
    split = np.broadcast_to(split, len(close))
    return pl.DataFrame(
        {
            "ticker": ticker,
            "session_date": days,
            "open": close,
            "high": close * 1.01,
            "low": close * 0.99,
            "close": close,
            "adjusted_close": None,
            "volume": np.random.default_rng(5).integers(0, 10_000_000, len(close)),
            "dividend_amount": 0.0,
            "split_coefficient": split,
        },
        schema=DAILY,
    )


def fallen(ticker, by, ratio):
    """A share that falls by a factor, and is split in reverse whenever it trades below 1."""
    dice = np.random.default_rng(3)
    steps = np.exp(dice.normal(-np.log(by) / 1200, 0.03, 1500))
    close, split, price = [], [], 50.0
    for step in steps:
        price *= step
        split.append(ratio if price < 1 else 1.0)
        price = round(price / split[-1], 4)
        close.append(price)
    return priced(ticker, np.array(close), np.array(split))


def series_of_many_shapes():
    """Flat, fallen, tiny, dear, gappy and short series, by ticker."""
    dice = np.random.default_rng(7)
    walk = np.round(30 * np.exp(np.cumsum(dice.normal(0, 0.02, 600))), 2)
    split = np.ones(600)
    split[[100, 220, 400]] = (2.0, 7.0, 1.046)
    missing = set(DAYS[50:120:7]) | set(DAYS[200:260])
    shapes = [
        priced("FLAT", np.full(400, 33.33)),
        priced("STOPS", np.append(walk[:300], np.full(300, walk[299]))),
        priced("HALTED", np.append(walk[:60], np.full(540, walk[59]))),
        priced("ZIGZAG", np.tile([0.0001, 0.0002], 200)),
        priced("TINY", np.round(walk / 3e4, 4)),
        priced("DEAR", walk * 20_000),
        priced("GAPS", walk, without=missing),
        priced("SPLITS", np.round(walk / np.cumprod(split), 4) * 20, split),
        priced("STILL", np.full(400, 33.33), np.where(np.arange(400) == 200, 3.0, 1.0)),
        fallen("FALLEN5", 1e5, 0.1),
        fallen("FALLEN8", 1e8, 0.05),
        *(priced(f"SHORT{n:03}", walk[:n]) for n in range(1, 301)),
    ]
    return pl.concat(shapes)


def same(ours, theirs, name, against=0.0):
    """Nulls at the same places, values that differ by no more than the tolerance.

    It is relative to the value, or to `against` where the value is a difference of such.
    """
    ours = ours.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    assert ours.shape == theirs.shape, name
    assert np.array_equal(np.isnan(ours), np.isnan(theirs)), f"nulls of {name}"
    there = ~np.isnan(ours)
    off = np.abs(ours[there] - theirs[there])
    against = np.broadcast_to(against, ours.shape)[there]
    allowed = TOLERANCE * np.maximum(np.abs(theirs[there]), against)
    assert (off <= allowed).all(), f"{name} is off by {(off / allowed).max()} tolerances"


def expected_indicators(bars):
    """The indicators of one ticker's bars by TA-Lib, on prices with later splits taken out."""
    split = bars["split_coefficient"].to_numpy()
    later = np.append(np.cumprod(split[::-1])[::-1][1:], 1.0)
    high, low, close = (bars[name].to_numpy() / later for name in ("high", "low", "close"))
    macd, signal, histogram = talib.MACD(close)
    upper, middle, lower = talib.BBANDS(close, 20)
    volume = bars["volume"].to_numpy() * later
    return {
        **{f"sma_{n}": talib.SMA(close, n) for n in (20, 50, 200)},
        **{f"ema_{n}": talib.EMA(close, n) for n in (12, 26)},
        "macd": macd,
        "macd_signal": signal,
        "macd_histogram": histogram,
        "rsi_14": talib.RSI(close),
        "atr_14": talib.ATR(high, low, close),
        "bollinger_upper": upper,
        "bollinger_middle": middle,
        "bollinger_lower": lower,
        "high_52w": talib.MAX(high, 252),
        "low_52w": talib.MIN(low, 252),
        "volume_ratio_20": volume / talib.SMA(volume, 20),
    }


def check_indicators(warehouse, bars):
    indicators = query(warehouse, "select * from gold.mart_technical_indicators")
    for (ticker,), own in bars.sort("ticker", "session_date").group_by("ticker"):
        ours = indicators.filter(pl.col("ticker") == ticker).sort("session_date")
        for name, theirs in expected_indicators(own).items():
            # Of differences of prices, the prices' digits are what is lost; an index is out of 100.
            against = 0.001 * (ours["close"].to_numpy() if name in DIFFERENCES else 100)
            exact = name in DIFFERENCES or name == "rsi_14"
            same(ours[name], theirs, f"{ticker} {name}", against if exact else 0.0)


def test_indicators_are_those_of_talib_and_stay_so_with_every_new_session(warehouse, dbt):
    bars = sample_bars(MARKET.tickers(6))
    bars = pl.concat([bars.select(list(DAILY)), series_of_many_shapes()])
    assert (bars["split_coefficient"] != 1).sum() > 2
    silver = Silver(warehouse)
    silver.calendar(date(2019, 1, 1), date(2027, 12, 31))
    days = bars["session_date"].unique().sort()
    for upto in (days[150], days[151], days[-300], days[-1]):
        known = bars.filter(pl.col("session_date") <= upto)
        store(silver, known)
        dbt("run", tickers=known["ticker"].unique().to_list())
    check_indicators(warehouse, bars)


def test_returns_and_risk_follow_their_definitions(warehouse, dbt):
    tickers = MARKET.tickers(4)
    bars = sample_bars(tickers)
    # The benchmark misses a session, another ticker misses another one.
    days = bars["session_date"].unique().sort()
    bars = bars.filter(~((pl.col("ticker") == "ALLM") & (pl.col("session_date") == days[-50])))
    bars = bars.filter(~((pl.col("ticker") == tickers[1]) & (pl.col("session_date") == days[-60])))
    silver = Silver(warehouse)
    silver.calendar(date(2019, 1, 1), date(2027, 12, 31))
    store(silver, bars.filter(pl.col("session_date") < days[-70]))
    dbt("run")
    store(silver, bars)
    dbt("run")
    mart = query(warehouse, "select * from gold.mart_returns_risk").sort("ticker", "session_date")

    def daily(ticker):
        own = bars.filter(pl.col("ticker") == ticker).sort("session_date")
        close = own["close"].to_numpy()
        growth = np.append(
            1.0,
            own["split_coefficient"].to_numpy()[1:]
            * (close[1:] + own["dividend_amount"].to_numpy()[1:])
            / close[:-1],
        )
        return own["session_date"], growth

    benchmark = dict(zip(*map(list, daily("ALLM")), strict=True))
    first = min(benchmark)
    for ticker in tickers:
        dates, growth = daily(ticker)
        ours = mart.filter(pl.col("ticker") == ticker)
        index = np.cumprod(growth)
        count = len(index)
        for n in (1, 5, 21, 63, 126, 252):
            back = np.full(count, np.nan)
            back[n:] = index[n:] / index[:-n]
            same(ours[f"simple_return_{n}d"], back - 1, f"simple {n}", 1e-3)
            same(ours[f"log_return_{n}d"], np.log(back), f"log {n}", 1e-3)
        logs = (
            pl.Series(np.log(growth))
            .to_frame("r")
            .with_columns(pl.when(pl.int_range(pl.len()) > 0).then("r").alias("r"))["r"]
        )
        for n in (21, 63, 252):
            deviation = logs.rolling_std(n, min_samples=n)
            same(
                ours[f"volatility_{n}d"], _array(deviation) * np.sqrt(252), f"volatility {n}", 1e-3
            )
        sharpe = logs.rolling_mean(252, min_samples=252) / logs.rolling_std(252, min_samples=252)
        same(ours["sharpe_ratio_252d"], _array(sharpe) * np.sqrt(252), "sharpe", 1e-3)
        drawdown = index / np.maximum.accumulate(index) - 1
        same(ours["drawdown"], drawdown, "drawdown", 1e-3)
        same(ours["maximum_drawdown"], np.minimum.accumulate(drawdown), "maximum drawdown", 1e-3)
        beta = np.full(count, np.nan)
        for place in range(count):
            window = range(max(place - 251, 0), place + 1)
            pairs = [
                (growth[i] - 1, benchmark[dates[i]] - 1)
                for i in window
                if i > 0 and dates[i] in benchmark and dates[i] > first
            ]
            if len(pairs) >= 126:
                own, other = np.array(pairs).T
                beta[place] = np.cov(own, other)[0, 1] / np.var(other, ddof=1)
        same(ours["beta_252d"], beta, "beta", 1e-3)


def _array(series):
    return series.fill_null(float("nan")).to_numpy()


def test_recorded_daily_series_come_out_as_their_references_have_them(warehouse, dbt, recordings):
    bars = pl.concat([recorded_bars(recordings, ticker) for ticker in ("AAPL", "IBM")])
    silver = Silver(warehouse)
    silver.calendar(date(2000, 1, 1), date(2014, 12, 31))
    store(silver, bars)
    dbt("build", "--exclude-resource-type", "unit_test")
    check_indicators(warehouse, bars)
    adjusted = query(
        warehouse,
        "select gold.*, silver.adjusted_close as vendor_adjusted_close "
        "from gold.mart_adjusted_prices gold "
        "join silver.daily_bars silver using (ticker, session_date) order by session_date",
    )
    # The references are adjusted for what came after the last recorded session, too.
    scale = pl.col("adjusted_close") / pl.col("vendor_adjusted_close")
    off = adjusted.select((scale / scale.last()).over("ticker") - 1).to_series().abs()
    assert off.max() < TOLERANCE
    assert query(warehouse, "select * from gold.recon_adjusted_close").is_empty()
    assert adjusted.filter(pl.col("session_date") == date(2013, 3, 1))["split_factor"].eq(1).all()


def test_an_action_that_is_missing_is_found_and_named(warehouse, dbt):
    ticker = next(
        t for t in MARKET.tickers(20) if (sample_bars([t])["split_coefficient"] != 1).any()
    )
    whole = sample_bars([ticker])
    silver = Silver(warehouse)
    silver.calendar(date(2019, 1, 1), date(2027, 12, 31))
    store(silver, whole)
    dbt(*RECONCILE)
    assert query(warehouse, "select * from gold.recon_adjusted_close").is_empty()
    assert dbt.status(RECONCILIATION) == "pass"

    split = whole.filter(pl.col("split_coefficient") != 1).row(-1, named=True)
    dividend = whole.filter(pl.col("dividend_amount") > 0).row(-1, named=True)
    dates = (split["session_date"], dividend["session_date"])
    lacking = whole.with_columns(
        pl.when(pl.col("session_date") != dates[0])
        .then("split_coefficient")
        .otherwise(1.0)
        .alias("split_coefficient"),
        pl.when(pl.col("session_date") != dates[1])
        .then("dividend_amount")
        .otherwise(0.0)
        .alias("dividend_amount"),
    )
    store(silver, lacking.head(-1))
    dbt(*RECONCILE, tickers=[ticker])
    # What was not mended is told again, though nothing but a session is new.
    store(silver, lacking)
    dbt(*RECONCILE, tickers=[ticker])
    assert dbt.status(RECONCILIATION) == "warn"
    found = query(warehouse, "select * from gold.recon_adjusted_close order by session_date")
    by_date = {row["session_date"]: row for row in found.iter_rows(named=True)}
    assert set(by_date) == set(dates)
    assert by_date[dates[0]]["finding"] == "split missing or wrong"
    assert by_date[dates[0]]["implied_split"] == pytest.approx(split["split_coefficient"], rel=1e-3)
    assert by_date[dates[1]]["finding"] == "dividend missing or too small"
    implied = by_date[dates[1]]["implied_dividend"]
    assert implied == pytest.approx(dividend["dividend_amount"], rel=0.1)


def test_recorded_weekly_series_are_taken_as_they_are(warehouse, dbt, recordings):
    silver = Silver(warehouse)
    silver.calendar(date(1999, 1, 1), date(2025, 12, 31))
    for vintage in ("2022-02-11", "2024-04-15"):
        folder = recordings / "TIME_SERIES_WEEKLY_ADJUSTED" / vintage
        weeks = pl.concat(
            [
                shaped("weekly_bars", path.stem, path.read_bytes())
                for path in sorted(folder.glob("*.json"))
            ]
        )
        silver.load("weekly_bars", weeks)
        dbt("run", tickers=weeks["ticker"].unique().to_list())
    payload = json.loads((folder / "IBM.json").read_bytes())["Weekly Adjusted Time Series"]
    facts = query(warehouse, "select * from gold.fct_weekly_prices where ticker = 'IBM'")
    assert facts.height == len(payload)
    for row in facts.sample(50, seed=1).iter_rows(named=True):
        assert float(payload[str(row["session_date"])]["4. close"]) == row["close"]
    own = query(warehouse, "select * from gold.agg_weekly_prices where ticker = 'IBM'")
    own = own.sort("week_start")
    same(own["sma_52w"], talib.SMA(own["adjusted_close"].to_numpy(), 52), "sma_52w")
    latest = query(warehouse, "select * from gold.mart_latest_prices order by ticker")
    assert latest["ticker"].to_list() == ["AAPL", "DELL", "IBM", "MSFT"]
    assert set(latest["price_source"]) == {"weekly"}
