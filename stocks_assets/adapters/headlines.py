"""Headline tables of gold's marts, read after they were built."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from psycopg.sql import SQL, Composable, Identifier

from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.headlines import MARKET, PER_TICKER, Headline, as_markdown

_SCHEMA = "gold"


def market_headline(warehouse: Warehouse, model: str) -> str | None:
    """Return the table of a mart across tickers as Markdown; None for what is no such mart."""
    headline = MARKET.get(model)
    if headline is None:
        return None
    table = Identifier(_SCHEMA, model)
    newest = SQL("where session_date = (select max(session_date) from {})").format(table)
    statement = SQL("select {} from {} {} order by {} limit {}").format(
        _columns(headline),
        table,
        newest if headline.of_last_session else SQL(""),
        _order(headline),
        headline.rows,
    )
    with warehouse.connect() as connection:
        return as_markdown(headline, connection.execute(statement).fetchall())


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
