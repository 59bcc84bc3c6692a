"""The whole graph on real servers: what each way of running it leaves behind."""

import gzip
from datetime import UTC, date, datetime

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import create_execution_plan, execute_run

from stocks_assets.adapters import silver
from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.dbt_project import project_digest
from stocks_assets.adapters.object_store import ObjectStore
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.adapters.trace import trace
from stocks_assets.domain.bronze_key import BronzeKey, content_hash
from stocks_assets.domain.datasets import COMPANIES, DAILY_BARS, DATASETS, Call
from stocks_assets.domain.outcomes import Data, TransportFailed, Unavailable
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.domain.sample_market import SampleMarket

FRIDAY, MONDAY = date(2026, 11, 13), date(2026, 11, 16)
MARKET = SampleMarket(first_session=date(2024, 1, 2))
TICKERS = MARKET.tickers(4)
INGEST = ("bronze", "silver")
# Of each refresh: intraday bars come for those who want them.
DAILY = [name for name, dataset in DATASETS.items() if not dataset.is_monthly]
PER_TICKER = (
    *(f"bronze/{name}" for name in DAILY if not DATASETS[name].is_of_market),
    *(
        f"silver/{name}"
        for name, table in SILVER_TABLES.items()
        if name in DAILY and not table.is_of_market
    ),
    "silver/corporate_actions",
    "gold/fct_daily_prices",
    "gold/fct_weekly_prices",
    "gold/fct_monthly_prices",
    "gold/fct_corporate_actions",
    "gold/agg_weekly_prices",
    "gold/agg_monthly_prices",
    "gold/mart_adjusted_prices",
    "gold/mart_technical_indicators",
    "gold/mart_returns_risk",
)
TABLES = (
    "silver.weekly_bars",
    "silver.daily_bars",
    "silver.corporate_actions",
    "silver.companies",
    "gold.fct_daily_prices",
    "gold.fct_weekly_prices",
    "gold.fct_monthly_prices",
    "staging.int_weekly_series",
    "staging.int_monthly_series",
    "staging.int_daily_indicators",
    "staging.int_daily_returns",
)

CALENDAR = ("silver/exchange_calendar", "staging/stg_exchange_calendar", "gold/dim_date")


def sample(last_session=FRIDAY):
    return SampleSource(MARKET, lambda: last_session)


def versions(world, where="true", tables=TABLES):
    """What PostgreSQL says of each row: where it lies and which transaction wrote it."""
    return {
        table: set(world.query(f"select ctid::text, xmin::text from {table} where {where}").rows())
        for table in tables
    }


def test_a_refresh_takes_every_ticker_from_the_source_to_gold(world):
    world.add(*TICKERS)
    assert world.refresh(sample(), TICKERS).success
    for asset in PER_TICKER:
        assert world.materialized(asset) == set(TICKERS), asset
    for asset in (
        "silver/exchange_calendar",
        "silver/listings",
        "bronze/quarantine",
        "gold/dim_date",
        "gold/dim_company",
        "gold/dim_company_history",
        "gold/dim_security",
        "gold/mart_latest_prices",
        "gold/mart_market_breadth",
    ):
        assert world.instance.get_latest_materialization_event(dg.AssetKey(asset.split("/")))
    for table in TABLES:
        tickers = world.query(f"select distinct ticker from {table}")["ticker"]
        paying = [t for t in TICKERS if b"amount" in MARKET.reply("DIVIDENDS", t, FRIDAY)]
        expected = set(paying) if table == "silver.corporate_actions" else set(TICKERS)
        assert expected <= set(tickers) <= set(TICKERS), table
    assert world.query("select count(*) from gold.dim_company").item() == len(TICKERS)
    datasets = [DATASETS[name] for name in DAILY]
    assert len(world.objects()) == sum(
        len(dataset.parts) * (1 if dataset.is_of_market else len(TICKERS)) for dataset in datasets
    )


