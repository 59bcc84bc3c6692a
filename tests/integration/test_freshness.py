"""What is too old is named, ticker by ticker, and proofs look at all of gold."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg

from stocks_assets.adapters.freshness import find_stale_answers
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.defs.extras import PROVE
from stocks_assets.defs.freshness import freshness_checks, gold_is_fresh
from stocks_assets.domain.calendar import last_closed_session
from stocks_assets.domain.gaps import SETTLES_AFTER
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.domain.sample_market import SampleMarket

MARKET = SampleMarket(first_session=date(2024, 1, 2))
TICKERS = MARKET.tickers(3)
LAGGARD = TICKERS[-1]


def sample(last_session):
    return SampleSource(MARKET, lambda: last_session)


def judged(world, check):
    context = dg.build_asset_check_context(instance=world.instance)
    return check(context, warehouse=world.warehouse)


def of(table):
    (check,) = [
        c
        for c in freshness_checks()
        if dg.AssetKey(["silver", table]) in c.keys_by_input_name.values()
    ]
    return check


def test_checks_name_the_tickers_whose_bars_are_too_old_in_silver_and_in_gold(world):
    world.add(*TICKERS)
    now = datetime.now(UTC)
    newest = last_closed_session(now - SETTLES_AFTER)
    week_ago = last_closed_session(now - timedelta(days=8))
    daily_bars = of("daily_bars")
    told = judged(world, gold_is_fresh)
    assert not told.passed
    assert "nothing there" in told.description

    assert world.refresh(sample(week_ago), TICKERS).success
    assert world.refresh(sample(newest), TICKERS[:-1]).success
    # Asked today, the vendor had no more of it.
    for check in (daily_bars, gold_is_fresh):
        assert judged(world, check).passed
    with world.warehouse.connect() as connection:
        moment = now - timedelta(days=7)
        connection.execute(
            "update ops.fetches set checked_at = %s, had_at = %s where ticker = %s",
            (moment, moment, LAGGARD),
        )
    for check in (daily_bars, gold_is_fresh):
        told = judged(world, check)
        assert (told.passed, told.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert told.metadata["stale"].value == 1
        (record,) = told.metadata["stalest"].value.records
        assert record.data["ticker"] == LAGGARD
        assert record.data["since"] == str(week_ago)
        assert record.data["sessions"] >= 4

    assert world.refresh(sample(newest), [LAGGARD]).success
    for check in (daily_bars, gold_is_fresh):
        assert judged(world, check).passed
    proves_all_rows(world)


def proves_all_rows(world):
    """A row that was damaged past dbt is found by the weekly proof, and not by the next refresh."""
    job = world.definitions(sample(date(2026, 11, 20))).resolve_job_def(PROVE)
    tags = {"stocks/all_rows": "true"}
    assert job.execute_in_process(instance=world.instance, tags=tags).success
    with world.warehouse.connect() as connection:
        connection.execute(
            "update gold.fct_daily_prices set split_index = -1 where ticker = %s and session_date = "
            "(select min(session_date) from gold.fct_daily_prices where ticker = %s)",
            (LAGGARD, LAGGARD),
        )
    result = job.execute_in_process(instance=world.instance, tags=tags, raise_on_error=False)
    failed = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert {e.asset_key.to_user_string() for e in failed} == {"gold/fct_daily_prices"}


def test_answers_are_too_old_by_the_rhythm_of_their_dataset(world):
    world.add(*TICKERS)
    assert world.refresh(sample(date(2026, 11, 20)), TICKERS, layers=("bronze", "silver")).success
    companies, now = SILVER_TABLES["companies"], datetime.now(UTC)
    assert find_stale_answers(world.warehouse, companies, TICKERS, now) == []
    assert judged(world, of("companies")).passed
    assert find_stale_answers(world.warehouse, companies, TICKERS, now + timedelta(days=12)) == []
    with world.warehouse.connect() as connection:
        connection.execute(
            "update ops.fetches set checked_at = now() - interval '60 days', had_at = now() - "
            "interval '60 days' where ticker = %s",
            (LAGGARD,),
        )
    told = judged(world, of("companies"))
    assert not told.passed
    assert [r.data["ticker"] for r in told.metadata["stalest"].value.records] == [LAGGARD]


def test_every_silver_and_gold_asset_has_a_policy_but_for_those_of_ones_choice(world):
    graph = world.definitions(sample(date(2026, 11, 20))).resolve_asset_graph()
    without = {
        key.to_user_string()
        for key in graph.materializable_asset_keys
        if key.path[0] in ("silver", "gold") and graph.get(key).freshness_policy is None
    }
    assert without == {"silver/intraday_bars"}
