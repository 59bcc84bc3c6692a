"""Silver: bronze objects shaped into typed frames and merged, many tickers a load.

Each object of a ticker is loaded once, in the order in which the objects came, so that what was
known when does not depend on when silver ran.
"""

import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import TypeVar

import polars as pl
from botocore.exceptions import BotoCoreError, ClientError

from stocks_assets.adapters import loader
from stocks_assets.adapters.bronze import BronzeStore, Failed, Skipped, Waiting
from stocks_assets.adapters.silver_store import SCHEMA, Origin, SilverStore, is_too_short
from stocks_assets.adapters.warehouse import RejectedRow, SilverLoad, Warehouse
from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.calendar import exchange_calendar_frame
from stocks_assets.domain.datasets import DROPPED
from stocks_assets.domain.payloads import Shaped, SilverTable
from stocks_assets.errors import PayloadError

# What is read at once.
_TICKERS_PER_STEP = 16
# Bounds memory: a load is merged when it has so many rows.
_ROWS_PER_LOAD = 200_000
_DOWNLOADS_AT_ONCE = 8
# What a missing, truncated or damaged object comes to.
_UNREADABLE = (BotoCoreError, ClientError, OSError, EOFError, zlib.error)
_CALENDAR_START = date(1960, 1, 1)
# A payload is refused whole if so many of its rows, and more than half of them, break a rule.
_MANY_REJECTED = 5

# The objects that a ticker's rows come from, by the name of the payload.
Objects = Mapping[str, BronzeKey]
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a silver table now holds of a ticker; `changes` counts rows by what became of them."""

    load: SilverLoad
    read: Sequence[str] = field(default=(), repr=False)
    rejected_rows: Sequence[RejectedRow] = field(default=(), repr=False)
    changes: Mapping[str, int] = field(default_factory=dict)

    @property
    def rejected_by_rule(self) -> Mapping[str, int]:
        """How many rows broke each rule."""
        return Counter(rule for row in self.rejected_rows for rule in row.rules)

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
    has none is passed over; one with an object that came late, after newer ones had been loaded, is
    built anew from all of its objects. Without it, the newest ones are loaded, again if need be. A
    ticker whose payload cannot be read or believed fails alone; a load that fails takes its tickers
    with it. One process at a time loads a table, so that none goes back behind another.
    """
    with warehouse.lock(f"load {table.name}"):
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
    late = warehouse.tickers_with_late_objects(table.name, tickers) if only_stale else set()
    steps: list[_Step] = []
    for start in range(0, len(tickers), _TICKERS_PER_STEP):
        batch = tickers[start : start + _TICKERS_PER_STEP]
        newest = bronze.newest_of(table.inputs, batch)
        yield from _explain_lack(
            warehouse, table, [ticker for ticker in batch if not newest[ticker]], only_stale
        )
        in_order = {ticker: objects for ticker, objects in newest.items() if ticker not in late}
        steps += _steps(bronze, warehouse, table, in_order, only_stale=only_stale)
    with SilverStore(warehouse) as store:
        yield from _Loading(bronze, warehouse, store, table, began_at, accept_shorter).run(steps)
    if late:
        # Nobody has decided to take what was refused.
        refused = warehouse.refused_objects(table.name)
        yield from _rebuild(bronze, warehouse, table, sorted(late), without=refused)


def rebuild(
    bronze: BronzeStore, warehouse: Warehouse, table: SilverTable, tickers: Sequence[str]
) -> Iterator[Result]:
    """Build `table` and its history for `tickers` anew from all objects in bronze.

    The result takes the place of what was stored when all tickers are done; a ticker that fails
    keeps what it has.
    """
    # What is stored without them is to come out without them.
    refused = warehouse.refused_objects(table.name).items()
    without = {key for key, reason in refused if is_too_short(reason)}
    with warehouse.lock(f"load {table.name}"):
        yield from _rebuild(bronze, warehouse, table, tickers, without=without)


