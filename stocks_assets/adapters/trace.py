"""Where a bar came from: gold's row, silver's, the object that gave it, and the vendor's words."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier, Literal

from stocks_assets.adapters.bronze import NOT_HAD, NOT_STORED, BronzeStore, is_of_object
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.payloads import SILVER_TABLES, SilverTable
from stocks_assets.errors import PayloadError

Row = Mapping[str, Any]

# The tables of bars in silver, and gold's next to them.
TRACED = {
    "daily_bars": "fct_daily_prices",
    "weekly_bars": "fct_weekly_prices",
    "monthly_bars": "fct_monthly_prices",
}


@dataclass(frozen=True, slots=True)
class Trace:
    """One bar of a ticker, from gold back to the object that it came from.

    `gold` and `silver` are rows by column; gold's is None until it is built. `given` is the bar in
    the words of the payload, None where it is no series of the vendor's. `differing` are silver's
    columns that another value comes out for when the object is shaped again; `problem` says why it
    cannot be, `is_lost` that the object is gone or damaged; its call is due then. `earlier` are the
    values that newer objects restated, the latest first.
    """

    table: str
    silver: Row
    gold: Row | None
    key: BronzeKey
    given: str | None
    differing: tuple[str, ...]
    problem: str | None
    is_lost: bool
    earlier: tuple[Row, ...]


def trace(
    bronze: BronzeStore, warehouse: Warehouse, ticker: str, day: date | None
) -> Iterator[Trace]:
    """Yield the bars of `ticker` that hold `day`: its session, week and month; None: the newest."""
    for name, fact in TRACED.items():
        table = SILVER_TABLES[name]
        period = table.primary_key[1]
        with warehouse.connect() as connection:
            silver = _bar(connection, Identifier("silver", name), period, ticker, day)
            if silver is None:
                continue
            gold = None
            if not warehouse.missing_relations([f"gold.{fact}"]):
                of_gold = Identifier("gold", fact)
                gold = _bar(connection, of_gold, period, ticker, silver[period])
            earlier = _earlier(connection, table, silver)
        key = BronzeKey.parse(silver["bronze_key"])
        given, is_lost = None, False
        differing: tuple[str, ...] = ()
        problem: str | None = None
        try:
            body = bronze.read(key)
        except NOT_HAD as error:
            problem = f"the object cannot be read: {error}"
            if is_lost := is_of_object(error):
                warehouse.note_lost([str(key)], NOT_STORED)
        else:
            differing, problem = _recompute(table, key, body, silver)
            given = _given(body, str(silver["session_date"]))
        yield Trace(name, silver, gold, key, given, differing, problem, is_lost, earlier)


def _bar(
    connection: Connection, relation: Identifier, period: str, ticker: str, day: date | None
) -> Row | None:
    """Return the bar whose session, week or month, by the column `period`, has `day` in it."""
    unit = {"week_start": "week", "month_start": "month"}.get(period, "day")
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            SQL(
                "select * from {} where ticker = {} "
                "and ({day}::date is null or {period} = date_trunc({}, {day}::timestamp)::date) "
                "order by {period} desc limit 1"
            ).format(
                relation,
                Literal(ticker),
                Literal(unit),
                day=Literal(day),
                period=Identifier(period),
            )
        ).fetchone()


def _earlier(connection: Connection, table: SilverTable, row: Row) -> tuple[Row, ...]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return tuple(
            cursor.execute(
                "select restated_at, class, column_name, old_value, new_value, old_bronze_key "
                "from silver.restated_values "
                "where table_name = %s and ticker = %s and row_key = %s "
                "order by restated_at desc, column_name",
                (table.name, row["ticker"], str(row[table.primary_key[1]])),
            ).fetchall()
        )


def _recompute(
    table: SilverTable, key: BronzeKey, body: bytes, row: Row
) -> tuple[tuple[str, ...], str | None]:
    """Return the columns for which the object gives another value than `row`, or what is wrong."""
    try:
        shaped = table.shape(key.ticker, {key.payload_name: body}, key.fetched_at).rows
    except PayloadError as error:
        return (), str(error)
    period = table.primary_key[1]
    found = [line for line in shaped.iter_rows(named=True) if line[period] == row[period]]
    if not found:
        return (), "the object has no such bar any more"
    return tuple(name for name in table.columns if found[0].get(name) != row[name]), None


def _given(body: bytes, label: str) -> str | None:
    """Return the bar as the payload has it, under the date of its session."""
    try:
        payload = json.loads(body)
    except ValueError:
        return None
    for series in payload.values() if isinstance(payload, dict) else ():
        if isinstance(series, dict) and label in series:
            return json.dumps(series[label])
    return None
