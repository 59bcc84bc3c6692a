"""The silver tables in PostgreSQL: what comes is compared with what is stored and merged.

What it supersedes is kept. The order of the writes makes a load that is killed harmless: first what
is superseded is noted, then rows are merged, then rows that are gone are deleted. A second load of
the same objects finds the same differences, or what is left of them.
"""

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from itertools import combinations
from typing import NamedTuple, Self

import polars as pl
from psycopg.sql import SQL, Identifier, Literal

from stocks_assets.adapters import loader
from stocks_assets.adapters.warehouse import Reader, Warehouse
from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.datasets import DAILY_BARS, DIVIDENDS, DROPPED, MARKET, SPLITS
from stocks_assets.domain.payloads import SilverTable
from stocks_assets.domain.restatements import PROVENANCE, Changes, compare

SCHEMA = "silver"
_SHADOW = "silver_shadow"
_DATASET = f"^{BronzeKey.prefix('([^/]+)')}"
_OF_BARS = BronzeKey.prefix(DAILY_BARS.name)
_HISTORY = ("superseded_rows", "restated_closes")
_SHORTER = (
    "the payload has {} {} where {} are stored; if it is right, materialize it with the config "
    "accept_shorter: true"
)
# A whole history that has lost more than a tenth of so many rows, and more than one, is not
# believed, nor is a list of splits or dividends that has lost as much, or all.
_ENOUGH_ROWS, _KEPT_SHARE = 5, 0.9
_LISTS = (SPLITS.name, DIVIDENDS.name)


class Origin(NamedTuple):
    """The object that rows came from, and when it came."""

    bronze_key: str
    known_at: datetime


class Withdrawn(NamedTuple):
    """Keys of rows that are no more, and the object that says so."""

    origin: Origin
    keys: pl.DataFrame


class Extent(NamedTuple):
    """How many rows a table has of a ticker, and from when to when."""

    row_count: int
    first_date: date
    last_date: date


class Merged(NamedTuple):
    """What a merge changed, by ticker and kind, and the tickers that it refused, and why."""

    changes: dict[str, dict[str, int]]
    refused: dict[str, str]


