"""Tickers: what may be one, and how one is written where `/` means something else."""

import re

from stocks_assets.errors import InvalidTickerError

# The vendor's alphabet: letters and digits, with `.`, `-` or `/` between them (BRK.B, BF-B, BF/B,
# 600104.SHH). No sign of SQL, shells, URLs or file systems beyond these.
_PATTERN = re.compile(r"[A-Z0-9]+(?:[.\-/][A-Z0-9]+)*")
_MAX_LENGTH = 20


def parse_ticker(text: str) -> str:
    """Return the ticker that `text` stands for, in capitals.

    Raises:
        InvalidTickerError: `text` is no ticker.
    """
    ticker = text.strip().upper()
    if len(ticker) > _MAX_LENGTH or not _PATTERN.fullmatch(ticker):
        raise InvalidTickerError(
            f"{text!r} is not a ticker; expected up to {_MAX_LENGTH} letters and digits, with "
            "single '.', '-' or '/' between them, such as AAPL, BRK.B or BF-B"
        )
    return ticker


def encode_ticker(ticker: str) -> str:
    """Return `ticker` as one segment of an object key: `~` stands for `/`, which no ticker has."""
    return parse_ticker(ticker).replace("/", "~")


def decode_ticker(segment: str) -> str:
    """Return the ticker that `encode_ticker` wrote as `segment`.

    Raises:
        InvalidTickerError: no ticker is written so.
    """
    ticker = parse_ticker(segment.replace("~", "/"))
    if encode_ticker(ticker) != segment:
        raise InvalidTickerError(
            f"{segment!r} is not an encoded ticker; expected {encode_ticker(ticker)!r}"
        )
    return ticker