def test_a_second_refresh_of_the_same_day_changes_nothing(world):
    world.add(*TICKERS)
    world.refresh(sample(), TICKERS)
    objects, rows = world.objects(), versions(world)
    assert world.refresh(sample(), TICKERS).success
    assert world.objects() == objects
    assert versions(world) == rows


def test_the_next_session_adds_its_bars_and_moves_the_running_week(world):
    world.add(*TICKERS)
    world.refresh(sample(FRIDAY), TICKERS)
    before = world.query("select * from silver.weekly_bars")
    world.refresh(sample(MONDAY), TICKERS)
    world.refresh(sample(date(2026, 11, 17)), TICKERS)
    after = world.query("select * from silver.weekly_bars")
    assert after.height == before.height + len(TICKERS)
    running = world.query(
        "select distinct week_start, session_date, is_complete from gold.fct_weekly_prices "
        "where week_start >= '2026-11-09' order by 1"
    )
    assert running.rows() == [
        (date(2026, 11, 9), FRIDAY, True),
        (MONDAY, date(2026, 11, 17), False),
    ]
    last = world.query("select max(session_date) from gold.fct_daily_prices group by ticker")
    assert set(last["max"]) == {date(2026, 11, 17)}


def test_a_ticker_that_fails_costs_the_others_nothing_and_the_run_says_which(world):
    world.add(*TICKERS, "NOPE")
    result = world.refresh(sample(), [*TICKERS, "NOPE"])
    assert not result.success
    assert world.materialized("gold/fct_daily_prices") == set(TICKERS)
    failures = world.warehouse.failures(result.run_id)
    assert {failure.ticker for failure in failures} == {"NOPE"}
    assert any("does not know this ticker" in failure.reason for failure in failures)
    assert world.materialized("silver/daily_bars") == set(TICKERS)
    passed = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert passed["every_ticker_is_refreshed"] is False


def test_one_ticker_then_another_leaves_the_first_untouched(world):
    first, second = TICKERS[:2]
    world.add(first, second)
    assert world.materialize(sample(), *CALENDAR).success
    assert world.materialize(sample(), first=first).success
    rows = versions(world, f"ticker = '{first}'")
    assert all(rows[table] for table in ("silver.daily_bars", "gold.fct_daily_prices"))
    assert world.materialize(sample(), first=second).success
    assert versions(world, f"ticker = '{first}'") == rows
    for asset in PER_TICKER:
        assert world.materialized(asset) == {first, second}, asset


def test_a_refresh_after_a_backfill_of_tickers_adds_the_market_and_rewrites_nothing(world):
    world.add(*TICKERS[:2])
    assert world.materialize(sample(), *CALENDAR).success
    for ticker in TICKERS[:2]:
        assert world.materialize(sample(), first=ticker).success
    # So an upgrade after it is noticed.
    built = world.query("select distinct built_by from ops.gold_builds")
    assert built["built_by"].to_list() == [project_digest()]
    rows = versions(world, "true")
    assert world.refresh(sample(), TICKERS[:2]).success
    assert versions(world, "true") == rows
    assert world.query("select * from gold.mart_latest_prices").height == 2


def test_a_ticker_before_its_calendar_is_refused_with_the_way_to_mend_it(world):
    world.add(TICKERS[0])
    result = world.materialize(sample(), first=TICKERS[0])
    assert not result.success
    assert "is missing or not that of silver/exchange_calendar; materialize both" in str(
        result.all_events
    )


def test_a_run_of_many_partitions_records_those_that_succeed_and_fails_for_the_rest(world):
    world.add(TICKERS[0], "NOPE", TICKERS[1])
    result = world.materialize(sample(), "bronze/daily_bars", first=TICKERS[0], last=TICKERS[1])
    assert not result.success
    assert world.materialized("bronze/daily_bars") == set(TICKERS[:2])
    metadata = result.all_events[-3:]
    assert any("1 of 3 tickers failed" in str(event.event_specific_data) for event in metadata)


