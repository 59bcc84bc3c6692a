"""Which columns a model's columns are made of."""

from stocks_assets.adapters.dbt_lineage import column_lineage, store_lineage, stored_lineage


def node(kind, name, columns, schema="gold"):
    return {
        "resource_type": kind,
        "name": name,
        "schema": schema,
        "package_name": "stocks",
        "original_file_path": f"models/{name}.sql",
        "columns": {column: {"data_type": None} for column in columns},
    }


MANIFEST = {
    "nodes": {
        "model.stocks.prices": node("model", "prices", ["ticker", "growth"]),
        "model.stocks.broken": node("model", "broken", ["ticker"]),
        "model.stocks.absent": node("model", "absent", ["ticker"]),
    },
    "sources": {
        "source.stocks.silver.bars": node(
            "source", "bars", ["ticker", "day", "close", "volume"], schema="silver"
        )
    },
}
SQL = """
with bars as (select * from "stocks"."silver"."bars"),
before as (
    select *, lag(close) over (partition by ticker order by day) as previous_close from bars
),
final as (select ticker, close / previous_close as growth from before)
select * from final
"""


def test_columns_are_followed_through_ctes_to_the_tables_below(tmp_path):
    folder = tmp_path / "stocks" / "models"
    folder.mkdir(parents=True)
    (folder / "prices.sql").write_text(SQL)
    (folder / "broken.sql").write_text("select from where (")
    bars = "source.stocks.silver.bars"
    found = column_lineage(MANIFEST, tmp_path)
    assert found == {
        "model.stocks.prices": {
            "ticker": [(bars, "ticker")],
            "growth": [(bars, "close"), (bars, "day"), (bars, "ticker")],
        }
    }


def test_stored_lineage_is_that_of_its_project(tmp_path):
    path = tmp_path / "lineage.json"
    assert stored_lineage(path, "a") is None
    store_lineage(path, "a", {"model.stocks.prices": {"growth": [("model.stocks.bars", "close")]}})
    assert stored_lineage(path, "b") is None
    found = stored_lineage(path, "a")
    assert found == {"model.stocks.prices": {"growth": [["model.stocks.bars", "close"]]}}
