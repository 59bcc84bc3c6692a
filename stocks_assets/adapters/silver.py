"""Silver: bronze objects shaped into typed frames and merged, many tickers a load.

Each object of a ticker is loaded once, in the order in which the objects came, so that what was
known when does not depend on when silver ran.
"""

import gc
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from itertools import islice
from typing import Self, TypeVar

import polars as pl
from psycopg.sql import SQL, Identifier

from stocks_assets.adapters import loader
from stocks_assets.adapters.bronze import (
    NOT_HAD,
    NOT_STORED,
    BronzeStore,
    Failed,
    Skipped,
    Waiting,
    is_of_object,
)
from stocks_assets.adapters.silver_store import SCHEMA, Origin, SilverStore, Withdrawn
from stocks_assets.adapters.transient import is_transient
from stocks_assets.adapters.warehouse import RejectedRow, SilverLoad, Warehouse
from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.calendar import exchange_calendar_frame
from stocks_assets.domain.datasets import DROPPED
from stocks_assets.domain.gaps import find_lost
from stocks_assets.domain.payloads import Shaped, SilverTable
from stocks_assets.errors import PayloadError

# What is planned at once.
_TICKERS_PER_PLAN = 500
# Bounds memory: what is shaped at once has so many bytes, what is merged at once so many rows.
_BYTES_PER_READING = 20_000_000
_ROWS_PER_LOAD = 120_000
_MERGES_AT_ONCE = 2
_DOWNLOADS_AT_ONCE = 8
_DOWNLOADS_AHEAD = 24
# What it comes to that an object is truncated or damaged, and that it cannot be had.
_DAMAGED_REASON = "it cannot be unpacked, or is gone: "
_CALENDAR_START = date(1960, 1, 1)
# A payload is refused whole if so many of its rows, and more than half of them, break a rule.
_MANY_REJECTED = 5

