"""Bronze: the vendor's replies as immutable objects, and the index that finds them.

The bucket is the truth. The index in PostgreSQL follows it and can be made anew from a listing.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from gzip import BadGzipFile

import polars as pl
from botocore.exceptions import BotoCoreError, ClientError

from stocks_assets.adapters.bronze_index import LATE_DAYS, BronzeIndex, Look, PostgresKeeper
from stocks_assets.adapters.object_store import ObjectStore
from stocks_assets.adapters.sources.port import Source
from stocks_assets.adapters.transient import is_transient
from stocks_assets.adapters.warehouse import FetchJournal, Warehouse
from stocks_assets.domain.bronze_key import BronzeKey, QuarantineKey, content_hash
from stocks_assets.domain.datasets import DATASETS, Call, Dataset
from stocks_assets.domain.outcomes import Data, DayQuotaSpent, Outcome, Refused, Unavailable
from stocks_assets.domain.payloads import standing_of_reply
from stocks_assets.domain.recent import Standing
from stocks_assets.errors import InvalidKeyError

_ACCEPTED = "accepted"
_DAMAGED = (BadGzipFile, EOFError, zlib.error)
NOT_STORED = "NotStored"
"""The kind of outcome of a call whose reply the bucket did not take, or has lost."""
NOT_HAD = (*_DAMAGED, BotoCoreError, ClientError, OSError)
"""What is raised where an object cannot be had."""


def is_of_object(error: Exception) -> bool:
    """Tell whether the object is gone or damaged, and not just out of reach."""
    if isinstance(error, ClientError):
        return bool(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404)
    return isinstance(error, _DAMAGED)


@dataclass(frozen=True, slots=True)
class Stored:
    """The newest object of a call; `is_new` tells whether this fetch brought it. Sizes in bytes."""

    ticker: str
    key: BronzeKey
    is_new: bool
    reply_bytes: int
    function: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A ticker that the source has nothing for."""

    ticker: str
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A ticker that could not be done, why, and whether that may pass by itself in a moment."""

    ticker: str
    reason: str
    may_pass: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """A ticker that cannot be done yet, as no call is left for it; nothing failed."""

    ticker: str
    reason: str


Result = Stored | Skipped | Failed | Waiting


class BronzeStore:
    """The replies in the bucket."""

    def __init__(
        self, store: ObjectStore, warehouse: Warehouse, *, late_days: int = LATE_DAYS
    ) -> None:
        self._store = store
        self._warehouse = warehouse
        self._index = BronzeIndex(store, PostgresKeeper(warehouse), late_days=late_days)
        self._identity: str | None = None
        # Whether the bucket takes no replies: then a call would be wasted.
        self._is_closed = False

    def sync_index(self, dataset: Dataset) -> Look:
        """Note the objects of `dataset` that are in the bucket and not yet in the index.

        What is not ours goes to `bronze.notices`.
        """
        self._meet_bucket()
        return self._index.sync(dataset.name)

    def look(self) -> Look:
        """Note what is new in the bucket, in a bounded number of calls; the next look goes on."""
        self._meet_bucket()
        return self._index.look()

    def _meet_bucket(self) -> None:
        if self._identity is None:
            self._identity = self._store.identity()
            self._warehouse.index_bucket(self._identity)

    def newest(self, dataset: Dataset, tickers: Sequence[str]) -> Mapping[Call, BronzeKey]:
        """Return the key of the newest object of each of `tickers`, and of each part there is."""
        return self._warehouse.newest_objects([dataset.name], tickers)

    def newest_of(
        self, datasets: Sequence[Dataset], tickers: Sequence[str]
    ) -> dict[str, dict[str, BronzeKey]]:
        """Return, for each of `tickers`, its newest objects of `datasets` by payload name."""
        found: dict[str, dict[str, BronzeKey]] = {ticker: {} for ticker in tickers}
        newest = self._warehouse.newest_objects([dataset.name for dataset in datasets], tickers)
        for key in sorted(newest.values(), key=lambda key: key.fetched_at):
            found[key.ticker][key.payload_name] = key
        return found

    def timelines(
        self, datasets: Sequence[Dataset], tickers: Sequence[str]
    ) -> dict[str, list[BronzeKey]]:
        """Return, for each of `tickers`, all its objects of `datasets`, the oldest first."""
        found: dict[str, list[BronzeKey]] = {ticker: [] for ticker in tickers}
        for key in self._warehouse.objects([dataset.name for dataset in datasets], tickers):
            found[key.ticker].append(key)
        return found

    def known(self, dataset: Dataset, calls: Sequence[Call]) -> Iterator[tuple[Call, Result]]:
        """Yield what is known of `calls` that were answered before, without making them."""
        newest = self.newest(dataset, list({call.ticker for call in calls}))
        for call in calls:
            key = newest.get(call)
            yield (
                call,
                Skipped(call.ticker, "it was answered so a moment ago")
                if key is None
                else Stored(call.ticker, key, False, 0, ""),
            )

    def read(self, key: BronzeKey) -> bytes:
        """Return the reply that is kept under `key`, as it came.

        Where the object is gone or damaged, another one of the same call and content has it.

        Raises:
            BadGzipFile: it is not compressed, or unpacks to more than objects may have.
            botocore.exceptions.ClientError: it cannot be had.
        """
        try:
            return self._store.get(str(key))
        except NOT_HAD as error:
            if not is_of_object(error):
                raise
            for twin in self._warehouse.twins(key):
                with suppress(*NOT_HAD):
                    body = self._store.get(str(twin))
                    if content_hash(body) == key.content_hash:
                        return body
            raise

    def accept(self, table: str, keys: Iterable[BronzeKey]) -> None:
        """Note beside bronze that somebody believes these objects, short as they are, for `table`.

        What is built from bronze alone is then the same.
        """
        for key in keys:
            self._store.put_new(f"{_ACCEPTED}/{table}/{key}", b"{}", {})

    def is_accepted(self, table: str, key: BronzeKey) -> bool:
        """Tell whether somebody believes the object, short as it is, for `table`."""
        return self._store.get_page(f"{_ACCEPTED}/{table}/{key}") is not None

    def url(self, key: BronzeKey) -> str:
        """Return where `key` is, as a link without any right to read it."""
        return self._store.url(str(key))

    def quarantined(self, since: date) -> list[QuarantineKey]:
        """Return the replies since `since` that were no data, the newest first."""
        found = []
        for name in DATASETS:
            prefix = f"{QuarantineKey.prefix()}{name}/"
            for key in self._store.keys_after(prefix, f"{prefix}{since}/"):
                # What else people put there is theirs.
                with suppress(InvalidKeyError):
                    found.append(QuarantineKey.parse(key))
        return sorted(found, key=lambda key: key.received_at, reverse=True)

    def ingest(
        self,
        source: Source,
        dataset: Dataset,
        calls: Sequence[Call],
        *,
        threads: int,
        decided_at: datetime | None = None,
        waits: bool = False,
        tails: Mapping[Call, pl.DataFrame] | None = None,
    ) -> Iterator[tuple[Call, Result]]:
        """Make `calls` of `dataset` and store what is new, yielding each as it is done.

        A reply with the content of the newest object of its call is not stored again, unless that
        object was lost. Calls are made in their order. Yielded as `Waiting` are those for which
        none is left, and those that another run makes, or has made since they were decided on,
        which is now unless it is given. Who `waits` gets what came of those for the other run.

        Of calls with stored rows in `tails` the newest rows are asked for, and kept if they go on
        from those and say something new; if they do not go on, a second call asks for all.
        """
        decided_at = decided_at or datetime.now(UTC)
        self._is_closed = False
        self.sync_index(dataset)
        lost = self._warehouse.calls_ended_as(dataset.name, NOT_STORED)
        newest = {
            call: key
            for call, key in self.newest(dataset, list({call.ticker for call in calls})).items()
            if call not in lost
        }
        with (
            self._warehouse.fetch_journal(threads, decided_at) as journal,
            ThreadPoolExecutor(threads, thread_name_prefix=dataset.name) as pool,
        ):
            made = {
                pool.submit(
                    self._fetch_one,
                    partial(_ask, source, call, (tails or {}).get(call)),
                    journal,
                    call,
                    newest.get(call),
                    waits,
                ): call
                for call in calls
            }
            try:
                for one in as_completed(made):
                    yield made[one], one.result()
            finally:
                for one in made:
                    one.cancel()

    def _fetch_one(
        self,
        ask: Callable[[], "_Answer"],
        journal: FetchJournal,
        call: Call,
        newest: BronzeKey | None,
        waits: bool,
    ) -> Result:
        """`ask`, keep what comes of it and note it at once: a kill costs a call a thread."""
        with journal.only_one(call, waits=waits) as is_free:
            if not is_free:
                made = journal.made(call) if waits else None
                if made is not None:
                    return self._had_by_another(call, *made)
                return Waiting(call.ticker, "another run makes this call at the same time")
            if self._is_closed:
                return Waiting(call.ticker, "not called: the bucket takes no replies")
            answer = ask()
            try:
                kind = type(answer.outcome).__name__
                result = self._keep(answer, call, newest)
            except (ClientError, BotoCoreError) as error:
                kind, self._is_closed = NOT_STORED, True
                result = Failed(
                    call.ticker,
                    f"the bucket did not take the reply: {error}",
                    may_pass=is_transient(error),
                )
            if not isinstance(result, Waiting):
                key = result.key if isinstance(result, Stored) and result.is_new else None
                reason = None if isinstance(result, Stored) else result.reason
                journal.note(call, kind, reason, key, is_whole=answer.is_whole)
            return result

    def _had_by_another(self, call: Call, kind: str, reason: str) -> Result:
        """Return what another run's call came to, without making it."""
        if kind == Unavailable.__name__:
            return Skipped(call.ticker, reason)
        if kind != Data.__name__:
            return Failed(call.ticker, reason)
        key = self.newest(DATASETS[call.dataset], [call.ticker])[call]
        return Stored(call.ticker, key, is_new=False, reply_bytes=0, function="")

    def _keep(self, answer: "_Answer", call: Call, newest: BronzeKey | None) -> Result:
        now = datetime.now(UTC)
        match answer.outcome:
            case Unavailable(reason):
                return Skipped(call.ticker, reason)
            case Refused(reason, body):
                kind = type(answer.outcome).__name__
                if body:
                    kept_as = str(QuarantineKey(call, now, kind))
                    self._store.put_new(kept_as, body, {"outcome": kind})
                    reason = f"{reason}; the reply is kept as {kept_as}"
                if isinstance(answer.outcome, DayQuotaSpent):
                    return Waiting(call.ticker, reason)
                return Failed(call.ticker, f"{kind}: {reason}")
            case Data(body, function):
                digest = content_hash(body)
                if (
                    newest is not None
                    and (newest.content_hash == digest or answer.is_known)
                    and self._store.has(str(newest))
                ):
                    return Stored(call.ticker, newest, False, len(body), function)
                form = DATASETS[call.dataset].form
                key = BronzeKey(call.dataset, call.ticker, now, digest, part=call.part, form=form)
                self._store.put_new(str(key), body, {"function": function})
                return Stored(call.ticker, key, True, len(body), function)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the source said: to being asked for all there is, or for the newest rows.

    `is_known` tells that the newest object, and what came before it, says all of it.
    """

    outcome: Outcome
    is_whole: bool = True
    is_known: bool = False


def _ask(source: Source, call: Call, tail: pl.DataFrame | None) -> _Answer:
    """Return what the source has; where rows are stored, the newest ones that go on from them.

    Rows that do not go on are thrown away: were they kept, the next ones would go on from them,
    whatever came of the call for all.
    """
    dataset = DATASETS[call.dataset]
    if tail is not None:
        outcome = source.fetch(dataset, call.ticker, call.part, recent=True)
        if not isinstance(outcome, Data):
            return _Answer(outcome, is_whole=False)
        standing = standing_of_reply(outcome.body, tail)
        if standing is not Standing.RESTATED:
            return _Answer(outcome, is_whole=False, is_known=standing is Standing.KNOWN)
        if not any(e.recent for e in dataset.endpoints if e.function == outcome.function):
            # The key may use no endpoint that has more.
            return _Answer(outcome)
    return _Answer(source.fetch(dataset, call.ticker, call.part))
