"""A failing job, and one that works again, reach whoever the settings name."""

import json
from datetime import UTC, datetime, timedelta

import dagster as dg

from stocks_assets.adapters.messages import Messenger
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.alerts import Finished, Told, find_alerts

_SECONDS_BETWEEN_LOOKS = 30
_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
_RUNS_A_LOOK = 200
_SHOWN = 10
_BACKFILL = "__ASSET_JOB"


def alerts_sensor(messenger: Messenger, *, ui_url: str) -> dg.SensorDefinition:
    """Return the sensor that sends by `messenger`; its links go to `ui_url`."""

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends a message when a job begins to fail, and when it works again. What "
        "cannot be sent is sent again with the next look.",
    )
    def alerts(
        context: dg.SensorEvaluationContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.SkipReason:
        told, sent = _told(context.cursor), 0
        for alert, then in find_alerts(told, _finished(context.instance, warehouse, told)):
            if alert is not None:
                word = "works again" if alert.recovered else "failed"
                link = f"{ui_url}/runs/{alert.run_id}"
                messenger.send(f"stocks: {alert.job} {word}", f"{alert.text}\n{link}")
                sent += 1
            # After each: a message that is sent is not sent again because of the next one.
            context.update_cursor(_cursor(then))
        if context.cursor is None:
            context.update_cursor(_cursor(told))
        return dg.SkipReason(f"{sent} messages sent; failing: {', '.join(told.failing) or 'none'}")

    return alerts


def _finished(instance: dg.DagsterInstance, warehouse: Warehouse, told: Told) -> list[Finished]:
    records = instance.get_run_records(
        dg.RunsFilter(statuses=_FINISHED, updated_after=told.until - timedelta(seconds=1)),
        limit=_RUNS_A_LOOK,
        order_by="update_timestamp",
        ascending=True,
    )
    finished = []
    for record in records:
        run, succeeded = record.dagster_run, record.dagster_run.is_success
        finished.append(
            Finished(
                run.run_id,
                "a backfill" if run.job_name == _BACKFILL else run.job_name,
                datetime.fromtimestamp(record.end_time or 0, UTC),
                succeeded,
                "" if succeeded else _reason(warehouse, run.run_id),
            )
        )
    return finished


def _reason(warehouse: Warehouse, run_id: str) -> str:
    failures = warehouse.failures(run_id)
    lines = [f"{one.ticker}: {one.reason} ({one.asset})" for one in failures[:_SHOWN]]
    if len(failures) > _SHOWN:
        lines.append(f"and {len(failures) - _SHOWN} more")
    return "\n".join(lines) or "see the run"


def _told(cursor: str | None) -> Told:
    if cursor is None:
        return Told(datetime.now(UTC))
    kept = json.loads(cursor)
    return Told(datetime.fromisoformat(kept["until"]), frozenset(kept["seen"]), kept["failing"])


def _cursor(told: Told) -> str:
    return json.dumps(
        {"until": told.until.isoformat(), "seen": sorted(told.seen), "failing": dict(told.failing)}
    )
