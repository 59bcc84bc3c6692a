"""What the market report shows, shaped for a page: rows of the overview, and a bundle a ticker.

A page carries its data with it, so they are made small: numbers are scaled to whole ones of so
many digits as a chart can show, kept as steps from one to the next, and packed. `unpack` is what
the page does with them.
"""

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import numpy as np
import polars as pl

# A report with more tickers has a page for the overview and pages of so many tickers each.
TICKERS_IN_ONE_FILE: Final = 300
TICKERS_PER_FILE: Final = 100
INDEX: Final = "index.html"
# Daily bars and indicators are shown of so many days before the last session, about two years;
# what came before is shown week by week.
DAILY_DAYS: Final = 730
# Of what a ticker can have many of, the newest so many are shown.
SHOWN: Final = 40

_SPARK_LEVELS = 94
# Past this, a page of 100 tickers gets a thirtieth smaller in four times the time.
_PACKED = 4
_LARGEST = 1e18
_PRICES = (
    *("split_adjusted_open", "split_adjusted_high", "split_adjusted_low", "split_adjusted_close"),
    *("sma_20", "sma_50", "sma_200", "ema_12", "ema_26", "bollinger_upper", "bollinger_lower"),
    *("macd", "macd_signal"),
)
DAILY_COLUMNS: Final = ("session_date", *_PRICES, "split_adjusted_volume", "rsi_14", "drawdown")
_SHORT: Mapping[str, str] = {
    "split_adjusted_open": "o",
    "split_adjusted_high": "h",
    "split_adjusted_low": "l",
    "split_adjusted_close": "c",
    "split_adjusted_volume": "v",
    "sma_20": "s20",
    "sma_50": "s50",
    "sma_200": "s200",
    "ema_12": "e12",
    "ema_26": "e26",
    "bollinger_upper": "bu",
    "bollinger_lower": "bl",
    "macd": "m",
    "macd_signal": "ms",
    "rsi_14": "rsi",
    "drawdown": "dd",
}


@dataclass(frozen=True, slots=True)
class Health:
    """What is amiss with the data of a ticker; `missing` are sessions that a call may bring."""

    rejected: int = 0
    refused: int = 0
    missing: int = 0
    unavailable: int = 0
    differences: int = 0
    restatements: int = 0
    failure: str | None = None
    behind: int = 0

    @property
    def is_good(self) -> bool:
        """Tell whether nothing asks for a look; what a vendor restated or never had does not."""
        counts = (self.rejected, self.refused, self.missing, self.differences, self.behind)
        return not any(counts) and self.failure is None

    def as_list(self) -> list[Any]:
        """Return the fields in their order."""
        return [
            *(self.rejected, self.refused, self.missing, self.unavailable, self.differences),
            *(self.restatements, self.failure, self.behind),
        ]


def files_of(
    tickers: Sequence[str],
    *,
    in_one_file: int = TICKERS_IN_ONE_FILE,
    per_file: int = TICKERS_PER_FILE,
) -> list[tuple[str, Sequence[str]]]:
    """Return the files of a report and the tickers whose pages each has; the overview is last.

    So many tickers as go `in_one_file` are all in the file of the overview.
    """
    if len(tickers) <= in_one_file:
        return [(INDEX, tickers)]
    starts = range(0, len(tickers), per_file)
    parts = [
        (f"tickers-{number:03}.html", tickers[start : start + per_file])
        for number, start in enumerate(starts, start=1)
    ]
    return [*parts, (INDEX, ())]


