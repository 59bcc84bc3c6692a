"""The backlog, made from what the warehouse knows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from stocks_assets.adapters.gaps import count_bars, find_gaps
from stocks_assets.adapters.planning import calls_for
from stocks_assets.adapters.sources.port import Source
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.backlog import find_backlog
from stocks_assets.domain.datasets import DATASETS, MARKET, Dataset
from stocks_assets.domain.gaps import Holding
from stocks_assets.domain.listings import listed_since
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.domain.planner import Priority, Want


@dataclass(frozen=True, slots=True)
class Behind:
    """Tickers that are fetched and not done: the tables of each in silver, and those of gold.

    `lost_bars` has those of which silver has lost daily bars, and how many. `holdings` are what was
    counted for it, of all tickers that were asked about.
    """

    silver: Mapping[str, Sequence[str]]
    gold: Sequence[str]
    lost_bars: Mapping[str, int]
    holdings: Sequence[Holding]

    @property
    def tickers(self) -> set[str]:
        """Return all of them: no call to the vendor is needed for any."""
        return {*self.silver, *self.gold, *self.lost_bars}


def find_behind(warehouse: Warehouse, tickers: Sequence[str], *, gold_project: str) -> Behind:
    """Return those of `tickers` whose newest objects are not in silver, or whose silver in gold.

    Nor is one done of which daily bars are gone. `gold_project` is the digest of the dbt project
    that gold should be built by.
    """
    holdings, lost = count_bars(warehouse, tickers)
    return Behind(
        warehouse.tickers_behind_in_silver(tickers, _inputs()),
        list(warehouse.tickers_behind_in_gold(tickers, gold_project)),
        lost,
        holdings,
    )


def _inputs() -> list[tuple[str, str]]:
    return [
        (table.name, dataset.name) for table in SILVER_TABLES.values() for dataset in table.inputs
    ]


def find_failing(
    warehouse: Warehouse,
    tickers: Sequence[str],
    datasets: Iterable[Dataset],
    *,
    intraday_months: int,
) -> set[str]:
    """Return those of `tickers`, and the market, of which something that is wanted failed last.

    That is a call for one of `datasets`, or loading the newest objects into silver.
    """
    now, failed = datetime.now(UTC), warehouse.failed_fetches()
    failing = {
        call.ticker
        for dataset in datasets
        for call in calls_for(dataset, tickers, now, intraday_months)
        if call in failed
    }
    return failing.union(warehouse.tickers_behind_in_silver([*tickers, MARKET], _inputs()))


def make_backlog(
    source: Source,
    warehouse: Warehouse,
    tickers: Sequence[str],
    *,
    intraday_months: int,
    behind: Behind,
) -> dict[str, list[str]]:
    """Return those of `tickers` of which something failed or is missing, in order, and why.

    `behind` is what `find_behind` finds of them.
    """
    now = datetime.now(UTC)
    fetches = warehouse.fetches()
    listed = listed_since(warehouse.listings())
    gaps = find_gaps(warehouse, tickers, now, behind.holdings)
    wants = (
        Want(call, Priority.NORMAL, fetches.get(call), listed_on=listed.get(call.ticker))
        for dataset in DATASETS.values()
        if not dataset.is_of_market and source.offers(dataset)
        for call in calls_for(dataset, tickers, now, intraday_months)
    )
    found = find_backlog(
        wants,
        now,
        failed=warehouse.failed_fetches(),
        gaps=[gap for gap, is_fillable in gaps if is_fillable],
        behind_in_silver=behind.silver,
        lost_bars=behind.lost_bars,
        behind_in_gold=behind.gold,
    )
    return {ticker: found[ticker] for ticker in tickers if ticker in found}
