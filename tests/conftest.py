"""What holds for each test."""

from collections.abc import Iterator

import pytest
from dagster._core.storage.defs_state.base import set_defs_state_storage


@pytest.fixture(autouse=True)
def _no_instance_of_another_test() -> Iterator[None]:
    """Definitions ask the Dagster instance that was entered last, even one that is gone."""
    with set_defs_state_storage(None):
        yield
