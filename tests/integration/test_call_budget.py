"""The budget of calls, shared by processes through a real PostgreSQL."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from stocks_assets.adapters.budget import CallBudget, Rates
from stocks_assets.domain.planner import Allowance

TAKE_ALL = """
import sys
from stocks_assets.adapters.budget import CallBudget, Rates
from stocks_assets.adapters.warehouse import Warehouse
with CallBudget(Warehouse(sys.argv[1]), "key", Rates(per_second=10, per_day=35)) as budget:
    taken = 0
    while budget.take() is None:
        taken += 1
    print(taken)
"""


def calls(warehouse):
    with warehouse.connect() as connection:
        (table,) = connection.execute(
            "select tablename from pg_tables where tablename like 'ratelimit%'"
        ).fetchone()
        return [
            row[0]
            for row in connection.execute(
                f'select item_timestamp from ops."{table}" order by 1'
            ).fetchall()
        ]


def test_four_processes_never_exceed_the_budget_they_share(warehouse):
    with CallBudget(warehouse, "key", Rates(per_second=10, per_day=35)):
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", TAKE_ALL, warehouse.database_url],
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        taken = [int(process.communicate(timeout=120)[0]) for process in processes]
    assert sum(taken) == 35
    moments = calls(warehouse)
    assert len(moments) == 35
    for first, eleventh in zip(moments, moments[10:], strict=False):
        assert eleventh - first >= timedelta(seconds=1)


def test_a_spent_day_refuses_at_once_and_says_when_a_call_frees(warehouse):
    with CallBudget(warehouse, "key", Rates(per_day=2)) as budget:
        assert budget.allowance() == Allowance(left=2, per_day=2)
        assert budget.take() is None
        assert budget.take() is None
        frees_at = budget.take()
        assert len(calls(warehouse)) == 2
        allowance = budget.allowance()
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert timedelta(0) <= tomorrow - frees_at < timedelta(minutes=1)
    assert (allowance.left, allowance.per_day) == (0, 2)
    assert abs(allowance.frees_at - frees_at) < timedelta(seconds=1)


def test_the_budget_outlives_its_process_and_belongs_to_the_key(warehouse):
    with CallBudget(warehouse, "key", Rates(per_day=2)) as budget:
        budget.take()
    with CallBudget(warehouse, "key", Rates(per_day=2)) as budget:
        assert budget.allowance().left == 1
    with CallBudget(warehouse, "another", Rates(per_day=2)) as budget:
        assert budget.allowance().left == 2


def test_when_the_vendor_says_the_day_is_spent_no_process_calls(warehouse):
    with CallBudget(warehouse, "key", Rates(per_day=25)) as budget:
        until = budget.pause()
    with CallBudget(warehouse, "key", Rates(per_day=25)) as other:
        assert other.take() == until
        assert other.allowance() == Allowance(left=0, per_day=25, frees_at=until)


def test_a_plan_without_a_limit_by_the_day_is_unlimited(warehouse):
    with CallBudget(warehouse, "key", Rates(per_second=50, per_minute=1200)) as budget:
        assert budget.allowance() == Allowance()
        assert [budget.take() for _ in range(5)] == [None] * 5


def test_the_key_itself_is_not_stored(warehouse):
    with CallBudget(warehouse, "SECRETKEY42", Rates(per_day=25)) as budget:
        budget.take()
        budget.pause()
    with warehouse.connect() as connection:
        tables = connection.execute(
            "select tablename from pg_tables where schemaname = 'ops'"
        ).fetchall()
        for (table,) in tables:
            assert "SECRETKEY42" not in table.upper()
            rows = connection.execute(f'select * from ops."{table}"').fetchall()
            assert "SECRETKEY42" not in str(rows)


@pytest.mark.parametrize(
    ("rates", "binding"),
    [
        (Rates(), []),
        (Rates(1, 5, 25), [(1, 1_000), (5, 60_000), (25, 86_400_000)]),
        (Rates(per_second=1, per_minute=75), [(1, 1_000)]),
        (Rates(per_second=100, per_day=6), [(6, 86_400_000)]),
    ],
)
def test_only_limits_that_bind_are_kept(rates, binding):
    assert [(rate.limit, rate.interval) for rate in rates.as_list()] == binding