# The objects that a ticker's rows come from, by the name of the payload.
Objects = Mapping[str, BronzeKey]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a silver table now holds of a ticker; `changes` counts rows by what became of them."""

    load: SilverLoad
    read: Sequence[str] = field(default=(), repr=False)
    rejected_rows: Sequence[RejectedRow] = field(default=(), repr=False)
    changes: Mapping[str, int] = field(default_factory=dict)

    @property
    def rejected_by_rule(self) -> Mapping[str, int]:
        """How many rows of the objects that it is loaded from broke each rule."""
        rows = (row for row in self.rejected_rows if row.bronze_key in self.load.bronze_keys)
        return Counter(rule for row in rows for rule in row.rules)

    @property
    def ticker(self) -> str:
        """The ticker."""
        return self.load.ticker


Result = Loaded | Skipped | Failed | Waiting


def load(
    bronze: BronzeStore,
    warehouse: Warehouse,
    table: SilverTable,
    tickers: Sequence[str],
    *,
    only_stale: bool,
    accept_shorter: bool = False,
) -> Iterator[Result]:
    """Load `table` for `tickers` from bronze, yielding each ticker as it is done.

    With `only_stale`, the objects since the last load are loaded in their order, and a ticker that
    has none is passed over. Without it, the newest ones are then loaded again. One with an object
    that came late, after newer ones had been loaded, or of which the table has fewer rows than the
    last load left, is built anew from all of its objects.

    An object that cannot be believed is passed over, later ones are loaded, and its ticker fails
    unless one of them is newer of the same. After an object that cannot be had, no later one of its
    ticker is loaded. A load that fails takes its tickers with it. One process at a time loads a
    ticker of a table, so that none goes back behind another.
    """
    with warehouse.locks(f"load {table.name}", tickers):
        warehouse.await_writers(SCHEMA, table.name)
        yield from _load(
            bronze, warehouse, table, tickers, only_stale=only_stale, accept_shorter=accept_shorter
        )


def _load(
    bronze: BronzeStore,
    warehouse: Warehouse,
    table: SilverTable,
    tickers: Sequence[str],
    *,
    only_stale: bool,
    accept_shorter: bool,
) -> Iterator[Result]:
    for dataset in table.inputs:
        bronze.sync_index(dataset)
    began_at = warehouse.now()
    anew = warehouse.tickers_with_late_objects(table.name, tickers)
    steps: list[_Step] = []
    loaded_from: dict[str, Objects] = {}
    for start in range(0, len(tickers), _TICKERS_PER_PLAN):
        batch = tickers[start : start + _TICKERS_PER_PLAN]
        newest = bronze.newest_of(table.inputs, batch)
        yield from _explain_lack(
            warehouse, table, [ticker for ticker in batch if not newest[ticker]], only_stale
        )
        having = [ticker for ticker in batch if newest[ticker]]
        anew |= _lost_rows(warehouse, table, having).keys()
        in_order = {ticker: objects for ticker, objects in newest.items() if ticker not in anew}
        groups, before = _pending(bronze, warehouse, table, in_order, only_stale=only_stale)
        steps += _steps(groups)
        loaded_from |= before
    with SilverStore(warehouse) as store:
        loading = _Loading(bronze, warehouse, store, table, began_at, accept_shorter)
        yield from loading.run(steps, loaded_from)
    if anew:
        if accept_shorter:
            # That somebody decides to take the newest says nothing of what was refused before.
            for objects in bronze.newest_of(table.inputs, sorted(anew)).values():
                bronze.accept(table.name, objects.values())
        yield from _rebuild(bronze, warehouse, table, sorted(anew))


def _lost_rows(warehouse: Warehouse, table: SilverTable, tickers: Sequence[str]) -> dict[str, int]:
    """Return of which of `tickers` rows are gone since their last load, and how many."""
    loads = warehouse.silver_loads(table.name, tickers)
    return find_lost(
        {ticker: load.stored_count for ticker, load in loads.items()},
        SilverStore(warehouse).counts(table, list(loads)),
    )


def rebuild(
    bronze: BronzeStore, warehouse: Warehouse, table: SilverTable, tickers: Sequence[str]
) -> Iterator[Result]:
    """Build `table` and its history for `tickers` anew from all objects in bronze.

    The result takes the place of what was stored when all tickers are done. Objects are refused by
    the rules of a load, but for those that were loaded before, or accepted; a ticker whose newest
    one is refused fails, and is built from the others. One that has an object which cannot be had
    keeps what it has.
    """
    with warehouse.locks(f"load {table.name}", tickers):
        warehouse.await_writers(SCHEMA, table.name)
        yield from _rebuild(bronze, warehouse, table, tickers)


def _rebuild(
    bronze: BronzeStore, warehouse: Warehouse, table: SilverTable, tickers: Sequence[str]
) -> Iterator[Result]:
    for dataset in table.inputs:
        bronze.sync_index(dataset)
    began_at = warehouse.now()
    steps = []
    for start in range(0, len(tickers), _TICKERS_PER_PLAN):
        timelines = bronze.timelines(table.inputs, tickers[start : start + _TICKERS_PER_PLAN])
        steps += _steps({t: _groups(table, line) for t, line in timelines.items() if line})
    live = SilverStore(warehouse)
    with live.shadow(table) as store:
        loading = _Loading(
            bronze, warehouse, store, table, began_at, accept_shorter=False, is_rebuild=True
        )
        results = list(loading.run(steps, {}))
        loaded = loading.built
        live.take_over(table, [result.ticker for result in loaded])
    _record(warehouse, table, loaded, began_at)
    yield from results


def load_exchange_calendar(warehouse: Warehouse, today: date) -> pl.DataFrame:
    """Load `silver.exchange_calendar` from 1960 to the end of next year, and return it."""
    frame = exchange_calendar_frame(_CALENDAR_START, date(today.year + 1, 12, 31))
    with warehouse.lock("load exchange_calendar"):
        with warehouse.reader() as read:
            stored = read(
                SQL("select {} from silver.exchange_calendar order by calendar_date").format(
                    SQL(", ").join(map(Identifier, frame.columns))
                )
            )
        if not stored.cast(frame.schema).equals(frame):
            loader.merge(warehouse, SCHEMA, "exchange_calendar", frame, ["calendar_date"])
    return frame


@dataclass(frozen=True, slots=True)
class _Step:
    """For each ticker what to load next; `last_for` are the tickers that have no further step."""

    new: Mapping[str, Objects]
    last_for: frozenset[str]


def _pending(
    bronze: BronzeStore,
    warehouse: Warehouse,
    table: SilverTable,
    newest: Mapping[str, Objects],
    *,
    only_stale: bool,
) -> tuple[dict[str, list[Objects]], dict[str, Objects]]:
    """Return, for the tickers of one batch, what is to be loaded in turn, and what is loaded."""
    having = {ticker: objects for ticker, objects in newest.items() if objects}
    done = {
        ticker: set(load.bronze_keys)
        for ticker, load in warehouse.silver_loads(table.name, list(having)).items()
    }
    stale = [t for t, objects in having.items() if done.get(t) != set(_texts(objects))]
    timelines = bronze.timelines(table.inputs, stale) if stale else {}
    groups, before = {}, {}
    for ticker, objects in having.items():
        if ticker not in timelines:
            before[ticker] = objects
            if not only_stale:
                groups[ticker] = _again(table, objects, objects, [])
            continue
        line = timelines[ticker]
        loaded = [key for key in line if str(key) in done.get(ticker, ())]
        since = max((key.fetched_at for key in loaded), default=None)
        # Without a known object to go on from, as in another bucket, all of them are new. A newest
        # one that was refused fails until a better one comes, also where others were loaded since.
        new = [
            key
            for key in line
            if str(key) not in done.get(ticker, ())
            and (since is None or key.fetched_at > since or key in objects.values())
        ]
        before[ticker] = {key.payload_name: key for key in loaded}
        groups[ticker] = _groups(table, new)
        if not only_stale:
            groups[ticker] += _again(table, objects, before[ticker], new)
    return {ticker: made for ticker, made in groups.items() if made}, before


def _groups(table: SilverTable, line: Sequence[BronzeKey]) -> list[Objects]:
    """Put objects that came in this order into groups to load one after the other.

    Those of different payloads that the vendor gave one after the other are one group; a file is
    one by itself, as it has rows of the vendor's keys, and so is an object of a table in parts.
    """
    groups: list[dict[str, BronzeKey]] = []
    is_open = False
    for key in line:
        stands_alone = table.is_in_parts or key.dataset in DROPPED
        if stands_alone or not is_open or key.payload_name in groups[-1]:
            groups.append({})
        groups[-1][key.payload_name] = key
        is_open = not stands_alone
    return list[Objects](groups)


def _again(
    table: SilverTable, newest: Objects, before: Objects, pending: Sequence[BronzeKey]
) -> list[Objects]:
    """Return what is left to load of the `newest` objects when `pending` ones are loaded."""
    if table.is_in_parts:
        return [{name: key} for name, key in newest.items() if key not in pending]
    after = {**before, **{key.payload_name: key for key in pending}}
    return [] if pending and after == newest else [newest]


def _steps(groups: Mapping[str, Sequence[Objects]]) -> list[_Step]:
    """Return steps of many tickers: the first groups of all of them, then the second ones."""
    steps = []
    for number in range(max(map(len, groups.values()), default=0)):
        now = {ticker: made[number] for ticker, made in groups.items() if number < len(made)}
        last_for = frozenset(t for t in now if number == len(groups[t]) - 1)
        steps.append(_Step(now, last_for))
    return steps


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why nothing is taken of a payload.

    `key` is the object that could not be read, if that is why; `may_come` tells that it is no
    fault of the object, `may_pass` that it is worth another try in a moment.
    """

    reason: str
    key: BronzeKey | None = None
    may_come: bool = False
    may_pass: bool = False