class SilverStore:
    """The silver tables of one schema. What its merges share is kept until it is closed."""

    def __init__(self, warehouse: Warehouse, schema: str = SCHEMA) -> None:
        self._warehouse = warehouse
        self._schema = schema
        self._opened = ExitStack()
        self._reader: Reader | None = None
        self._loaders: dict[str, loader.Loader] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what merges share."""
        self._reader, self._loaders = None, {}
        self._opened.close()

    def prepare(self, table: SilverTable) -> None:
        """Begin to get ready for the first merge into `table`."""
        self._loader(table).prepare()

    def another(self) -> "SilverStore":
        """Return a store of the same tables, for another thread."""
        return SilverStore(self._warehouse, self._schema)

    def merge(
        self,
        table: SilverTable,
        given: pl.DataFrame,
        whole: Mapping[str, Origin],
        *,
        within: Mapping[str, tuple[datetime, datetime]] | None = None,
        unsure: pl.DataFrame | None = None,
        withdrawn: Mapping[str, Withdrawn] | None = None,
        told_by_bars: Mapping[str, pl.DataFrame] | None = None,
        filling: Collection[str] = (),
        accept_shorter: bool = False,
    ) -> Merged:
        """Merge `given` into `table`; what it supersedes is kept.

        The caller sees to it that merges at the same time have no ticker in common.

        `given` has the table's business columns, `bronze_key` and `known_at`, and no key twice. Of
        the tickers in `whole` it has all rows there are, of those in `within` all from one moment
        to before another: what is stored beyond them is removed, but not under the keys `unsure`,
        of rows that were given and say nothing sound; a null in such a key stands for any value.
        Removed alike are rows that are `withdrawn`, by ticker; none of them is given. Of the
        tickers in `told_by_bars`, what daily bars once told of stays under other keys than those.
        Rows of the objects `filling` give way to what daily bars have told of and not taken back. A
        whole history, or a list of actions, much shorter than the stored one is refused unless
        `accept_shorter`.
        """
        key = table.primary_key
        given = _with_version(given, table)
        withdrawn = withdrawn or {}
        if table.is_of_market and whole:
            # A list of the market says which tickers there are.
            (origin,) = whole.values()
            known, came = self._tickers(table), given["ticker"].unique().to_list()
            if not accept_shorter and len(came) < _KEPT_SHARE * len(known):
                return Merged({}, {MARKET: _SHORTER.format(len(came), "tickers", len(known))})
            whole = dict.fromkeys([*known, *came], origin)
            accept_shorter = True
        within = {ticker: span for ticker, span in (within or {}).items() if ticker in whole}
        versions = self._versions(table, given, [*whole, *withdrawn], within)
        spoken_of = _in_reach(versions, key, within)
        if unsure is None:
            unsure = versions.select(*key, pl.lit(None, pl.String).alias("dataset")).clear()
        partial = told_by_bars or {}
        refused = (
            {}
            if accept_shorter
            else self._shrunk(table, given, unsure, spoken_of, whole=whole, partial=partial)
        )
        given = given.filter(~pl.col("ticker").is_in(list(refused)))
        before = versions.select(*key, pl.col("row_version").alias("_stored"))
        delta = given.join(before, on=key, how="left").filter(
            pl.col("_stored").ne_missing(pl.col("row_version"))
        )
        lacking = spoken_of.filter(
            pl.col("ticker").is_in([ticker for ticker in whole if ticker not in refused])
        ).join(given, on=key, how="anti")
        taken_back = [
            versions.join(lines.keys, on=key, how="semi")
            for ticker, lines in withdrawn.items()
            if ticker not in refused
        ]
        gone = pl.concat([lacking, *taken_back]).unique(key, maintain_order=True)
        # Nulls match nothing in a join: what is left of a key that has one is looked for.
        gone = gone.join(unsure, on=key, how="anti")
        for count in range(len(key) - 1):
            for rest in combinations(key[1:], count):
                unknown = pl.col([name for name in key[1:] if name not in rest]).is_null()
                any_of = unsure.filter(pl.all_horizontal(unknown))
                gone = gone.join(any_of, on=[key[0], *rest], how="anti")
        still_told = _StillTold(key, whole, partial)
        if partial:
            of_bars = gone.filter(pl.col("dataset") == DAILY_BARS.name)
            gone = gone.join(still_told.of(of_bars), on=key, how="anti")
        superseded = pl.concat(
            [delta.filter(pl.col("_stored").is_not_null()).select(key), gone.select(key)]
        )
        stored = self._stored(table, superseded)
        if filling:
            of_bars = stored.filter(pl.col("bronze_key").str.starts_with(_OF_BARS))
            given_way = delta.filter(pl.col("bronze_key").is_in(list(filling))).join(
                still_told.of(of_bars), on=key, how="semi"
            )
            delta = delta.join(given_way, on=key, how="anti")
            stored = stored.join(given_way, on=key, how="anti")
        changes = compare(
            delta.drop("_stored"),
            stored.join(gone, on=key, how="anti"),
            _with_removal(
                stored.join(gone, on=key, how="semi"),
                {ticker: lines.origin for ticker, lines in withdrawn.items()} | dict(whole),
            ),
            key,
            versions,
        )
        self._keep(table, changes)
        counts, rows = changes.by_ticker(), changes.rows
        is_new = stored.is_empty()
        # The frames above hold all of it several times.
        del given, versions, before, spoken_of, delta, lacking, superseded, stored, changes
        self._write(table, rows, is_new=is_new)
        self._delete(table, gone.select(key))
        return Merged(counts, refused)

    def _write(self, table: SilverTable, rows: pl.DataFrame, *, is_new: bool) -> None:
        """Write `rows`; `is_new` tells that none of their keys is stored."""
        rows = rows.with_columns(
            pl.lit(uuid.uuid4().hex).alias("load_id"),
            pl.lit(datetime.now(UTC)).cast(pl.Datetime("us", "UTC")).alias("loaded_at"),
        )
        # The caller lets nobody else write these tickers: what was not there is not there now.
        if is_new:
            self._loader(table).append(rows)
        else:
            self._loader(table).merge(rows)

    def keys_from_files(self, table: SilverTable, ticker: str) -> pl.DataFrame:
        """Return the keys of the rows of `ticker` that files first told of."""
        rows = self._read(table, [*table.primary_key, "bronze_key"], {ticker: None})
        is_from_file = pl.col("dataset").is_in(list(DROPPED))
        return _with_dataset(rows).filter(is_from_file).select(table.primary_key)

    def counts(self, table: SilverTable, tickers: Sequence[str]) -> dict[str, int]:
        """Return how many rows `table` has of each of `tickers` that has any."""
        with self._warehouse.connect() as connection:
            return dict(
                connection.execute(
                    SQL(
                        "select ticker, count from unnest(%s::text[]) as asked (ticker) "
                        "cross join lateral (select count(*) as count from {} as rows "
                        "  where rows.ticker = asked.ticker) as found where count > 0"
                    ).format(Identifier(self._schema, table.name)),
                    (list(tickers),),
                ).fetchall()
            )

    def extents(self, table: SilverTable, tickers: Sequence[str]) -> dict[str, Extent]:
        """Return how much `table` holds of each of `tickers` that has rows in it."""
        assert table.date_column is not None
        with self._warehouse.connect() as connection:
            rows = connection.execute(
                # Ticker by ticker through the key: the planner might read the whole table.
                SQL(
                    "select ticker, found.* from unnest(%s::text[]) as asked (ticker) "
                    "cross join lateral (select count(*), min({date}), max({date}) from {table} "
                    "  as rows where rows.ticker = asked.ticker) as found where count > 0"
                ).format(
                    date=Identifier(table.date_column),
                    table=Identifier(self._schema, table.name),
                ),
                (list(tickers),),
            ).fetchall()
        return {ticker: Extent(*extent) for ticker, *extent in rows}

    def _loader(self, table: SilverTable) -> loader.Loader:
        if table.name not in self._loaders:
            made = loader.Loader(self._warehouse, self._schema, table.name, table.primary_key)
            self._loaders[table.name] = self._opened.enter_context(made)
        return self._loaders[table.name]

    def _shrunk(
        self,
        table: SilverTable,
        given: pl.DataFrame,
        unsure: pl.DataFrame,
        versions: pl.DataFrame,
        *,
        whole: Collection[str],
        partial: Collection[str],
    ) -> dict[str, str]:
        """Return the tickers of which something is much shorter than what is stored, and why.

        Of those that are `partial`, daily bars tell of a part.
        """
        if not table.is_of_several:
            # To know which rows are of which object takes longer, and is seldom needed.
            suspicious = _suspicious(given, unsure, versions, whole)
            if not suspicious:
                return {}
            columns = [*table.primary_key, "bronze_key"]
            rows = self._read(table, columns, dict.fromkeys(suspicious))
            versions = _with_dataset(rows).join(versions, on=table.primary_key, how="semi")
        elif partial:
            is_partial = pl.col("ticker").is_in(list(partial))
            versions = versions.filter(~is_partial | (pl.col("dataset") != DAILY_BARS.name))
        return _shrunk(given, unsure, versions, table.primary_key)

    def _tickers(self, table: SilverTable) -> list[str]:
        """Return the tickers that have rows in `table`."""
        with self._warehouse.connect() as connection:
            rows = connection.execute(
                SQL("select distinct ticker from {}").format(Identifier(self._schema, table.name))
            ).fetchall()
        return [ticker for (ticker,) in rows]

    def _versions(
        self,
        table: SilverTable,
        given: pl.DataFrame,
        whole: Sequence[str],
        within: Mapping[str, tuple[datetime, datetime]],
    ) -> pl.DataFrame:
        """Return key and version of what is stored of the tickers, from their first key on.

        Where several datasets of the vendor tell of the table, `dataset` is that of each row.
        """
        spans = _spans(given, table.primary_key, [t for t in whole if t not in within])
        for ticker, (start, _) in within.items():
            first = spans.get(ticker)
            spans[ticker] = min(first, start) if isinstance(first, datetime) else start
        columns = [*table.primary_key, "row_version"]
        if not table.is_of_several:
            return self._read(table, columns, spans)
        return _with_dataset(self._read(table, [*columns, "bronze_key"], spans))

    def _stored(self, table: SilverTable, keys: pl.DataFrame) -> pl.DataFrame:
        """Return the stored rows of `keys`."""
        columns = [*table.columns, *(name for name in PROVENANCE if name[:4] != "load")]
        rows = self._read(table, columns, _spans(keys, table.primary_key, ()))
        return rows.join(keys, on=table.primary_key, how="semi")

    def _read(
        self, table: SilverTable, columns: Sequence[str], spans: Mapping[str, object]
    ) -> pl.DataFrame:
        """Return `columns` of the tickers in `spans`, each from its first key on; None is all."""
        _, *rest = table.primary_key
        since = (
            SQL("and {} >= coalesce(given.since, '-infinity')").format(Identifier(rest[0]))
            if rest
            else SQL("")
        )
        kind = SQL("timestamptz" if rest == ["starts_at"] else "date")
        if self._reader is None:
            self._reader = self._opened.enter_context(self._warehouse.reader())
        return self._reader(
            # Ticker by ticker through the key: the planner, which does not know how few rows come
            # after `since`, would rather read the whole table.
            SQL(
                "select stored.* from unnest({tickers}::text[], {sinces}::{kind}[]) "
                "as given (ticker, since) cross join lateral (select {columns} from {table} "
                "where ticker = given.ticker {since} offset 0) stored"
            ).format(
                columns=SQL(", ").join(map(Identifier, columns)),
                tickers=Literal(list(spans)),
                sinces=Literal(list(spans.values())),
                kind=kind,
                table=Identifier(self._schema, table.name),
                since=since,
            )
        )

    def _keep(self, table: SilverTable, changes: Changes) -> None:
        """Note what `changes` supersede."""
        _, *rest = table.primary_key
        row_key = (
            pl.concat_str([pl.col(name).cast(pl.String) for name in rest], separator=" ")
            if rest
            else pl.lit("")
        )
        superseded = changes.superseded.select(
            pl.lit(table.name),
            "ticker",
            row_key.alias("row_key"),
            "superseded_at",
            "known_at",
            "class",
            pl.col("old").struct.json_encode(),
            pl.when(pl.col("new").is_not_null())
            .then(pl.col("new").struct.json_encode())
            .alias("n"),
            "old_bronze_key",
            "new_bronze_key",
        )
        restated = changes.restated.select(
            pl.lit(table.name),
            "ticker",
            "restated_at",
            "class",
            "keys",
            "old_values",
            "new_values",
            "old_bronze_keys",
            "new_bronze_key",
            "old_key_places",
        )
        with self._warehouse.connect() as connection, connection.cursor() as cursor:
            for name, rows in (("superseded_rows", superseded), ("restated_closes", restated)):
                if rows.is_empty():
                    continue
                cursor.executemany(
                    SQL("insert into {} values ({}) on conflict do nothing").format(
                        Identifier(self._schema, name), SQL(", ").join([SQL("%s")] * rows.width)
                    ),
                    rows.rows(),
                )

    def _delete(self, table: SilverTable, keys: pl.DataFrame) -> None:
        if keys.is_empty():
            return
        with self._warehouse.connect() as connection, connection.cursor() as cursor:
            cursor.executemany(
                SQL("delete from {} where {}").format(
                    Identifier(self._schema, table.name),
                    SQL(" and ").join(
                        SQL("{} = %s").format(Identifier(name)) for name in table.primary_key
                    ),
                ),
                keys.rows(),
            )

    @contextmanager
    def shadow(self, table: SilverTable) -> Iterator["SilverStore"]:
        """Yield an empty store of the same form for `table`; it is gone when the block ends."""
        with self._warehouse.lock("silver rebuild"):
            schema = Identifier(_SHADOW)
            with self._warehouse.connect() as connection:
                connection.execute(SQL("drop schema if exists {} cascade").format(schema))
                connection.execute(SQL("create schema {}").format(schema))
                for name in (table.name, *_HISTORY):
                    connection.execute(
                        SQL("create table {} (like {} including all)").format(
                            Identifier(_SHADOW, name), Identifier(self._schema, name)
                        )
                    )
            with SilverStore(self._warehouse, _SHADOW) as store:
                yield store
            with self._warehouse.connect() as connection:
                connection.execute(SQL("drop schema {} cascade").format(schema))

    def take_over(self, table: SilverTable, tickers: Sequence[str]) -> None:
        """Let the shadow's rows and history of `tickers` take the place of this store's, at once.

        A table of the market is taken over whole.
        """
        with self._warehouse.connect() as connection:
            for name in (table.name, *_HISTORY):
                columns = SQL(", ").join(
                    map(Identifier, loader.writable_columns(self._warehouse, self._schema, name))
                )
                of_table = SQL("{} = {}").format(
                    Literal(table.name),
                    Literal(table.name) if name == table.name else Identifier("table_name"),
                )
                of_tickers = SQL("({} or ticker = any({}))").format(
                    Literal(table.is_of_market), Literal(list(tickers))
                )
                connection.execute(
                    SQL("delete from {} where {} and {}").format(
                        Identifier(self._schema, name), of_table, of_tickers
                    )
                )
                connection.execute(
                    SQL("insert into {} ({}) select {} from {} where {}").format(
                        Identifier(self._schema, name),
                        columns,
                        columns,
                        Identifier(_SHADOW, name),
                        of_tickers,
                    )
                )


def _with_version(given: pl.DataFrame, table: SilverTable) -> pl.DataFrame:
    values = [name for name in table.columns if name not in table.primary_key]
    return given.with_columns(
        pl.struct(values).hash(seed=0).reinterpret(signed=True).alias("row_version")
    )


class _StillTold(NamedTuple):
    """What the vendor's daily bars have told of holds until they take it back.

    Of the tickers in `whole` they take back all that they do not tell again, of those in
    `told_by_bars` the keys there.
    """

    key: Sequence[str]
    whole: Collection[str]
    told_by_bars: Mapping[str, pl.DataFrame]

    def of(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return those of `rows`, stored ones that daily bars told of, that still hold."""
        in_part = pl.col("ticker").is_in(list(self.told_by_bars))
        still = rows.filter(in_part | ~pl.col("ticker").is_in(list(self.whole)))
        if not self.told_by_bars:
            return still
        return still.join(pl.concat(self.told_by_bars.values()), on=self.key, how="anti")