def test_a_partition_that_is_no_ticker_is_named_and_the_others_are_done(world):
    world.add(TICKERS[0], "no ticker", "lower")
    result = world.refresh(sample(), [TICKERS[0], "no ticker", "lower"])
    reasons = {f.ticker: f.reason for f in world.warehouse.failures(result.run_id)}
    assert "'no ticker' is not a ticker; expected" in reasons["no ticker"]
    assert "'LOWER' may be meant" in reasons["lower"]
    assert world.materialized("gold/fct_daily_prices") == {TICKERS[0]}


class WithoutCompanies(SampleSource):
    def fetch(self, dataset, ticker, part="", **how):
        if dataset is COMPANIES:
            return Unavailable("not sold here")
        return super().fetch(dataset, ticker, part, **how)


@pytest.mark.parametrize("way", ["refresh", "materialize"])
def test_what_the_source_does_not_have_is_said_and_holds_nothing_up(world, way):
    source = WithoutCompanies(MARKET, lambda: FRIDAY)
    world.add(TICKERS[0])
    if way == "refresh":
        result = world.refresh(source, TICKERS[:1])
    else:
        world.materialize(source, *CALENDAR)
        result = world.materialize(source, first=TICKERS[0])
    assert result.success
    event = world.instance.get_latest_materialization_event(dg.AssetKey(["bronze", "companies"]))
    metadata = event.asset_materialization.metadata
    assert (metadata["available"].value, metadata["reason"].value) == (False, "not sold here")
    assert world.query("select count(*) from gold.fct_daily_prices").item() > 0


def test_every_row_of_silver_names_an_object_that_holds_it(world):
    world.add(*TICKERS[:2])
    world.refresh(sample(), TICKERS[:2], layers=INGEST)
    rows = world.query("select ticker, session_date, close, bronze_key from silver.daily_bars")
    assert set(rows["bronze_key"]) <= set(world.objects())
    for (key,), part in rows.group_by("bronze_key"):
        payload = world.store.get(key)
        for line in part.sample(20, seed=1).iter_rows(named=True):
            assert f'"{line["session_date"]}"'.encode() in payload


def test_a_lost_index_is_rebuilt_from_the_bucket(world):
    world.add(*TICKERS[:2])
    world.refresh(sample(), TICKERS[:2], layers=INGEST)
    with world.warehouse.connect() as connection:
        before = connection.execute("select * from bronze.objects order by key").fetchall()
        connection.execute("truncate bronze.objects, ops.silver_loads")
    rows = versions(world, tables=TABLES[:4])
    result = world.refresh(sample(), TICKERS[:2], layers=INGEST)
    assert result.success
    with world.warehouse.connect() as connection:
        assert connection.execute("select * from bronze.objects order by key").fetchall() == before
    assert versions(world, tables=TABLES[:4]) == rows


def test_data_versions_follow_the_content_of_the_reply(world):
    world.add(TICKERS[0])

    def version(asset):
        key = dg.AssetKey(asset.split("/"))
        event = world.instance.get_latest_materialization_event(key)
        return event.asset_materialization.tags["dagster/data_version"]

    world.refresh(sample(FRIDAY), TICKERS[:1], layers=INGEST)
    first = {asset: version(asset) for asset in ("bronze/daily_bars", "silver/daily_bars")}
    world.refresh(sample(FRIDAY), TICKERS[:1], layers=INGEST)
    assert {asset: version(asset) for asset in first} == first
    world.refresh(sample(MONDAY), TICKERS[:1], layers=INGEST)
    assert all(version(asset) != first[asset] for asset in first)