@dataclass(slots=True)
class _Part:
    """What a ticker's next objects came to together with those that they belong to."""

    new: Objects
    read: Objects
    shaped: Shaped | _Refusal

    @property
    def row_count(self) -> int:
        """How many rows there are to load."""
        return self.shaped.rows.height if isinstance(self.shaped, Shaped) else 0


@dataclass(frozen=True, slots=True)
class _Load:
    """What is merged at once."""

    parts: Mapping[str, _Part]
    last_for: frozenset[str]

    @property
    def row_count(self) -> int:
        """How many rows there are to load."""
        return sum(part.row_count for part in self.parts.values())

    def with_load(self, other: "_Load") -> "_Load":
        """Return both in one; they have no ticker in common."""
        return _Load({**self.parts, **other.parts}, self.last_for | other.last_for)


@dataclass(slots=True)
class _Progress:
    """How far a ticker has come.

    `state` has the objects that it is loaded from, `failed` says of payloads why the newest is not.
    """

    state: Objects
    failed: dict[str, str] = field(default_factory=dict)
    is_stopped: bool = False
    may_pass: bool = False
    load: SilverLoad | None = None
    changes: Counter[str] = field(default_factory=Counter)
    rejected: dict[str, list[RejectedRow]] = field(default_factory=dict)

    def result(self, ticker: str) -> Loaded | Failed:
        """Return what came of the ticker."""
        loaded = self.loaded()
        if self.failed or loaded is None:
            return Failed(ticker, "; ".join(self.failed.values()), may_pass=self.may_pass)
        return loaded

    def loaded(self) -> Loaded | None:
        """Return what was loaded, whatever failed beside it."""
        if self.load is None:
            return None
        return Loaded(
            self.load,
            list(self.rejected),
            [row for rows in self.rejected.values() for row in rows],
            self.changes,
        )


