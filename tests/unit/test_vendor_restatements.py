"""Events between two vintages of a vendor who adjusts as the real one does, to four decimals."""

from datetime import UTC, date, datetime, timedelta
from math import prod

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from stocks_assets.domain.restatements import compare

START = date(2024, 1, 1)  # a Monday
RATIOS = [2.0, 1.5, 3.0, 10.0, 1.046, 1.281, 0.125, 0.1, 0.05]
BEFORE, AFTER = datetime(2024, 6, 5, tzinfo=UTC), datetime(2024, 7, 5, tzinfo=UTC)


@st.composite
def histories(draw):
    """Closes as traded, and dividends (share of the close before) and splits by day."""
    count = draw(st.integers(12, 60))
    closes = [draw(st.floats(0.5, 900.0))]
    dividends, splits = {}, {}
    days = st.integers(1, count - 1)
    paid = draw(st.dictionaries(days, st.floats(0.002, 0.04), max_size=3))
    ratios = draw(st.dictionaries(days, st.sampled_from(RATIOS), max_size=2))
    for day in range(1, count):
        closes.append(max(0.2, closes[-1] * draw(st.floats(0.97, 1.03)) / ratios.get(day, 1.0)))
        closes[-1] = round(closes[-1], 4)
    for day, share in paid.items():
        if day not in ratios:
            dividends[day] = round(closes[day - 1] * share, 4) or 0.0001
    splits.update(ratios)
    return closes, dividends, splits


def vintage(history, last, at, days_a_period):
    """The payload once `last` sessions are over: a bar a day, or a bar a week without splits."""
    closes, dividends, splits = history
    rows = []
    for first in range(0, last, days_a_period):
        period = range(first, min(first + days_a_period, last))
        day = period[-1]
        factor = prod(
            (1 - dividends.get(later, 0) / closes[later - 1]) / splits.get(later, 1.0)
            for later in range(day + 1, last)
            if later in dividends or later in splits
        )
        row = {
            "ticker": "A",
            "period": START + timedelta(days=7 * (first // 5) + first % 5),
            "close": closes[day],
            "adjusted_close": round(closes[day] * factor, 4),
            "volume": 100,
            "dividend_amount": round(sum(dividends.get(d, 0.0) for d in period), 4),
        }
        if days_a_period == 1:
            row["split_coefficient"] = splits.get(day, 1.0)
        else:
            row["is_complete"] = len(period) == days_a_period
        rows.append(row | {"bronze_key": str(at), "known_at": at, "row_version": 0})
    return pl.DataFrame(rows, schema_overrides={"known_at": pl.Datetime("us", "UTC")})


@settings(max_examples=300, deadline=None)
@given(histories(), st.data(), st.sampled_from([1, 5]))
def test_the_event_has_the_class_of_what_happened_between_the_vintages(
    history, data, days_a_period
):
    closes, dividends, splits = history
    first = data.draw(st.integers(6, len(closes) - 1))
    last = data.draw(st.integers(first, len(closes)))
    stored = vintage(history, first, BEFORE, days_a_period)
    new = vintage(history, last, AFTER, days_a_period)
    values = [name for name in stored.columns if name not in ("bronze_key", "known_at")]
    delta = new.join(stored, on=values, how="anti", nulls_equal=True)
    key = ["ticker", "period"]
    known = stored.join(delta, on=key, how="semi")
    removed = stored.clear().with_columns(removed_at=pl.lit(AFTER), removed_by=pl.lit(""))
    changes = compare(delta, known, removed, key, stored.select(key))
    # The week that ran is history; no finished bar is ever said to be corrected.
    assert set(changes.superseded["class"]) <= {"running period"}
    both = new.join(stored, on=key, suffix="_before").filter(
        pl.col("close") == pl.col("close_before")
    )
    if days_a_period > 1:
        # One that ran on says something else altogether, even where it came back to its close.
        ran_on = ~pl.col("is_complete_before") & (
            pl.col("is_complete") | (pl.col("dividend_amount") != pl.col("dividend_amount_before"))
        )
        both = both.filter(~ran_on)
    restated = both.filter(pl.col("adjusted_close") != pl.col("adjusted_close_before"))
    assert changes.restated.height == (0 if restated.is_empty() else 1)
    if restated.is_empty():
        return
    (event,) = changes.restated.to_dicts()
    assert event["keys"] == restated.sort("period")["period"].to_list()
    assert event["old_values"] == restated.sort("period")["adjusted_close_before"].to_list()
    assert event["new_values"] == restated.sort("period")["adjusted_close"].to_list()
    kinds = [
        kind
        for kind, days in (("dividend", dividends), ("split", splits))
        if any(first <= day < last for day in days)
    ]
    assert event["class"] == " and ".join(kinds)
