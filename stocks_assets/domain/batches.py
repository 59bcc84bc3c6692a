"""How many tickers share a run."""

from collections.abc import Sequence
from itertools import pairwise


def split(tickers: Sequence[str], at_most: int) -> list[list[str]]:
    """Return `tickers` in order, in as few parts of `at_most` as there can be, of even length.

    Raises:
        ValueError: `at_most` is not positive.
    """
    if at_most < 1:
        raise ValueError(f"a run of at most {at_most} tickers has none")
    parts = -(-len(tickers) // at_most)
    bounds = [len(tickers) * part // parts for part in range(parts + 1)] if parts else []
    return [list(tickers[first:last]) for first, last in pairwise(bounds)]


def split_by_length(tickers: Sequence[str], longest: int) -> list[list[str]]:
    """Return `tickers` in order, in parts that take `longest` bytes when joined by commas.

    A ticker that is longer than that is a part by itself.
    """
    parts: list[list[str]] = []
    length = 0
    for ticker in tickers:
        size = len(ticker.encode()) + 1
        if not parts or length + size > longest + 1:
            parts.append([])
            length = 0
        parts[-1].append(ticker)
        length += size
    return parts
