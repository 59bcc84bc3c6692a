"""Objects that arrive in bronze: what a listing brings, where to look next, and what to load.

Anybody may put objects into the bucket, under any key, with any clock. So nothing here trusts the
order in which keys come. A listing is held against what is known. Three things are listed: the tail
of a dataset, as far back as one call reaches, at every look; its last days, a few calls at each
look; and all of it, once a day, with what is left of those calls.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.datasets import DATASETS, DROPPED, MARKET, Dataset
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.errors import InvalidKeyError

BRONZE = "bronze/"
TAIL = 900
"""So many known objects are listed again at each look: with what is new they fit into one call."""
LISTED: Mapping[str, Dataset] = {**DATASETS, **DROPPED}
"""The datasets that are in bronze."""
READERS: Mapping[str, tuple[str, ...]] = {
    name: tuple(table.name for table in SILVER_TABLES.values() if dataset in table.inputs)
    for name, dataset in LISTED.items()
}
"""The silver tables that are loaded from each dataset."""

# Clocks differ, and some people write their own time for UTC; what is dated later is a mistake.
_AHEAD = timedelta(days=1)
# Nobody had a reply before, and looks reckon with the days before an object.
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_WHOLE_EVERY = timedelta(days=1)
# No longer than people wait after an outage: each attempt in it counts like a failing object's.
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(minutes=1), timedelta(minutes=15)
# What other runs hold back is held no longer than that.
_PATIENCE = timedelta(hours=1)
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])", re.ASCII)


class Listed(NamedTuple):
    """An object as a listing has it: another content has another `etag`."""

    key: str
    etag: str


class Notice(NamedTuple):
    """An object that people should know about, and why."""

    key: str
    etag: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a listing has that is not known as it is.

    `confirmed` were known by their keys alone, as nobody had listed them yet.
    """

    new: list[tuple[BronzeKey, str]] = field(default_factory=list)
    overwritten: list[Listed] = field(default_factory=list)
    confirmed: list[Listed] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.new or self.overwritten or self.confirmed or self.notices)


def sort_out(listing: Iterable[Listed], known: Mapping[str, str | None], now: datetime) -> Found:
    """Hold a listing against the ETags of the objects that are `known`; None is one not listed yet.

    An object whose key cannot be read is a notice. So is one that is known with another ETag: it is
    to be loaded again.
    """
    found = Found()
    for one in listing:
        if one.key in known:
            etag = known[one.key]
            if etag is None:
                found.confirmed.append(one)
            elif etag != one.etag:
                found.overwritten.append(one)
                reason = f"overwritten: its ETag was {etag}; objects in bronze should never change"
                found.notices.append(Notice(one.key, one.etag, reason))
            continue
        try:
            found.new.append((read_key(one.key, now), one.etag))
        except InvalidKeyError as error:
            found.notices.append(Notice(one.key, one.etag, str(error)))
    return found


def read_key(text: str, now: datetime) -> BronzeKey:
    """Return the key that `text` is, if an object there can be loaded.

    Raises:
        InvalidKeyError: it is none of ours, or names what there cannot be, such as a part of a
            dataset that has none, or a time before 1970 or more than a day ahead of `now`.
    """
    key = BronzeKey.parse(text)
    dataset = LISTED.get(key.dataset)
    if dataset is None:
        raise InvalidKeyError(f"{text!r}: {_no_dataset(key.dataset)}")
    if (key.ticker == MARKET) != dataset.is_of_market:
        whose = "the market, written ~" if dataset.is_of_market else "a ticker"
        raise InvalidKeyError(f"{text!r}: an object of {dataset.name} is of {whose}")
    if not _has_part(dataset, key.part):
        raise InvalidKeyError(f"{text!r}: {dataset.name} has no part {key.part!r}")
    if key.form != dataset.form:
        raise InvalidKeyError(f"{text!r}: {dataset.name} is kept as .{dataset.form}.gz")
    if key.fetched_at < _FIRST:
        raise InvalidKeyError(f"{text!r}: it is dated before 1970; that is no time of a reply")
    if key.fetched_at > now + _AHEAD:
        raise InvalidKeyError(
            f"{text!r}: it is dated more than a day ahead; it is taken up when that time has come"
        )
    return key


def strange_folder(folder: str) -> Notice | None:
    """Return what to say of a folder below `bronze/`; None of one that has a dataset."""
    name = folder.removeprefix(BRONZE).rstrip("/")
    return None if name in LISTED else Notice(folder, "", f"{folder!r}: {_no_dataset(name)}")


# Where to look


@dataclass(frozen=True, slots=True)
class Sweep:
    """A stretch of keys that is listed from `start` to the end of `prefix`, again and again."""

    name: str
    prefix: str
    start: str
    every: timedelta

    @property
    def is_whole(self) -> bool:
        """Tell whether it is over all of `prefix`."""
        return self.start == self.prefix


class Standing(NamedTuple):
    """Where a sweep stands: after which key it goes on, or when it was last at its end."""

    position: str | None = None
    ended_at: datetime | None = None


