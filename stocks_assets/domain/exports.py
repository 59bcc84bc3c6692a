"""What leaves the warehouse: the formats of a query's rows, and which object holds which rows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self
from urllib.parse import quote, unquote

from stocks_assets.domain.tickers import parse_ticker
from stocks_assets.errors import InvalidKeyError, InvalidTickerError

_KEY = re.compile(
    r"(?P<schema>[a-z_][a-z0-9_]*)/(?P<table>[a-z_][a-z0-9_]*)/"
    r"(?:ticker=(?P<ticker>[A-Z0-9.\-%]+)/)?data\.parquet"
)


class Format(StrEnum):
    """What the rows of a query are written as."""

    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True, order=True)
class ExportKey:
    """The key of an object with a table's rows, all of them or those of one ticker.

    The layout is Hive's, which Polars, DuckDB and Spark read: the value of a partition is
    percent-encoded, so `BF/B` is `ticker=BF%2FB`.
    """

    schema: str
    table: str
    ticker: str | None = None

    def __str__(self) -> str:
        part = "" if self.ticker is None else f"ticker={quote(self.ticker, safe='')}/"
        return f"{self.schema}/{self.table}/{part}data.parquet"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that `text` is.

        Raises:
            InvalidKeyError: `text` is no key of an exported object.
        """
        match = _KEY.fullmatch(text)
        written = match["ticker"] if match else None
        try:
            key = match and cls(
                match["schema"], match["table"], parse_ticker(unquote(written)) if written else None
            )
        except InvalidTickerError:
            key = None
        if not key or str(key) != text:
            raise InvalidKeyError(
                f"{text!r} is not the key of an exported object; expected such as "
                f"{cls('gold', 'fct_daily_prices', 'BF/B')}"
            )
        return key


@dataclass(frozen=True, slots=True)
class ExportedTable:
    """A table or view of gold, and how it is exported.

    `order_by` are the columns that tell its rows apart; none: all of them do. Its changes are noted
    as those of the model `changes_of`, which is `tickers_in` with its schema and has its tickers.
    """

    schema: str
    name: str
    is_per_ticker: bool
    order_by: tuple[str, ...]
    changes_of: str
    tickers_in: tuple[str, str]

    def key(self, ticker: str | None) -> ExportKey:
        """Return where the rows of `ticker` are; those of all, where they share an object."""
        return ExportKey(self.schema, self.name, ticker)


def exported_tables(manifest: Mapping[str, Any], schema: str = "gold") -> list[ExportedTable]:
    """Return the models and snapshots in `schema` of a dbt project, in the order of their names."""
    nodes = [
        node
        for node in manifest["nodes"].values()
        if node["resource_type"] in ("model", "snapshot")
        and node["config"]["materialized"] != "ephemeral"
    ]
    schemas = {node["name"]: node["schema"] for node in nodes}
    tables = []
    for node in nodes:
        if node["schema"] != schema:
            continue
        is_per_ticker = "per_ticker" in node["tags"]
        meta = node["config"]["meta"]
        key = next(
            (
                tuple(constraint["columns"])
                for constraint in node.get("constraints", ())
                if constraint["type"] == "primary_key"
            ),
            ("ticker", meta["period"]) if is_per_ticker and "period" in meta else (),
        )
        changes_of = meta.get("changes_of", node["name"])
        tables.append(
            ExportedTable(
                schema,
                node["name"],
                is_per_ticker,
                key,
                changes_of,
                (schemas[changes_of], changes_of),
            )
        )
    return sorted(tables, key=lambda table: table.name)