def test_gold_returns_and_averages_follow_their_definitions(world):
    ticker = TICKERS[1]
    world.add(ticker)
    world.refresh(sample(), [ticker])
    weeks = world.query("select * from gold.agg_weekly_prices order by week_start")
    expected = weeks["adjusted_close"].rolling_mean(13, min_samples=13)
    assert (weeks["sma_13w"] - expected).abs().max() < 1e-9
    assert weeks["sma_13w"].is_null().to_list() == expected.is_null().to_list()
    days = world.query("select * from gold.fct_daily_prices order by session_date")
    total = days["split_ratio"] * (days["close"] + days["dividend_amount"]) / days["close"].shift(1)
    assert (days["simple_return_1d"] - (total - 1)).abs().max() < 1e-12
    assert (
        days.filter(pl.col("split_ratio") != 1).height
        + days.filter(pl.col("dividend_amount") > 0).height
        > 0
    )


def test_another_bucket_is_not_taken_for_the_one_that_the_index_knows(world, store):
    world.add(TICKERS[0])
    world.refresh(sample(), TICKERS[:1], layers=INGEST)
    first = world.objects()
    other = ObjectStore(store._location, f"{store.bucket}-other")
    other.ensure_bucket()
    with other:
        world.store, world.bronze = other, BronzeStore(other, world.warehouse)
        assert world.refresh(sample(), TICKERS[:1], layers=INGEST).success
        contents = {BronzeKey.parse(key).content_hash for key in world.objects()}
    assert contents == {BronzeKey.parse(key).content_hash for key in first}


def test_an_older_vintage_replaces_the_newer_one_as_a_whole(world):
    world.add(TICKERS[0])
    world.refresh(sample(MONDAY), TICKERS[:1], layers=INGEST)
    world.refresh(sample(date(2026, 8, 14)), TICKERS[:1], layers=INGEST)
    for table in ("silver.weekly_bars", "silver.daily_bars"):
        last = world.query(f"select max(session_date) from {table}").item()
        assert last == date(2026, 8, 14), table


class Raw(SampleSource):
    """Sells daily bars as to a free key: the newest 100, raw."""

    def fetch(self, dataset, ticker, part="", **how):
        if dataset is not DAILY_BARS:
            return super().fetch(dataset, ticker, part, **how)
        body = MARKET.reply("TIME_SERIES_DAILY", ticker, MONDAY, outputsize="compact")
        return Data(body, "TIME_SERIES_DAILY")


def test_adjusted_closes_before_raw_bars_stay_as_they_were_and_gold_adjusts_by_itself(world):
    ticker = TICKERS[0]
    world.add(ticker)
    world.refresh(sample(FRIDAY), [ticker], layers=INGEST)
    bars = "select session_date, adjusted_close from silver.daily_bars"
    before = dict(world.query(bars).rows())
    moment = datetime.now(UTC)
    assert world.refresh(Raw(MARKET, lambda: MONDAY), [ticker]).success
    after = dict(world.query(bars).rows())
    raw = sorted(after)[-100:]
    assert after == before | dict.fromkeys(raw)
    known = world.query(
        f"select session_date, adjusted_close from silver.daily_bars_as_of('{moment}')"
    )
    assert dict(known.rows()) == before
    gold = world.query("select session_date, adjusted_close from gold.mart_adjusted_prices")
    assert set(gold["session_date"]) == set(after)
    assert gold["adjusted_close"].null_count() == 0
    assert world.query("select * from gold.recon_adjusted_close").is_empty()
    events = world.query("select class from silver.restatements where table_name = 'daily_bars'")
    assert events.is_empty()


