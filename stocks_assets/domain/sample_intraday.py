"""The minutes of the sample market's sessions, drawn so that they come to the daily bars.

A session's minutes are drawn once, whatever the length of the bars asked for, so bars of every
length tell of the same trades. Prices are whole cents and every step is integer arithmetic: what
the bars come to agrees with the daily bar to the last digit.
"""

import polars as pl

from stocks_assets.domain import calendar
from stocks_assets.domain.sample_companies import GOLDEN, mix, sixteen_bits

_PRICES = ("open", "high", "low", "close")


def intraday_bars(key: int, daily: pl.DataFrame, minutes: int) -> pl.DataFrame:
    """Bars of `minutes` minutes over the sessions of `daily`, oldest first.

    The last bar of a session is shorter where its length is no multiple of `minutes`. A session's
    bars follow from `key` and its own row alone.

    Args:
        key: stands for the market and the company.
        daily: one row per session, and one at least: `session` (a number that stays its own),
            date, open, high, low and close in dollars and whole cents, volume.
        minutes: the length of a bar.

    Returns:
        starts_at Datetime("us") (New York time, naive), open, high, low, close Float64, volume
        Int64.
    """
    bar = pl.col("minute") // minutes
    return (
        _minutes(key, daily)
        .group_by("session", bar, maintain_order=True)
        .agg(
            pl.col("starts_at", "open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
        )
        # Polars divides by multiplying, which can miss the last bit; rounding finds it again.
        .select("starts_at", (pl.col(_PRICES) / 100).round(2), "volume")
    )


def _minutes(key: int, daily: pl.DataFrame) -> pl.DataFrame:
    """One row per minute: session, minute (from 0), starts_at, prices in cents, volume."""
    of_session = mix(pl.col("session").cast(pl.UInt64) * GOLDEN + key)
    drawn = (
        daily.select(
            "session",
            "date",
            *(
                (pl.col(price) * 100).round().cast(pl.Int64).alias(f"day_{price}")
                for price in _PRICES
            ),
            day_volume="volume",
            draws=of_session,
        )
        .join(_hours(daily), on="date", maintain_order="left")
        .with_columns(minute=pl.int_ranges("length"))
        .explode("minute")
        .with_columns(draws=mix(pl.col("draws") + pl.col("minute").cast(pl.UInt64) * GOLDEN))
    )
    return (
        drawn.with_columns(close=_path(), volume=_volume())
        .with_columns(open=pl.col("close").shift(1).over("session").fill_null(pl.col("day_open")))
        .with_columns(
            high=pl.max_horizontal("open", "close") + _wick(1),
            low=pl.min_horizontal("open", "close") - _wick(2),
        )
        .with_columns(high=_highs(), low=_lows())
        .select(
            "session",
            "minute",
            *_PRICES,
            "volume",
            starts_at=pl.col("opens_at") + pl.duration(minutes="minute"),
        )
    )


def _hours(daily: pl.DataFrame) -> pl.DataFrame:
    """Of the exchange: date, opens_at (New York time, naive), length in minutes."""
    days = calendar.exchange_calendar_frame(daily["date"][0], daily["date"][-1])
    opens_at = pl.col("opens_at").dt.convert_time_zone("America/New_York")
    return days.filter("is_session").select(
        pl.col("calendar_date").alias("date"),
        opens_at.dt.replace_time_zone(None),
        (pl.col("closes_at") - pl.col("opens_at")).dt.total_minutes().alias("length"),
    )


def _path() -> pl.Expr:
    """Closes of the minutes: a random walk from the open to the close that turns at the limits."""
    low, width = pl.col("day_low"), pl.col("day_high") - pl.col("day_low")
    step = sixteen_bits(pl.col("draws"), 0) - 2**15
    passed, length = pl.col("minute") + 1, pl.col("length")
    bridge = (step.cum_sum() * length - step.sum() * passed).over("session")
    trend = pl.col("day_open") + (pl.col("day_close") - pl.col("day_open")) * passed // length
    # By this divisor the bridge of a whole session spans about as much as the session did.
    free = trend + width * bridge // (length * 2**19)
    folded = (free - low) % (2 * width).clip(1)
    return low + pl.min_horizontal(folded, 2 * width - folded)


def _wick(place: int) -> pl.Expr:
    """How far a minute reaches beyond its open and close: up to a 32nd of the session's range."""
    width = pl.col("day_high") - pl.col("day_low")
    return width * sixteen_bits(pl.col("draws"), place) // 2**21


def _highs() -> pl.Expr:
    highest = pl.col("high") == pl.col("high").max().over("session")
    return pl.when(highest).then("day_high").otherwise(pl.min_horizontal("high", "day_high"))


def _lows() -> pl.Expr:
    lowest = pl.col("low") == pl.col("low").min().over("session")
    return pl.when(lowest).then("day_low").otherwise(pl.max_horizontal("low", "day_low"))


def _volume() -> pl.Expr:
    """The session's volume, handed out so that nothing is left: most at the open and the close."""
    to_the_nearer_end = pl.min_horizontal("minute", pl.col("length") - 1 - pl.col("minute"))
    weight = (10 + 300 // (10 + to_the_nearer_end)) * (64 + sixteen_bits(pl.col("draws"), 3) // 256)
    traded = pl.col("day_volume") * weight.cum_sum() // weight.sum()
    return traded.diff().fill_null(traded).over("session")
