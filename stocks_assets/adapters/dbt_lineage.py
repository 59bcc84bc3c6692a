"""Which columns the columns of dbt's models are made of, read off their SQL once per project.

dagster-dbt can do this in every run, from the SQL of that run; parsing the longer models anew for
each of their columns takes minutes, and the SQL that adds new rows alone says less than that of a
full refresh.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlglot import MappingSchema, exp, parse_one
from sqlglot.errors import SqlglotError
from sqlglot.lineage import lineage
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import build_scope

_DIALECT = "postgres"


@dataclass(frozen=True, slots=True)
class Lineage:
    """The lineage of a project's models and snapshots, by their ids in the manifest.

    `columns` has, for each column of a model, the (id, column) pairs that it is made of; `unread`
    has the models whose SQL cannot be followed, and why.
    """

    columns: Mapping[str, Mapping[str, list[tuple[str, str]]]]
    unread: Mapping[str, str]


def column_lineage(manifest: Mapping[str, Any]) -> Lineage:
    """Return the lineage of all that `manifest`, as `dbt compile` writes it, has the SQL of."""
    nodes = {**manifest["nodes"], **manifest["sources"]}
    relations = {
        unique_id: node
        for unique_id, node in nodes.items()
        if node["resource_type"] in ("model", "snapshot", "source")
    }
    schema = MappingSchema(dialect=_DIALECT)
    by_relation: dict[tuple[str, str], str] = {}
    for unique_id, node in relations.items():
        table = exp.table_(node["name"], db=node["schema"])
        columns = {
            name: column.get("data_type") or "text" for name, column in node["columns"].items()
        }
        schema.add_table(table, columns, dialect=_DIALECT)
        by_relation[node["schema"], node["name"]] = unique_id
    # Constructs that sqlglot does not follow are told at length, and cost no more than an arrow.
    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    found, unread = {}, {}
    for unique_id, node in relations.items():
        if node["resource_type"] == "source":
            continue
        try:
            found[unique_id] = _of_model(node.get("compiled_code") or "", schema, by_relation)
        except (SqlglotError, ValueError) as error:
            unread[unique_id] = str(error).partition("\n")[0]
    return Lineage(found, unread)


def _of_model(
    sql: str, schema: MappingSchema, by_relation: Mapping[tuple[str, str], str]
) -> dict[str, list[tuple[str, str]]]:
    expression = parse_one(sql, dialect=_DIALECT)
    for relation in expression.find_all(exp.Table):
        relation.set("catalog", None)
    expression = qualify(
        expression, dialect=_DIALECT, schema=schema, validate_qualify_columns=False
    )
    scope = build_scope(expression)
    assert isinstance(expression, exp.Query)
    columns: dict[str, list[tuple[str, str]]] = {}
    for column in expression.named_selects:
        parents = set()
        root = lineage(
            column,
            expression,
            schema,
            dialect=_DIALECT,
            scope=scope,
            trim_selects=False,
            copy=False,
        )
        for node in root.walk():
            table = node.expression.find(exp.Table)
            if not node.downstream and table is not None:
                parent = by_relation.get((table.db, table.name))
                if parent is not None:
                    parents.add((parent, exp.to_column(node.name).name))
        columns[column] = sorted(parents)
    return columns


def store_lineage(path: Path, lineage: Lineage) -> None:
    """Keep `lineage` in `path`."""
    path.write_text(json.dumps(asdict(lineage)))


def stored_lineage(path: Path) -> Lineage:
    """Return what `store_lineage` put into `path`."""
    stored = json.loads(path.read_bytes())
    columns = {
        model: {
            name: [(parent, below) for parent, below in parents] for name, parents in of.items()
        }
        for model, of in stored["columns"].items()
    }
    return Lineage(columns, stored["unread"])
