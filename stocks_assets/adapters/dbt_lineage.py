"""Which columns the columns of dbt's models are made of, read off their SQL once per project.

dagster-dbt can do this in every run, from the SQL of that run; parsing the longer models anew for
each of their columns takes minutes, and the SQL that adds new rows alone says less than that of a
full refresh.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlglot import MappingSchema, exp, parse_one
from sqlglot.errors import SqlglotError
from sqlglot.lineage import lineage
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import build_scope

_DIALECT = "postgres"

# By node and column: the nodes and columns below.
Lineage = Mapping[str, Mapping[str, list[tuple[str, str]]]]


def column_lineage(manifest: Mapping[str, Any], compiled: Path) -> Lineage:
    """Return the lineage of each model whose SQL below `compiled`, dbt's folder, can be read."""
    nodes = {**manifest["nodes"], **manifest["sources"]}
    schema = MappingSchema(dialect=_DIALECT)
    by_relation: dict[tuple[str, str], str] = {}
    for unique_id, node in nodes.items():
        if node["resource_type"] in ("model", "snapshot", "source"):
            table = exp.table_(node["name"], db=node["schema"])
            columns = {
                name: column.get("data_type") or "text" for name, column in node["columns"].items()
            }
            schema.add_table(table, columns, dialect=_DIALECT)
            by_relation[node["schema"], node["name"]] = unique_id
    # Constructs that sqlglot does not follow are told at length, and cost no more than an arrow.
    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    found = {}
    for unique_id, node in nodes.items():
        path = compiled / node["package_name"] / node["original_file_path"]
        if node["resource_type"] == "model" and path.is_file():
            try:
                found[unique_id] = _of_model(path.read_text(), schema, by_relation)
            except (SqlglotError, ValueError):
                continue
    return found


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


def stored_lineage(path: Path, digest: str) -> Lineage | None:
    """Return what `store_lineage` put into `path` for the project `digest`; None if it did not."""
    try:
        stored = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    found: Lineage | None = stored["lineage"] if stored["digest"] == digest else None
    return found


def store_lineage(path: Path, digest: str, lineage: Lineage) -> None:
    """Keep the lineage of the project `digest` in `path`."""
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps({"digest": digest, "lineage": lineage}))
    aside.replace(path)