def _rebuild(
    bronze: BronzeStore,
    warehouse: Warehouse,
    table: SilverTable,
    tickers: Sequence[str],
    *,
    without: Collection[str],
) -> Iterator[Result]:
    for dataset in table.inputs:
        bronze.sync_index(dataset)
    began_at = warehouse.now()
    steps = []
    for start in range(0, len(tickers), _TICKERS_PER_STEP):
        timelines = bronze.timelines(table.inputs, tickers[start : start + _TICKERS_PER_STEP])
        lines = {t: [k for k in line if str(k) not in without] for t, line in timelines.items()}
        steps += _in_steps(table, {t: (line, {}) for t, line in lines.items() if line})
    live = SilverStore(warehouse)
    with live.shadow(table) as store:
        loading = _Loading(
            bronze, warehouse, store, table, began_at, accept_shorter=True, is_rebuild=True
        )
        results = list(loading.run(steps))
        loaded = [result for result in results if isinstance(result, Loaded)]
        live.take_over(table, [result.ticker for result in loaded])
    _record(warehouse, table, loaded, began_at)
    done = {result.ticker for result in loaded}
    read = [key for ticker, keys in loading.read if ticker in done for key in keys]
    warehouse.record_loaded_objects(table.name, read, began_at)
    yield from results


def load_exchange_calendar(warehouse: Warehouse, today: date) -> pl.DataFrame:
    """Load `silver.exchange_calendar` from 1960 to the end of next year, and return it."""
    frame = exchange_calendar_frame(_CALENDAR_START, date(today.year + 1, 12, 31))
    with warehouse.lock(f"{SCHEMA} load"):
        loader.merge(warehouse, SCHEMA, "exchange_calendar", frame, ["calendar_date"])
    return frame


@dataclass(frozen=True, slots=True)
class _Step:
    """One load: for each ticker the objects to read, and those that it is then loaded from.

    `last_for` are the tickers that have no further step.
    """

    read: Mapping[str, Objects]
    loaded_from: Mapping[str, Objects]
    last_for: frozenset[str]

    def with_step(self, other: "_Step") -> "_Step":
        """Return both in one; they have no ticker in common."""
        return _Step(
            {**self.read, **other.read},
            {**self.loaded_from, **other.loaded_from},
            self.last_for | other.last_for,
        )


def _steps(
    bronze: BronzeStore,
    warehouse: Warehouse,
    table: SilverTable,
    newest: Mapping[str, Objects],
    *,
    only_stale: bool,
) -> list[_Step]:
    """Return the loads that bring the tickers of one batch up to their newest objects."""
    having = {ticker: objects for ticker, objects in newest.items() if objects}
    if not only_stale:
        return [_Step(having, having, frozenset(having))] if having else []
    done = {
        ticker: set(load.bronze_keys)
        for ticker, load in warehouse.silver_loads(table.name, list(having)).items()
    }
    stale = [t for t, objects in having.items() if done.get(t) != set(_texts(objects))]
    timelines = bronze.timelines(table.inputs, stale) if stale else {}
    pending = {}
    for ticker, line in timelines.items():
        loaded = [key for key in line if str(key) in done.get(ticker, ())]
        since = max((key.fetched_at for key in loaded), default=None)
        # Without a known object to go on from, as in another bucket, all of them are new.
        new = [key for key in line if since is None or key.fetched_at > since]
        pending[ticker] = (
            [key for key in new if str(key) not in done.get(ticker, ())],
            {key.payload_name: key for key in loaded},
        )
    return _in_steps(table, pending)


def _in_steps(
    table: SilverTable,
    pending: Mapping[str, tuple[Sequence[BronzeKey], Objects]],
) -> list[_Step]:
    """Put the objects that are to be loaded into steps; a step has one of each payload at most."""
    rounds = {
        ticker: list(_rounds(table, line, before)) for ticker, (line, before) in pending.items()
    }
    steps = []
    for number in range(max(map(len, rounds.values()), default=0)):
        now = {ticker: made[number] for ticker, made in rounds.items() if number < len(made)}
        steps.append(
            _Step(
                {ticker: read for ticker, (read, _) in now.items()},
                {ticker: state for ticker, (_, state) in now.items()},
                frozenset(ticker for ticker in now if number == len(rounds[ticker]) - 1),
            )
        )
    return steps


