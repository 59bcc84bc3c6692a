"""Recorded payloads: `<FUNCTION>/<vintage>/<TICKER>.json` below one folder."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from stocks_assets.domain.datasets import DATASETS, Dataset
from stocks_assets.domain.outcomes import Outcome, Unavailable, classify
from stocks_assets.domain.tickers import decode_ticker, encode_ticker
from stocks_assets.errors import InvalidTickerError


class ReplaySource:
    """Serves, for each function and ticker, the newest recording not after `vintage`."""

    def __init__(self, folder: Path, vintage: date | None) -> None:
        self._folder = folder
        self._vintage = vintage

    def fetch(self, dataset: Dataset, ticker: str) -> Outcome:
        """Return the recorded payload; what has no recording is not available."""
        name = f"{encode_ticker(ticker)}.json"
        for endpoint in dataset.endpoints:
            for vintage in self._vintages(endpoint.function):
                recording = vintage / name
                if recording.is_file():
                    return classify(endpoint, recording.read_bytes())
        functions = " or ".join(endpoint.function for endpoint in dataset.endpoints)
        return Unavailable(f"no recording of {functions} for {ticker}")

    def listed_tickers(self, count: int | None) -> Sequence[str]:
        """Return the tickers with a recording, in alphabetical order."""
        functions = {
            endpoint.function for dataset in DATASETS.values() for endpoint in dataset.endpoints
        }
        names = {
            recording.stem
            for function in functions
            for vintage in self._vintages(function)
            for recording in vintage.glob("*.json")
        }
        return sorted(_tickers(names))[:count]

    def close(self) -> None:
        """Hold nothing, so let go of nothing."""

    def _vintages(self, function: str) -> list[Path]:
        """Return the folders of recordings of `function`, the newest first."""
        folders = [path for path in (self._folder / function).glob("*-*-*") if path.is_dir()]
        last = self._vintage.isoformat() if self._vintage else "9999-12-31"
        return sorted((path for path in folders if path.name <= last), reverse=True)


def _tickers(names: set[str]) -> list[str]:
    tickers = []
    for name in names:
        try:
            tickers.append(decode_ticker(name))
        except InvalidTickerError:
            # A file beside the recordings, such as notes.json, is none of them.
            continue
    return tickers
