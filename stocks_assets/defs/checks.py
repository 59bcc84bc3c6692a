"""Checks on the whole; rules on rows are in `domain/schemas.py`, rules on models are dbt tests."""

import dagster as dg

from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.defs.batch import failure_table
from stocks_assets.domain.datasets import DATASETS
from stocks_assets.domain.payloads import SILVER_TABLES

LAST_ASSET = dg.AssetKey(["gold", "dim_company"])


@dg.asset_check(
    asset=LAST_ASSET,
    additional_deps=[
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

    Re-executed alone, it judges the run that it comes from: nothing was tried again.
    """
    run = context.run
    failures = warehouse.failures(run.run_id)
    if run.step_keys_to_execute is not None and run.parent_run_id is not None:
        failures += warehouse.failures(run.parent_run_id)
    return dg.AssetCheckResult(
        passed=not failures,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(f"{f.ticker}: {f.reason} ({f.asset})" for f in failures[:10]),
        metadata={"failed": failure_table(failures)},
    )
