"""Events that a store pushes, as hints: which keys they name, and what to list because of them.

A hint says where to look, and is never believed: what is there, only a listing says. One that is
false, repeated or lost costs a call or some time, as sweeps pass everywhere anyway.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote_plus

import msgspec

from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.datasets import DATASETS, DROPPED
from stocks_assets.errors import InvalidKeyError

LARGEST_EVENT = 256 * 1024
"""Bytes that an event has at most."""
HINTS_KEPT = 10_000
"""So many hints wait at most; what comes when there are as many is dropped."""
HINTS_A_LOOK = 1_000
PAGES_OF_HINTS = 5
"""What a look has for them at most: the rest waits for the next one."""

# Where SeaweedFS has its buckets, as its own settings have it.
_BUCKETS = "/buckets/"
# Keys of S3 have no more bytes.
_LONGEST_KEY = 1024


# What comes in


class _Named(msgspec.Struct):
    name: str


class _Object(msgspec.Struct):
    key: str


class _S3(msgspec.Struct):
    bucket: _Named
    object: _Object


class _Record(msgspec.Struct):
    s3: _S3
    event_name: str = msgspec.field(name="eventName", default="")


class _Entry(msgspec.Struct):
    name: str = ""
    is_directory: bool = False


class _Message(msgspec.Struct):
    new_entry: _Entry | None = None
    new_parent_path: str = ""


class _Event(msgspec.Struct):
    """An event of S3 or MinIO, which have records, or one of SeaweedFS, which has a message."""

    records: list[_Record] | None = msgspec.field(name="Records", default=None)
    key: str = ""
    message: _Message | None = None


def hinted_keys(body: bytes, bucket: str) -> list[str]:
    """Return the keys of bronze objects that an event says were written into `bucket`.

    None is returned twice. What else the event may name, other buckets, folders, removals and keys
    that cannot be read, is left out.

    Raises:
        ValueError: it is no event of S3, MinIO or SeaweedFS.
    """
    try:
        event = msgspec.json.decode(body, type=_Event)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    named = [
        unquote_plus(record.s3.object.key)
        for record in event.records or ()
        if record.s3.bucket.name == bucket and _is_written(record.event_name)
    ]
    below, path = f"{_BUCKETS}{bucket}/", _path(event)
    if path.startswith(below):
        named.append(path.removeprefix(below))
    return list(dict.fromkeys(filter(is_bronze, named)))


def is_bronze(key: str) -> bool:
    """Tell whether `key` is one that an object of a dataset can have."""
    if len(key) > _LONGEST_KEY or not key.isascii():
        return False
    try:
        dataset = BronzeKey.parse(key).dataset
    except InvalidKeyError:
        return False
    return dataset in DATASETS or dataset in DROPPED


def _is_written(event_name: str) -> bool:
    # MinIO writes it with `s3:` before it.
    return not event_name or event_name.removeprefix("s3:").startswith("ObjectCreated")


def _path(event: _Event) -> str:
    """Return where an event of SeaweedFS says that a file is now; nothing of one that is gone."""
    if event.message is None or event.message.new_entry is None:
        return ""
    entry, parent = event.message.new_entry, event.message.new_parent_path
    if entry.is_directory:
        return ""
    return f"{parent}/{entry.name}" if parent and entry.name else event.key


# What to list


class Place(NamedTuple):
    """A stretch of keys: those with `prefix` that sort after a key."""

    prefix: str
    after: str


def beyond_tails(hints: Iterable[str], starts: Mapping[str, str]) -> list[str]:
    """Return those of `hints` that each look's listing of the tails does not reach, in order.

    `starts` are the keys after which the tail of each dataset is listed. What is no key of one of
    these datasets is left out.
    """
    return sorted(
        hint
        for hint in set(hints)
        if is_bronze(hint) and hint <= starts.get(BronzeKey.parse(hint).dataset, "")
    )


def next_place(hints: Sequence[str]) -> Place:
    """Return what to list for the first of `hints`, which are in order, and others of its day."""
    first = hints[0]
    # No key of a dataset sorts between the two.
    return Place(first[: first.rindex("/") + 1], first[:-1])


def not_listed(hints: Sequence[str], place: Place, stopped_at: str | None) -> list[str]:
    """Return those of `hints` that are left once `place` was listed up to a key, None if all of it.

    The first one never is.
    """
    return [
        hint
        for hint in hints[1:]
        if not hint.startswith(place.prefix) or (stopped_at is not None and hint > stopped_at)
    ]