def test_a_gold_table_that_is_gone_or_of_another_project_is_built_again(world):
    world.add(*TICKERS[:2])
    world.refresh(sample(), TICKERS[:2])
    before = world.query("select * from gold.agg_monthly_prices order by ticker, month_start")
    with world.warehouse.connect() as connection:
        connection.execute("drop table staging.int_monthly_series cascade")
    assert world.refresh(sample(), TICKERS[:1]).success
    after = world.query("select * from gold.agg_monthly_prices order by ticker, month_start")
    assert after.equals(before)
    with world.warehouse.connect() as connection:
        connection.execute("delete from staging.int_monthly_series")
        connection.execute("update ops.gold_builds set built_by = 'an older project'")
    assert world.refresh(sample(), TICKERS[:1]).success
    after = world.query("select * from gold.agg_monthly_prices order by ticker, month_start")
    assert after.equals(before)


def test_silver_before_bronze_is_refused_with_the_way_to_mend_it(world):
    world.add(TICKERS[0])
    result = world.materialize(sample(), "silver/weekly_bars", first=TICKERS[0])
    assert not result.success
    assert "materialize that first" in world.warehouse.failures(result.run_id)[0].reason


def test_what_the_bucket_has_lost_is_fetched_again_and_nothing_changes(world):
    tickers = TICKERS[:2]
    world.add(*tickers)
    assert world.refresh(sample(), tickers, layers=INGEST).success
    prices = "select * from silver.weekly_bars order by ticker, week_start"
    before = world.query(prices)
    gone, damaged = (
        next(key for key in world.objects() if key.startswith("bronze/weekly") and f"_{t}_" in key)
        for t in tickers
    )
    world.store._client.delete_object(Bucket=world.store.bucket, Key=gone)
    world.store._client.put_object(Bucket=world.store.bucket, Key=damaged, Body=b"garbage")
    # The gone one is met by who looks where a price came from, the damaged one by a load.
    found = next(
        one for one in trace(world.bronze, world.warehouse, tickers[0], None) if one.is_lost
    )
    assert (str(found.key), found.given) == (gone, None)
    [failed] = silver.load(
        world.bronze, world.warehouse, SILVER_TABLES["weekly_bars"], tickers[1:], only_stale=False
    )
    assert damaged in failed.reason
    for ticker in tickers:
        assert world.warehouse.failed_fetches()[Call("weekly_bars", ticker)].startswith(
            "its object"
        )

    assert world.refresh(sample(), tickers, layers=INGEST).success
    assert world.warehouse.failed_fetches() == {}
    again = [key for key in world.objects() if key.startswith("bronze/weekly")]
    assert len(again) == 3
    # Another object has the content: what came of the lost ones can be followed and built anew.
    assert world.query(prices).equals(before)
    for ticker in tickers:
        assert not any(one.problem for one in trace(world.bronze, world.warehouse, ticker, None))
    built = silver.rebuild(world.bronze, world.warehouse, SILVER_TABLES["weekly_bars"], tickers)
    assert all(isinstance(one, silver.Loaded) for one in built)
    same = pl.exclude("loaded_at", "load_id")
    assert world.query(prices).select(same).equals(before.select(same))


def test_a_damaged_object_fails_its_ticker_alone(world):
    world.add(*TICKERS[:2])
    body = MARKET.reply("TIME_SERIES_WEEKLY_ADJUSTED", TICKERS[0], FRIDAY)
    key = BronzeKey(
        "weekly_bars", TICKERS[0], datetime(2026, 11, 14, tzinfo=UTC), content_hash(body)
    )
    world.store._client.put_object(
        Bucket=world.store.bucket, Key=str(key), Body=gzip.compress(body)[:-100]
    )
    result = world.refresh(sample(), TICKERS[:2], layers=INGEST)
    failures = world.warehouse.failures(result.run_id)
    assert [(f.asset, f.ticker) for f in failures] == [("silver/weekly_bars", TICKERS[0])]
    assert str(key) in failures[0].reason
    assert world.materialized("silver/weekly_bars") == {TICKERS[1]}


