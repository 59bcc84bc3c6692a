"""Headline tables of gold's marts, read after they were built."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date

import psycopg
from psycopg.sql import SQL, Composable, Identifier, Literal

from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.headlines import MARKET, PER_TICKER, Headline, as_markdown
from stocks_assets.domain.market_session import market_sessions

_SCHEMA = "gold"
# How many tickers have each session of the newest weeks, which are enough to tell the market's last
# one: from daily bars, which are there before what is made of them.
_RECENT = """
    select bars.session_date, count(*)
    from {schema}.dim_company tickers
    cross join lateral (
        select session_date from {schema}.fct_daily_prices rows_of_ticker
        where rows_of_ticker.ticker = tickers.ticker
        and rows_of_ticker.session_date > (select max(session_date) - 60 from {table}) offset 0
    ) bars
    group by 1
"""
# Without daily bars, a mart's rows are of the last weeks.
_OWN = "select session_date, count(*) from {table} group by 1"


def market_headline(warehouse: Warehouse, model: str) -> str | None:
    """Return the table of a mart across tickers as Markdown; None for what is no such mart."""
    headline = MARKET.get(model)
    if headline is None:
        return None
    table = Identifier(_SCHEMA, model)
    with warehouse.connect() as connection:
        condition = (
            SQL("where session_date = {}").format(Literal(_last_session(connection, table)))
            if headline.of_last_session
            else SQL("")
        )
        statement = SQL("select {} from {} {} order by {} limit {}").format(
            _columns(headline), table, condition, _order(headline), headline.rows
        )
        return as_markdown(headline, connection.execute(statement).fetchall())


def _last_session(connection: psycopg.Connection, table: Identifier) -> date | None:
    """Return the market's last session as of when `table` was made."""
    for query in (_RECENT, _OWN):
        statement = SQL(query).format(schema=Identifier(_SCHEMA), table=table)
        if sessions := market_sessions(dict(connection.execute(statement).fetchall())):
            return sessions[-1].day
    return None


def ticker_headlines(warehouse: Warehouse, model: str, tickers: Sequence[str]) -> Mapping[str, str]:
    """Return the tables of those of `tickers` that a mart has rows of, as Markdown."""
    headline = PER_TICKER.get(model)
    if headline is None or not tickers:
        return {}
    statement = SQL(
        "select asked.ticker, newest.* from unnest(%s::text[]) asked (ticker) cross join lateral "
        "(select {} from {} mart where mart.ticker = asked.ticker order by {} limit {}) newest"
    ).format(_columns(headline), Identifier(_SCHEMA, model), _order(headline), headline.rows)
    found: dict[str, list[tuple[object, ...]]] = defaultdict(list)
    with warehouse.connect() as connection:
        for ticker, *values in connection.execute(statement, (list(tickers),)):
            found[ticker].append(tuple(values))
    return {ticker: as_markdown(headline, rows) for ticker, rows in found.items()}


def _columns(headline: Headline) -> Composable:
    return SQL(", ").join(map(Identifier, headline.columns))


def _order(headline: Headline) -> Composable:
    return SQL(headline.order_by)
