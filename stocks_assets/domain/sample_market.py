"""A fictional stock market that answers in the vendor's own bytes.

Every draw is a pure function of seed, stream and session (splitmix64 over a counter, exact
integer arithmetic), so a session's raw row never depends on what came later. Log returns are
rounded to millionths and added up as integers and prices are rounded to cents, which leaves the
last digit of a platform's `exp` no way into the data.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import polars as pl

from stocks_assets.domain import calendar
from stocks_assets.domain.sample_companies import (
    GOLDEN,
    MAX_COMPANIES,
    SECTORS,
    Company,
    Traits,
    company,
    key_of,
    mix,
    rank_of,
    sixteen_bits,
    traits_of,
)
from stocks_assets.domain.sample_intraday import intraday_bars
from stocks_assets.domain.sample_listings import listing_status

_PRICES = {"open": "%.4f", "high": "%.4f", "low": "%.4f", "close": "%.4f"}
_DAILY = "Time Series (Daily)"


@dataclass(frozen=True, slots=True)
class _Bars:
    """How the vendor lays one kind of bars out: texts of the reply, and the format of each field.

    `period` is the length of a bar as Polars writes it.
    """

    information: str
    data_key: str
    fields: dict[str, str]
    period: str | None = None


_ADJUSTED = _PRICES | {"adjusted close": "%.4f", "volume": "%d", "dividend amount": "%.4f"}
_BARS = {
    "TIME_SERIES_DAILY": _Bars(
        "Daily Prices (open, high, low, close) and Volumes", _DAILY, _PRICES | {"volume": "%d"}
    ),
    "TIME_SERIES_DAILY_ADJUSTED": _Bars(
        "Daily Time Series with Splits and Dividend Events",
        _DAILY,
        _ADJUSTED | {"split coefficient": "%s"},
    ),
    "TIME_SERIES_WEEKLY_ADJUSTED": _Bars(
        "Weekly Adjusted Prices and Volumes", "Weekly Adjusted Time Series", _ADJUSTED, "1w"
    ),
    "TIME_SERIES_MONTHLY_ADJUSTED": _Bars(
        "Monthly Adjusted Prices and Volumes", "Monthly Adjusted Time Series", _ADJUSTED, "1mo"
    ),
}
_INTRADAY, _LISTINGS = "TIME_SERIES_INTRADAY", "LISTING_STATUS"
_FUNCTIONS = (*_BARS, "OVERVIEW", "SPLITS", "DIVIDENDS", _INTRADAY, _LISTINGS)
_COMPACT_ROWS = 100
_INTRADAY_FIELDS = _PRICES | {"volume": "%d"}

# What a function needs beside the ticker: how each argument is written, and how to say that.
_ARGUMENTS = {
    _INTRADAY: {
        "interval": (r"(?:1|5|15|30|60)min", "1min, 5min, 15min, 30min or 60min"),
        "month": (r"[0-9]{4}-(?:0[1-9]|1[0-2])", "a month such as 2024-03"),
    },
    _LISTINGS: {"state": (r"active|delisted", "active or delisted")},
}


@dataclass(frozen=True, slots=True)
class SampleMarket:
    """The market of one seed, trading from `first_session` on.

    Of every twenty companies one lists three to five years after the first session, and another
    one is delisted five to seven years after it. `ticker in market` holds for any ticker that the
    market ever has prices of.
    """

    seed: int = 20160104
    first_session: date = date(2016, 1, 4)

    def __contains__(self, ticker: str) -> bool:
        return rank_of(ticker) is not None

    def tickers(self, count: int) -> list[str]:
        """The first `count` companies' tickers, the benchmark fund first; a stable order.

        Raises:
            ValueError: `count` is negative or above 20,000.
        """
        if not 0 <= count <= MAX_COMPANIES:
            raise ValueError(f"{count} tickers asked; the market has 0 to {MAX_COMPANIES}")
        return [company(rank).ticker for rank in range(count)]

    def reply(
        self,
        function: str,
        ticker: str,
        last_session: date,
        *,
        outputsize: str = "full",
        month: str | None = None,
        interval: str | None = None,
        state: str | None = None,
    ) -> bytes:
        """What the vendor answers once `last_session` has closed.

        `outputsize` is `full` or `compact` (the newest 100 rows) and concerns daily and intraday
        bars only. A ticker that is unknown, or not listed yet, gets the vendor's refusal, and so
        does a month without a session of the company.

        TIME_SERIES_INTRADAY needs `interval` (`1min`, `5min`, `15min`, `30min` or `60min`) and
        `month` (`2024-03`). LISTING_STATUS needs `state` (`active` or `delisted`), and an empty
        ticker since it is of the whole market.

        Raises:
            ValueError: the market does not speak `function`, or an argument is missing, is not
                written as it should be, or is one that `function` does not take.
        """
        if function not in _FUNCTIONS:
            raise ValueError(f"{function!r} is not one of {', '.join(_FUNCTIONS)}")
        if outputsize not in {"full", "compact"}:
            raise ValueError(f"outputsize {outputsize!r} is neither 'full' nor 'compact'")
        _check(function, {"month": month, "interval": interval, "state": state})
        if function == _LISTINGS:
            if ticker:
                raise ValueError(f"{function} is of the whole market, and not of {ticker!r}")
            sessions = calendar.sessions(self.first_session, last_session)
            return listing_status(self.seed, sessions, delisted=state == "delisted")
        rank = rank_of(ticker)
        series = None if rank is None else _series(self, rank, last_session)
        if rank is None or series is None:
            return _json({} if function == "OVERVIEW" else _refusal(function))
        traits, compact = traits_of(self.seed, rank), outputsize == "compact"
        if function in _BARS:
            return _bars_reply(_BARS[function], ticker, series, compact=compact)
        if month and interval:  # which nothing but intraday bars may have
            return _intraday_reply(ticker, traits, series, month, interval, compact=compact)
        if function == "OVERVIEW":
            return _json(_overview(company(rank), traits, series))
        events = _splits(series) if function == "SPLITS" else _dividends(series)
        return _json({"symbol": ticker, "data": events})


def _check(function: str, arguments: Mapping[str, str | None]) -> None:
    own = _ARGUMENTS.get(function, {})
    for name, value in arguments.items():
        if name not in own and value is not None:
            raise ValueError(f"{function} takes no {name}, but got {value!r}")
        if name in own:
            pattern, description = own[name]
            if value is None or not re.fullmatch(pattern, value):
                raise ValueError(f"{name} of {function} is {description}, and not {value!r}")


def _draws(key: int, stream: int) -> pl.Expr:
    """64 random bits a session."""
    return mix(pl.col("counter") + key_of(key, stream))


def _uniform(draws: pl.Expr, place: int) -> pl.Expr:
    return sixteen_bits(draws, place) / 2**16


def _normal(draws: pl.Expr) -> pl.Expr:
    # Four uniform integers are near enough to a bell, and need no logarithm.
    total = pl.sum_horizontal(sixteen_bits(draws, place) for place in range(4))
    return (total - 2 * (2**16 - 1)) / 37837.2


_CYCLE = 2520
# Sessions of a ten-year cycle (from, to), drift a session, volatility against a calm market.
_REGIMES = (
    (700, 760, -0.0022, 1.7),
    (1045, 1072, -0.0120, 3.0),
    (1072, 1200, 0.0022, 1.6),
    (1510, 1720, -0.0012, 1.5),
)
_CALM_DRIFT, _CALM_VOLATILITY, _SECTOR_VOLATILITY = 0.0005, 0.0070, 0.0040
_MARKET, _WEATHER, _FIRST_SECTOR = 0, 1, 2


def _millionths(log_return: pl.Expr) -> pl.Expr:
    return (log_return * 1e6).round().cast(pl.Int64)


@lru_cache(maxsize=4)
def _factors(market: SampleMarket, last_session: date) -> pl.DataFrame:
    """One row per session: date, counter, volatility (1 when calm), market, a column a sector."""
    dates = calendar.sessions(market.first_session, last_session)
    phase = pl.col("session") % _CYCLE
    drift, volatility = pl.lit(_CALM_DRIFT), pl.lit(1.0)
    for begin, end, regime_drift, regime_volatility in _REGIMES:
        within = phase.is_between(begin, end, closed="left")
        drift = pl.when(within).then(regime_drift).otherwise(drift)
        volatility = pl.when(within).then(regime_volatility).otherwise(volatility)
    # A slow average of noise: volatility comes in spells of weeks.
    spells = _normal(_draws(market.seed, _WEATHER)).ewm_mean(alpha=0.04, adjust=False) * 2.5
    return (
        pl.DataFrame({"date": dates}, schema={"date": pl.Date})
        .with_row_index("session")
        .with_columns(
            pl.col("session").cast(pl.Int64), counter=pl.col("session").cast(pl.UInt64) * GOLDEN
        )
        .with_columns(volatility=volatility * (spells * 0.5).exp(), drift=drift)
        .with_columns(
            _millionths(
                pl.col("drift")
                + _normal(_draws(market.seed, _MARKET)) * pl.col("volatility") * _CALM_VOLATILITY
            ).alias("market"),
            *(
                _millionths(
                    _normal(_draws(market.seed, _FIRST_SECTOR + place))
                    * pl.col("volatility").sqrt()
                    * _SECTOR_VOLATILITY
                ).alias(sector)
                for place, sector in enumerate(SECTORS)
            ),
        )
    )


_OWN, _GAP, _WICKS, _VOLUME, _MINUTES = range(5)
_QUARTER = 63
_SPLIT_DAY = 21  # of each quarter, so that splits keep clear of ex-dates


@lru_cache(maxsize=64)
def _series(market: SampleMarket, rank: int, last_session: date) -> pl.DataFrame | None:
    """One row per session from listing on, prices as traded; null before the listing.

    date, open, high, low, close, adjusted close, volume (shares), dividend amount, split, split
    coefficient (as printed), split factor (shares of today for one share at the listing).
    """
    traits, about = traits_of(market.seed, rank), company(rank)
    factors = _factors(market, last_session)[traits.listed : traits.delisted]
    if factors.is_empty():
        return None

    wicks = _draws(traits.key, _WICKS)
    fund = about.asset_type == "ETF"
    # One session in 128 brings news, on which the company moves four times as much by itself.
    news = 1 + 3 * (sixteen_bits(wicks, 2) % 128 == 0).cast(pl.Int64) * (not fund)
    sigma = pl.col("volatility").sqrt() * traits.volatility
    moves = factors.select(
        "date",
        "counter",
        sigma=pl.lit(0.35) * pl.col("volatility") * _CALM_VOLATILITY + sigma * 0.4,
        move=_millionths(
            pl.lit(about.drift / 252)
            + _normal(_draws(traits.key, _OWN)) * sigma * news
            + pl.col("market") * 1e-6 * traits.beta
            + pl.col(about.sector) * 1e-6 * (not fund)
        ),
    ).with_columns(log_close=pl.col("move").cum_sum())
    gap = pl.col("move") * 0.3e-6 + _normal(_draws(traits.key, _GAP)) * pl.col("sigma") * 0.5
    whole = (
        moves.with_columns(
            log_open=pl.col("log_close") - pl.col("move") + _millionths(gap),
            reach_up=_millionths(_uniform(wicks, 0) * pl.col("sigma")),
            reach_down=_millionths(_uniform(wicks, 1) * pl.col("sigma")),
        )
        .with_columns(
            log_high=pl.max_horizontal("log_open", "log_close") + pl.col("reach_up"),
            log_low=pl.min_horizontal("log_open", "log_close") - pl.col("reach_down"),
            turnover=traits.turnover
            * (
                _normal(_draws(traits.key, _VOLUME)) * 0.3 + pl.col("move").abs().sqrt() * 0.004
            ).exp(),
        )
        .select(
            "date",
            "turnover",
            *(
                ((pl.col(f"log_{price}") * 1e-6).exp() * traits.price).alias(price)
                for price in _PRICES
            ),
        )
    )
    splits, dividends = _corporate_actions(traits, whole["close"].to_list())
    return (
        whole.with_columns(
            _at(splits, whole.height, default=1.0).alias("split"),
            _at(dividends, whole.height, default=0.0).alias("dividend amount"),
        )
        .with_columns(pl.col("split").cum_prod().alias("split factor"))
        .with_columns(
            (pl.col(*_PRICES) / pl.col("split factor")).clip(0.01).round(2),
            (pl.col("turnover") * traits.shares * pl.col("split factor"))
            .round()
            .cast(pl.Int64)
            .alias("volume"),
            # The vendor prints whole ratios with one decimal and the others with four.
            pl.col("split")
            .cast(pl.String)
            .str.replace("0.1", "0.1000", literal=True)
            .alias("split coefficient"),
        )
        .with_columns((pl.col("close") * _adjustment()).alias("adjusted close"))
    )


def _adjustment() -> pl.Expr:
    """The vendor's rule: `f[t-1] = f[t] / s[t] * C[t] / (C[t] + D[t])`, and 1 on the last day."""
    close, dividend, split = pl.col("close"), pl.col("dividend amount"), pl.col("split")
    step = close / (split * (close + dividend))
    return step.reverse().cum_prod().reverse().shift(-1, fill_value=1.0)


