"""Charts of the bars that silver holds of a ticker, read from its tables."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from psycopg.sql import SQL, Identifier

from stocks_assets.adapters.warehouse import Warehouse, connect
from stocks_assets.domain.charts import as_markdown, picture

# By table: what its bars are of, and how many of them are drawn.
CHARTED: Mapping[str, tuple[str, int]] = {
    "daily_bars": ("sessions", 252),
    "weekly_bars": ("weeks", 156),
    "monthly_bars": ("months", 120),
}


@contextmanager
def bar_charts(warehouse: Warehouse, table: str) -> Iterator[Callable[[str], str | None]]:
    """Yield what returns, as Markdown, the chart of a ticker's newest bars in `silver.<table>`.

    Closes are the vendor's adjusted ones where all of those have one, else as traded. A ticker with
    fewer than two bars has no chart.
    """
    of_what, count = CHARTED[table]
    statement = SQL(
        "select close, adjusted_close from {} where ticker = %s order by session_date desc limit {}"
    ).format(Identifier("silver", table), count)
    # Without a transaction, which would hold up whoever changes the table while it is loaded.
    with connect(warehouse.database_url, autocommit=True) as connection:

        def chart(ticker: str) -> str | None:
            rows = connection.execute(statement, (ticker,), prepare=True).fetchall()[::-1]
            is_adjusted = all(adjusted is not None for _, adjusted in rows)
            closes = [adjusted if is_adjusted else close for close, adjusted in rows]
            svg = picture(closes)
            if svg is None:
                return None
            which = "Adjusted closes" if is_adjusted else "Closes as traded"
            words = f"{which} of the last {len(closes)} {of_what}"
            change = closes[-1] / closes[0] - 1
            return f"{as_markdown(svg, words)}\n\n{words}: **{closes[-1]:,.2f}** ({change:+.1%})"

        yield chart
