from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stocks_assets.domain.batches import split, split_by_length


@given(st.lists(st.text(), unique=True, max_size=60), st.integers(1, 70))
def test_every_ticker_is_in_one_of_as_few_parts_as_there_can_be(tickers, at_most):
    parts = split(tickers, at_most)
    assert [ticker for part in parts for ticker in part] == tickers
    assert all(1 <= len(part) <= at_most for part in parts)
    assert len(parts) == -(-len(tickers) // at_most)


@given(st.integers(1, 500), st.integers(1, 70))
def test_parts_are_of_even_length(count, at_most):
    lengths = {len(part) for part in split([str(n) for n in range(count)], at_most)}
    assert max(lengths) - min(lengths) <= 1


def test_a_run_without_tickers_is_refused():
    with pytest.raises(ValueError, match="has none"):
        split(["A"], 0)


@given(st.lists(st.text(alphabet="ABCÄ.", min_size=1), max_size=60), st.integers(1, 40))
def test_parts_by_length_fit_and_lose_nothing(tickers, longest):
    parts = split_by_length(tickers, longest)
    assert [ticker for part in parts for ticker in part] == tickers
    for part in parts:
        assert len(part) == 1 or len(",".join(part).encode()) <= longest
    for part, following in pairwise(parts):
        assert len(",".join([*part, following[0]]).encode()) > longest