@dataclass(frozen=True, slots=True)
class _Loading:
    """The steps of one call, one after the other."""

    bronze: BronzeStore
    warehouse: Warehouse
    store: SilverStore
    table: SilverTable
    began_at: datetime
    accept_shorter: bool
    is_rebuild: bool = False
    built: list[Loaded] = field(default_factory=list)
    progress: dict[str, _Progress] = field(default_factory=dict)

    def run(
        self, steps: Sequence[_Step], loaded_from: Mapping[str, Objects]
    ) -> Iterator[Loaded | Failed]:
        """Yield each ticker after its last step; the next load is shaped while one is merged.

        `loaded_from` are the objects that the tickers are loaded from so far.
        """
        for step in steps:
            for ticker in step.last_for:
                self.progress[ticker] = _Progress(loaded_from.get(ticker, {}))
        state = {ticker: progress.state for ticker, progress in self.progress.items()}
        if steps:
            self.store.prepare(self.table)
        with _imports_passed_over(), _Mergers(self) as mergers:
            for load in _one_ahead(self._loads(steps, state)):
                yield from self._results(mergers.take(load))
            yield from self._results(mergers.finish())

    def _results(self, loads: Iterable[_Load]) -> Iterator[Loaded | Failed]:
        for load in loads:
            for ticker in load.last_for:
                progress = self.progress.pop(ticker)
                if self.is_rebuild and not progress.is_stopped and (loaded := progress.loaded()):
                    self.built.append(loaded)
                yield progress.result(ticker)

    def _loads(self, steps: Iterable[_Step], state: dict[str, Objects]) -> Iterator[_Load]:
        """Shape the steps, and put as many into one as have different tickers and not many rows.

        Each goes on from the one before as if that were loaded.
        """
        load: _Load | None = None
        for step in steps:
            for parts in self._readings(step.new, state):
                shaped = _Load(parts, step.last_for & parts.keys())
                if load is None:
                    load = shaped
                elif (
                    load.row_count + shaped.row_count <= _ROWS_PER_LOAD
                    and not load.parts.keys() & shaped.parts.keys()
                ):
                    load = load.with_load(shaped)
                else:
                    yield load
                    load = shaped
            state |= {ticker: {**state[ticker], **new} for ticker, new in step.new.items()}
        if load:
            yield load

    def _readings(
        self, new: Mapping[str, Objects], state: Mapping[str, Objects]
    ) -> Iterator[dict[str, _Part]]:
        """Yield, for some tickers after the other, the rows of each, or why there are none."""
        read = {ticker: self._to_read(objects, state[ticker]) for ticker, objects in new.items()}
        payloads, size = dict[str, dict[str, bytes] | _Refusal](), 0
        with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE, thread_name_prefix="download") as pool:
            for ticker, had in _some_ahead(pool, self._download, read):
                payloads[ticker] = had
                size += 0 if isinstance(had, _Refusal) else sum(map(len, had.values()))
                if size >= _BYTES_PER_READING:
                    yield self._shaped(new, read, payloads)
                    payloads, size = {}, 0
        if payloads:
            yield self._shaped(new, read, payloads)

    def _shape(self, new: Mapping[str, Objects], state: Mapping[str, Objects]) -> dict[str, _Part]:
        """Return, for each ticker, its rows, or why there are none."""
        return {t: part for parts in self._readings(new, state) for t, part in parts.items()}

    def _shaped(
        self,
        new: Mapping[str, Objects],
        read: Mapping[str, Objects],
        payloads: Mapping[str, dict[str, bytes] | _Refusal],
    ) -> dict[str, _Part]:
        readable = {t: p for t, p in payloads.items() if not isinstance(p, _Refusal)}
        shaped: dict[str, Shaped | _Refusal] = {
            t: p for t, p in payloads.items() if isinstance(p, _Refusal)
        }
        # By the clock, what a replay comes to would depend on when it runs.
        came = {t: {name: key.fetched_at for name, key in read[t].items()} for t in readable}
        for ticker, part in self.table.shape_many(readable, came).items():
            shaped[ticker] = _believable(part)
        return {ticker: _Part(new[ticker], read[ticker], shaped[ticker]) for ticker in payloads}

    def _to_read(self, new: Objects, state: Objects) -> Objects:
        # Rows of one month do not depend on those of another; other tables need all inputs.
        return new if self.table.is_in_parts else _in_order({**state, **new})

    def _download(self, objects: Objects) -> dict[str, bytes] | _Refusal:
        """Return the payloads, or what went wrong: an exception would end the whole map."""
        payloads = {}
        for name, key in objects.items():
            try:
                payloads[name] = self.bronze.read(key)
            except NOT_HAD as error:
                if is_of_object(error):
                    return _Refusal(f"{_DAMAGED_REASON}{error}", key)
                return _Refusal(str(error), key, may_come=True, may_pass=is_transient(error))
        return payloads

    def merge(self, parts: Mapping[str, _Part], *, is_accepted: bool = False) -> None:
        """Load what came of the next objects of some tickers, and note what did not.

        With `is_accepted`, what is much shorter than what is stored is believed.
        """
        parts = self._as_things_stand(parts)
        good = {t: part.shaped for t, part in parts.items() if isinstance(part.shaped, Shaped)}
        refused = {t: part.shaped for t, part in parts.items() if isinstance(part.shaped, _Refusal)}
        rows = {
            ticker: _with_origins(shaped.rows, parts[ticker].read, self.table)
            for ticker, shaped in good.items()
        }
        withdrawn = {}
        for ticker in [t for t, shaped in good.items() if not shaped.is_whole]:
            if self._has_replaced_files(ticker, parts[ticker]):
                fills = good[ticker].fills
                found = self._withdrawn(ticker, parts[ticker], rows[ticker], fills)
                if isinstance(found, _Refusal):
                    refused[ticker] = found
                    del good[ticker], rows[ticker]
                else:
                    rows[ticker], withdrawn[ticker] = found
        if good:
            merged = self.store.merge(
                self.table,
                pl.concat(rows.values()),
                {t: _newest(parts[t].read) for t, shaped in good.items() if self._says_all(shaped)},
                within={t: shaped.within for t, shaped in good.items() if shaped.within},
                unsure=pl.concat(part.doubtful_keys(ticker) for ticker, part in good.items()),
                withdrawn=withdrawn,
                filling=[
                    str(parts[ticker].read[name])
                    for ticker, shaped in good.items()
                    for name in shaped.fills
                ],
                told_by_bars={
                    ticker: shaped.told_by_bars
                    for ticker, shaped in good.items()
                    if shaped.told_by_bars is not None
                },
                accept_shorter=is_accepted,
            )
            accepted = {t: parts[t] for t in merged.refused if self._is_accepted(parts[t])}
            refused |= {t: _Refusal(why) for t, why in merged.refused.items() if t not in accepted}
            good = {
                ticker: shaped for ticker, shaped in good.items() if ticker not in merged.refused
            }
            self._note_loaded(parts, good, merged.changes)
            if accepted:
                self.merge(accepted, is_accepted=True)
        self._note_refused(parts, refused)

    def _is_accepted(self, part: _Part) -> bool:
        """Tell whether what is too short is to be believed: somebody says so, or said so once."""
        if self.accept_shorter:
            self.bronze.accept(self.table.name, part.new.values())
            return True
        if len(part.new) > 1:
            return False  # they are loaded singly
        (key,) = part.new.values()
        was_loaded = self.is_rebuild and self._was_loaded(key)
        return was_loaded or self.bronze.is_accepted(self.table.name, key)

    def _as_things_stand(self, parts: Mapping[str, _Part]) -> dict[str, _Part]:
        """Leave out tickers that are stopped, and shape anew what is based on what was refused."""
        parts = {t: part for t, part in parts.items() if not self.progress[t].is_stopped}
        state = {ticker: self.progress[ticker].state for ticker in parts}
        astray = {
            ticker: part.new
            for ticker, part in parts.items()
            if part.read != self._to_read(part.new, state[ticker])
        }
        return parts | self._shape(astray, state) if astray else parts

    def _has_replaced_files(self, ticker: str, part: _Part) -> bool:
        """Tell whether there are files that have been in the inbox before."""
        state = self.progress[ticker].state
        return any(
            key.dataset in DROPPED and state.get(name, key) != key for name, key in part.new.items()
        )

    def _withdrawn(
        self,
        ticker: str,
        part: _Part,
        rows: pl.DataFrame,
        fills: Collection[str],
    ) -> tuple[pl.DataFrame, Withdrawn] | _Refusal:
        """Return `rows` with those that hold in place of what files once gave and give no more.

        Those are the vendor's of the newest object that has them, before those of `fills`: the
        window of a free key may have gone on since. What no object has is withdrawn.
        """
        key, came = self.table.primary_key, _newest(part.read)
        filling = pl.col("bronze_key").is_in([str(part.read[name]) for name in fills])
        lacking = self.store.keys_from_files(self.table, ticker)
        lacking = lacking.join(rows.filter(~filling), on=key, how="anti")
        for older in self._older(ticker, part, came) if not lacking.is_empty() else ():
            objects = {older.payload_name: older}
            shaped = self._shape({ticker: objects}, {ticker: {}})[ticker].shaped
            if isinstance(shaped, Shaped):
                found = _with_origins(shaped.rows, objects, self.table)
                found = found.join(lacking, on=key, how="semi")
                known_at = pl.lit(came.known_at, rows.schema["known_at"])
                rows = rows.join(found, on=key, how="anti")
                rows = pl.concat([rows, found.with_columns(known_at=known_at)])
                lacking = lacking.join(found, on=key, how="anti")
                if shaped.is_whole or lacking.is_empty():
                    break
            elif shaped.key:
                return shaped
        return rows, Withdrawn(came, lacking.join(rows, on=key, how="anti"))

    def _older(self, ticker: str, part: _Part, came: Origin) -> list[BronzeKey]:
        """Return the vendor's objects before those of `part`, newest first, refused ones apart."""
        refused = self.warehouse.refused_objects(self.table.name)
        line = self.bronze.timelines(self.table.inputs, [ticker])[ticker]
        return [
            key
            for key in reversed(line)
            if key.fetched_at <= came.known_at
            and key.dataset not in DROPPED
            and key not in part.read.values()
            and str(key) not in refused
        ]

    def _note_loaded(
        self,
        parts: Mapping[str, _Part],
        good: Mapping[str, Shaped],
        changes: Mapping[str, Mapping[str, int]],
    ) -> None:
        has_dates = self.table.date_column is not None
        extents = self.store.extents(self.table, list(good)) if has_dates else {}
        counts = {} if has_dates else self.store.counts(self.table, list(good))
        loaded = []
        for ticker, shaped in good.items():
            part, progress = parts[ticker], self.progress[ticker]
            progress.state = {**progress.state, **part.new}
            for name in part.new:
                progress.failed.pop(name, None)
            progress.changes.update(changes.get(ticker, {}))
            rejected = _rejected(ticker, part.read, shaped)
            progress.rejected |= rejected
            keys = _texts(progress.state)
            load = _describe(ticker, keys, shaped, self.table)
            # An object may have but the newest rows, or a month, of what the table has by now.
            extent = extents.get(ticker)
            if extent is not None:
                load = replace(load, first_date=extent.first_date, last_date=extent.last_date)
            stored = counts.get(ticker, 0) if extent is None else extent.row_count
            if self.table.is_in_parts:
                rejected_count = sum(len(progress.rejected.get(key, ())) for key in keys)
                load = replace(load, rejected_count=rejected_count, row_count=stored)
            if not self.table.is_of_market:
                load = replace(load, stored_count=stored)
            progress.load = load
            rows = [row for of_object in rejected.values() for row in of_object]
            loaded.append(Loaded(load, list(rejected), rows))
        if not self.is_rebuild:
            _record(self.warehouse, self.table, loaded, self.began_at)

    def _note_refused(self, parts: Mapping[str, _Part], refused: Mapping[str, _Refusal]) -> None:
        """Note which object is to blame; where it is not known which, they are loaded singly."""
        lines = []
        singly: list[tuple[str, Objects]] = []
        for ticker, refusal in refused.items():
            new, progress = parts[ticker].new, self.progress[ticker]
            if refusal.key and (
                refusal.may_come
                or refusal.key not in new.values()
                # What has never been loaded, a rebuild can do without.
                or (self.is_rebuild and self._was_loaded(refusal.key))
            ):
                progress.is_stopped, progress.may_pass = True, refusal.may_pass
                progress.failed[refusal.key.payload_name] = f"{refusal.reason} ({refusal.key})"
                if not refusal.may_come and not self._was_loaded(refusal.key):
                    lines.append((ticker, str(refusal.key), refusal.reason))
            elif len(new) > 1:
                singly += [(ticker, {name: key}) for name, key in new.items()]
            else:
                ((name, key),) = new.items()
                progress.failed[name] = f"{refusal.reason} ({key})"
                lines.append((ticker, str(key), refusal.reason))
        if lines:
            self.warehouse.record_refused_objects(self.table.name, lines, self.began_at)
        if lost := [str(one.key) for one in refused.values() if one.key and not one.may_come]:
            self.warehouse.note_lost(lost, NOT_STORED)
            self.warehouse.ask_no_more(self.table.name, lost, self.began_at)
        for ticker, one in singly:
            self.merge(self._shape({ticker: one}, {ticker: self.progress[ticker].state}))

    def _was_loaded(self, key: BronzeKey) -> bool:
        return self.warehouse.was_loaded(self.table.name, str(key))

    def _says_all(self, part: Shaped) -> bool:
        """Tell whether rows that `part` has not are gone."""
        return self.table.date_column is not None and part.is_whole