def pack(value: object) -> str:
    """Return `value` as text for a page: JSON without NaN, compressed, in base64."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), _PACKED)).decode()


def unpack(text: str) -> Any:  # noqa: ANN401 # whatever was packed
    """Return what was packed."""
    return json.loads(zlib.decompress(base64.b64decode(text)))


def encode(values: pl.Series, digits: int) -> dict[str, Any]:
    """Return numbers as steps between whole ones: `{"k": digits, "d": [first, step, ..]}`.

    Each is kept to `digits` after the point, to tens, hundreds .. where `digits` is negative; none
    and what is no finite number, or has more than eighteen digits then, stays null.
    """
    # Of Polars, each operation on a series costs as much as all of this.
    numbers = values.to_numpy().astype(np.float64)
    with np.errstate(over="ignore"):
        scaled = np.rint(numbers * 10.0**digits if digits >= 0 else numbers / 10.0**-digits)
    [places] = np.nonzero(np.abs(scaled) < _LARGEST)
    steps = np.diff(scaled[places].astype(np.int64), prepend=0).tolist()
    if len(steps) < len(scaled):
        found: list[int | None] = [None] * len(scaled)
        for place, step in zip(places.tolist(), steps, strict=True):
            found[place] = step
        steps = found
    return {"k": digits, "d": steps}


def decode(encoded: Mapping[str, Any]) -> list[float | None]:
    """Return the numbers of `encode`, as precise as they were kept."""
    values: list[float | None] = []
    last = 0
    for step in encoded["d"]:
        if step is None:
            values.append(None)
            continue
        last += step
        values.append(last / 10 ** encoded["k"])
    return values


def price_digits(lowest: float | None, highest: float | None) -> int:
    """Return the digits after the point that prices from `lowest` to `highest` are kept to.

    The highest keep five significant digits, which makes a chart smooth, and the lowest four: as
    many as a page shows of prices below 1. `lowest` is the lowest above 0. None keeps more than
    fifteen, of which a browser's numbers are no whole ones.
    """
    places = [
        math.floor(math.log10(price))
        for price in (lowest, highest)
        if price and 0 < price < math.inf
    ]
    if not places:
        return 2
    return max(2, min(10, max(4 - max(places), 3 - min(places)), 14 - max(places)))


def volume_digits(highest: float | None) -> int:
    """Return the digits that volumes up to `highest` are kept to: four, and to thousands at least.

    Numbers of more than fifteen digits are no whole ones in a browser.
    """
    places = len(str(round(highest or 0)))
    return -max(0, min(3, places - 4), places - 15)


def sparkline(values: Sequence[float] | None) -> str:
    """Return `values` as text: a printable character each, the lowest `!` and the highest `~`.

    `<`, `&` and the like stand for values too: it is escaped like all text.
    """
    if not values:
        return ""
    low, span = min(values), (max(values) - min(values)) or 1.0
    return "".join(chr(33 + round((_SPARK_LEVELS - 1) * (v - low) / span)) for v in values)


def market_row(row: Mapping[str, Any], health: Health) -> list[Any]:
    """Return a line of `mart_latest_prices`, joined with `mart_ticker_summary`, for the page."""
    return [
        row["ticker"],
        row["company_name"],
        row["sector"],
        row["currency"],
        row["session_date"].isoformat(),
        _significant(row["close"], 7),
        *(_significant(row[name], 6) for name in RETURNS),
        *(_significant(row[name], 7) for name in ("high_52w", "low_52w", "sma_50", "sma_200")),
        *(
            _significant(row[name], 5)
            for name in (
                *("rsi_14", "volume_ratio_20", "volatility_252d", "beta_252d"),
                *("sharpe_ratio_252d", "drawdown", "maximum_drawdown"),
            )
        ),
        row["volume"],
        _plain(row["first_session"]),
        sparkline(row["recent_adjusted_closes"]),
        health.as_list(),
    ]


RETURNS: Final = (
    # Of prices alone: the next one has the day's dividend.
    "change_fraction",
    *(f"simple_return_{span}" for span in ("1d", "1w", "1m", "3m", "6m", "1y")),
)


def bundle(daily: pl.DataFrame, weekly: pl.DataFrame, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that the page of a ticker shows.

    `daily` has DAILY_COLUMNS, `weekly` session_date and adjusted_close; both are of one ticker and
    in the order of their dates. Prices are split-adjusted; those of the weeks are adjusted for
    dividends too. `more` is added as it is, with dates and times as text.
    """
    return {
        "d": _daily(daily),
        "w": {
            "t": _days(weekly["session_date"]),
            "c": encode(weekly["adjusted_close"], price_digits(*_ends(weekly["adjusted_close"]))),
        },
        **{name: _plain(value) for name, value in more.items()},
    }


def _daily(daily: pl.DataFrame) -> dict[str, Any]:
    [lowest, _], [_, highest] = (_ends(daily[f"split_adjusted_{name}"]) for name in ("low", "high"))
    digits = price_digits(lowest, highest)
    _, traded = _ends(daily["split_adjusted_volume"])
    return {
        "t": _days(daily["session_date"]),
        **{_SHORT[name]: encode(daily[name], digits) for name in _PRICES},
        "v": encode(daily["split_adjusted_volume"], volume_digits(traded)),
        "rsi": encode(daily["rsi_14"], 1),
        "dd": encode(daily["drawdown"], 4),
    }


def _days(dates: pl.Series) -> dict[str, Any]:
    return encode(dates.to_physical(), 0)


def _ends(values: pl.Series) -> tuple[float | None, float | None]:
    """Return the lowest and the highest of the finite `values` above 0."""
    numbers = values.to_numpy().astype(np.float64)
    known = numbers[(numbers > 0) & np.isfinite(numbers)]
    return (float(known.min()), float(known.max())) if known.size else (None, None)


def _significant(value: float | None, digits: int) -> float | None:
    """Return `value` to so many significant digits; no number is none."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def _plain(value: Any) -> Any:  # noqa: ANN401 # whatever a row has
    """Return `value` as JSON has it: dates and times as text, what is no number as none."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