def _at(events: dict[int, float], height: int, *, default: float) -> pl.Series:
    values = [default] * height
    for place, value in events.items():
        values[place] = value
    return pl.Series(values, dtype=pl.Float64)


def _corporate_actions(
    traits: Traits, closes: list[float]
) -> tuple[dict[int, float], dict[int, float]]:
    """Splits and dividends by place in `closes`, each decided on closes before it.

    `closes` are what one share at the listing has become worth, splits undone.
    """
    splits: dict[int, float] = {}
    dividends: dict[int, float] = {}
    factor = 1.0
    amount = round(max(traits.dividend_yield * traits.price / 4, 0.01), 2)
    first = 5 + traits.key % (_QUARTER - 5)
    for quarter, day in enumerate(range(first, len(closes), _QUARTER)):
        if traits.dividend_yield:
            fair = traits.dividend_yield * closes[day - 1] / factor / 4
            if quarter and quarter % 4 == 0 and fair > 0.7 * amount:
                amount = round(amount * 1.06 + 0.005, 2)
            elif fair < 0.25 * amount:
                amount = round(amount / 2, 4)
            dividends[day] = amount
        if day + _SPLIT_DAY < len(closes):
            price = closes[day + _SPLIT_DAY - 1] / factor
            ratio = 0.1 if price < 3 else float(traits.split_ratio)
            if not 3 <= price <= 120 * ratio:
                splits[day + _SPLIT_DAY] = ratio
                factor *= ratio
                amount = round(amount / ratio, 4)
    return splits, dividends


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=4).encode()


