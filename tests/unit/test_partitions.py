import subprocess
import sys

import dagster as dg
import pytest
from dagster._core.definitions.automation_tick_evaluation_context import (
    build_run_requests_with_backfill_policies,
)
from dagster._core.definitions.events import AssetKeyPartitionKey
from hypothesis import given, settings
from hypothesis import strategies as st

from stocks_assets.adapters.warehouse import PARTS_OF_A_LOCK
from stocks_assets.defs.partitions import (
    RANGE_END,
    RANGE_START,
    TICKERS,
    tags_of,
    tickers_needed_by,
    tickers_of_tags,
)
from stocks_assets.defs.silver import silver_assets
from stocks_assets.settings import Settings

UNIVERSE = [f"T{number}" for number in range(40)]
subsets = st.lists(st.sampled_from(UNIVERSE), unique=True, min_size=1).map(
    lambda some: sorted(some, key=UNIVERSE.index)
)


@pytest.fixture(scope="module")
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("ticker", UNIVERSE)
        yield instance


@given(tickers=subsets)
@settings(deadline=None)
def test_the_tags_of_a_run_stand_for_exactly_its_tickers(instance, tickers):
    tags = tags_of(tickers, UNIVERSE)
    assert tickers_of_tags(tags, UNIVERSE) == tickers
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        span = dg.PartitionKeyRange(tags[RANGE_START], tags[RANGE_END])
        assert TICKERS.get_partition_keys_in_range(span) == tickers


@pytest.mark.parametrize("module", ["storage", "webserver", "daemon"])
def test_each_process_that_opens_the_instance_knows_what_a_list_stands_for(module):
    """On Kubernetes the storage is Dagster's own."""
    asked = (
        f"import stocks_assets.defs.{module}, dagster;"
        "print(dagster.DynamicPartitionsDefinition.get_partition_keys_in_range.__module__)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", asked], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "stocks_assets.defs.partitions"


def test_neighbours_are_named_by_the_first_and_the_last():
    assert tags_of(UNIVERSE[3:6], UNIVERSE) == {RANGE_START: "T3", RANGE_END: "T5"}
    assert tickers_needed_by(tags_of(UNIVERSE[3:6], UNIVERSE)) == {"T3", "T5"}


def test_a_listed_ticker_that_is_gone_costs_the_others_nothing():
    tags = tags_of(["T1", "T5", "T9"], UNIVERSE)
    assert tickers_needed_by(tags) == set()
    assert tickers_of_tags(tags, [t for t in UNIVERSE if t != "T1"]) == ["T5", "T9"]


def requests(universe, wanted, at_most):
    """Return the runs that the backfill daemon asks for."""

    @dg.asset(partitions_def=TICKERS, backfill_policy=dg.BackfillPolicy.multi_run(at_most))
    def one():
        pass

    graph = dg.Definitions(assets=[one]).resolve_asset_graph()
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("ticker", universe)
        with dg.partition_loading_context(dynamic_partitions_store=instance):
            found = build_run_requests_with_backfill_policies(
                asset_partitions={AssetKeyPartitionKey(dg.AssetKey("one"), key) for key in wanted},
                asset_graph=graph,
                dynamic_partitions_store=instance,
            )
    return [tickers_of_tags(request.tags, universe) for request in found]


def test_scattered_tickers_of_a_backfill_share_a_run():
    wanted = UNIVERSE[::3]
    assert requests(UNIVERSE, wanted, 500) == [wanted]
    assert [len(run) for run in requests(UNIVERSE, wanted, 10)] == [7, 7]


def test_no_tag_is_longer_than_the_index_of_tags_takes():
    universe = [f"TICKER.NUMBER{number:06}" for number in range(1200)]
    found = requests(universe, universe[::2], 500)
    assert [ticker for run in found for ticker in run] == universe[::2]
    assert 2 < len(found) < 12
    assert all(len(",".join(run)) <= 2000 for run in found)


def test_full_runs_of_a_backfill_load_beside_each_other():
    policies = [
        asset.backfill_policy
        for asset in silver_assets(
            tickers_per_run=Settings.model_fields["tickers_per_run"].default, ui_charts=True
        )
        if asset.backfill_policy is not None
    ]
    most = max(policy.max_partitions_per_run for policy in policies)
    # Of more, a load would hold its whole table.
    assert 500 < most < PARTS_OF_A_LOCK