def test_the_verdict_executed_again_alone_stays_what_it_was(world):
    world.add(TICKERS[0], "NOPE")
    failed = world.refresh(sample(), [TICKERS[0], "NOPE"])
    job = world.definitions(sample()).resolve_job_def("refresh")
    verdict = ["gold__dim_company_every_ticker_is_refreshed"]
    run_config = failed.dagster_run.run_config
    again = world.instance.create_run_for_job(
        job,
        execution_plan=create_execution_plan(
            InMemoryJob(job), run_config, step_keys_to_execute=verdict
        ),
        run_config=run_config,
        tags=failed.dagster_run.tags,
        parent_run_id=failed.run_id,
        root_run_id=failed.run_id,
    )
    assert again.step_keys_to_execute == verdict
    assert not execute_run(InMemoryJob(job), again, world.instance).success
    checks = dg.AssetCheckKey(dg.AssetKey(["gold", "dim_company"]), "every_ticker_is_refreshed")
    record = world.instance.event_log_storage.get_latest_asset_check_execution_by_key([checks])
    assert record[checks].run_id == again.run_id
    assert record[checks].status.value == "FAILED"


class Counted(SampleSource):
    """Sells the market, fails for some tickers, and counts what it was asked."""

    def __init__(self, failing):
        super().__init__(MARKET, lambda: FRIDAY)
        self.failing = set(failing)
        self.asked = []

    def fetch(self, dataset, ticker, part="", **how):
        self.asked.append((dataset.name, ticker))
        if ticker in self.failing:
            return TransportFailed("the line is dead")
        return super().fetch(dataset, ticker, part, **how)


def test_a_refresh_that_is_executed_again_asks_just_for_what_failed(world):
    world.add(*TICKERS)
    source = Counted(TICKERS[:1])
    failed = world.refresh(source, TICKERS)
    assert not failed.success
    source.failing, source.asked = set(), []
    job = world.definitions(source).resolve_job_def("refresh")
    again = world.instance.create_run_for_job(
        job,
        execution_plan=create_execution_plan(InMemoryJob(job), failed.dagster_run.run_config),
        run_config=failed.dagster_run.run_config,
        tags=failed.dagster_run.tags,
        root_run_id=failed.run_id,
        parent_run_id=failed.run_id,
    )
    assert execute_run(InMemoryJob(job), again, world.instance).success
    assert {ticker for _, ticker in source.asked} == {TICKERS[0]}
    assert len(source.asked) == len([n for n in DAILY if not DATASETS[n].is_of_market])
    assert world.materialized("gold/fct_daily_prices") == set(TICKERS)


ODD = dict(zip(["BRK.B", "BF-B", "BF/B", "TSCO.LON"], TICKERS, strict=True))


class Odd(SampleSource):
    """Sells the market under tickers with signs in them."""

    def fetch(self, dataset, ticker, part="", **how):
        outcome = super().fetch(dataset, ODD.get(ticker, ticker), part, **how)
        body = outcome.body.replace(ODD.get(ticker, "?").encode(), ticker.encode())
        return type(outcome)(body, outcome.function)


def test_tickers_with_signs_in_them_work_from_partitions_to_keys_urls_and_gold(world):
    world.add(*ODD)
    assert world.refresh(Odd(MARKET, lambda: FRIDAY), list(ODD)).success
    for asset in PER_TICKER:
        assert world.materialized(asset) == set(ODD), asset
    keys = [BronzeKey.parse(key) for key in world.objects()]
    assert {key.ticker for key in keys} == {"", *ODD}
    assert "_BF~B_" in str(next(key for key in keys if key.ticker == "BF/B"))
    assert all("/bronze/" in world.bronze.url(key) for key in keys)
    for table in ("silver.daily_bars", "gold.fct_daily_prices", "gold.dim_company"):
        assert set(world.query(f"select distinct ticker from {table}")["ticker"]) == set(ODD)
    # And each by itself, as from the UI.
    assert world.materialize(
        Odd(MARKET, lambda: FRIDAY), "bronze/splits", "silver/corporate_actions", first="BF/B"
    ).success
