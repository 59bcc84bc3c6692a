"""The one partition scheme: a partition is a ticker; dates live in the data.

A run names its partitions by two tags, the first and the last of them, and has all that lie
between: of 300 tickers out of 5,000 a backfill makes some 280 runs. Here the second tag may list
the tickers instead, so that any of them share a run. All of Dagster asks one method what the tags
stand for, and one function for the runs of a backfill; both are replaced, in each process that
opens the instance (`storage.py`, the web server and the daemon import this), for this partition
scheme alone.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions import automation_tick_evaluation_context as runs_of_backfills
from dagster._core.execution.backfill import (
    BulkActionsFilter,
    BulkActionStatus,
    PartitionBackfill,
)

from stocks_assets.domain.batches import split, split_by_length

INBOX_KEY = dg.AssetKey(["bronze", "inbox"])
TICKERS = dg.DynamicPartitionsDefinition(name="ticker")
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
PARTITION = "dagster/partition"

# No ticker has it.
_SEPARATOR = ","
# PostgreSQL's index of tags takes values of 2,700 bytes.
_LONGEST = 2_000

_keys_between = dg.PartitionsDefinition.get_partition_keys_in_range
_dagsters_runs = runs_of_backfills._build_run_requests_with_backfill_policy  # noqa: SLF001


def tags_of(tickers: Sequence[str], universe: Sequence[str]) -> dict[str, str]:
    """Return the tags of a run of `tickers`, which stand in `universe` in the same order."""
    first = universe.index(tickers[0])
    are_neighbours = list(universe[first : first + len(tickers)]) == list(tickers)
    last = tickers[-1] if are_neighbours else _SEPARATOR.join(tickers)
    return {RANGE_START: tickers[0], RANGE_END: last}


def tickers_of_tags(tags: Mapping[str, str], universe: Sequence[str]) -> list[str]:
    """Return the tickers of `universe` that a run with `tags` has."""
    if PARTITION in tags:
        return [tags[PARTITION]]
    first, last = tags.get(RANGE_START), tags.get(RANGE_END)
    if last is not None and _SEPARATOR in last:
        named = set(last.split(_SEPARATOR))
        return [ticker for ticker in universe if ticker in named]
    if first in universe and last in universe:
        return list(universe[universe.index(first) : universe.index(last) + 1])
    return []


def tickers_of_run(
    tags: Mapping[str, str], run_config: Mapping[str, Any], members: Sequence[str]
) -> list[str]:
    """Return the tickers of a run in a universe of `members`: of its config, or its partitions."""
    batch = run_config.get("resources", {}).get("batch", {}).get("config", {}).get("tickers")
    if batch:
        return list(batch)
    return tickers_of_tags(tags, members)


def tickers_needed_by(tags: Mapping[str, str]) -> set[str]:
    """Return the tickers without which a run with `tags` fails for all of them."""
    if _SEPARATOR in tags.get(RANGE_END, ""):
        return set()
    return {tags[tag] for tag in (PARTITION, RANGE_START, RANGE_END) if tag in tags}


def backfills_at_work(instance: dg.DagsterInstance) -> Sequence[PartitionBackfill]:
    """Return the backfills that go on, however many were asked for since."""
    return instance.get_backfills(BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED]))


def tickers_of_backfills(
    instance: dg.DagsterInstance, layers: Collection[str] | None = None
) -> set[str]:
    """Return the tickers of the backfills that go on; each fails as a whole without one of its.

    Of those alone that are to make assets of `layers`, if these are given.
    """
    found: set[str] = set()
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        for backfill in backfills_at_work(instance):
            found.update(backfill.partition_names or ())
            if (data := backfill.asset_backfill_data) is not None:
                for key, subset in data.target_subset.partitions_subsets_by_asset_key.items():
                    if layers is None or key.path[0] in layers:
                        found.update(subset.get_partition_keys())
    return found


def _keys_in_range(
    self: dg.PartitionsDefinition[str], partition_key_range: dg.PartitionKeyRange
) -> Sequence[str]:
    """Return what a range stands for, be it two ends or a list."""
    if self != TICKERS or _SEPARATOR not in partition_key_range.end:
        return _keys_between(self, partition_key_range)
    named = set(partition_key_range.end.split(_SEPARATOR))
    return [key for key in self.get_partition_keys() if key in named]


def _few_runs(  # noqa: PLR0917 # Dagster's own signature
    asset_keys: Sequence[dg.AssetKey],
    asset_check_keys: Sequence[dg.AssetCheckKey],
    backfill_policy: dg.BackfillPolicy,
    partition_keys: frozenset[str],
    partitions_def: dg.PartitionsDefinition[str],
    tags: dict[str, Any],
    dynamic_partitions_store: Any,  # noqa: ANN401 # Dagster's own
) -> Sequence[dg.RunRequest]:
    """Return the runs of a step of a backfill: as few as its policy and the tags allow."""
    if partitions_def != TICKERS or any(_SEPARATOR in key for key in partition_keys):
        return _dagsters_runs(
            asset_keys,
            asset_check_keys,
            backfill_policy,
            partition_keys,
            partitions_def,
            tags,
            dynamic_partitions_store,
        )
    universe = partitions_def.get_partition_keys(dynamic_partitions_store=dynamic_partitions_store)
    wanted = [key for key in universe if key in partition_keys]
    requests = []
    for part in split(wanted, backfill_policy.max_partitions_per_run or max(1, len(wanted))):
        together = tags_of(part, universe)
        fits = len(together[RANGE_END].encode()) <= _LONGEST
        requests += [
            dg.RunRequest(
                asset_selection=list(asset_keys),
                asset_check_keys=list(asset_check_keys),
                tags={**tags, **tags_of(piece, universe)},
            )
            for piece in ([part] if fits else split_by_length(part, _LONGEST))
        ]
    return requests


dg.DynamicPartitionsDefinition.get_partition_keys_in_range = _keys_in_range  # type: ignore[method-assign]
runs_of_backfills._build_run_requests_with_backfill_policy = _few_runs  # noqa: SLF001
