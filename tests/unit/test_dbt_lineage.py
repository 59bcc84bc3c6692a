"""Which columns a model's columns are made of."""

from stocks_assets.adapters.dbt_lineage import column_lineage, store_lineage, stored_lineage

SQL = """
with bars as (select * from "stocks"."silver"."bars"),
before as (
    select *, lag(close) over (partition by ticker order by day) as previous_close from bars
),
final as (select ticker, close / previous_close as growth from before)
select * from final
"""


def node(kind, name, columns, schema="gold", sql=None):
    return {
        "resource_type": kind,
        "name": name,
        "schema": schema,
        "columns": {column: {"data_type": None} for column in columns},
        "compiled_code": sql,
    }


BARS, PRICES = "source.stocks.silver.bars", "model.stocks.prices"
MANIFEST = {
    "nodes": {
        PRICES: node("model", "prices", ["ticker", "growth"], sql=SQL),
        "model.stocks.broken": node("model", "broken", ["ticker"], sql="select from where ("),
        "model.stocks.absent": node("model", "absent", ["ticker"]),
        "snapshot.stocks.kept": node("snapshot", "kept", [], sql="select * from gold.prices"),
        "test.stocks.some": node("test", "some", [], sql="select 1"),
    },
    "sources": {
        BARS: node("source", "bars", ["ticker", "day", "close", "volume"], schema="silver")
    },
}


def test_columns_are_followed_through_ctes_to_the_tables_below():
    assert column_lineage(MANIFEST).columns == {
        PRICES: {
            "ticker": [(BARS, "ticker")],
            "growth": [(BARS, "close"), (BARS, "day"), (BARS, "ticker")],
        },
        "snapshot.stocks.kept": {"ticker": [(PRICES, "ticker")], "growth": [(PRICES, "growth")]},
    }


def test_sql_that_cannot_be_followed_is_named_with_the_reason():
    unread = column_lineage(MANIFEST).unread
    assert unread.keys() == {"model.stocks.broken", "model.stocks.absent"}
    assert all(unread.values())


def test_lineage_is_read_as_it_was_stored(tmp_path):
    found = column_lineage(MANIFEST)
    store_lineage(tmp_path / "lineage.json", found)
    assert stored_lineage(tmp_path / "lineage.json") == found
