"""The inbox: files that people put into the bucket, taken up into bronze.

A file below `inbox/` becomes one bronze object a ticker and is then moved to `taken/`; one that
cannot be read is moved to `quarantine/inbox/`, with the reason beside it. Where to is told by the
file alone, and what is stored already is not stored again, so that a take-up that was killed can be
run again at any point.
"""

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import polars as pl
from botocore.exceptions import BotoCoreError, ClientError
from psycopg.rows import scalar_row

from stocks_assets.adapters.bronze import BronzeStore
from stocks_assets.adapters.object_store import Entry, ObjectStore
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.bronze_key import BronzeKey, content_hash
from stocks_assets.domain.datasets import DROPPED, Dataset
from stocks_assets.domain.dropped_files import (
    INBOX,
    DroppedFile,
    InboxPath,
    payload,
    read_file,
    too_large,
)
from stocks_assets.errors import PayloadError

TAKEN = "taken/"
QUARANTINE = "quarantine/inbox/"
REASON = ".reason.txt"
DEFAULT_MAX_BYTES = 100 * 10**6

_UPLOADS_AT_ONCE = 8
# Some stores take no more than 255 bytes between two slashes, and 1,024 in all.
_LONGEST_FOLDER, _FOLDERS = 60, 4


@dataclass(frozen=True, slots=True)
class Taken:
    """A file whose rows are in bronze now; `rows` counts them by ticker.

    `withdrawn` are the tickers that the same path had rows of before and has none of now.
    """

    path: str
    kept_as: str
    dataset: str
    rows: Mapping[str, int]
    new_objects: int
    withdrawn: list[str] = field(default_factory=list)
    not_tickers: Mapping[str, int] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A file that was refused whole, and why."""

    path: str
    kept_as: str
    reason: str


@dataclass(frozen=True, slots=True)
class Left:
    """A file that the bucket did not let us take up; it is tried again the next time."""

    path: str
    reason: str


Outcome = Taken | Quarantined | Left


class Inbox:
    """What lies below `inbox/` in the bucket."""

    def __init__(
        self,
        store: ObjectStore,
        bronze: BronzeStore,
        warehouse: Warehouse,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        self._store = store
        self._bronze = bronze
        self._warehouse = warehouse
        self._max_bytes = max_bytes

    def waiting(self) -> list[Entry]:
        """Return the files that wait, the oldest first."""
        files = [entry for entry in self._store.entries(INBOX) if InboxPath.is_file(entry.key)]
        return sorted(files, key=lambda entry: (entry.modified_at, entry.key))

    def take_up(self) -> list[Outcome]:
        """Take up the files that wait, the oldest first, and return what came of each.

        One process at a time does. What is put there meanwhile waits for the next time.
        """
        with self._warehouse.lock("inbox"):
            waiting = self.waiting()
            if waiting:
                for dataset in DROPPED.values():
                    self._bronze.sync_index(dataset)
            outcomes = [self._take_up_one(entry) for entry in waiting]
        return [outcome for outcome in outcomes if outcome is not None]

    def _take_up_one(self, entry: Entry) -> Outcome | None:
        """Return what came of a file; None if it has been replaced or removed since."""
        path = InboxPath.parse(entry.key)
        try:
            if path.withdraws:
                return self._withdraw(entry, path)
            if entry.size > self._max_bytes:
                return self._quarantine(entry, f"it has {too_large(self._max_bytes)}")
            body = self._store.read_raw(entry)
            if body is None:
                return None
            file = _read(path, body, self._max_bytes)
            if isinstance(file, PayloadError):
                return self._quarantine(entry, str(file))
            return self._take(entry, path, file)
        except (ClientError, BotoCoreError) as error:
            return Left(entry.key, f"the bucket did not let it be taken up: {error}")

    def _take(self, entry: Entry, path: InboxPath, file: DroppedFile) -> Taken:
        new, withdrawn = self._keep(path, file)
        kept_as = self._move(entry, TAKEN)
        return Taken(
            entry.key,
            kept_as,
            file.dataset.name,
            {ticker: rows.height for ticker, rows in file.rows.items()},
            new,
            withdrawn,
            file.not_tickers,
            list(file.ignored),
        )

    def _withdraw(self, entry: Entry, path: InboxPath) -> Outcome:
        if not any(self._standing(dataset, path.part) for dataset in DROPPED.values()):
            reason = f"nothing was ever taken up from {path.source}; it takes rows back that were"
            return self._quarantine(entry, reason)
        new, withdrawn = self._keep(path, None)
        return Taken(entry.key, self._move(entry, TAKEN), "", {}, new, withdrawn)

    def _keep(self, path: InboxPath, file: DroppedFile | None) -> tuple[int, list[str]]:
        """Let bronze say of `path` what the file says, and nothing else.

        Returns how many objects are new, and the tickers that the path says nothing of any more.
        """
        now = datetime.now(UTC)
        new: list[BronzeKey] = []
        withdrawn: list[str] = []
        for dataset in DROPPED.values():
            rows = file.rows if file is not None and file.dataset == dataset else {}
            stored = self._store_rows(path, dataset, rows, now)
            self._warehouse.index(stored)
            new += stored
            withdrawn += [key.ticker for key in stored if key.ticker not in rows]
        return len(new), withdrawn

    def _store_rows(
        self, path: InboxPath, dataset: Dataset, rows: Mapping[str, pl.DataFrame], now: datetime
    ) -> list[BronzeKey]:
        """Store what bronze does not have yet: `rows`, and of other tickers that there are none."""
        standing = self._standing(dataset, path.part)

        def put(ticker: str) -> BronzeKey | None:
            body = payload(path, rows.get(ticker))
            key = BronzeKey(dataset.name, ticker, now, content_hash(body), path.part)
            before = standing.get(ticker)
            if before is not None and before.content_hash == key.content_hash:
                return None
            self._store.put_new(str(key), body, {"function": dataset.endpoints[0].function})
            return key

        with ThreadPoolExecutor(_UPLOADS_AT_ONCE, thread_name_prefix="inbox") as pool:
            return [key for key in pool.map(put, sorted({*rows, *standing})) if key is not None]

    def _standing(self, dataset: Dataset, part: str) -> dict[str, BronzeKey]:
        """Return the newest object of each ticker that a path said something of."""
        with (
            self._warehouse.connect() as connection,
            connection.cursor(row_factory=scalar_row) as cursor,
        ):
            keys = cursor.execute(
                "select distinct on (ticker) key from bronze.objects "
                "where dataset = %s and part = %s order by ticker, fetched_at desc, key desc",
                (dataset.name, part),
            ).fetchall()
        return {key.ticker: key for key in map(BronzeKey.parse, keys)}

    def _quarantine(self, entry: Entry, reason: str) -> Quarantined:
        note = (
            f"{entry.key} was not taken up: {reason}.\n"
            "Mend it and put it into the inbox again; docs/inbox.md says what a file looks like.\n"
        )
        self._store.put_text(_kept_as(entry, QUARANTINE) + REASON, note)
        return Quarantined(entry.key, self._move(entry, QUARANTINE), reason)

    def _move(self, entry: Entry, to: str) -> str:
        """Move a file out of the inbox, and return where it is.

        One that has been replaced meanwhile stays, to be taken up the next time.
        """
        kept_as = _kept_as(entry, to)
        if self._store.copy(entry, kept_as):
            self._store.remove(entry)
        return kept_as


def digest(entries: Iterable[Entry]) -> str:
    """Return what tells one set of waiting files from any other, be it in a file's content."""
    lines = sorted(f"{entry.key} {entry.etag} {entry.modified_at}" for entry in entries)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _kept_as(entry: Entry, prefix: str) -> str:
    """Return where a file is kept: the same for the same content that was put there at one time."""
    mark = hashlib.sha256(f"{entry.key} {entry.etag}".encode()).hexdigest()[:8]
    below = entry.key.removeprefix(INBOX).split("/")
    name = "/".join(folder[-_LONGEST_FOLDER:] for folder in below[-_FOLDERS:])
    return f"{prefix}{entry.modified_at.astimezone(UTC):%Y-%m-%d/%H%M%S}_{mark}/{name}"


def _read(path: InboxPath, body: bytes, max_bytes: int) -> DroppedFile | PayloadError:
    try:
        return read_file(path, body, max_bytes)
    except PayloadError as error:
        return error
    except Exception as error:  # noqa: BLE001 # what no one foresaw in a file must not hold up the others
        return PayloadError(f"it cannot be read: {type(error).__name__}: {error}")
