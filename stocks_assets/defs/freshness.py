"""How old silver and gold may be: policies on assets, and checks that look at each ticker.

Dagster's policies know the last event of an asset, whatever its partition, and no calendar: they
tell when nothing runs any more. The checks know the exchange's calendar and name the tickers.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from stocks_assets.adapters.freshness import SILVER_BARS, find_stale_answers, find_stale_bars
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.defs.universe import universe
from stocks_assets.domain.datasets import DAILY_BARS
from stocks_assets.domain.freshness import Stale, oldest_first
from stocks_assets.domain.payloads import SILVER_TABLES, SilverTable

CHECK = "tickers_are_fresh"
GOLD_ASSET = dg.AssetKey(["gold", "mart_latest_prices"])
_GOLD_RELATION = "gold.fct_daily_prices"
_SHOWN = 50

# From a Friday to the Tuesday after a holiday are four days, and there may be trouble for one.
_OF_SESSIONS = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(days=6), warn_window=timedelta(days=4, hours=12)
)
# New objects of these come seldom: an asset without any for so long may well be dead.
_SELDOM = {
    "silver/companies": timedelta(days=60),
    "silver/corporate_actions": timedelta(days=120),
    "silver/listings": timedelta(days=30),
    "silver/monthly_bars": timedelta(days=30),
    "silver/weekly_bars": timedelta(days=14),
}
# Intraday bars are for those who want them.
_WITHOUT = {"silver/intraday_bars"}
_GROUPS = ("silver", "gold")


def with_policies(assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """Return `assets`, those of silver and gold with their freshness policies."""
    return [one.map_asset_specs(_with_policy) for one in assets]


def _with_policy(spec: dg.AssetSpec) -> dg.AssetSpec:
    name = spec.key.to_user_string()
    if spec.group_name not in _GROUPS or name in _WITHOUT:
        return spec
    policy = _OF_SESSIONS
    if name in _SELDOM:
        policy = dg.FreshnessPolicy.time_window(fail_window=_SELDOM[name])
    return spec.replace_attributes(freshness_policy=policy)


def freshness_checks() -> list[dg.AssetChecksDefinition]:
    """Return the checks: one for each silver table with tickers, and one for gold."""
    tables = [table for table in SILVER_TABLES.values() if not table.is_of_market]
    return [*(_silver_check(table) for table in tables if not _is_optional(table)), gold_is_fresh]


def _is_optional(table: SilverTable) -> bool:
    return f"silver/{table.name}" in _WITHOUT


def _silver_check(table: SilverTable) -> dg.AssetChecksDefinition:
    follows_sessions = table.name == DAILY_BARS.name

    @dg.asset_check(
        asset=dg.AssetKey(["silver", table.name]),
        name=CHECK,
        description="No ticker of the universe "
        + (
            "lacks the bars of sessions that have closed six hours ago, that it is listed for, and "
            "that the vendor may have."
            if follows_sessions
            else "was last answered longer ago than its datasets may be old."
        ),
    )
    def tickers_are_fresh(
        context: dg.AssetCheckExecutionContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.AssetCheckResult:
        tickers, now = universe(context.instance), datetime.now(UTC)
        if follows_sessions:
            return _result(find_stale_bars(warehouse, SILVER_BARS, tickers, now), tickers)
        return _result(find_stale_answers(warehouse, table, tickers, now), tickers)

    return tickers_are_fresh


@dg.asset_check(
    asset=GOLD_ASSET,
    name=CHECK,
    description="No ticker of the universe lacks the figures of sessions that have closed six "
    "hours ago, that it is listed for, and that silver or the vendor may have.",
)
def gold_is_fresh(
    context: dg.AssetCheckExecutionContext, warehouse: dg.ResourceParam[Warehouse]
) -> dg.AssetCheckResult:
    """Warn of tickers whose newest figures in gold are too old."""
    tickers = universe(context.instance)
    return _result(find_stale_bars(warehouse, _GOLD_RELATION, tickers, datetime.now(UTC)), tickers)


def _result(stale: Sequence[Stale], tickers: Sequence[str]) -> dg.AssetCheckResult:
    """Warn: what a call may bring is brought by the catch-up, and the alerts tell of failures."""
    worst = oldest_first(stale)
    names = ", ".join(f"{one.ticker} ({one.since or 'nothing there'})" for one in worst[:10])
    return dg.AssetCheckResult(
        passed=not stale,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"too old: {names}" if stale else f"{len(tickers)} tickers are fresh",
        metadata={
            "tickers": len(tickers),
            "stale": len({one.ticker for one in stale}),
            "stalest": dg.MetadataValue.table(
                [
                    dg.TableRecord(
                        {
                            "ticker": one.ticker,
                            "what": one.what,
                            "since": str(one.since or ""),
                            "sessions": one.sessions or 0,
                        }
                    )
                    for one in worst[:_SHOWN]
                ],
                schema=dg.TableSchema(
                    [
                        *(dg.TableColumn(name, "string") for name in ("ticker", "what", "since")),
                        dg.TableColumn("sessions", "int"),
                    ]
                ),
            ),
        },
    )
