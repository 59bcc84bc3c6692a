"""The key of a bronze object: `bronze/<dataset>/<date>/<time>_<ticker>_<content hash>.json.gz`.

Date and time come first, so that what is new sorts last and a listing can go on where the last one
ended. The content hash in the key lets the same reply be recognised from a listing alone.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from stocks_assets.domain.tickers import decode_ticker, encode_ticker
from stocks_assets.errors import InvalidKeyError, InvalidTickerError

_PATTERN = re.compile(
    r"bronze/(?P<dataset>[a-z][a-z0-9_]*)/(?P<date>\d{4}-\d{2}-\d{2})/"
    r"(?P<time>\d{6}\.\d{6})_(?P<ticker>[^/_]+)_(?P<content_hash>[0-9a-f]{16})\.json\.gz"
)
_SHAPE = "bronze/<dataset>/<YYYY-MM-DD>/<HHMMSS.ffffff>_<ticker>_<content hash>.json.gz"


def content_hash(body: bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a reply as it came."""
    return hashlib.sha256(body).hexdigest()[:16]


def quarantine_key(dataset: str, ticker: str, moment: datetime, outcome: str) -> str:
    """Return where a reply that is no data is kept, away from bronze: it is read by people only."""
    at = moment.astimezone(UTC)
    return (
        f"quarantine/{dataset}/{at:%Y-%m-%d}/"
        f"{at:%H%M%S.%f}_{encode_ticker(ticker)}_{outcome}.json.gz"
    )


@dataclass(frozen=True, slots=True)
class BronzeKey:
    """Where one reply is kept: `BronzeKey.parse(str(key)) == key`."""

    dataset: str
    ticker: str
    fetched_at: datetime
    content_hash: str

    def __post_init__(self) -> None:
        """Reject a time without a zone: the key is written in UTC."""
        if self.fetched_at.tzinfo is None:
            raise ValueError(f"fetched_at {self.fetched_at} has no time zone")

    def __str__(self) -> str:
        moment = self.fetched_at.astimezone(UTC)
        return (
            f"{self.prefix(self.dataset)}{moment:%Y-%m-%d}/"
            f"{moment:%H%M%S.%f}_{encode_ticker(self.ticker)}_{self.content_hash}.json.gz"
        )

    @staticmethod
    def prefix(dataset: str) -> str:
        """Return what the keys of all objects of `dataset` start with."""
        return f"bronze/{dataset}/"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that `text` is.

        Raises:
            InvalidKeyError: `text` is no key of a bronze object.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise InvalidKeyError(f"{text!r} is not a bronze key; expected {_SHAPE}")
        try:
            moment = datetime.strptime(f"{match['date']} {match['time']}Z", "%Y-%m-%d %H%M%S.%f%z")
            ticker = decode_ticker(match["ticker"])
        except (ValueError, InvalidTickerError) as error:
            raise InvalidKeyError(
                f"{text!r} is not a bronze key: {error}; expected {_SHAPE}"
            ) from error
        return cls(match["dataset"], ticker, moment, match["content_hash"])
