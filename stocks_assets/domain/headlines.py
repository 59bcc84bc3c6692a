"""Headline tables: a few rows of a mart as Markdown, for where Dagster's UI shows it at once."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from stocks_assets.domain.charts import SHOWN_AT_ONCE

# Fractions that people read as percentages, those that have a direction with their sign.
_CHANGE: Final = re.compile(r"return|drawdown|change_fraction")
_SHARE: Final = re.compile(r"volatility|^share_")
_MARKS: Final = re.compile(r"([\\`*_{}\[\]<>()#+!|~&-])")
# What a title can do without.
_LONG: Final = re.compile(r"simple_|_fraction$|_name$|split_adjusted_")
_SHOWN: Final = 40


@dataclass(frozen=True, slots=True)
class Headline:
    """What is shown of a mart: which columns of the first rows in which order.

    `of_last_session` takes just the rows of the market's last session.
    """

    title: str
    columns: tuple[str, ...]
    order_by: str
    rows: int = 5
    of_last_session: bool = False


MARKET: Mapping[str, Headline] = {
    "mart_latest_prices": Headline(
        "Largest returns of the last session",
        (
            *("ticker", "company_name", "close", "simple_return_1d", "simple_return_1m"),
            *("simple_return_1y", "rsi_14"),
        ),
        "abs(simple_return_1d) desc nulls last, ticker",
        rows=10,
        of_last_session=True,
    ),
    "mart_ticker_summary": Headline(
        "Highest yearly returns",
        (
            *("ticker", "company_name", "first_session", "simple_return_yearly"),
            *("volatility_252d", "maximum_drawdown"),
        ),
        "simple_return_yearly desc nulls last, ticker",
        rows=10,
    ),
    "mart_market_breadth": Headline(
        "Last sessions",
        (
            *("session_date", "tickers", "advancers", "decliners", "new_highs", "new_lows"),
            *("share_above_sma_50", "share_above_sma_200"),
        ),
        "session_date desc",
    ),
    "mart_daily_market_summary": Headline(
        "Last sessions",
        (
            *("session_date", "tickers", "median_simple_return_1d"),
            *(
                "best_ticker",
                "best_simple_return_1d",
                "worst_ticker",
                "worst_simple_return_1d",
                "benchmark_simple_return_1d",
            ),
        ),
        "session_date desc",
    ),
    "mart_sector_performance": Headline(
        "Sectors in the last session",
        (
            *("sector", "tickers", "mean_simple_return_1d", "mean_simple_return_21d"),
            "mean_simple_return_252d",
        ),
        "mean_simple_return_1d desc nulls last, sector",
        rows=12,
        of_last_session=True,
    ),
    "recon_adjusted_close": Headline(
        "Newest differences from the vendor",
        ("ticker", "session_date", "finding", "simple_return", "vendor_simple_return"),
        "session_date desc, ticker",
        rows=10,
    ),
}
"""Marts across tickers."""

PER_TICKER: Mapping[str, Headline] = {
    "mart_adjusted_prices": Headline(
        "Last sessions",
        ("session_date", "split_adjusted_close", "adjusted_close", "split_adjusted_volume"),
        "session_date desc",
    ),
    "mart_technical_indicators": Headline(
        "Last sessions",
        ("session_date", "close", "sma_50", "sma_200", "macd", "rsi_14", "atr_14"),
        "session_date desc",
    ),
    "mart_returns_risk": Headline(
        "Last sessions",
        (
            *("session_date", "simple_return_1d", "simple_return_21d", "simple_return_252d"),
            *("volatility_252d", "drawdown", "beta_252d"),
        ),
        "session_date desc",
    ),
    "agg_weekly_prices": Headline(
        "Last weeks",
        ("week_start", "adjusted_close", "simple_return_1w", "sma_13w", "sma_52w", "volume"),
        "week_start desc",
    ),
    "agg_monthly_prices": Headline(
        "Last months", ("month_start", "adjusted_close", "volume"), "month_start desc"
    ),
}
"""Marts with rows of single tickers: each ticker has a table of its own."""


def as_markdown(headline: Headline, rows: Sequence[Sequence[object]]) -> str:
    """Return `rows`, of the headline's columns, as a table with its title.

    Values are text: nothing in them is read as Markdown or HTML. Of the rows, the first are taken
    that the UI shows without being asked.
    """
    if not rows:
        return f"**{headline.title}**: none"
    titles = [_LONG.sub("", column).replace("_", " ") for column in headline.columns]
    are_numbers = [
        all(isinstance(row[place], int | float | None) for row in rows)
        for place in range(len(titles))
    ]
    lines = [
        f"**{headline.title}**\n",
        "|".join(titles),
        "|".join("-:" if is_number else ":-" for is_number in are_numbers),
    ]
    left = SHOWN_AT_ONCE - sum(len(line) + 1 for line in lines)
    for row in rows:
        line = "|".join(map(cell, headline.columns, row))
        # A line that begins with nothing would be no row.
        line = f"|{line}|" if line.startswith("|") or line.endswith("|") else line
        left -= len(line) + 1
        if left <= 0:
            break
        lines.append(line)
    return "\n".join(lines)


def cell(column: str, value: object) -> str:
    """Return a value of `column` for people: fractions in percent, numbers with few digits."""
    match value:
        case None:
            return ""
        case int():
            return f"{value:,}"
        case float():
            return _number(column, value)
        case date():
            return value.isoformat()
    text = " ".join(str(value).split())
    return _MARKS.sub(r"\\\1", text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _number(column: str, value: float) -> str:
    if not math.isfinite(value):
        return ""
    if _CHANGE.search(column):
        return f"{value:+.2%}"
    if _SHARE.search(column):
        return f"{value:.1%}"
    if abs(value) >= 1e5:
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) >= 1 or not value else f"{value:,.4g}"
