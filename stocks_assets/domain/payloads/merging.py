"""Rows of one key that several payloads have: the strongest counts."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import dataframely as dy
import polars as pl

from stocks_assets.domain.payloads.reading import Reading


def merge(schema: type[dy.Schema], readings: Sequence[Reading], counts: pl.Expr) -> Reading:
    """Return the rows of `readings`, the strongest first, each key from the strongest that has it.

    Rows that do not count are left out before.

    A row that breaks a rule of `schema` gives way to one that breaks none, and stays, to be
    rejected. The whole is a whole history if one of `readings` is.
    """
    rows = pl.concat(
        reading.frame.with_columns(pl.lit(rank, dtype=pl.UInt32).alias("rank"))
        for rank, reading in enumerate(readings)
    ).with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias("row_number"))
    rows = rows.filter(counts)
    key = schema.primary_key()
    contested = rows.filter((pl.col("rank").min() != pl.col("rank").max()).over(key))
    if not contested.is_empty():
        best = _sound(schema, contested).group_by(key).agg(pl.col("rank").min().alias("best"))
        rows = rows.join(best, on=key, how="left", maintain_order="left").filter(
            (pl.col("rank") <= pl.col("best")).fill_null(value=True)
        )

    def raw() -> list[Mapping[str, Any]]:
        return [row for reading in readings for row in reading.raw()]

    return Reading(
        rows.drop("rank", "best", strict=False),
        raw,
        is_whole=any(reading.is_whole for reading in readings),
        fills=frozenset[str]().union(*(reading.fills for reading in readings)),
    )


def _sound(schema: type[dy.Schema], rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that break no rule of their own.

    Rows of one key are of one day, so what that day is decides nothing between them.
    """
    each_alone = rows.with_columns(
        pl.lit(0, dtype=pl.UInt32).alias("reading"),
        pl.lit(date.max).alias("as_of"),
        pl.lit(value=True).alias("is_session"),
        pl.col("row_number").cast(pl.String).alias("ticker"),
    )
    sound = schema.filter(each_alone).result
    return rows.join(sound.select("row_number"), on="row_number", how="semi")
