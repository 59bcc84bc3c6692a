"""The dbt project as a whole: it builds from nothing, every test of it passes, documents are made."""

import json
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl
from conftest import materializations
from gold_history import Silver, longer_bars, query

from stocks_assets.adapters.dbt_project import PROJECT_DIR, ensure_manifest, project_lineage
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.domain.sample_market import SampleMarket

LAST = date(2026, 11, 13)
EVENING = datetime(2026, 11, 13, 23, tzinfo=UTC)
MARKET = SampleMarket(first_session=date(2023, 1, 3))
ANALYSES = sorted(path.stem for path in (PROJECT_DIR / "analyses").glob("*.sql"))


def load(silver, tickers):
    payloads = {
        t: {"daily_bars": MARKET.reply("TIME_SERIES_DAILY_ADJUSTED", t, LAST)} for t in tickers
    }

    def shaped(name):
        shaped = SILVER_TABLES[name].shape_many(payloads, EVENING).values()
        return pl.concat(one.rows for one in shaped).drop("dataset")

    daily = shaped("daily_bars")
    silver.load("daily_bars", daily)
    silver.load("corporate_actions", shaped("corporate_actions"))
    silver.load("weekly_bars", longer_bars(daily, "week_start", "1w"))
    silver.load("monthly_bars", longer_bars(daily, "month_start", "1mo"))
    profile = {"company_name": "A company", "sector": "ENERGY", "asset_type": "Common Stock"}
    silver.load("companies", pl.DataFrame([{"ticker": t, **profile} for t in tickers]))


def test_the_project_builds_on_an_empty_warehouse_on_one_ticker_and_on_more(warehouse, dbt):
    dbt("build")
    assert query(warehouse, "select * from gold.fct_daily_prices").is_empty()
    silver = Silver(warehouse)
    silver.calendar(date(2022, 1, 1), date(2027, 12, 31))
    for count in (1, 3):
        tickers = MARKET.tickers(count)
        load(silver, tickers)
        dbt("build", "--exclude-resource-type", "unit_test", tickers=tickers)
        latest = query(warehouse, "select * from gold.mart_latest_prices order by ticker")
        assert latest["ticker"].to_list() == sorted(tickers)
        assert latest.filter(pl.col("ticker") == "ALLM")["beta_252d"].to_list() == [1.0]
        summary = query(warehouse, "select * from gold.mart_ticker_summary")
        assert summary.height == count
    sessions = query(warehouse, "select * from gold.mart_daily_market_summary")
    assert sessions["benchmark_ticker"].unique().to_list() == ["ALLM"]
    breadth = query(warehouse, "select * from gold.mart_market_breadth")
    assert breadth["session_date"].to_list() == sessions["session_date"].to_list()

    dbt("compile", "--select", *ANALYSES)
    rows = {name: dbt.analysis(name) for name in ANALYSES}
    assert len(ANALYSES) >= 5
    assert not [name for name, found in rows.items() if found.is_empty()]
    months = rows["best_and_worst_months"]
    assert months.group_by("ticker", "kind").len()["len"].to_list() == [3] * 6
    assert rows["correlation_of_returns"]["correlation"].is_between(-1, 1).all()
    assert (rows["drawdowns_and_recoveries"]["depth"] <= -0.2).all()

    dbt("docs", "generate")
    catalog = json.loads((dbt.target / "catalog.json").read_bytes())
    assert "model.stocks.mart_technical_indicators" in catalog["nodes"]


def test_a_company_that_changes_keeps_its_history(warehouse, dbt):
    silver = Silver(warehouse)
    # Shares outstanding move all the time, and are no part of the history.
    for sector, shares in (("ENERGY", 1), ("UTILITIES", 1), ("UTILITIES", 2)):
        company = {"ticker": "AAA", "company_name": "A company", "sector": sector}
        silver.load("companies", pl.DataFrame([{**company, "shares_outstanding": shares}]))
        dbt("build", "--select", "+dim_company_history", "--exclude-resource-type", "unit_test")
    versions = query(warehouse, "select * from gold.dim_company_history order by valid_from")
    assert versions["sector"].to_list() == ["ENERGY", "UTILITIES"]
    assert versions["valid_to"].dt.year().to_list() == [versions["valid_from"][1].year, 9999]
    assert versions["valid_to"][0] == versions["valid_from"][1]
    assert query(warehouse, "select sector from gold.dim_company").item() == "UTILITIES"