class _Mergers:
    """Merges loads, a few at once: while PostgreSQL writes one, the next is got ready for it."""

    def __init__(self, loading: _Loading) -> None:
        self._loading = loading
        self._pool = ThreadPoolExecutor(_MERGES_AT_ONCE, thread_name_prefix="merge")
        self._others = [loading.store.another() for _ in range(_MERGES_AT_ONCE - 1)]
        # The last one, which has been prepared, is the first to be taken.
        self._stores = [*self._others, loading.store]
        self._at_work: dict[Future[None], _Load] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        for store in self._others:
            store.close()

    def take(self, load: _Load) -> list[_Load]:
        """Begin to merge `load`, and return the loads that ended meanwhile."""
        ended = []
        while len(self._at_work) == _MERGES_AT_ONCE or self._has_ticker_of(load):
            ended += self._wait()
        self._at_work[self._pool.submit(self._merge, load)] = load
        return ended

    def finish(self) -> Iterator[_Load]:
        """Yield the loads that are left, as they end."""
        while self._at_work:
            yield from self._wait()

    def _merge(self, load: _Load) -> None:
        store = self._stores.pop()
        try:
            replace(self._loading, store=store).merge(load.parts)
        finally:
            self._stores.append(store)

    def _has_ticker_of(self, load: _Load) -> bool:
        return any(load.parts.keys() & other.parts.keys() for other in self._at_work.values())

    def _wait(self) -> list[_Load]:
        ended, _ = wait(self._at_work, return_when=FIRST_COMPLETED)
        loads = [self._at_work.pop(one) for one in ended]
        for one in ended:
            one.result()
        return loads