def _refusal(function: str) -> dict[str, str]:
    return {
        "Error Message": "Invalid API call. Please retry or visit the documentation "
        f"(https://www.alphavantage.co/documentation/) for {function}."
    }


def _bars_reply(layout: _Bars, ticker: str, series: pl.DataFrame, *, compact: bool) -> bytes:
    meta = {
        "Information": layout.information,
        "Symbol": ticker,
        "Last Refreshed": str(series["date"][-1]),
    }
    if layout.period is None:
        series = series.tail(_COMPACT_ROWS) if compact else series
        meta["Output Size"] = _output_size(compact=compact)
    else:
        series = _longer_bars(series, layout.period)
    rows = series.select(pl.col("date").cast(pl.String), *layout.fields)
    return _time_series(meta, layout.data_key, layout.fields, rows)


def _intraday_reply(
    ticker: str, traits: Traits, series: pl.DataFrame, month: str, interval: str, *, compact: bool
) -> bytes:
    of_month = series.with_row_index("session").filter(
        pl.col("date").dt.to_string("%Y-%m") == month
    )
    if of_month.is_empty():
        return _json(_refusal(_INTRADAY))
    minutes = int(interval.removesuffix("min"))
    bars = intraday_bars(key_of(traits.key, _MINUTES), of_month, minutes).with_columns(
        pl.col("starts_at").dt.to_string("%Y-%m-%d %H:%M:%S")
    )
    meta = {
        "Information": f"Intraday ({interval}) open, high, low, close prices and volume",
        "Symbol": ticker,
        "Last Refreshed": bars["starts_at"][-1],
        "Interval": interval,
        "Output Size": _output_size(compact=compact),
    }
    rows = bars.tail(_COMPACT_ROWS) if compact else bars
    return _time_series(meta, f"Time Series ({interval})", _INTRADAY_FIELDS, rows)


