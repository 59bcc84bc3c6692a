"""Gold: the dbt project's models as assets, its tests as asset checks; one dbt call a batch.

Models with the tag `per_ticker` have the ticker partitions. Those that read silver look at the
tickers of the batch, and all build just what changed; the models across tickers have no partitions.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.execution.plan.outputs import StepOutputHandle
from dagster_dbt import (
    DagsterDbtTranslator,
    DbtCliInvocation,
    DbtCliResource,
    DbtProject,
    dbt_assets,
)
from packaging.version import Version
from pydantic import Field

from stocks_assets.adapters.dbt_project import (
    DBT_EXECUTABLE,
    PROJECT_DIR,
    dbt_environment,
    ensure_manifest,
    parse_cache,
    part_of_dbt,
    project_digest,
    project_lineage,
)
from stocks_assets.adapters.headlines import market_headline, ticker_headlines
from stocks_assets.adapters.relations import describe
from stocks_assets.adapters.warehouse import Failure, Warehouse
from stocks_assets.defs.batch import (
    Batch,
    is_deferred,
    made_from,
    mark_left,
    names_tickers,
    tickers_of,
    write_together,
)
from stocks_assets.defs.bronze import OWNERS
from stocks_assets.defs.partitions import TICKERS
from stocks_assets.defs.retries import retried
from stocks_assets.domain.headlines import cell

# Where many tickers share one text in the UI, the first few have their rows in it.
_TICKERS_SHOWN = 3
_BELOW_GOLD = "staging"
# Of a run whose tests look at all rows, whatever they have passed before.
ALL_ROWS = "stocks/all_rows"
CALENDAR = dg.AssetKey(["gold", "dim_date"])
# What a table has of columns is the same for all its tickers, and the most of an event by far. The
# UI looks for it in an asset's newest event, so that one has it.
_OF_COLUMNS = ("dagster/column_schema", "dagster/column_lineage")


class Gold(dg.Config):
    """How gold is built."""

    full_refresh: bool = Field(
        default=False,
        description="Build all of gold anew, of all tickers in silver, instead of what changed.",
    )


class Dbt(DbtCliResource):
    """The dbt command line, without the two seconds that asking it for its version takes.

    It is given its part of the environment.
    """

    @cached_property
    def _cli_version(self) -> Version:
        return Version(version("dbt-core"))

    def cli(self, *arguments: Any, **options: Any) -> DbtCliInvocation:  # noqa: ANN401 # handed on
        """Start dbt, as the base class does; the environment is whole again when it has started."""
        whole = dict(os.environ)
        for name in whole.keys() - part_of_dbt(whole):
            del os.environ[name]
        try:
            return super().cli(*arguments, **options)
        finally:
            os.environ.update(whole)


def dbt_resource() -> Dbt:
    """Return dbt as installed beside this interpreter, whatever is on PATH."""
    return Dbt(
        project_dir=str(PROJECT_DIR),
        profiles_dir=str(PROJECT_DIR),
        dbt_executable=DBT_EXECUTABLE,
        # dbt's log file would go with its target folder.
        global_config_flags=["--no-use-colors", "--log-level-file", "none"],
    )


class Translator(DagsterDbtTranslator):
    """Asset key = location: `gold.fct_daily_prices` is gold/fct_daily_prices."""

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        """Return schema and name; sources name the silver asset themselves."""
        if dbt_resource_props["resource_type"] == "source":
            return super().get_asset_key(dbt_resource_props)
        return dg.AssetKey([dbt_resource_props["schema"], dbt_resource_props["name"]])

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:
        """Return the schema: staging or gold."""
        return str(dbt_resource_props["schema"])

    def get_owners(self, dbt_resource_props: Mapping[str, Any]) -> list[str]:  # noqa: ARG002
        """Return the team."""
        return OWNERS

    def get_partitions_def(
        self, dbt_resource_props: Mapping[str, Any]
    ) -> dg.PartitionsDefinition[str] | None:
        """Return the ticker partitions of what has rows of single tickers."""
        return TICKERS if "per_ticker" in dbt_resource_props["tags"] else None


def gold_assets(*, tickers_per_run: int) -> dg.AssetsDefinition:
    """Return the dbt project as one multi-asset."""
    manifest, digest = ensure_manifest(), project_digest()
    models = [
        node
        for node in json.loads(manifest.read_bytes())["nodes"].values()
        if node["resource_type"] == "model" and node["config"]["materialized"] != "ephemeral"
    ]
    relations = [f"{model['schema']}.{model['name']}" for model in models]
    # Whatever is missing of these, dbt makes of what is there.
    across_tickers = {
        f"{model['schema']}.{model['name']}" for model in models if "market" in model["tags"]
    }
    views = {
        dg.AssetKey([model["schema"], model["name"]])
        for model in models
        if model["config"]["materialized"] == "view"
    }
    tables = {model["name"]: (model["schema"], model["name"]) for model in models}
    # A view has as many rows as the table that it is made of, where its properties name one.
    counted = {
        dg.AssetKey([model["schema"], model["name"]]): tables[
            model["config"]["meta"].get("changes_of", model["name"])
        ]
        for model in models
    }
    project = DbtProject(project_dir=PROJECT_DIR, profiles_dir=PROJECT_DIR)

    @dbt_assets(
        manifest=manifest,
        project=project,
        name="gold",
        dagster_dbt_translator=Translator(),
        backfill_policy=dg.BackfillPolicy.multi_run(tickers_per_run + 2),
    )
    @retried
    def gold(
        context: dg.AssetExecutionContext,
        config: Gold,
        batch: Batch,
        dbt: Dbt,
        warehouse: dg.ResourceParam[Warehouse],
    ) -> Iterator[Any]:
        deferred = is_deferred(context)
        if context.run.tags.get(ALL_ROWS) == "true":
            warehouse.forget_passed_tests()
        tickers = tickers_of(context, batch) if names_tickers(context, batch) else None
        rebuild, lacks_market, missing = config.full_refresh, False, set[str]()
        if deferred and tickers is not None:
            # A refresh builds the tickers that silver has something new of, and all of them where
            # gold was built by another version of the models or lacks one that has tickers.
            missing = set(warehouse.missing_relations(relations))
            rebuild = (
                rebuild
                or warehouse.gold_was_built_otherwise(digest)
                or not missing <= across_tickers
            )
            if not rebuild:
                listed_otherwise = warehouse.tickers_listed_otherwise()
                behind = warehouse.tickers_behind_in_gold(tickers, digest)
                lacks_market = bool(missing or listed_otherwise) or warehouse.gold_lacks_calendar()
                tickers = sorted({*behind, *set(tickers).intersection(listed_otherwise)})
            if not tickers and not rebuild and not lacks_market:
                context.log.info("gold has all that silver has")
                yield from _nothing_new(context)
                return
        if rebuild:
            tickers = warehouse.silver_tickers()
        selected = context.selected_asset_keys
        needs_calendar = any(CALENDAR in context.assets_def.asset_deps[key] for key in selected)
        if needs_calendar and CALENDAR not in selected and warehouse.gold_lacks_calendar():
            raise dg.Failure(
                "gold/dim_date is missing or not that of silver/exchange_calendar; materialize "
                "both first, or run the job 'refresh'",
                allow_retries=False,
            )
        # dbt's unit tests judge the models' SQL, not the data: the test session runs them.
        command = ["build", "--exclude-resource-type", "unit_test"]
        if rebuild:
            command.append("--full-refresh")
        kept, made_before = set[dg.AssetKey](), set[str]()
        if deferred and not rebuild and not context.is_subset:
            # Views are as the rebuild left them that this project began with. Their tests run.
            kept = {view for view in views if ".".join(view.path) not in missing}
            names = " ".join(sorted(view.path[-1] for view in kept))
            command += ["--indirect-selection", "empty", "--exclude", names]
            made_before = set(warehouse.tickers_in_gold(digest))
        events = _build(
            context,
            dbt,
            warehouse,
            tickers,
            command=command,
            kept=kept,
            built_by=digest,
            counted=counted,
        )
        if deferred:
            yield from _recorded(
                context, warehouse, events, tickers or [], kept=kept, made_before=made_before
            )
        else:
            yield from _with_headlines(context, warehouse, events, tickers or [])

    return gold


def _recorded(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    events: Iterable[Any],
    tickers: Sequence[str],
    *,
    kept: Collection[dg.AssetKey],
    made_before: Collection[str],
) -> Iterator[Any]:
    """Yield `events` and write what Dagster leaves to us: which tickers of what were made.

    Of the views `kept` below gold, whose age nobody looks at, that is said of the tickers alone
    that gold was not `made_before` of. Where dbt ends before all is made, the rest has failed.
    """

    def told_of(key: dg.AssetKey) -> list[str]:
        is_as_before = key in kept and key.path[0] == _BELOW_GOLD
        return [ticker for ticker in tickers if not (is_as_before and ticker in made_before)]

    left = set(context.selected_asset_keys)
    try:
        for event in events:
            if isinstance(event, dg.Output):
                key = context.asset_key_for_output(event.output_name)
                write_together(
                    context, list(_materializations(context, warehouse, event, told_of(key)))
                )
                left.discard(key)
            yield event
    except Exception as error:
        reason = "dbt did not come to it, or failed at it"
        mark_left(
            context,
            error,
            lambda: [
                Failure(key.to_user_string(), partition or "", reason)
                for key in left
                for partition in _partitions(context, key, told_of(key))
            ],
        )
        raise


def _with_headlines(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    events: Iterable[Any],
    tickers: Sequence[str],
) -> Iterator[Any]:
    """Yield `events` of a run that Dagster writes the materializations of."""
    for event in events:
        if isinstance(event, dg.Output) and tickers:
            yield _columns_once(context, _with_headline_of(context, warehouse, event, tickers))
        else:
            yield event


def _nothing_new(context: dg.AssetExecutionContext) -> Iterator[dg.Output[None]]:
    """Yield the outputs that let what follows start; Dagster wants parents before children."""
    for key in TopologicalSorter(context.assets_def.asset_deps).static_order():
        if key in context.selected_asset_keys:
            yield dg.Output(None, output_name=context.output_for_asset_key(key))


def _build(
    context: dg.AssetExecutionContext,
    dbt: Dbt,
    warehouse: Warehouse,
    tickers: list[str] | None,
    *,
    command: list[str],
    kept: Collection[dg.AssetKey],
    built_by: str,
    counted: Mapping[dg.AssetKey, tuple[str, str]],
) -> Iterator[Any]:
    """Run dbt for `tickers`, but for the views `kept`.

    `counted` says which table's rows are those of a model. Parallel runs of one model collide, so
    there is one at a time.
    """
    run_id = context.run.run_id
    target = Path(tempfile.mkdtemp(prefix="stocks-dbt-"))
    try:
        with (
            warehouse.lock("dbt"),
            warehouse.gold_batch(
                run_id, tickers or [], built_by=built_by, is_whole=not context.is_subset
            ),
            dbt_environment(warehouse, run_id if tickers is not None else None),
            parse_cache(target),
        ):
            lineage = _lineage(context)
            events = dbt.cli(command, context=context, target_path=target).stream()
            for event in _with_views(context, events, kept):
                # dagster-dbt's own way to add this waits in a loop that takes a processor.
                yield _described(context, warehouse, event, lineage, counted)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _with_views(
    context: dg.AssetExecutionContext, events: Iterable[Any], kept: Collection[dg.AssetKey]
) -> Iterator[Any]:
    """Yield `events`, and the outputs of the views `kept` once those of their parents came."""
    parents = context.assets_def.asset_deps
    order = [key for key in TopologicalSorter(parents).static_order() if key in kept]
    own, done = set(context.selected_asset_keys), set[dg.AssetKey]()

    def outputs() -> Iterator[dg.Output[None]]:
        for key in order:
            if key not in done and not (parents[key] & own) - done:
                done.add(key)
                yield dg.Output(None, output_name=context.output_for_asset_key(key))

    yield from outputs()
    for event in events:
        yield event
        if isinstance(event, dg.Output):
            done.add(context.asset_key_for_output(event.output_name))
            yield from outputs()


def _lineage(context: dg.AssetExecutionContext) -> Mapping[dg.AssetKey, dg.TableColumnLineage]:
    """Return each model's column lineage; the log says which have none."""
    lineage = project_lineage()
    manifest = json.loads(ensure_manifest().read_bytes())
    nodes = {**manifest["nodes"], **manifest["sources"]}
    for unique_id, reason in lineage.unread.items():
        context.log.warning(f"no column lineage of {unique_id}: {reason}")

    def key(unique_id: str) -> dg.AssetKey:
        return Translator().get_asset_key(nodes[unique_id])

    return {
        key(unique_id): dg.TableColumnLineage(
            {
                column: [dg.TableColumnDep(key(parent), name) for parent, name in parents]
                for column, parents in columns.items()
            }
        )
        for unique_id, columns in lineage.columns.items()
    }