def _record(
    warehouse: Warehouse, table: SilverTable, loaded: Sequence[Loaded], began_at: datetime
) -> None:
    rejected = [row for result in loaded for row in result.rejected_rows]
    read = [key for result in loaded for key in result.read]
    warehouse.record_silver_loads(table.name, [r.load for r in loaded], rejected, read, began_at)


def _believable(part: Shaped | PayloadError) -> Shaped | _Refusal:
    if isinstance(part, PayloadError):
        return _Refusal(str(part))
    rejected, good = part.rejected.height, part.rows.height
    if rejected >= _MANY_REJECTED and rejected > good:
        rules = Counter(rule for rules in part.rejected["rules"] for rule in rules)
        broken = ", ".join(f"{rule} {count}" for rule, count in rules.most_common(3))
        return _Refusal(
            f"{rejected} of {rejected + good} rows break a rule ({broken}): none is loaded"
        )
    return part


@contextmanager
def _imports_passed_over() -> Iterator[None]:
    """Spare Python from looking for cycles among hundreds of thousands of objects of imports."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _one_ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield `items`; the next one is made while one is used."""
    nothing = object()
    with ThreadPoolExecutor(1, thread_name_prefix="shape") as worker:
        ahead = worker.submit(next, items, nothing)
        while (item := ahead.result()) is not nothing:
            ahead = worker.submit(next, items, nothing)
            yield item  # type: ignore[misc]  # it is none but nothing


