"""The books about objects that arrived: which silver has not loaded, and what people were told."""

from collections.abc import Sequence

from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.arrivals import Notice, Unloaded
from stocks_assets.domain.datasets import MARKET


class Arrivals:
    """What the sensor reads and notes in the warehouse."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def unloaded(self, universe: Sequence[str]) -> list[Unloaded]:
        """Return what is to be loaded of `universe` and the market, and what nobody was told of.

        It costs as much as there is to load; what is loaded is not looked at.
        """
        with self._warehouse.connect() as connection:
            rows = connection.execute(
                "select ticker, count(distinct bronze_key), min(requests), max(requested_at), "
                "min(noticed_at), bool_and(reported_at is not null), "
                "md5(string_agg(concat_ws(' ', table_name, bronze_key, noticed_at, requests), ',' "
                "order by bronze_key, table_name)) "
                "from ops.object_loads where loaded_at is null and not is_refused "
                "and (ticker = any(%s) or reported_at is null) group by ticker",
                ([MARKET, *universe],),
            ).fetchall()
        return [Unloaded(*row) for row in rows]

    def hand_over(self, tickers: Sequence[str]) -> None:
        """Note that a run is asked for what is to be loaded of `tickers`."""
        with self._warehouse.connect() as connection:
            connection.execute(
                "update ops.object_loads set requests = requests + 1, requested_at = now() "
                "where loaded_at is null and not is_refused and ticker = any(%s)",
                (list(tickers),),
            )

    def told_of(self, tickers: Sequence[str]) -> None:
        """Note that people were told of the objects of `tickers`, which are not in the universe."""
        with self._warehouse.connect() as connection:
            connection.execute(
                "update ops.object_loads set reported_at = now() where loaded_at is null "
                "and not is_refused and reported_at is null and ticker = any(%s)",
                (list(tickers),),
            )

    def notices(self) -> list[Notice]:
        """Return the objects that nobody was told of, and note that somebody now is."""
        with self._warehouse.connect() as connection:
            rows = connection.execute(
                "update bronze.notices set reported_at = now() where reported_at is null "
                "returning key, etag, reason"
            ).fetchall()
        return sorted(Notice(*row) for row in rows)