def _output_size(*, compact: bool) -> str:
    return "Compact" if compact else "Full size"


def _time_series(
    meta: dict[str, str], data_key: str, fields: dict[str, str], rows: pl.DataFrame
) -> bytes:
    """The vendor's document of `rows`: the label of each and its `fields`, oldest first."""
    head = _fields((meta | {"Time Zone": "US/Eastern"}).items(), indent=8)
    bar = f'        "%s": {{\n{_fields(fields.items(), indent=12)}\n        }}'
    bars = ",\n".join([bar % row for row in rows.reverse().rows()])
    return (
        f'{{\n    "Meta Data": {{\n{head}\n    }},\n    "{data_key}": {{\n{bars}\n    }}\n}}'
    ).encode()


def _fields(fields: Iterable[tuple[str, str]], indent: int) -> str:
    return ",\n".join(
        f'{" " * indent}"{place}. {name}": "{text}"'
        for place, (name, text) in enumerate(fields, start=1)
    )


def _longer_bars(series: pl.DataFrame, period: str) -> pl.DataFrame:
    """One row per week or month on raw prices, labelled with its last session so far."""
    return (
        series.group_by(pl.col("date").dt.truncate(period).alias("period"))
        .agg(
            pl.col("date", "close", "adjusted close").last(),
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("volume", "dividend amount").sum(),
        )
        .sort("date")
    )