def test_every_model_and_column_is_described_and_every_mart_is_under_contract():
    manifest = json.loads(ensure_manifest().read_bytes())
    models = [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]
    for model in models:
        name = model["name"]
        assert model["description"].startswith(("One row", "One row or none")), name
        assert model["columns"], name
        assert all(column["description"] for column in model["columns"].values()), name
        if model["schema"] == "gold":
            assert model["config"]["contract"]["enforced"], name
    exposed = {n for e in manifest["exposures"].values() for n in e["depends_on"]["nodes"]}
    marts = {m["unique_id"] for m in models if m["name"].startswith("mart_")}
    assert marts <= exposed


def test_every_foreign_key_has_a_test_of_its_own():
    manifest = json.loads(ensure_manifest().read_bytes())
    tested = {
        (node["attached_node"].rpartition(".")[2], node["column_name"])
        for node in manifest["nodes"].values()
        if node.get("test_metadata", {}).get("name") == "relationships"
    }
    keys = {
        (model["name"], column)
        for model in manifest["nodes"].values()
        if model["resource_type"] == "model" and model["name"].startswith("fct_")
        for column in ("security_key", "session_date", "ex_date")
        if column in model["columns"]
    }
    assert len(keys) == 8
    assert keys <= tested


def test_a_refresh_sees_listings_and_a_calendar_that_changed(warehouse, dbt):
    silver = Silver(warehouse)
    silver.calendar(date(2026, 1, 1), date(2026, 12, 31))
    days = [date(2026, 1, day) for day in (5, 6, 7, 8, 9)]
    bars = [
        {"ticker": "AAA", "session_date": day, "close": 10.0, "volume": 1, "split_coefficient": 1.0}
        for day in days
    ]
    prices = [pl.col("close").alias(name) for name in ("open", "high", "low")]
    silver.load("daily_bars", pl.DataFrame(bars).with_columns(*prices))
    listing = {"ticker": "AAA", "delisted_on": date(9999, 12, 31), "status": "active"}
    silver.load("listings", pl.DataFrame([listing]))
    dbt("run", tickers=["AAA"])
    assert not warehouse.gold_lacks_calendar()
    assert warehouse.tickers_listed_otherwise() == []

    # No batch names the ticker; that another security has its bars now is found all the same.
    ended = {"ticker": "AAA", "delisted_on": days[1], "status": "delisted"}
    silver.load("listings", pl.DataFrame([listing, ended]))
    silver.calendar(date(2026, 1, 1), date(2026, 12, 31), closed=[days[-1]])
    assert warehouse.gold_lacks_calendar()
    assert warehouse.tickers_listed_otherwise() == ["AAA"]
    dbt("build", "--exclude-resource-type", "unit_test", tickers=[])
    assert not warehouse.gold_lacks_calendar()
    assert warehouse.tickers_listed_otherwise() == []
    rows = query(warehouse, "select * from gold.fct_daily_prices order by session_date")
    assert rows["session_number"].to_list() == [1, 2, 1, 2, 3]
    weeks = query(warehouse, "select * from gold.agg_weekly_prices order by session_date")
    assert weeks["security_key"].to_list() == [rows["security_key"][0], rows["security_key"][4]]
    assert weeks["is_complete"].to_list() == [False, True]


def test_every_model_and_snapshot_has_a_column_lineage():
    manifest = json.loads(ensure_manifest().read_bytes())
    lineage = project_lineage()
    assert not lineage.unread
    models = {k: n for k, n in manifest["nodes"].items() if k.startswith(("model.", "snapshot."))}
    assert lineage.columns.keys() == models.keys()
    for name, model in models.items():
        added = set(model["config"].get("snapshot_meta_column_names", {}).values())
        assert lineage.columns[name].keys() >= model["columns"].keys() - added, name
    # Literals and counts of rows are made of no column.
    assert {
        f"{name.rpartition('.')[2]}.{column}"
        for name, columns in lineage.columns.items()
        for column, parents in columns.items()
        if not parents
    } == {
        "fct_daily_prices.session_number",
        "int_monthly_series.month_number",
        "int_weekly_series.week_number",
        "int_benchmark.ticker",
        "mart_daily_market_summary.tickers",
        "mart_market_breadth.tickers",
        "mart_sector_performance.tickers",
    }


