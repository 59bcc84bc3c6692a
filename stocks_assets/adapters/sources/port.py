"""The port that every source of market data stands behind."""

from collections.abc import Sequence
from typing import Protocol

from stocks_assets.domain.datasets import Dataset
from stocks_assets.domain.outcomes import Outcome
from stocks_assets.domain.planner import Allowance


class Source(Protocol):
    """Where the vendor's bytes come from. Safe to call from several threads."""

    def fetch(
        self, dataset: Dataset, ticker: str, part: str = "", *, recent: bool = False
    ) -> Outcome:
        """Return what the source has of `dataset`, or a part of it, in the vendor's bytes.

        `ticker` is `MARKET` for a dataset of the market. With `recent` the newest rows are enough,
        if the source can tell them from the whole. A refusal is an outcome, not an exception.
        """

    def offers(self, dataset: Dataset) -> bool:
        """Tell whether the source sells `dataset` at all, as far as is known without asking."""

    def allowance(self) -> Allowance | None:
        """Return how many calls are left; None where calls cost nothing and need no plan."""

    def listed_tickers(self, count: int | None) -> Sequence[str]:
        """Return the first `count` tickers that the source can name; none where it cannot."""

    def close(self) -> None:
        """Let go of connections."""