class Reach(NamedTuple):
    """When the newest known object of a dataset came, and the key that its tail begins with.

    None where there are fewer objects than a tail has: then it begins at the beginning.
    """

    newest_at: datetime | None = None
    tail_key: str | None = None


def tail_start(dataset: str, reach: Reach) -> str:
    """Return after which key to list to see what is new at the tail of a dataset."""
    return reach.tail_key or BronzeKey.prefix(dataset)


def tail_end(dataset: str, now: datetime) -> str:
    """Return before which key a dataset has all that can be taken up; sweeps see what is after."""
    end = now.astimezone(UTC) + _AHEAD + timedelta(days=1)
    return f"{BronzeKey.prefix(dataset)}{end.date()}/"


def sweeps_of(
    dataset: str, reach: Reach, now: datetime, *, late_days: int, recent_every: timedelta
) -> tuple[Sweep, Sweep]:
    """Return the sweep over the last days of a dataset, and the one over all of it."""
    prefix = BronzeKey.prefix(dataset)
    since = min(now, reach.newest_at or now) - timedelta(days=late_days)
    # With its slash: SeaweedFS takes a folder's bare name to come after all that is in it.
    recent = f"{prefix}{since.astimezone(UTC).date()}/"
    return (
        Sweep(f"recent {dataset}", prefix, recent, recent_every),
        Sweep(f"whole {dataset}", prefix, prefix, _WHOLE_EVERY),
    )


def due(sweeps: Iterable[Sweep], standings: Mapping[str, Standing], now: datetime) -> list[Sweep]:
    """Return the sweeps that are under way or to begin: those over the last days, then the others.

    Of either, the one that ended longest ago is first. One that ended after `now` has seen another
    clock, and is due.
    """

    def place(sweep: Sweep) -> tuple[bool, datetime]:
        ended_at = standings.get(sweep.name, Standing()).ended_at
        return sweep.is_whole, ended_at or datetime.min.replace(tzinfo=UTC)

    def is_due(sweep: Sweep) -> bool:
        standing = standings.get(sweep.name, Standing())
        if standing.position is not None or standing.ended_at is None:
            return True
        return not timedelta(0) <= now - standing.ended_at < sweep.every

    return sorted(filter(is_due, sweeps), key=place)


# What to load


class Unloaded(NamedTuple):
    """The objects of a ticker that silver has not loaded yet; `mark` is another for other objects.

    `requests` is how often the one asked for least was handed to a run, the last time at
    `requested_at`; `noticed_at` is when the oldest was noticed. `is_reported` tells whether people
    were told of all of them.
    """

    ticker: str
    objects: int
    requests: int
    requested_at: datetime | None
    noticed_at: datetime
    is_reported: bool
    mark: str


class Busy(NamedTuple):
    """What runs at work will load: certain tickers, or nobody knows which."""

    tickers: frozenset[str] = frozenset()
    everything: bool = False


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What to ask a run for, and what not.

    `register` are those of `tickers` that are to become part of the universe; `strangers` are not
    in it, and people have not been told of their objects. `held` are left to runs at work, `paused`
    until some time has passed since the last attempt.
    """

    tickers: list[str] = field(default_factory=list)
    has_market: bool = False
    register: list[str] = field(default_factory=list)
    strangers: list[Unloaded] = field(default_factory=list)
    held: int = 0
    paused: int = 0
    objects: int = 0
    marks: list[str] = field(default_factory=list)


def plan_loads(
    unloaded: Sequence[Unloaded],
    *,
    universe: Iterable[str],
    busy: Busy,
    registers: bool,
    now: datetime,
) -> LoadPlan:
    """Decide which tickers to load: all that have objects to load and are in no run's hands.

    Tickers that are not in the universe join it if `registers` is set, and are reported otherwise.
    """
    members = set(universe)
    tickers, register, strangers, marks = [], [], [], []
    has_market, held, paused, objects = False, 0, 0, 0
    for one in sorted(unloaded):
        if one.ticker != MARKET and one.ticker not in members and not registers:
            if not one.is_reported:
                strangers.append(one)
            continue
        if one.ticker in busy.tickers or (busy.everything and now - one.noticed_at < _PATIENCE):
            held += 1
            continue
        if one.requested_at is not None and now - one.requested_at < pause(one.requests):
            paused += 1
            continue
        if one.ticker == MARKET:
            has_market = True
        else:
            tickers.append(one.ticker)
            if one.ticker not in members:
                register.append(one.ticker)
        objects += one.objects
        marks.append(one.mark)
    return LoadPlan(tickers, has_market, register, strangers, held, paused, objects, marks)


def pause(requests: int) -> timedelta:
    """Return how long to wait after so many attempts: a run that was killed is made up for at once.

    A run that fails each time comes again ever more seldom.
    """
    if requests < 2:
        return timedelta(0)
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * (1 << min(requests - 2, 20)))


def _has_part(dataset: Dataset, part: str) -> bool:
    if dataset.is_monthly:
        return _MONTH.fullmatch(part) is not None
    return part in dataset.parts if dataset.parts else bool(part)


def _no_dataset(name: str) -> str:
    return f"there is no dataset {name!r}; there are {', '.join(LISTED)}"
