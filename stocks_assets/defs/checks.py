"""Checks on the whole; rules on rows are in `domain/schemas.py`, rules on models are dbt tests."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg

from stocks_assets.adapters.gaps import count_bars, find_gaps
from stocks_assets.adapters.warehouse import Failure, Warehouse
from stocks_assets.defs.batch import failure_table
from stocks_assets.defs.partitions import INBOX_KEY
from stocks_assets.defs.universe import universe
from stocks_assets.domain.datasets import DAILY_BARS, DATASETS
from stocks_assets.domain.gaps import Gap, count_rejected, describe_lost
from stocks_assets.domain.payloads import SILVER_TABLES, SilverTable

LAST_ASSET = dg.AssetKey(["gold", "dim_company"])


@dg.asset_check(
    asset=LAST_ASSET,
    additional_deps=[
        INBOX_KEY,
        *(dg.AssetKey(["bronze", name]) for name in DATASETS),
        *(dg.AssetKey(["silver", name]) for name in SILVER_TABLES),
    ],
    blocking=True,
    description="Every ticker of the run went through bronze and silver. It judges a run of the "
    "refresh job, in which a ticker that fails does not hold up the others.",
)
def every_ticker_is_refreshed(
    context: dg.AssetCheckExecutionContext, warehouse: dg.ResourceParam[Warehouse]
) -> dg.AssetCheckResult:
    """Fail the run if a ticker failed in it, after all else is done.

    Of a re-execution of some steps, it judges the others by the run that they were made in.
    """
    run: dg.DagsterRun | None = context.run
    failures: list[Failure] = []
    made: set[str] = set()
    while run is not None:
        failures += [f for f in warehouse.failures(run.run_id) if step_of(f) not in made]
        if run.step_keys_to_execute is None or run.parent_run_id is None:
            break
        made.update(run.step_keys_to_execute)
        run = context.instance.get_run_by_id(run.parent_run_id)
    return dg.AssetCheckResult(
        passed=not failures,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(f"{f.ticker}: {f.reason} ({f.asset})" for f in failures[:10]),
        metadata={"failed": failure_table(failures)},
    )


def step_of(failure: Failure) -> str:
    """Return the step that makes the asset that failed."""
    return dg.AssetKey.from_user_string(failure.asset).to_python_identifier()


@dg.asset_check(
    asset=dg.AssetKey(["silver", "daily_bars"]),
    description="No session is missing in the daily bars of the universe that a call to the vendor "
    "may bring, and none is gone that was loaded. Expected are the exchange's sessions while the "
    "ticker was listed. What the vendor was asked for and does not have, or not as a good row, is "
    "listed and costs nothing.",
)
def sessions_are_complete(
    context: dg.AssetCheckExecutionContext, warehouse: dg.ResourceParam[Warehouse]
) -> dg.AssetCheckResult:
    """Warn of sessions that are missing and can be had."""
    tickers = universe(context.instance)
    holdings, lost = count_bars(warehouse, tickers)
    found = find_gaps(warehouse, tickers, datetime.now(UTC), holdings)
    fillable = [gap for gap, is_fillable in found if is_fillable]
    lacking = [gap for gap, is_fillable in found if not is_fillable and gap.ticker not in lost]
    labels = warehouse.rejected_labels(DAILY_BARS.name)
    rejected = sum(count_rejected(gap, labels) for gap in lacking)
    lines = [
        *(f"{ticker}: {describe_lost(count)}" for ticker, count in lost.items()),
        *(f"{gap.ticker}: {gap.describe()}" for gap in fillable),
    ]
    return dg.AssetCheckResult(
        passed=not lines,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(lines[:10]) or "nothing is missing that the vendor may have",
        metadata={
            "lost_rows": sum(lost.values()),
            "missing_sessions": sum(gap.sessions for gap in fillable),
            "missing": _gap_table(fillable, labels),
            "sessions_the_vendor_has_not": sum(gap.sessions for gap in lacking) - rejected,
            "sessions_with_rejected_rows": rejected,
            "not_to_be_had": _gap_table(lacking, labels),
        },
    )


def _gap_table(gaps: Sequence[Gap], labels: Mapping[str, Sequence[str]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "ticker": gap.ticker,
                    "where": str(gap.place),
                    "first": str(gap.first),
                    "last": str(gap.last),
                    "sessions": gap.sessions,
                    "with_rejected_rows": count_rejected(gap, labels),
                }
            )
            for gap in sorted(gaps, key=lambda gap: -gap.sessions)[:_SHOWN]
        ],
        schema=dg.TableSchema(
            [
                *(dg.TableColumn(name, "string") for name in ("ticker", "where", "first", "last")),
                dg.TableColumn("sessions", "int"),
                dg.TableColumn("with_rejected_rows", "int"),
            ]
        ),
    )


RULES_CHECK = "rows_follow_the_rules"
_SHOWN = 50


def silver_checks(*, tolerated_share: float) -> list[dg.AssetChecksDefinition]:
    """Return, for each silver table, the check on the rows and objects that it did not take.

    More than `tolerated_share` of a table's rows breaking rules is an error, less a warning.
    """
    return [_silver_check(table, tolerated_share) for table in SILVER_TABLES.values()]


def _silver_check(table: SilverTable, tolerated_share: float) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey(["silver", table.name]),
        name=RULES_CHECK,
        description="No row of the payloads that the table was last loaded from broke a rule, and "
        "no payload was refused. What broke one is in silver.rejected_rows; over "
        f"{100 * tolerated_share:.4g} % of the rows is an error.",
    )
    def rows_follow_the_rules(warehouse: dg.ResourceParam[Warehouse]) -> dg.AssetCheckResult:
        found = warehouse.rejections(table.name)
        share = found.rejected / max(1, found.rejected + found.loaded)
        return dg.AssetCheckResult(
            passed=not found.rejected and not found.refused,
            severity=dg.AssetCheckSeverity.ERROR
            if share > tolerated_share
            else dg.AssetCheckSeverity.WARN,
            metadata={
                "rejected_rows": found.rejected,
                "share": share,
                "by_rule": dict(found.by_rule),
                "refused_objects": dg.MetadataValue.table(
                    [
                        dg.TableRecord({"ticker": ticker, "object": key, "reason": reason})
                        for ticker, key, reason in found.refused[:_SHOWN]
                    ],
                    schema=dg.TableSchema(
                        [dg.TableColumn(name, "string") for name in ("ticker", "object", "reason")]
                    ),
                ),
            },
        )

    return rows_follow_the_rules
