"""Bronze: the vendor's replies as immutable objects, and the index that finds them.

The bucket is the truth. The index in PostgreSQL follows it and can be made anew from a listing.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime

from botocore.exceptions import BotoCoreError, ClientError

from stocks_assets.adapters.object_store import ObjectStore
from stocks_assets.adapters.sources.port import Source
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.bronze_key import BronzeKey, content_hash, quarantine_key
from stocks_assets.domain.datasets import Dataset
from stocks_assets.domain.outcomes import Data, DayQuotaSpent, Outcome, Refused, Unavailable
from stocks_assets.errors import InvalidKeyError


@dataclass(frozen=True, slots=True)
class Stored:
    """A ticker's newest object; `is_new` tells whether this fetch brought it. Sizes in bytes."""

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
    """A ticker that could not be done, and why."""

    ticker: str
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A ticker that cannot be done yet, as no call is left for it; nothing failed."""

    ticker: str
    reason: str


Result = Stored | Skipped | Failed | Waiting


class BronzeStore:
    """The replies in the bucket."""

    def __init__(self, store: ObjectStore, warehouse: Warehouse) -> None:
        self._store = store
        self._warehouse = warehouse
        self._identity: str | None = None

    def sync_index(self, dataset: Dataset) -> list[str]:
        """Note the objects of `dataset` that are in the bucket and not yet in the index.

        Lists from the day of the newest known object on. Returns the keys that are none of ours.
        """
        if self._identity is None:
            self._identity = self._store.identity()
            self._warehouse.index_bucket(self._identity)
        newest_at = self._warehouse.newest_object_at(dataset.name)
        prefix = BronzeKey.prefix(dataset.name)
        # With its slash: SeaweedFS takes a folder's bare name to come after all that is in it.
        start = f"{prefix}{newest_at.astimezone(UTC):%Y-%m-%d}/" if newest_at else prefix
        known: list[BronzeKey] = []
        foreign: list[str] = []
        for key in self._store.keys_after(prefix, start):
            try:
                known.append(BronzeKey.parse(key))
            except InvalidKeyError:
                foreign.append(key)
        self._warehouse.index(known)
        return foreign

    def newest(self, dataset: Dataset, tickers: Sequence[str]) -> Mapping[str, BronzeKey]:
        """Return the key of the newest object of each of `tickers` that has one."""
        return self._warehouse.newest_objects(dataset.name, tickers)

    def read(self, key: BronzeKey) -> bytes:
        """Return the reply that is kept under `key`, as it came."""
        return self._store.get(str(key))

    def url(self, key: BronzeKey) -> str:
        """Return where `key` is, as a link without any right to read it."""
        return self._store.url(str(key))

    def ingest(
        self, source: Source, dataset: Dataset, tickers: Sequence[str], *, threads: int
    ) -> Iterator[Result]:
        """Fetch `dataset` for `tickers` and store what is new, yielding each as it is done.

        A reply with the content of the ticker's newest object is not stored again. Calls are made
        in the order of `tickers`; those for which none is left are yielded as `Waiting`.
        """
        self.sync_index(dataset)
        newest = self.newest(dataset, tickers)
        with (
            self._warehouse.fetch_journal() as journal,
            ThreadPoolExecutor(threads, thread_name_prefix=dataset.name) as pool,
        ):
            calls = [
                pool.submit(self._fetch_one, source, dataset, ticker, newest.get(ticker))
                for ticker in tickers
            ]
            try:
                for call in as_completed(calls):
                    outcome, result = call.result()
                    if not isinstance(result, Waiting):
                        key = result.key if isinstance(result, Stored) and result.is_new else None
                        reason = None if isinstance(result, Stored) else result.reason
                        journal.note(dataset.name, result.ticker, outcome, reason, key)
                    yield result
            finally:
                for call in calls:
                    call.cancel()

    def _fetch_one(
        self, source: Source, dataset: Dataset, ticker: str, newest: BronzeKey | None
    ) -> tuple[str, Result]:
        """Return the kind of outcome, and what it came to."""
        outcome: Outcome = source.fetch(dataset, ticker)
        try:
            return type(outcome).__name__, self._keep(outcome, dataset, ticker, newest)
        except (ClientError, BotoCoreError) as error:
            reason = f"the bucket did not take the reply: {error}"
            return "NotStored", Failed(ticker, reason)

    def _keep(
        self, outcome: Outcome, dataset: Dataset, ticker: str, newest: BronzeKey | None
    ) -> Result:
        now = datetime.now(UTC)
        match outcome:
            case Unavailable(reason):
                return Skipped(ticker, reason)
            case DayQuotaSpent(reason):
                return Waiting(ticker, reason)
            case Refused(reason, body):
                kind = type(outcome).__name__
                if not body:
                    return Failed(ticker, f"{kind}: {reason}")
                key_of_refusal = quarantine_key(dataset.name, ticker, now, kind)
                self._store.put_new(key_of_refusal, body, {"outcome": kind})
                return Failed(ticker, f"{kind}: {reason}; the reply is kept as {key_of_refusal}")
            case Data(body, function):
                digest = content_hash(body)
                if newest is not None and newest.content_hash == digest:
                    return Stored(ticker, newest, False, len(body), function)
                key = BronzeKey(dataset.name, ticker, now, digest)
                self._store.put_new(str(key), body, {"function": function})
                return Stored(ticker, key, True, len(body), function)
