"""Which object holds which rows, and what of a dbt project is exported."""

import pytest

from stocks_assets.domain.exports import ExportedTable, ExportKey, exported_tables
from stocks_assets.errors import InvalidKeyError


@pytest.mark.parametrize(
    ("ticker", "written"),
    [
        ("AAPL", "gold/prices/ticker=AAPL/data.parquet"),
        ("BRK.B", "gold/prices/ticker=BRK.B/data.parquet"),
        ("BF-B", "gold/prices/ticker=BF-B/data.parquet"),
        ("BF/B", "gold/prices/ticker=BF%2FB/data.parquet"),
        (None, "gold/prices/data.parquet"),
    ],
)
def test_a_key_says_which_ticker_and_comes_back(ticker, written):
    key = ExportKey("gold", "prices", ticker)
    assert str(key) == written
    assert ExportKey.parse(written) == key


@pytest.mark.parametrize(
    "text",
    [
        "gold/prices/ticker=BF/B/data.parquet",
        "gold/prices/ticker=bf%2fb/data.parquet",
        "gold/prices/ticker=%41APL/data.parquet",
        "gold/prices/ticker=/data.parquet",
        "gold/prices/other.parquet",
        "prices/data.parquet",
    ],
)
def test_what_is_no_key_is_named(text):
    with pytest.raises(InvalidKeyError, match="expected such as gold/fct_daily_prices"):
        ExportKey.parse(text)


def node(name, *, schema="gold", tags=(), meta=None, key=(), **more):
    constraints = [{"type": "primary_key", "columns": list(key)}] if key else []
    return {
        "name": name,
        "schema": schema,
        "tags": list(tags),
        "resource_type": "model",
        "constraints": constraints,
        "config": {"materialized": "table", "meta": meta or {}},
        **more,
    }


def test_tables_and_views_of_gold_are_exported_in_an_order_that_tells_rows_apart():
    nodes = [
        node("returns", schema="staging", tags=["per_ticker"], meta={"period": "day"}),
        node("mart", tags=["per_ticker"], meta={"period": "day", "changes_of": "returns"}),
        node("facts", tags=["per_ticker"], key=["ticker", "day"]),
        node("history", resource_type="snapshot", tags=["market"]),
        node("a_test", resource_type="test"),
    ]
    manifest = {"nodes": {f"x.{one['name']}": one for one in nodes}}
    assert exported_tables(manifest) == [
        ExportedTable("gold", "facts", True, ("ticker", "day"), "facts", ("gold", "facts")),
        ExportedTable("gold", "history", False, (), "history", ("gold", "history")),
        ExportedTable("gold", "mart", True, ("ticker", "day"), "returns", ("staging", "returns")),
    ]