def _splits(series: pl.DataFrame) -> list[dict[str, str]]:
    events = series.filter(pl.col("split") != 1).select("date", "split").reverse()
    return [
        {"effective_date": str(day), "split_factor": f"{ratio:.4f}"} for day, ratio in events.rows()
    ]


def _dividends(series: pl.DataFrame) -> list[dict[str, str]]:
    events = series.filter(pl.col("dividend amount") > 0).select("date", "dividend amount")
    return [
        {
            "ex_dividend_date": str(day),
            "declaration_date": str(day - timedelta(days=21)),
            "record_date": str(day),
            "payment_date": str(day + timedelta(days=14)),
            "amount": f"{amount:g}",
        }
        for day, amount in events.reverse().rows()
    ]


def _overview(about: Company, traits: Traits, series: pl.DataFrame) -> dict[str, str]:
    """The company on the last session of `series`; per-share values on that day's scale."""
    last = series.row(-1, named=True)
    today, close, growth = last["date"], last["close"], last["split factor"]
    scaled = series.with_columns(
        pl.col("close", "high", "low", "dividend amount") * pl.col("split factor") / growth
    )
    of_the_year = pl.col("date") > today - timedelta(days=365)
    levels = scaled.select(
        high=pl.col("high").filter(of_the_year).max(),
        low=pl.col("low").filter(of_the_year).min(),
        fifty_days=pl.col("close").tail(50).mean(),
        two_hundred_days=pl.col("close").tail(200).mean(),
    ).row(0, named=True)
    paid = scaled.filter(pl.col("dividend amount") > 0).tail(1)
    yearly_dividend = 4 * paid["dividend amount"][0] if paid.height else None

    # Books change once a quarter, and are public a month after it.
    public = today - timedelta(days=30)
    quarter = date(public.year, (public.month - 1) // 3 * 3 + 1, 1) - timedelta(days=1)
    known = scaled.filter(pl.col("date") <= quarter)["close"]
    earns = about.asset_type != "ETF"
    shares = round(traits.shares * growth)
    eps = (known[-1] if known.len() else scaled["close"][0]) / traits.earnings_multiple
    sales, book = eps / traits.margin, eps / traits.return_on_equity
    ebitda = 1.8 * eps * shares

    def text(value: float | None, decimals: int = 2) -> str:
        return "None" if value is None else f"{value:.{decimals}f}"

    def books(value: float, decimals: int = 2, missing: str = "None") -> str:
        return text(value, decimals) if earns else missing

    return {
        "Symbol": about.ticker,
        "AssetType": about.asset_type,
        "Name": about.name,
        "Description": about.description,
        "CIK": str(1_700_000 + traits.key % 200_000),
        "Exchange": traits.exchange,
        "Currency": "USD",
        "Country": "USA",
        "Sector": about.sector,
        "Industry": about.industry,
        "Address": f"{1 + traits.key % 900} EXCHANGE STREET, PORT SAMPLE, ME, UNITED STATES",
        "OfficialSite": f"https://{about.ticker.lower().replace('.', '-')}.example",
        "FiscalYearEnd": "December",
        "LatestQuarter": str(quarter),
        "MarketCapitalization": text(shares * close, 0),
        "EBITDA": books(ebitda, 0),
        "PERatio": books(close / eps),
        "PEGRatio": books(close / eps / 9),
        "BookValue": books(book),
        "DividendPerShare": text(yearly_dividend),
        "DividendYield": text(yearly_dividend and yearly_dividend / close, 4),
        "EPS": books(eps),
        "RevenuePerShareTTM": books(sales),
        "ProfitMargin": books(traits.margin, 3),
        "OperatingMarginTTM": books(traits.margin * 1.3, 3),
        "ReturnOnAssetsTTM": books(traits.return_on_equity * 0.4, 3),
        "ReturnOnEquityTTM": books(traits.return_on_equity, 3),
        "RevenueTTM": books(sales * shares, 0),
        "GrossProfitTTM": books(sales * shares * (traits.margin + 0.3), 0),
        "DilutedEPSTTM": books(eps),
        "QuarterlyEarningsGrowthYOY": books(traits.margin - 0.1, 3),
        "QuarterlyRevenueGrowthYOY": books(traits.return_on_equity / 2 - 0.05, 3),
        "AnalystTargetPrice": books(close * (1 + traits.margin / 2)),
        "TrailingPE": books(close / eps, missing="-"),
        "ForwardPE": books(close / eps * 0.92, missing="-"),
        "PriceToSalesRatioTTM": books(close / sales, missing="-"),
        "PriceToBookRatio": books(close / book, missing="-"),
        "EVToRevenue": books(close / sales * 1.1, missing="-"),
        "EVToEBITDA": books(close * shares / ebitda * 1.1, missing="-"),
        "Beta": text(traits.beta, 3),
        "52WeekHigh": text(levels["high"]),
        "52WeekLow": text(levels["low"]),
        "50DayMovingAverage": text(levels["fifty_days"]),
        "200DayMovingAverage": text(levels["two_hundred_days"]),
        "SharesOutstanding": str(shares),
        "DividendDate": str(paid["date"][0] + timedelta(days=14)) if paid.height else "None",
        "ExDividendDate": str(paid["date"][0]) if paid.height else "None",
    }
