"""How many tickers share a run."""

from collections.abc import Sequence


def split(tickers: Sequence[str], at_most: int) -> list[list[str]]:
    """Return `tickers` in order, in as few parts of `at_most` as there can be, of even length.

    Raises:
        ValueError: `at_most` is not positive.
    """
    if at_most < 1:
        raise ValueError(f"a run of at most {at_most} tickers has none")
    parts = -(-len(tickers) // at_most)
    bounds = [len(tickers) * part // parts for part in range(parts + 1)] if parts else []
    return [list(tickers[first:last]) for first, last in zip(bounds, bounds[1:], strict=False)]