def _with_dataset(rows: pl.DataFrame) -> pl.DataFrame:
    """Put the dataset of `bronze_key` in its place."""
    dataset = pl.col("bronze_key").str.extract(_DATASET)
    return rows.with_columns(dataset=dataset.fill_null("")).drop("bronze_key")


def _spans(rows: pl.DataFrame, key: Sequence[str], whole: Sequence[str]) -> dict[str, object]:
    """Return the tickers of `rows` with their first keys, and with None those in `whole`."""
    first = pl.col(key[1]).min() if len(key) > 1 else pl.lit(None)
    spans = dict(rows.group_by("ticker").agg(first.alias("since")).iter_rows())
    return spans | dict.fromkeys(whole)


def _in_reach(
    rows: pl.DataFrame, key: Sequence[str], within: Mapping[str, tuple[datetime, datetime]]
) -> pl.DataFrame:
    """Leave out rows of the tickers in `within` that are of another time."""
    if not within:
        return rows
    bounds = pl.DataFrame(
        [(ticker, *span) for ticker, span in within.items()],
        schema={"ticker": pl.String, "from": rows.schema[key[1]], "until": rows.schema[key[1]]},
        orient="row",
    )
    at = pl.col(key[1])
    is_within = (at >= pl.col("from")) & (at < pl.col("until"))
    return (
        rows.join(bounds, on="ticker", how="left", maintain_order="left")
        .filter(is_within.fill_null(value=True))
        .drop("from", "until")
    )