def _some_ahead(
    pool: ThreadPoolExecutor, work: Callable[[_Item], _Result], items: Mapping[str, _Item]
) -> Iterator[tuple[str, _Result]]:
    """Yield what `work` comes to for each of `items`, in order; it goes on while one is used."""
    left = iter(items.items())
    ahead: deque[tuple[str, Future[_Result]]] = deque()
    while True:
        for name, item in islice(left, _DOWNLOADS_AHEAD - len(ahead)):
            ahead.append((name, pool.submit(work, item)))
        if not ahead:
            return
        name, future = ahead.popleft()
        yield name, future.result()


def _explain_lack(
    warehouse: Warehouse, table: SilverTable, tickers: Sequence[str], only_stale: bool
) -> Iterator[Skipped | Failed | Waiting]:
    """Say of tickers without any object whether there will never be one, not yet, or should be."""
    if not tickers or (only_stale and table.is_in_parts):
        return  # parts are fetched for those who want them
    asked = [dataset.name for dataset in table.inputs if dataset.name not in DROPPED]
    names = " or ".join(f"bronze/{name}" for name in asked)
    not_had = [warehouse.unavailable(name, tickers) for name in asked]
    for ticker in tickers:
        if all(ticker in unavailable for unavailable in not_had):
            yield Skipped(ticker, f"the source has nothing for {names}")
        elif only_stale:
            yield Waiting(ticker, f"{names} has no object of {ticker}")
        else:
            yield Failed(ticker, f"{names} has no object of {ticker}; materialize that first")


