"""Recorded payloads: `<FUNCTION>/<vintage>/<TICKER>.json` below one folder.

A part of a dataset has its name after the ticker, `AAPL_2024-03.json`; what is of the market has
that name alone, `active.csv`.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

from stocks_assets.domain.datasets import DATASETS, Dataset
from stocks_assets.domain.outcomes import Outcome, TransportFailed, Unavailable, classify
from stocks_assets.domain.tickers import decode_ticker, encode_ticker
from stocks_assets.errors import InvalidTickerError


class ReplaySource:
    """Serves, for each function and ticker, the newest recording not after `vintage`."""

    def __init__(self, folder: Path, vintage: date | None) -> None:
        self._folder = folder
        self._vintage = vintage

    def fetch(
        self,
        dataset: Dataset,
        ticker: str,
        part: str = "",
        *,
        recent: bool = False,  # noqa: ARG002 # a recording is what it is
    ) -> Outcome:
        """Return the recorded payload; what has no recording is not available.

        Of recordings of one day, the one of the fullest endpoint is served.
        """
        words = [part] if dataset.is_of_market else [encode_ticker(ticker), part]
        name = f"{'_'.join(word for word in words if word)}.{dataset.form}"
        recordings = [
            (vintage, -rank, endpoint, folder / name)
            for rank, endpoint in enumerate(dataset.endpoints)
            for vintage, folder in self._vintages(endpoint.function)
            if (folder / name).is_file()
        ]
        if not recordings:
            functions = " or ".join(endpoint.function for endpoint in dataset.endpoints)
            asked = " ".join(word for word in (ticker, part) if word)
            return Unavailable(f"no recording of {functions} for {asked}")
        _, _, endpoint, path = max(recordings, key=lambda recording: recording[:2])
        try:
            return classify(endpoint, path.read_bytes())
        except OSError as error:
            return TransportFailed(f"{path} cannot be read: {error.strerror}")

    def offers(self, dataset: Dataset) -> bool:  # noqa: ARG002 # the port's name
        """Offer everything: what has no recording is not available."""
        return True

    def allowance(self) -> None:
        """Plan nothing: calls cost nothing here."""

    def listed_tickers(self, count: int | None) -> Sequence[str]:
        """Return the tickers with a recording, in alphabetical order."""
        functions = {
            endpoint.function
            for dataset in DATASETS.values()
            if not dataset.is_of_market
            for endpoint in dataset.endpoints
        }
        names = {
            recording.stem.partition("_")[0]
            for function in functions
            for _, folder in self._vintages(function)
            for recording in folder.glob("*.json")
        }
        return sorted(_tickers(names))[:count]

    def close(self) -> None:
        """Hold nothing, so let go of nothing."""

    def _vintages(self, function: str) -> Iterator[tuple[date, Path]]:
        """Yield the dated folders of recordings of `function` that are not after the vintage."""
        for folder in (self._folder / function).glob("????-??-??"):
            try:
                vintage = date.fromisoformat(folder.name)
            except ValueError:
                continue
            if self._vintage is None or vintage <= self._vintage:
                yield vintage, folder


def _tickers(names: set[str]) -> list[str]:
    tickers = []
    for name in names:
        try:
            tickers.append(decode_ticker(name))
        except InvalidTickerError:
            # A file beside the recordings, such as notes.json, is none of them.
            continue
    return tickers
