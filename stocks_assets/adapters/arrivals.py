"""The books about objects that arrived: which silver has not loaded, and what people were told."""

from collections.abc import Sequence
from datetime import UTC, datetime

from psycopg.sql import SQL

from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.arrivals import Notice, Unloaded
from stocks_assets.domain.datasets import MARKET

NEVER = datetime.min.replace(tzinfo=UTC)
_ALL = SQL("select * from ops.object_loads where loaded_at is null and not is_refused")
# Whatever others have that was told is not read. PostgreSQL takes the members for so many that it
# would read it all, unless it has to ask the index for one after the other.
_TO_LOAD_OR_TELL = SQL(
    "{all} and coalesce(reported_at, 'infinity') > %(told_until)s "
    "union all select told.* from unnest(%(members)s::text[]) as members (ticker) "
    "cross join lateral ({all} and object_loads.ticker = members.ticker "
    "  and coalesce(reported_at, 'infinity') <= %(told_until)s offset 0) told"
).format(all=_ALL)


class Arrivals:
    """What the sensor reads and notes in the warehouse.

    `told_until` is when people were last told what is known to have reached them, or NEVER; what
    was told after it is told again.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def unloaded(
        self, universe: Sequence[str], *, registers: bool, told_until: datetime
    ) -> list[Unloaded]:
        """Return what is to be loaded of `universe` and the market, and what nobody was told of.

        With `registers`, what is to be loaded of any ticker. It costs as much as there is to load
        and to tell; what is loaded, or of others and told, is not looked at.
        """
        lines = _ALL if registers else _TO_LOAD_OR_TELL
        with self._warehouse.connect() as connection:
            rows = connection.execute(
                SQL(
                    "select ticker, count(distinct bronze_key), min(requests), max(requested_at), "
                    "min(noticed_at), "
                    "bool_and(coalesce(reported_at, 'infinity') <= %(told_until)s), "
                    "md5(string_agg(concat_ws(' ', table_name, bronze_key, noticed_at, requests), "
                    "',' order by bronze_key, table_name)) from ({}) lines group by ticker"
                ).format(lines),
                {"members": [MARKET, *universe], "told_until": told_until},
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

    def tell(
        self, strangers: Sequence[str], *, told_until: datetime
    ) -> tuple[list[Notice], datetime]:
        """Note that people are told of the tickers `strangers` and of all objects to look at.

        Returns these objects, and the time: `told_until`, once it has reached people.
        """
        given = {"strangers": list(strangers), "told_until": told_until}
        with self._warehouse.connect() as connection:
            connection.execute(
                "update ops.object_loads set reported_at = now() where loaded_at is null "
                "and not is_refused and ticker = any(%(strangers)s) "
                "and coalesce(reported_at, 'infinity') > %(told_until)s",
                given,
            )
            rows = connection.execute(
                "update bronze.notices set reported_at = now() "
                "where coalesce(reported_at, 'infinity') > %(told_until)s "
                "returning key, etag, reason",
                given,
            ).fetchall()
            ((told_at,),) = connection.execute("select now()").fetchall()
        return sorted(Notice(*row) for row in rows), told_at