def _with_origins(rows: pl.DataFrame, objects: Objects, table: SilverTable) -> pl.DataFrame:
    """Say of each row which object it is from, and since when it is known to hold.

    That is when the newest of the objects came: where a file is withdrawn, it makes a row of the
    vendor's hold that came long before.
    """
    keys = {name: str(key) for name, key in objects.items()}
    return rows.select(
        *table.columns,
        pl.col("dataset").replace_strict(keys, return_dtype=pl.String).alias("bronze_key"),
        pl.lit(_newest(objects).known_at, pl.Datetime("us", "UTC")).alias("known_at"),
    )


def _in_order(objects: Objects) -> Objects:
    """Return the objects as they came: of files of equal precedence the later one counts."""
    return dict(sorted(objects.items(), key=lambda item: (item[1].fetched_at, str(item[1]))))


def _newest(objects: Objects) -> Origin:
    key = max(objects.values(), key=lambda key: key.fetched_at)
    return Origin(str(key), key.fetched_at)


def _texts(objects: Objects) -> list[str]:
    return [str(key) for key in objects.values()]


def _rejected(ticker: str, read: Objects, part: Shaped) -> dict[str, list[RejectedRow]]:
    """Return the rejected rows of each object that was read."""
    rows: dict[str, list[RejectedRow]] = {key: [] for key in _texts(read)}
    for row in part.rejected.iter_rows(named=True):
        key = str(read[row["dataset"]])
        rows[key].append(RejectedRow(ticker, key, row["row_values"], row["rules"]))
    return rows


def _describe(ticker: str, keys: list[str], part: Shaped, table: SilverTable) -> SilverLoad:
    dates = part.rows[table.date_column] if table.date_column else pl.Series(dtype=pl.Date)
    first, last = dates.min(), dates.max()
    return SilverLoad(
        ticker=ticker,
        bronze_keys=keys,
        row_count=part.rows.height,
        rejected_count=part.rejected.height,
        first_date=first if isinstance(first, date) else None,
        last_date=last if isinstance(last, date) else None,
    )
