"""The index of bronze: it follows the bucket by listing, and misses nothing that is put there.

Runs and the sensor use the same looks (`domain/arrivals.py` says where). What was noted and where a
sweep stands is in PostgreSQL, so whoever looks next goes on from there.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Protocol

import psycopg

from stocks_assets.adapters.warehouse import Warehouse, connect, index_objects
from stocks_assets.domain.arrivals import (
    BRONZE,
    LISTED,
    TAIL,
    Found,
    Listed,
    Notice,
    Reach,
    Standing,
    Sweep,
    due,
    sort_out,
    strange_folder,
    sweeps_of,
    tail_end,
    tail_start,
)
from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.hints import (
    HINTS_A_LOOK,
    PAGES_OF_HINTS,
    beyond_tails,
    next_place,
    not_listed,
)

LATE_DAYS = 3
# How often runs list the last days; a sensor's looks do so all the time, a few calls each.
_RECENT_EVERY = timedelta(minutes=5)
# What a run adds to the sweep over all of a dataset, so that it comes round without a sensor too.
_PAGES_OF_A_RUN = 5
# A tick stays short: the rest is listed by the next ones.
_TAIL_PAGES, _SWEEP_PAGES = 2 * len(LISTED), 5
# Of the latter, what sweeps over all of a dataset have though the last days are never done.
_WHOLE_PAGES = 2
# Where the listing right below `bronze/` stands, among the sweeps.
_STRAYS = "strays"


class Lister(Protocol):
    """What lists a bucket, up to a thousand objects a call."""

    def page(self, prefix: str, after: str) -> tuple[Sequence[Listed], bool]:
        """Return the next objects with `prefix` after a key, and whether there are more."""

    def below(self, prefix: str, after: str) -> tuple[Sequence[str], Sequence[Listed], str | None]:
        """Return the next folders and objects right below `prefix` after a key.

        The third is after which key to go on, None at the end.
        """


class Books(Protocol):
    """What is known of the bucket; each note is kept at once."""

    def reach(self, dataset: str, until: datetime, count: int) -> Reach:
        """Return how far back the newest `count` known objects up to `until` go."""

    def known(self, keys: Sequence[str]) -> Mapping[str, str | None]:
        """Return the ETags of those of `keys` that are known; None is one not listed yet."""

    def note(self, found: Found) -> None:
        """Note what was found; an overwritten object is to be loaded again."""

    def standings(self, names: Sequence[str]) -> Mapping[str, Standing]:
        """Return where sweeps stand; one that was never made has no standing."""

    def stand(self, name: str, standing: Standing) -> None:
        """Note where a sweep stands."""

    def hints(self, count: int) -> Sequence[str]:
        """Return up to `count` keys that events of the store named, the oldest first."""

    def forget(self, hints: Sequence[str]) -> None:
        """Forget hints."""


class Keeper(Protocol):
    """What has the books."""

    def open(self) -> AbstractContextManager[Books]:
        """Yield the books."""


@dataclass(slots=True)
class Look:
    """What a look came to: listing calls, and how many objects were new or overwritten.

    `hinted` is how many keys were listed because the store had named them.
    """

    calls: int = 0
    hinted: int = 0
    new: int = 0
    overwritten: int = 0


class BronzeIndex:
    """The objects below `bronze/`, as far as they were listed.

    Objects that are dated up to `late_days` before the newest one are found within minutes, older
    ones within a day.
    """

    def __init__(self, store: Lister, keeper: Keeper, *, late_days: int = LATE_DAYS) -> None:
        self._store = store
        self._keeper = keeper
        self._late_days = late_days

    def sync(self, dataset: str, now: datetime | None = None) -> Look:
        """Note all that is new at the tail of `dataset`, and what its sweeps find if they are due.

        The sweep over all of it goes on a bit.
        """
        now = now or datetime.now(UTC)
        with self._keeper.open() as books:
            looking = _Looking(self._store, books, now)
            sweeps = looking.tails([dataset], None, self._late_days, _RECENT_EVERY)
            for sweep in looking.due(sweeps):
                looking.sweep(sweep, _PAGES_OF_A_RUN if sweep.is_whole else None)
        return looking.look

    def look(self, now: datetime | None = None) -> Look:
        """Note what is new in all datasets, in a bounded number of calls; the next look goes on."""
        now = now or datetime.now(UTC)
        with self._keeper.open() as books:
            looking = _Looking(self._store, books, now)
            # Before anything is listed: what they name is there by now, for the tails as well.
            hints = books.hints(HINTS_A_LOOK)
            looking.strays()
            sweeps = looking.tails(list(LISTED), _TAIL_PAGES, self._late_days, timedelta(0))
            looking.follow_hints(hints)
            due = looking.due(sweeps)
            until = looking.look.calls + _SWEEP_PAGES
            until_whole = until - (_WHOLE_PAGES if any(sweep.is_whole for sweep in due) else 0)
            for sweep in due:
                pages = (until if sweep.is_whole else until_whole) - looking.look.calls
                if pages > 0:
                    looking.sweep(sweep, pages)
        return looking.look


class _Looking:
    """One look: what is listed, and noted page by page."""

    def __init__(self, store: Lister, books: Books, now: datetime) -> None:
        self._store = store
        self._books = books
        self._now = now
        self._standings: dict[str, Standing] = {}
        self._starts: dict[str, str] = {}
        self.look = Look()

    def strays(self) -> None:
        """Note what has no dataset of the next page of what lies right below `bronze/`."""
        before = self._books.standings([_STRAYS]).get(_STRAYS, Standing())
        folders, strays, stopped_at = self._store.below(BRONZE, before.position or BRONZE)
        self.look.calls += 1
        strange = [notice for folder in folders if (notice := strange_folder(folder))]
        self._note(Found(notices=strange))
        self._note(sort_out(strays, {}, self._now))
        ended_at = before.ended_at if stopped_at else self._now
        self._books.stand(_STRAYS, Standing(stopped_at, ended_at))

    def tails(
        self, datasets: Sequence[str], pages: int | None, late_days: int, recent_every: timedelta
    ) -> list[Sweep]:
        """List the tails of `datasets`, and return the sweeps over more than the tails.

        The datasets take turns, a page each: what one has too much of is not at others' expense.
        """
        reaches = {name: self._books.reach(name, self._now, TAIL) for name in datasets}
        starts = {name: tail_start(name, reach) for name, reach in reaches.items()}
        self._starts |= starts
        going, unfinished = deque(starts.items()), set(starts)
        for _ in range(pages) if pages is not None else count():
            if not going:
                break
            name, after = going.popleft()
            stopped_at = self._follow(BronzeKey.prefix(name), after, 1)
            if stopped_at is None:
                unfinished.remove(name)
            elif stopped_at < tail_end(name, self._now):
                going.append((name, stopped_at))
        return [
            sweep
            for name, reach in reaches.items()
            for sweep in sweeps_of(
                name, reach, self._now, late_days=late_days, recent_every=recent_every
            )
            if name in unfinished or sweep.start < starts[name]
        ]

    def follow_hints(self, hints: Sequence[str]) -> None:
        """List where the store said that it wrote, as far as the tails did not reach.

        What is left waits for the next look.
        """
        waiting = late = beyond_tails(hints, self._starts)
        for _ in range(PAGES_OF_HINTS):
            if not waiting:
                break
            place = next_place(waiting)
            waiting = not_listed(waiting, place, self._follow(place.prefix, place.after, 1))
        self.look.hinted = len(late) - len(waiting)
        if looked_at := set(hints) - set(waiting):
            self._books.forget(sorted(looked_at))

    def due(self, sweeps: Sequence[Sweep]) -> list[Sweep]:
        """Return those of `sweeps` that are to be made."""
        names = [sweep.name for sweep in sweeps if sweep.name not in self._standings]
        self._standings |= self._books.standings(names)
        return due(sweeps, self._standings, self._now)

    def sweep(self, sweep: Sweep, pages: int | None) -> None:
        """List what is next of `sweep`."""
        before = self._standings.get(sweep.name, Standing())
        stopped_at = self._follow(sweep.prefix, before.position or sweep.start, pages)
        self._stand(sweep, Standing(stopped_at, before.ended_at if stopped_at else self._now))

    def _stand(self, sweep: Sweep, standing: Standing) -> None:
        self._standings[sweep.name] = standing
        self._books.stand(sweep.name, standing)

    def _follow(self, prefix: str, after: str, pages: int | None) -> str | None:
        """List after a key and note what is found; return where it stopped, None at the end."""
        while pages is None or pages > 0:
            page, has_more = self._store.page(prefix, after)
            self.look.calls += 1
            known = self._books.known([one.key for one in page])
            self._note(sort_out(page, known, self._now))
            if not has_more:
                return None
            after = page[-1].key
            pages = pages - 1 if pages is not None else None
        return after

    def _note(self, found: Found) -> None:
        if found:
            self._books.note(found)
            self.look.new += len(found.new)
            self.look.overwritten += len(found.overwritten)


class PostgresKeeper:
    """The books in the warehouse."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    @contextmanager
    def open(self) -> Iterator[Books]:
        """Yield the books on a connection of their own."""
        with connect(self._warehouse.database_url, autocommit=True) as connection:
            yield PostgresBooks(connection)