def _rounds(
    table: SilverTable, line: Sequence[BronzeKey], before: Objects
) -> Iterator[tuple[Objects, Objects]]:
    """Yield what to read and what is then loaded, for each group of objects of different names."""
    state, group = dict(before), dict[str, BronzeKey]()

    def read() -> Objects:
        # Rows of one month do not depend on those of another; other tables need all inputs.
        return dict(group) if table.is_in_parts else dict(state)

    for key in line:
        if key.payload_name in group:
            yield read(), dict(state)
            group = {}
        group[key.payload_name] = state[key.payload_name] = key
    if group:
        yield read(), dict(state)


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
    # Of a rebuild, the objects of each step.
    read: list[tuple[str, list[str]]] = field(default_factory=list)

    def run(self, steps: Sequence[_Step]) -> Iterator[Loaded | Failed]:
        """Yield each ticker after its last step; the next load is shaped while one is merged."""
        totals: dict[str, Counter[str]] = {}
        for step, shaped in _one_ahead(self._loads(steps)):
            for result in self._merge(step, shaped):
                total = totals.setdefault(result.ticker, Counter())
                if isinstance(result, Loaded):
                    total.update(result.changes)
                if result.ticker in step.last_for:
                    yield replace(result, changes=total) if isinstance(result, Loaded) else result

    def _loads(self, steps: Iterable[_Step]) -> Iterator[tuple[_Step, dict[str, Shaped | str]]]:
        """Shape the steps, and put as many into one as have different tickers and not many rows."""
        load: tuple[_Step, dict[str, Shaped | str]] | None = None
        rows = 0
        for step in steps:
            shaped = self._shape(step)
            coming = sum(part.rows.height for part in shaped.values() if not isinstance(part, str))
            if load and rows + coming <= _ROWS_PER_LOAD and not load[1].keys() & shaped.keys():
                load = load[0].with_step(step), load[1] | shaped
                rows += coming
                continue
            if load:
                yield load
            load, rows = (step, shaped), coming
        if load:
            yield load

    def _shape(self, step: _Step) -> dict[str, Shaped | str]:
        """Return, for each ticker, its rows, or why there are none."""
        with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE, thread_name_prefix="download") as pool:
            payloads = dict(
                zip(step.read, pool.map(self._download, step.read.values()), strict=True)
            )
        readable = {t: p for t, p in payloads.items() if not isinstance(p, str)}
        shaped: dict[str, Shaped | str] = {t: p for t, p in payloads.items() if isinstance(p, str)}
        for ticker, part in self.table.shape_many(readable).items():
            shaped[ticker] = _believable(part)
        return shaped

    def _download(self, objects: Objects) -> dict[str, bytes] | str:
        """Return the payloads, or what went wrong: an exception would end the whole map."""
        try:
            return {name: self.bronze.read(key) for name, key in objects.items()}
        except _UNREADABLE as error:
            return _Unanswered(error) if _says_nothing_of_object(error) else str(error)

    def _merge(self, step: _Step, shaped: Mapping[str, Shaped | str]) -> Iterator[Loaded | Failed]:
        failed = {ticker: part for ticker, part in shaped.items() if isinstance(part, str)}
        good = {ticker: part for ticker, part in shaped.items() if not isinstance(part, str)}
        if good:
            merged = self.store.merge(
                self.table,
                pl.concat(
                    [_with_origins(part.rows, step.read[t], self.table) for t, part in good.items()]
                ),
                {t: _newest(step.read[t]) for t, part in good.items() if self._says_all(part)},
                accept_shorter=self.accept_shorter,
            )
            failed |= merged.refused
            good = {ticker: part for ticker, part in good.items() if ticker not in merged.refused}
            loaded = self._describe(step, good, merged.changes.by_ticker())
            if self.is_rebuild:
                self.read.extend((result.ticker, list(result.read)) for result in loaded)
            else:
                _record(self.warehouse, self.table, loaded, self.began_at)
            yield from loaded
        for ticker, reason in failed.items():
            yield Failed(ticker, f"{reason} ({' '.join(_texts(step.read[ticker]))})")
        self.warehouse.record_refused_objects(
            self.table.name,
            [
                (ticker, text, reason)
                for ticker, reason in failed.items()
                if not isinstance(reason, _Unanswered)
                for text in _texts(step.read[ticker])
            ],
            self.began_at,
        )

    def _describe(
        self,
        step: _Step,
        good: Mapping[str, Shaped],
        changes: Mapping[str, Mapping[str, int]],
    ) -> list[Loaded]:
        loads = {
            ticker: _describe(ticker, step.loaded_from[ticker], part, self.table)
            for ticker, part in good.items()
        }
        if self.table.is_in_parts:
            extents = self.store.extents(self.table, list(loads))
            for ticker, extent in extents.items():
                loads[ticker] = replace(loads[ticker], **extent._asdict())
        return [
            Loaded(
                loads[ticker],
                _texts(step.read[ticker]),
                [
                    RejectedRow(
                        ticker,
                        str(step.read[ticker][row["dataset"]]),
                        row["row_values"],
                        row["rules"],
                    )
                    for row in part.rejected.iter_rows(named=True)
                ],
                changes.get(ticker, {}),
            )
            for ticker, part in good.items()
        ]

    def _says_all(self, part: Shaped) -> bool:
        """Tell whether rows that `part` has not are gone.

        Not where a row was rejected: what it meant is not known. In the list of the market such
        rows are of securities that are no ticker.
        """
        has_all = part.rejected.is_empty() or self.table.is_of_market
        return self.table.date_column is not None and part.is_whole and has_all


