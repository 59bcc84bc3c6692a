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
from stocks_assets.domain.bronze_key import BronzeKey, content_hash
from stocks_assets.domain.datasets import Dataset
from stocks_assets.domain.outcomes import Data, Outcome, Refused, Unavailable
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


class BronzeStore:
    """The replies in the bucket."""

    def __init__(self, store: ObjectStore, warehouse: Warehouse) -> None:
        self._store = store
        self._warehouse = warehouse

    def sync_index(self, dataset: Dataset) -> list[str]:
        """Note the objects of `dataset` that are in the bucket and not yet in the index.

        Lists from the day of the newest known object on. Returns the keys that are none of ours.
        """
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
    ) -> Iterator[Stored | Skipped | Failed]:
        """Fetch `dataset` for `tickers` and store what is new, yielding each as it is done.

        A reply with the content of the ticker's newest object is not stored again.
        """
        self.sync_index(dataset)
        newest = self.newest(dataset, tickers)
        with ThreadPoolExecutor(threads, thread_name_prefix=dataset.name) as pool:
            calls = {
                pool.submit(self._fetch_one, source, dataset, ticker, newest.get(ticker))
                for ticker in tickers
            }
            try:
                for call in as_completed(calls):
                    result = call.result()
                    if isinstance(result, Stored) and result.is_new:
                        self._warehouse.index([result.key])
                    yield result
            finally:
                for call in calls:
                    call.cancel()

    def _fetch_one(
        self, source: Source, dataset: Dataset, ticker: str, newest: BronzeKey | None
    ) -> Stored | Skipped | Failed:
        outcome: Outcome = source.fetch(dataset, ticker)
        match outcome:
            case Unavailable(reason):
                return Skipped(ticker, reason)
            case Refused(reason):
                return Failed(ticker, f"{type(outcome).__name__}: {reason}")
            case Data(body, function):
                digest = content_hash(body)
                if newest is not None and newest.content_hash == digest:
                    return Stored(ticker, newest, False, len(body), function)
                key = BronzeKey(dataset.name, ticker, datetime.now(UTC), digest)
                try:
                    self._store.put_new(str(key), body, {"function": function})
                except (ClientError, BotoCoreError) as error:
                    return Failed(ticker, f"the bucket did not take the object: {error}")
                return Stored(ticker, key, True, len(body), function)
