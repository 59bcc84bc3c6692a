"""The key of a bronze object: `bronze/<dataset>/<date>/<time>_<ticker>_<content hash>.json.gz`.

A part of a dataset stands after the ticker, `~` stands for the market, and CSV is `.csv.gz`:
`bronze/listings/2026-11-20/233000.000000_~_active_0123456789abcdef.csv.gz`.

Date and time come first, so that what is new sorts last and a listing can go on where the last one
ended. The content hash in the key lets the same reply be recognised from a listing alone.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self

from stocks_assets.domain.datasets import MARKET, Call
from stocks_assets.domain.tickers import decode_ticker, encode_ticker
from stocks_assets.errors import InvalidKeyError, InvalidTickerError

_PATTERN = re.compile(
    r"bronze/(?P<dataset>[a-z][a-z0-9_]*)/(?P<date>\d{4}-\d{2}-\d{2})/"
    r"(?P<time>\d{6}\.\d{6})_(?P<ticker>[^/_]+)(?:_(?P<part>[a-z0-9][a-z0-9-]*))?"
    r"_(?P<content_hash>[0-9a-f]{16})\.(?P<form>json|csv)\.gz",
    re.ASCII,
)
_SHAPE = "bronze/<dataset>/<YYYY-MM-DD>/<HHMMSS.ffffff>_<ticker>[_<part>]_<content hash>.json.gz"
# No ticker is written so.
_MARKET = "~"

Form = Literal["json", "csv"]


def content_hash(body: bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a reply as it came."""
    return hashlib.sha256(body).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class BronzeKey:
    """Where one reply is kept: `BronzeKey.parse(str(key)) == key`."""

    dataset: str
    ticker: str
    fetched_at: datetime
    content_hash: str
    part: str = ""
    form: Form = "json"

    def __post_init__(self) -> None:
        """Reject a time without a zone: the key is written in UTC."""
        if self.fetched_at.tzinfo is None:
            raise ValueError(f"fetched_at {self.fetched_at} has no time zone")

    def __str__(self) -> str:
        moment = self.fetched_at.astimezone(UTC)
        return (
            f"{self.prefix(self.dataset)}{moment.date()}/"
            f"{moment:%H%M%S.%f}_{_subject(self.ticker, self.part)}"
            f"_{self.content_hash}.{self.form}.gz"
        )

    @property
    def payload_name(self) -> str:
        """What the object is among those that a table is shaped from: its dataset and part."""
        return f"{self.dataset}/{self.part}" if self.part else self.dataset

    @property
    def call(self) -> Call:
        """What was asked for."""
        return Call(self.dataset, self.ticker, self.part)

    def is_made_up_for_by(self, loaded: Iterable[Self]) -> bool:
        """Tell whether an object of the same payload, as new or newer, is among those `loaded`.

        One of another payload does not say what this one would have said.
        """
        return any(
            key.payload_name == self.payload_name and key.fetched_at >= self.fetched_at
            for key in loaded
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
            ticker = _ticker(match["ticker"])
        except (ValueError, InvalidTickerError) as error:
            raise InvalidKeyError(
                f"{text!r} is not a bronze key: {error}; expected {_SHAPE}"
            ) from error
        form: Form = "csv" if match["form"] == "csv" else "json"
        key = cls(
            match["dataset"], ticker, moment, match["content_hash"], match["part"] or "", form
        )
        if str(key) != text:
            raise InvalidKeyError(f"{text!r} is not a bronze key; expected {_SHAPE}")
        return key


_QUARANTINED = re.compile(
    r"quarantine/(?P<dataset>[a-z][a-z0-9_]*)/(?P<date>\d{4}-\d{2}-\d{2})/"
    r"(?P<time>\d{6}\.\d{6})_(?P<ticker>[^/_]+)(?:_(?P<part>[a-z0-9][a-z0-9-]*))?"
    r"_(?P<outcome>[A-Z][A-Za-z]*)\.gz",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class QuarantineKey:
    """Where a reply that is no data is kept, away from bronze: it is read by people only."""

    call: Call
    received_at: datetime
    outcome: str

    def __str__(self) -> str:
        at = self.received_at.astimezone(UTC)
        subject = _subject(self.call.ticker, self.call.part)
        return (
            f"{self.prefix()}{self.call.dataset}/{at.date()}/"
            f"{at:%H%M%S.%f}_{subject}_{self.outcome}.gz"
        )

    @staticmethod
    def prefix() -> str:
        """Return what the keys of all such objects start with."""
        return "quarantine/"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that `text` is.

        Raises:
            InvalidKeyError: `text` is no key of a quarantined reply.
        """
        match = _QUARANTINED.fullmatch(text)
        if match is None:
            raise InvalidKeyError(f"{text!r} is not the key of a quarantined reply")
        try:
            moment = datetime.strptime(f"{match['date']} {match['time']}Z", "%Y-%m-%d %H%M%S.%f%z")
            call = Call(match["dataset"], _ticker(match["ticker"]), match["part"] or "")
        except (ValueError, InvalidTickerError) as error:
            raise InvalidKeyError(f"{text!r} is not the key of a quarantined reply") from error
        key = cls(call, moment, match["outcome"])
        if str(key) != text:
            raise InvalidKeyError(f"{text!r} is not the key of a quarantined reply")
        return key


def _subject(ticker: str, part: str) -> str:
    written = _MARKET if ticker == MARKET else encode_ticker(ticker)
    return f"{written}_{part}" if part else written


def _ticker(segment: str) -> str:
    return MARKET if segment == _MARKET else decode_ticker(segment)