def _record(
    warehouse: Warehouse, table: SilverTable, loaded: Sequence[Loaded], began_at: datetime
) -> None:
    rejected = [row for result in loaded for row in result.rejected_rows]
    read = [key for result in loaded for key in result.read]
    warehouse.record_silver_loads(table.name, [r.load for r in loaded], rejected, read, began_at)


class _Unanswered(str):
    """Why an object could not be had, where that is no fault of the object."""

    __slots__ = ()


def _says_nothing_of_object(error: Exception) -> bool:
    """Tell whether the store was out of reach, or out of order."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status in (408, 429)
    return isinstance(error, BotoCoreError | ConnectionError | TimeoutError)


def _believable(part: Shaped | PayloadError) -> Shaped | str:
    if isinstance(part, PayloadError):
        return str(part)
    rejected, good = part.rejected.height, part.rows.height
    if rejected >= _MANY_REJECTED and rejected > good:
        rules = Counter(rule for rules in part.rejected["rules"] for rule in rules)
        broken = ", ".join(f"{rule} {count}" for rule, count in rules.most_common(3))
        return f"{rejected} of {rejected + good} rows break a rule ({broken}): none is loaded"
    return part


def _one_ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield `items`; the next one is made while one is used."""
    nothing = object()
    with ThreadPoolExecutor(1, thread_name_prefix="shape") as worker:
        ahead = worker.submit(next, items, nothing)
        while (item := ahead.result()) is not nothing:
            ahead = worker.submit(next, items, nothing)
            yield item  # type: ignore[misc]  # it is none but nothing


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
    """Say of each row which object it is from, and when that came."""
    keys = {name: str(key) for name, key in objects.items()}
    times = {name: key.fetched_at for name, key in objects.items()}
    return rows.select(
        *table.columns,
        pl.col("dataset").replace_strict(keys, return_dtype=pl.String).alias("bronze_key"),
        pl.col("dataset")
        .replace_strict(times, return_dtype=pl.Datetime("us", "UTC"))
        .alias("known_at"),
    )


def _newest(objects: Objects) -> Origin:
    key = max(objects.values(), key=lambda key: key.fetched_at)
    return Origin(str(key), key.fetched_at)


def _texts(objects: Objects) -> list[str]:
    return [str(key) for key in objects.values()]


def _describe(ticker: str, objects: Objects, part: Shaped, table: SilverTable) -> SilverLoad:
    dates = part.rows[table.date_column] if table.date_column else pl.Series(dtype=pl.Date)
    first, last = dates.min(), dates.max()
    return SilverLoad(
        ticker=ticker,
        bronze_keys=_texts(objects),
        row_count=part.rows.height,
        rejected_count=part.rejected.height,
        first_date=first if isinstance(first, date) else None,
        last_date=last if isinstance(last, date) else None,
    )