def _described(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    event: Any,  # noqa: ANN401 # whatever dagster-dbt yields
    lineage: Mapping[dg.AssetKey, dg.TableColumnLineage],
    counted: Mapping[dg.AssetKey, tuple[str, str]],
) -> Any:  # noqa: ANN401
    """Return `event`; if it is about a model, with what the UI shows: columns, lineage, rows."""
    if not isinstance(event, dg.Output):
        return event
    key = context.asset_key_for_output(event.output_name)
    relation = describe(warehouse, *key.path, counted=counted.get(key))
    metadata: dict[str, Any] = {
        "dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(name, kind) for name, kind in relation.columns]
        )
    }
    if relation.rows is not None:
        metadata["dagster/row_count"] = relation.rows
    if key in lineage:
        metadata["dagster/column_lineage"] = lineage[key]
    return event.with_metadata(
        _with_headline({**event.metadata, **metadata}, market_headline(warehouse, key.path[-1]))
    )


def _with_headline(metadata: Mapping[str, Any], headline: str | None) -> dict[str, Any]:
    """Return `metadata` with the headline, if any, where it is seen first."""
    shown = {} if headline is None else {"headline": dg.MetadataValue.md(headline)}
    return {**shown, **metadata}


def _with_headline_of(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    output: dg.Output[Any],
    tickers: Sequence[str],
) -> dg.Output[Any]:
    """Return an output of a run that Dagster writes the events of: one text for all its tickers."""
    key = context.asset_key_for_output(output.output_name)
    shown = ticker_headlines(warehouse, key.path[-1], sorted(tickers)[:_TICKERS_SHOWN])
    if not shown:
        return output
    text = "\n\n".join(f"{cell('ticker', ticker)} {table}" for ticker, table in shown.items())
    return output.with_metadata(_with_headline(output.metadata, text))