def _suspicious(
    given: pl.DataFrame, unsure: pl.DataFrame, versions: pl.DataFrame, whole: Collection[str]
) -> list[str]:
    """Return the tickers in `whole` with much fewer rows than are stored."""
    stored = dict(versions.group_by("ticker").len().iter_rows())
    together = pl.concat([given.select("ticker"), unsure.select("ticker")])
    came = dict(together.group_by("ticker").len().iter_rows())
    return [
        ticker
        for ticker in whole
        if _is_much_less(came.get(ticker, 0), stored.get(ticker, 0))
        and stored[ticker] >= _ENOUGH_ROWS
    ]


def _is_much_less(came: int, stored: int) -> bool:
    return came < stored * _KEPT_SHARE and came < stored - 1


def _shrunk(
    given: pl.DataFrame, unsure: pl.DataFrame, versions: pl.DataFrame, key: Sequence[str]
) -> dict[str, str]:
    """Return the tickers of which a dataset of the vendor's gives much less than it did, and why.

    A row counts for the dataset that first told of it. What was in a file may go.
    """
    stored_in = versions.select(*key, pl.col("dataset").alias("_stored_in"))
    came = pl.concat(
        [_with_dataset(given.select(*key, "bronze_key")), unsure.select(*key, "dataset")]
    ).join(stored_in, on=key, how="left")
    by_dataset = came.group_by("ticker", pl.coalesce("_stored_in", "dataset").alias("dataset"))
    counts = {(ticker, name): count for ticker, name, count in by_dataset.len().iter_rows()}
    found = {}
    for ticker, dataset, stored in versions.group_by("ticker", "dataset").len().iter_rows():
        now = counts.get((ticker, dataset), 0)
        is_list = dataset in _LISTS
        if dataset not in DROPPED and (
            (is_list and now == 0)
            or ((is_list or stored >= _ENOUGH_ROWS) and _is_much_less(now, stored))
        ):
            found[ticker] = _SHORTER.format(now, dataset if is_list else "rows", stored)
    return found


def _with_removal(rows: pl.DataFrame, whole: Mapping[str, Origin]) -> pl.DataFrame:
    """Say of rows that are gone which object has them no more."""
    origins = pl.DataFrame(
        [(ticker, origin.known_at, origin.bronze_key) for ticker, origin in whole.items()],
        schema={
            "ticker": pl.String(),
            "removed_at": pl.Datetime("us", "UTC"),
            "removed_by": pl.String(),
        },
        orient="row",
    )
    return rows.join(origins, on="ticker", how="left", maintain_order="left")