class PostgresBooks:
    """`bronze.objects`, `bronze.notices`, `bronze.sweeps` and `bronze.hints`."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def reach(self, dataset: str, until: datetime, count: int) -> Reach:
        """Return how far back the newest `count` known objects up to `until` go."""
        row = self._connection.execute(
            'select max(fetched_at), case when count(*) = %s then min(key collate "C") end from ('
            "  select key, fetched_at from bronze.objects where dataset = %s and fetched_at <= %s"
            "  order by fetched_at desc limit %s) newest",
            (count, dataset, until, count),
        ).fetchone()
        assert row is not None
        return Reach(*row)

    def known(self, keys: Sequence[str]) -> dict[str, str | None]:
        """Return the ETags of those of `keys` that are known; None is one not listed yet."""
        rows = self._connection.execute(
            "select key, etag from bronze.objects where key = any(%s)", (list(keys),)
        ).fetchall()
        return dict(rows)

    def note(self, found: Found) -> None:
        """Note what was found; an overwritten object is to be loaded again."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            index_objects(cursor, found.new)
            for is_new_content, listed in ((False, found.confirmed), (True, found.overwritten)):
                if not listed:
                    continue
                keys, etags = zip(*listed, strict=True)
                cursor.execute(
                    "update bronze.objects set etag = given.etag "
                    "from unnest(%s::text[], %s::text[]) as given (key, etag) "
                    "where objects.key = given.key and objects.etag is distinct from given.etag",
                    (list(keys), list(etags)),
                )
                if is_new_content:
                    cursor.execute(
                        "update ops.object_loads set overwritten_at = clock_timestamp(), "
                        "noticed_at = clock_timestamp(), loaded_at = null, is_refused = false, "
                        "requests = 0, requested_at = null, reported_at = null "
                        "where bronze_key = any(%s)",
                        (list(keys),),
                    )
            _note_strange(cursor, found.notices)

    def standings(self, names: Sequence[str]) -> dict[str, Standing]:
        """Return where sweeps stand; one that was never made has no standing."""
        rows = self._connection.execute(
            "select name, position, ended_at from bronze.sweeps where name = any(%s)",
            (list(names),),
        ).fetchall()
        return {name: Standing(*standing) for name, *standing in rows}

    def stand(self, name: str, standing: Standing) -> None:
        """Note where a sweep stands."""
        self._connection.execute(
            "insert into bronze.sweeps (name, position, ended_at) values (%s, %s, %s) "
            "on conflict (name) do update "
            "set position = excluded.position, ended_at = excluded.ended_at",
            (name, *standing),
        )

    def hints(self, count: int) -> list[str]:
        """Return up to `count` keys that events of the store named, the oldest first."""
        rows = self._connection.execute(
            "select key from bronze.hints order by noticed_at limit %s", (count,)
        ).fetchall()
        return [key for (key,) in rows]

    def forget(self, hints: Sequence[str]) -> None:
        """Forget hints."""
        self._connection.execute("delete from bronze.hints where key = any(%s)", (list(hints),))


def _note_strange(cursor: psycopg.Cursor, notices: Iterable[Notice]) -> None:
    listed = list(notices)
    if listed:
        cursor.execute(
            "insert into bronze.notices (key, etag, reason) "
            "select * from unnest(%s::text[], %s::text[], %s::text[]) on conflict do nothing",
            [list(column) for column in zip(*listed, strict=True)],
        )
