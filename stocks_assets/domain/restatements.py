"""What a newer payload changes of what is stored: which rows, from what to what, and why.

Most changes are one of two kinds. After a dividend or split the vendor restates a ticker's whole
history of adjusted closes: that is one restatement. All else changes rows: what they said before is
kept as it was, row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import polars as pl

ADJUSTED = "adjusted_close"
PROVENANCE = ("bronze_key", "known_at", "row_version", "load_id", "loaded_at")

RUNNING_PERIOD = "running period"
REMOVED = "removed"
ROUNDING = "rounding"
CORRECTION = "vendor correction"
DIVIDEND, SPLIT = "dividend", "split"

# A restatement that the dividends known leave so much of unexplained has a split in it.
_SPLIT_SHARE = 0.02
# Vendors print prices with so many decimals.
_DECIMALS = range(2, 7)


@dataclass(frozen=True, slots=True)
class Changes:
    """What newer payloads change.

    `rows` has the rows to write, those that are new or say something else, in the columns of what
    was given. `superseded` has a row per row that said something else or is gone: the key columns,
    `old` and `new` (structs of the business columns; `new` is null where the row is gone),
    `class`, `known_at`, `superseded_at`, `old_bronze_key`, `new_bronze_key`. `restated` has a row
    per ticker whose adjusted closes changed by themselves: `ticker`, `class`, `restated_at`,
    `old_bronze_keys`, `new_bronze_key`, and the lists `keys`, `old_values` and `new_values`.
    """

    rows: pl.DataFrame
    superseded: pl.DataFrame
    restated: pl.DataFrame

    @classmethod
    def none(cls) -> Self:
        """Return no changes at all."""
        nothing = pl.DataFrame(schema={"ticker": pl.String(), "class": pl.String()})
        return cls(nothing, nothing, nothing)

    def by_ticker(self) -> dict[str, dict[str, int]]:
        """Return, per ticker, how many rows were written, and were superseded in each class."""
        counts: dict[str, dict[str, int]] = {}
        for ticker, count in self.rows.group_by("ticker").len().iter_rows():
            counts.setdefault(ticker, {})["written"] = count
        for ticker, kind, count in self.superseded.group_by("ticker", "class").len().iter_rows():
            counts.setdefault(ticker, {})[kind] = count
        for ticker, kind in self.restated.select("ticker", "class").iter_rows():
            counts.setdefault(ticker, {})[f"{kind} restatement"] = 1
        return counts


def compare(
    given: pl.DataFrame,
    stored: pl.DataFrame,
    removed: pl.DataFrame,
    key: Sequence[str],
) -> Changes:
    """Compare rows of newer payloads with what is stored of them.

    Args:
        given: rows that are not stored, or stored with another `row_version`: the table's business
            columns, `bronze_key`, `known_at` (when the object came) and `row_version`.
        stored: what is stored under the keys of `given`, same columns; `known_at` is since when.
        removed: stored rows that whole histories have no more, with `removed_at` and `removed_by`,
            the time and key of the object that lacks them.
        key: the primary key, the ticker first.
    """
    values = [name for name in given.columns if name not in (*key, *PROVENANCE)]
    business = [*key, *values]
    both = given.join(stored, on=list(key), how="inner", suffix="_stored", maintain_order="left")
    differs = {
        name: pl.col(name).ne_missing(pl.col(f"{name}_stored"))
        for name in values
        if name != ADJUSTED
    }
    both = both.with_columns(
        pl.any_horizontal(differs.values()).alias("_row_differs"),
        (
            pl.col(ADJUSTED).ne_missing(pl.col(f"{ADJUSTED}_stored"))
            if ADJUSTED in values
            else pl.lit(value=False)
        ).alias("_adjusted_differs"),
    )
    unchanged_since = both.filter(~pl.col("_row_differs")).select(
        *key, pl.col("known_at_stored").alias("_known_at")
    )
    # A row whose adjusted close alone was restated says what it said.
    rows = given.join(unchanged_since, on=list(key), how="left", maintain_order="left")
    rows = rows.with_columns(known_at=pl.coalesce("_known_at", "known_at")).drop("_known_at")
    superseded = pl.concat(
        [
            _superseded(both.filter("_row_differs"), key, values, business),
            _gone(removed, key, business),
        ]
    )
    return Changes(rows, superseded, _restated(both, stored, given, key))


def _superseded(
    both: pl.DataFrame, key: Sequence[str], values: Sequence[str], business: Sequence[str]
) -> pl.DataFrame:
    prices = [name for name in values if both.schema[name] == pl.Float64 and name != ADJUSTED]
    others = [name for name in values if name not in prices and name != ADJUSTED]
    is_rounding = pl.all_horizontal(
        *(_is_rounding(name) for name in prices),
        *(pl.col(name).eq_missing(pl.col(f"{name}_stored")) for name in others),
    )
    was_running = ~pl.col("is_complete_stored") if "is_complete" in values else pl.lit(value=False)
    return both.select(
        *key,
        pl.struct(*key, *(pl.col(f"{name}_stored").alias(name) for name in values)).alias("old"),
        pl.struct(business).alias("new"),
        pl.when(was_running)
        .then(pl.lit(RUNNING_PERIOD))
        .when(is_rounding)
        .then(pl.lit(ROUNDING))
        .otherwise(pl.lit(CORRECTION))
        .alias("class"),
        pl.col("known_at_stored").alias("known_at"),
        pl.col("known_at").alias("superseded_at"),
        pl.col("bronze_key_stored").alias("old_bronze_key"),
        pl.col("bronze_key").alias("new_bronze_key"),
    )


def _gone(removed: pl.DataFrame, key: Sequence[str], business: Sequence[str]) -> pl.DataFrame:
    row = pl.struct(business)
    return removed.select(
        *key,
        row.alias("old"),
        pl.when(pl.lit(value=False)).then(row).alias("new"),
        pl.lit(REMOVED).alias("class"),
        "known_at",
        pl.col("removed_at").alias("superseded_at"),
        pl.col("bronze_key").alias("old_bronze_key"),
        pl.col("removed_by").alias("new_bronze_key"),
    )


def _is_rounding(name: str) -> pl.Expr:
    """Tell whether one value is the other, printed with fewer decimals."""
    old, new = pl.col(f"{name}_stored"), pl.col(name)
    return pl.any_horizontal(
        old.eq_missing(new),
        *(
            ((old.round(digits) == old) | (new.round(digits) == new))
            # However a half is rounded, and however little a double misses it.
            & ((old - new).abs() <= 0.5 * 10.0**-digits * (1 + 1e-6))
            for digits in _DECIMALS
        ),
    ).fill_null(value=False)


_RESTATED = {
    "ticker": pl.String(),
    "class": pl.String(),
    "restated_at": pl.Datetime("us", "UTC"),
    "old_bronze_keys": pl.List(pl.String()),
    "new_bronze_key": pl.String(),
    "keys": pl.List(pl.Date()),
    "old_values": pl.List(pl.Float64()),
    "new_values": pl.List(pl.Float64()),
}


def _restated(
    both: pl.DataFrame, stored: pl.DataFrame, given: pl.DataFrame, key: Sequence[str]
) -> pl.DataFrame:
    """Return the restatements of adjusted closes, one per ticker and object."""
    if ADJUSTED not in given.columns:
        return pl.DataFrame(schema=_RESTATED)
    # Where the close itself is another, its adjusted close says nothing of its own.
    lines = both.filter(
        pl.col("_adjusted_differs") & pl.col("close").eq_missing(pl.col("close_stored"))
    )
    if lines.is_empty():
        return pl.DataFrame(schema=_RESTATED)
    period = key[1]
    factor = pl.col(ADJUSTED) / pl.col(f"{ADJUSTED}_stored")
    events = (
        lines.sort("ticker", period)
        .group_by("ticker", "bronze_key", maintain_order=True)
        .agg(
            pl.col("known_at").first().alias("restated_at"),
            pl.col("bronze_key_stored").unique(maintain_order=True).alias("old_bronze_keys"),
            pl.col(period).alias("keys"),
            pl.col(f"{ADJUSTED}_stored").alias("old_values"),
            pl.col(ADJUSTED).alias("new_values"),
            _is_rounding(ADJUSTED).all().alias("is_rounding"),
            factor.first().alias("factor"),
        )
    )
    news = _news(both, stored, given, key)
    return (
        events.join(news, on="ticker", how="left", maintain_order="left")
        .with_columns(
            pl.col("dividend_factor").fill_null(1.0),
            pl.col("split_factor").fill_null(1.0),
        )
        .with_columns(
            has_dividend=pl.col("dividend_factor") != 1,
            has_split=(pl.col("split_factor") != 1)
            | ((pl.col("factor") / pl.col("dividend_factor") - 1).abs() > _SPLIT_SHARE).fill_null(
                value=False
            ),
        )
        .with_columns(
            pl.when("is_rounding")
            .then(pl.lit(ROUNDING))
            .when(pl.col("has_dividend") & pl.col("has_split"))
            .then(pl.lit(f"{DIVIDEND} and {SPLIT}"))
            .when("has_dividend")
            .then(pl.lit(DIVIDEND))
            .when("has_split")
            .then(pl.lit(SPLIT))
            .otherwise(pl.lit(CORRECTION))
            .alias("class"),
            pl.col("bronze_key").alias("new_bronze_key"),
        )
        .select(list(_RESTATED))
    )


def _news(
    both: pl.DataFrame, stored: pl.DataFrame, given: pl.DataFrame, key: Sequence[str]
) -> pl.DataFrame:
    """Return, per ticker, how much new dividends and splits restate its history."""
    has_split = "split_coefficient" in given.columns
    events = [name for name in ("dividend_amount", "split_coefficient") if name in given.columns]
    new_rows = given.join(stored.select(key), on=list(key), how="anti")
    changed = both.filter(
        pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_stored")) for name in events)
    )
    news = pl.concat([frame.select("ticker", "close", *events) for frame in (new_rows, changed)])
    close, dividend = pl.col("close"), pl.col("dividend_amount").fill_null(0.0)
    return news.group_by("ticker").agg(
        (close / (close + dividend)).product().alias("dividend_factor"),
        (
            (1 / pl.col("split_coefficient").fill_null(1.0)).product() if has_split else pl.lit(1.0)
        ).alias("split_factor"),
    )