def test_one_run_shows_tests_row_counts_and_column_lineage_in_the_ui(world):
    tickers = MARKET.tickers(3)
    world.add(*tickers)
    result = world.refresh(SampleSource(MARKET, lambda: LAST), tickers)
    assert result.success
    nodes = json.loads(ensure_manifest().read_bytes())["nodes"].values()
    tests = {node["name"] for node in nodes if node["resource_type"] == "test"}
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert tests <= checks.keys()
    assert all(checks.values())

    graph = world.definitions(SampleSource(MARKET, lambda: LAST)).resolve_asset_graph()
    for node in nodes:
        if node["resource_type"] not in ("model", "snapshot"):
            continue
        key = dg.AssetKey([node["schema"], node["name"]])
        event = world.instance.get_latest_materialization_event(key)
        metadata = event.asset_materialization.metadata
        assert "dagster/column_lineage" in metadata, key
        is_counted = (
            node["config"]["materialized"] != "view" or "changes_of" in node["config"]["meta"]
        )
        if is_counted:
            rows = query(world.warehouse, f"select count(*) from {'.'.join(key.path)}").item()
            assert metadata["dagster/row_count"].value == rows, key
        of_ticker = "per_ticker" in node["tags"]
        assert graph.get(key).is_partitioned == of_ticker, key
        made = world.materialized(key.to_user_string())
        assert made == (set(tickers) if of_ticker else set()), key

    event = world.instance.get_latest_materialization_event(
        dg.AssetKey(["gold", "fct_daily_prices"])
    )
    metadata = event.asset_materialization.metadata
    below = metadata["dagster/column_lineage"].value.deps_by_column["open"]
    assert below == [dg.TableColumnDep(dg.AssetKey(["staging", "int_daily_inputs"]), "open")]
    assert metadata["dagster/row_count"].value > 500

    # The day after, views are left as they are. Their tests come all the same, and the events of
    # those that are looked at.
    first = {event.run_id}
    result = world.refresh(SampleSource(MARKET, lambda: LAST + timedelta(days=3)), tickers)
    assert result.success
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert tests <= checks.keys()
    assert all(checks.values())
    for node in nodes:
        if node["resource_type"] in ("model", "snapshot"):
            key = dg.AssetKey([node["schema"], node["name"]])
            event = world.instance.get_latest_materialization_event(key)
            is_kept = node["config"]["materialized"] == "view" and "per_ticker" in node["tags"]
            assert (event.run_id in first) == (is_kept and node["schema"] == "staging"), key
            assert "dagster/column_lineage" in event.asset_materialization.metadata, key

    another = MARKET.tickers(4)[-1]
    world.add(another)
    assert world.refresh(SampleSource(MARKET, lambda: LAST + timedelta(days=3)), [another]).success
    assert world.materialized("staging/stg_daily_bars") == {*tickers, another}


def test_what_a_table_has_of_columns_is_in_its_newest_event_alone(world):
    tickers = MARKET.tickers(4)
    world.add(*tickers)
    source = SampleSource(MARKET, lambda: LAST)
    asset = dg.AssetKey(["gold", "fct_daily_prices"])
    runs = (
        lambda: world.refresh(source, tickers),
        lambda: world.materialize(
            source, asset.to_user_string(), first=tickers[0], last=tickers[-1]
        ),
    )
    for run in runs:
        result = run()
        assert result.success
        events = [
            m for m in materializations(world.instance, result.run_id) if m.asset_key == asset
        ]
        assert sorted(m.partition for m in events) == sorted(tickers)
        newest = world.instance.get_latest_materialization_event(asset)
        of_columns = {"dagster/column_schema", "dagster/column_lineage"}
        assert of_columns <= newest.asset_materialization.metadata.keys()
        others = [m for m in events if m.partition != newest.asset_materialization.partition]
        assert not any(of_columns & m.metadata.keys() for m in others)
        assert all(m.metadata["dagster/row_count"].value > 2000 for m in events)