def _columns_once(context: dg.AssetExecutionContext, output: dg.Output[Any]) -> dg.Output[Any]:
    """Return `output` without what only the last of its partitions is to have, which gets it."""
    key = context.asset_key_for_output(output.output_name)
    if context.assets_def.specs_by_key[key].partitions_def is None:
        return output
    step = context.get_step_execution_context()
    handle = StepOutputHandle(step.step.key, output.output_name)
    # In the order in which Dagster writes the events.
    *others, last = step.get_output_context(handle).asset_partition_keys
    if not others:
        return output
    light, of_columns = _parted(output.metadata)
    context.add_asset_metadata(of_columns, asset_key=key, partition_key=last)
    return output.with_metadata(light)


def _parted(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    of_columns = {name: value for name, value in metadata.items() if name in _OF_COLUMNS}
    light = {name: value for name, value in metadata.items() if name not in _OF_COLUMNS}
    return light, of_columns


def _materializations(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    output: dg.Output[Any],
    tickers: Sequence[str],
) -> Iterator[dg.AssetMaterialization]:
    """Yield the events that Dagster would write if it did not leave them to us."""
    key = context.asset_key_for_output(output.output_name)
    partitions = _partitions(context, key, tickers)
    of_tickers = [ticker for ticker in partitions if ticker is not None]
    headlines = ticker_headlines(warehouse, key.path[-1], of_tickers) if of_tickers else {}
    light, of_columns = _parted(output.metadata)
    # What is made of silver alone knows by data versions whether that is newer, and not just told.
    parents = context.assets_def.asset_deps[key]
    is_of_silver = partitions == [None] and all(parent.path[0] == "silver" for parent in parents)
    code_version = context.assets_def.code_versions_by_key[key]
    tags = made_from(context, parents, code_version) if is_of_silver else {}
    for partition in partitions:
        metadata = _with_headline(light, headlines.get(partition or ""))
        if partition == partitions[-1]:
            metadata |= of_columns
        yield dg.AssetMaterialization(key, partition=partition, metadata=metadata, tags=tags)


def _partitions(
    context: dg.AssetExecutionContext, key: dg.AssetKey, tickers: Sequence[str]
) -> Sequence[str | None]:
    """Return those of `tickers` that are in the universe, or None alone where none are told of."""
    if context.assets_def.specs_by_key[key].partitions_def is None:
        return [None]
    universe = set(context.partition_keys)
    return [ticker for ticker in tickers if ticker in universe]
