"""What a newer payload changes of what is stored: which rows, from what to what, and why.

Most changes are one of two kinds. After a dividend or split the vendor restates a ticker's whole
history of adjusted closes: that is one restatement. All else changes rows: what they said before is
kept as it was, row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.datasets import DROPPED

ADJUSTED = "adjusted_close"
PROVENANCE = ("bronze_key", "known_at", "row_version", "load_id", "loaded_at")

RUNNING_PERIOD = "running period"
OTHER_COLUMNS = "other columns"
REMOVED = "removed"
ROUNDING = "rounding"
CORRECTION = "vendor correction"
FILE = "file"
DIVIDEND, SPLIT = "dividend", "split"

# What an endpoint of raw prices does not give; without it nothing is said about it.
_NOT_ALWAYS_GIVEN = (ADJUSTED, "dividend_amount", "split_coefficient")
# A restatement that the dividends known leave so much of unexplained has a split in it.
_SPLIT_SHARE = 0.02
# A period's close is not that of the ex-date: of a large dividend so much is left unexplained.
_DIVIDEND_SLACK = 0.25
# A new split restates all that was stored, but for what rounding hides.
_LEFT_ALONE = 0.1
# Prices are printed with so many decimals; with more than before from the vendor's usual four on.
_DECIMALS, _USUAL_DECIMALS = range(2, 7), 4


@dataclass(frozen=True, slots=True)
class Changes:
    """What newer payloads change.

    `rows` has the rows to write, those that are new or say something else, in the columns of what
    was given. `superseded` has a row per row that said something else or is gone: the key columns,
    `old` and `new` (structs of the business columns; `new` is null where the row is gone),
    `class`, `known_at`, `superseded_at`, `old_bronze_key`, `new_bronze_key`. `restated` has a row
    per ticker whose adjusted closes changed by themselves: `ticker`, `class`, `restated_at`,
    `old_bronze_keys`, `new_bronze_key` (of its last row), and the lists `keys`, `old_values`,
    `new_values` and `old_key_places`, which of `old_bronze_keys`, from 1, said the old value.
    """

    rows: pl.DataFrame
    superseded: pl.DataFrame
    restated: pl.DataFrame

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
    keys: pl.DataFrame,
) -> Changes:
    """Compare rows of newer payloads with what is stored of them.

    Args:
        given: rows that are not stored, or stored with another `row_version`: the table's business
            columns, `bronze_key`, `known_at` (when the newest object came of those that the
            ticker's rows are from) and `row_version`.
        stored: what is stored under the keys of `given`, same columns; `known_at` is since when.
        removed: stored rows that whole histories have no more, with `removed_at` and `removed_by`,
            the time and key of the object that lacks them.
        key: the primary key, the ticker first.
        keys: the keys of all that is stored in the span of what came, so that a restatement of a
            whole history can be told from one of a few rows.
    """
    values = [name for name in given.columns if name not in (*key, *PROVENANCE)]
    business = [*key, *values]
    both = given.join(stored, on=list(key), how="inner", suffix="_stored", maintain_order="left")
    differs = pl.any_horizontal(_differs(name) for name in values if name != ADJUSTED)
    adjusted_differs = pl.lit(value=False)
    if ADJUSTED in values:
        # An adjusted close that comes or goes is no restatement of one.
        comes_or_goes = pl.col(ADJUSTED).is_null() != pl.col(f"{ADJUSTED}_stored").is_null()
        differs |= comes_or_goes
        adjusted_differs = _differs(ADJUSTED) & ~comes_or_goes
    both = both.with_columns(
        differs.alias("_row_differs"), adjusted_differs.alias("_adjusted_differs")
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
    return Changes(rows, superseded, _restated(both, stored, given, key, keys))


def _differs(name: str) -> pl.Expr:
    return pl.col(name).ne_missing(pl.col(f"{name}_stored"))


def _superseded(
    both: pl.DataFrame, key: Sequence[str], values: Sequence[str], business: Sequence[str]
) -> pl.DataFrame:
    said = [name for name in values if name != ADJUSTED]
    prices = [name for name in said if both.schema[name] == pl.Float64]
    has_adjusted = ADJUSTED in values

    def says_otherwise(name: str) -> pl.Expr:
        if has_adjusted and name in _NOT_ALWAYS_GIVEN:
            return (pl.col(name) != pl.col(f"{name}_stored")).fill_null(value=False)
        return _differs(name)

    is_rounding = pl.all_horizontal(
        *(~says_otherwise(name) | _is_rounding(name) for name in prices),
        *(~says_otherwise(name) for name in said if name not in prices),
    )
    was_running = ~pl.col("is_complete_stored") if "is_complete" in values else pl.lit(value=False)
    return both.select(
        *key,
        pl.struct(*key, *(pl.col(f"{name}_stored").alias(name) for name in values)).alias("old"),
        pl.struct(business).alias("new"),
        pl.when(was_running)
        .then(pl.lit(RUNNING_PERIOD))
        .when(~pl.any_horizontal(says_otherwise(name) for name in said))
        .then(pl.lit(OTHER_COLUMNS))
        .when(_is_from_file("bronze_key") | _is_from_file("bronze_key_stored"))
        .then(pl.lit(FILE))
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


def _is_from_file(bronze_key: str) -> pl.Expr:
    prefixes = [BronzeKey.prefix(dataset) for dataset in DROPPED]
    return pl.any_horizontal(pl.col(bronze_key).str.starts_with(prefix) for prefix in prefixes)


def _is_rounding(name: str) -> pl.Expr:
    """Tell whether one value is the other, printed with fewer decimals."""
    old, new = pl.col(f"{name}_stored"), pl.col(name)
    return pl.any_horizontal(
        (
            (new.round(digits) == new)
            # What gains a third decimal is rather another price than one that was rounded before.
            | ((old.round(digits) == old) if digits >= _USUAL_DECIMALS else pl.lit(value=False))
        )
        # However a half is rounded, and however little a double misses it.
        & ((old - new).abs() <= 0.5 * 10.0**-digits * (1 + 1e-6))
        for digits in _DECIMALS
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
    "old_key_places": pl.List(pl.Int32()),
}


def _restated(
    both: pl.DataFrame,
    stored: pl.DataFrame,
    given: pl.DataFrame,
    key: Sequence[str],
    keys: pl.DataFrame,
) -> pl.DataFrame:
    """Return the restatements of adjusted closes, one per ticker and time."""
    if ADJUSTED not in given.columns:
        return pl.DataFrame(schema=_RESTATED)
    # Where the close itself is another, or the period ran on, it says nothing of its own.
    ran_on = pl.lit(value=False)
    if "is_complete" in given.columns:
        ran_on = pl.col("_row_differs") & ~pl.col("is_complete_stored")
    lines = both.filter(pl.col("_adjusted_differs") & ~_differs("close") & ~ran_on)
    if lines.is_empty():
        return pl.DataFrame(schema=_RESTATED)
    period = key[1]
    old, new = pl.col(f"{ADJUSTED}_stored"), pl.col(ADJUSTED)
    # Of sums: single values are rounded, the smaller the worse.
    factor = new.sum() / old.sum()
    events = (
        lines.sort("ticker", period)
        .with_row_index("_row")
        .with_columns(
            _first_row=pl.col("_row").min().over("ticker", "known_at", "bronze_key_stored")
        )
        .group_by("ticker", pl.col("known_at").alias("restated_at"), maintain_order=True)
        .agg(
            pl.col("bronze_key").last().alias("new_bronze_key"),
            pl.col("bronze_key_stored").unique(maintain_order=True).alias("old_bronze_keys"),
            pl.col(period).alias("keys"),
            old.alias("old_values"),
            new.alias("new_values"),
            pl.col("_first_row").rank("dense").cast(pl.Int32).alias("old_key_places"),
            _is_rounding(ADJUSTED).all().alias("is_rounding"),
            factor.alias("factor"),
            ((new - old * factor).abs().sum() <= new.sum() * _SPLIT_SHARE).alias("is_one_factor"),
            pl.col(period).max().alias("last"),
        )
    )
    last = events.group_by("ticker").agg(pl.col("last").max())
    left_alone = keys.join(last, on="ticker", how="semi").join(given, on=list(key), how="anti")
    left_alone = left_alone.group_by("ticker").len("left")
    is_whole = pl.col("left").fill_null(0) <= _LEFT_ALONE * pl.col("keys").list.len()
    unexplained = (pl.col("factor") / pl.col("explained") - 1).abs() > (
        _SPLIT_SHARE + _DIVIDEND_SLACK * pl.col("largest_dividend")
    )
    is_split = unexplained & is_whole & pl.col("is_one_factor") & ~pl.col("is_rounding")
    return (
        events.join(_news(both, stored, given, key, last), on="ticker", how="left")
        .join(left_alone, on="ticker", how="left")
        .with_columns(
            pl.col("has_dividend", "has_split").fill_null(value=False),
            pl.col("explained").fill_null(1.0),
            pl.col("largest_dividend").fill_null(0.0),
        )
        .with_columns(has_split=pl.col("has_split") | is_split.fill_null(value=False))
        .with_columns(
            pl.when(pl.col("has_dividend") & pl.col("has_split"))
            .then(pl.lit(f"{DIVIDEND} and {SPLIT}"))
            .when("has_dividend")
            .then(pl.lit(DIVIDEND))
            .when("has_split")
            .then(pl.lit(SPLIT))
            .when("is_rounding")
            .then(pl.lit(ROUNDING))
            .otherwise(pl.lit(CORRECTION))
            .alias("class"),
        )
        .select(list(_RESTATED))
        .sort("ticker", "restated_at")
    )


def _news(
    both: pl.DataFrame,
    stored: pl.DataFrame,
    given: pl.DataFrame,
    key: Sequence[str],
    last: pl.DataFrame,
) -> pl.DataFrame:
    """Return, per ticker, what is new of dividends and splits after the `last` restated period.

    What is new before it restates nothing up to there. A dividend whose amount is another now is
    part of what explains the restatement, and is a correction, not a new one.
    """
    had = [name for name in ("split_coefficient", "is_complete") if name in given.columns]
    columns = ["ticker", key[1], "close", "dividend_amount", *had]
    before = ["dividend_amount", *had]
    new_rows = given.join(stored.select(key), on=list(key), how="anti").select(
        *columns, *(pl.lit(None, given.schema[name]).alias(f"{name}_stored") for name in before)
    )
    known = both.select(*columns, *(f"{name}_stored" for name in before))
    rows = (
        pl.concat([new_rows, known]).join(last, on="ticker").filter(pl.col(key[1]) > pl.col("last"))
    )
    dividend, dividend_before = (
        pl.col(name).fill_null(0.0) for name in ("dividend_amount", "dividend_amount_stored")
    )
    split = split_before = pl.lit(1.0)
    if "split_coefficient" in had:
        split, split_before = (
            pl.col(name).fill_null(1.0)
            for name in ("split_coefficient", "split_coefficient_stored")
        )
    was_running = pl.lit(value=False)
    if "is_complete" in had:
        was_running = ~pl.col("is_complete_stored").fill_null(value=True)
    close = pl.col("close")
    return rows.group_by("ticker").agg(
        ((dividend > dividend_before) & ((dividend_before == 0) | was_running))
        .any()
        .alias("has_dividend"),
        ((split != split_before) & (split_before == 1)).any().alias("has_split"),
        ((close + dividend_before) / (close + dividend) * split_before / split)
        .product()
        .alias("explained"),
        (dividend / close).max().alias("largest_dividend"),
    )
