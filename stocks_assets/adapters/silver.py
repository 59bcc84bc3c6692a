"""Silver: bronze objects shaped into typed frames and loaded, many tickers a load."""

import uuid
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import polars as pl
from botocore.exceptions import BotoCoreError, ClientError

from stocks_assets.adapters import loader
from stocks_assets.adapters.bronze import BronzeStore, Failed, Skipped, Waiting
from stocks_assets.adapters.warehouse import SilverLoad, Warehouse
from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.calendar import exchange_calendar_frame
from stocks_assets.domain.payloads import Shaped, SilverTable
from stocks_assets.errors import PayloadError

# Bounds memory: full daily histories of so many tickers are about a quarter of a million rows.
_TICKERS_PER_LOAD = 100
_DOWNLOADS_AT_ONCE = 8
# What a missing, truncated or damaged object comes to.
_UNREADABLE = (BotoCoreError, ClientError, OSError, EOFError, zlib.error)
_CALENDAR_START = date(1960, 1, 1)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a silver table now holds of a ticker from its newest objects."""

    load: SilverLoad
    rejected_by_rule: Mapping[str, int] = field(default_factory=dict)

    @property
    def ticker(self) -> str:
        """The ticker."""
        return self.load.ticker


def load(
    bronze: BronzeStore,
    warehouse: Warehouse,
    table: SilverTable,
    tickers: Sequence[str],
    *,
    only_stale: bool,
) -> Iterator[Loaded | Skipped | Failed | Waiting]:
    """Load `table` for `tickers` from their newest bronze objects, yielding each as it is done.

    With `only_stale`, a ticker that is loaded from these very objects already is passed over.
    A ticker whose payload cannot be read fails alone; a load that fails takes its tickers with it.
    """
    for dataset in table.inputs:
        bronze.sync_index(dataset)
    for start in range(0, len(tickers), _TICKERS_PER_LOAD):
        yield from _load_some(
            bronze, warehouse, table, tickers[start : start + _TICKERS_PER_LOAD], only_stale
        )


def load_exchange_calendar(warehouse: Warehouse, today: date) -> pl.DataFrame:
    """Load `silver.exchange_calendar` from 1960 to the end of next year, and return it."""
    frame = exchange_calendar_frame(_CALENDAR_START, date(today.year + 1, 12, 31))
    loader.upsert(warehouse, "exchange_calendar", frame, ["calendar_date"])
    return frame


def _load_some(
    bronze: BronzeStore,
    warehouse: Warehouse,
    table: SilverTable,
    tickers: Sequence[str],
    only_stale: bool,
) -> Iterator[Loaded | Skipped | Failed | Waiting]:
    newest = {dataset.name: bronze.newest(dataset, tickers) for dataset in table.inputs}
    not_had = [warehouse.unavailable(dataset.name, tickers) for dataset in table.inputs]
    done = warehouse.silver_loads(table.name, tickers) if only_stale else {}
    work: dict[str, dict[str, BronzeKey]] = {}
    for ticker in tickers:
        keys = {
            name: by_ticker[ticker] for name, by_ticker in newest.items() if ticker in by_ticker
        }
        if not keys:
            names = " or ".join(f"bronze/{dataset.name}" for dataset in table.inputs)
            if all(ticker in unavailable for unavailable in not_had):
                yield Skipped(ticker, f"the source has nothing for {names}")
            elif only_stale:
                yield Waiting(ticker, f"{names} has no object of {ticker}")
            else:
                yield Failed(ticker, f"{names} has no object of {ticker}; materialize that first")
        elif ticker not in done or done[ticker].bronze_keys != [str(k) for k in keys.values()]:
            work[ticker] = keys

    shaped: dict[str, Shaped] = {}
    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE, thread_name_prefix="download") as pool:
        payloads = pool.map(lambda keys: _download(bronze, keys), work.values())
        for ticker, payload in zip(work, payloads, strict=True):
            try:
                if isinstance(payload, Exception):
                    raise payload
                shaped[ticker] = table.shape(ticker, payload)
            except (PayloadError, *_UNREADABLE) as error:
                yield Failed(ticker, f"{error} ({' '.join(_texts(work[ticker]).values())})")
    if not shaped:
        return

    frames = [
        part.rows.select(
            *table.columns,
            pl.col("dataset").replace_strict(_texts(work[ticker])).alias("bronze_key"),
        )
        for ticker, part in shaped.items()
    ]
    loader.upsert(
        warehouse,
        table.name,
        _with_provenance(pl.concat(frames), table),
        table.primary_key,
        whole_tickers=[ticker for ticker, part in shaped.items() if _says_all(part, table)],
    )
    loads = {
        ticker: _describe(ticker, work[ticker], part, table) for ticker, part in shaped.items()
    }
    warehouse.record_silver_loads(
        table.name,
        loads.values(),
        (
            (ticker, str(work[ticker][row["dataset"]]), row["row_values"], row["rules"])
            for ticker, part in shaped.items()
            for row in part.rejected.iter_rows(named=True)
        ),
    )
    for ticker, part in shaped.items():
        rules = Counter(rule for rules in part.rejected["rules"] for rule in rules)
        yield Loaded(loads[ticker], rules)


def _says_all(part: Shaped, table: SilverTable) -> bool:
    """Tell whether rows that `part` has not are gone: not where one of its rows was rejected."""
    return table.date_column is not None and part.is_whole and part.rejected.is_empty()


def _download(bronze: BronzeStore, keys: Mapping[str, BronzeKey]) -> dict[str, bytes] | Exception:
    """Return the payloads, or what went wrong: an exception would end the whole map."""
    try:
        return {name: bronze.read(key) for name, key in keys.items()}
    except _UNREADABLE as error:
        return error


def _texts(keys: Mapping[str, BronzeKey]) -> dict[str, str]:
    return {dataset: str(key) for dataset, key in keys.items()}


def _with_provenance(frame: pl.DataFrame, table: SilverTable) -> pl.DataFrame:
    values = [name for name in table.columns if name not in table.primary_key]
    return frame.with_columns(
        pl.struct(values).hash(seed=0).reinterpret(signed=True).alias("row_version"),
        pl.lit(uuid.uuid4().hex).alias("load_id"),
        pl.lit(datetime.now(UTC)).cast(pl.Datetime("us", "UTC")).alias("loaded_at"),
    )


def _describe(
    ticker: str, keys: Mapping[str, BronzeKey], part: Shaped, table: SilverTable
) -> SilverLoad:
    dates = part.rows[table.date_column] if table.date_column else pl.Series(dtype=pl.Date)
    first, last = dates.min(), dates.max()
    return SilverLoad(
        ticker=ticker,
        bronze_keys=[str(key) for key in keys.values()],
        row_count=part.rows.height,
        rejected_count=part.rejected.height,
        first_date=first if isinstance(first, date) else None,
        last_date=last if isinstance(last, date) else None,
    )
