"""One command at a time: a lock that the operating system drops when its holder dies."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stocks_assets.errors import StackError


@contextmanager
def held(home: Path, name: str, timeout: float = 180.0) -> Iterator[None]:
    """Hold ``<home>/run/<name>.lock``; threads of one process exclude each other as well.

    Raises:
        StackError: Somebody else held the lock all the time.
    """
    path = home / "run" / f"{name}.lock"
    deadline = time.monotonic() + timeout
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StackError(
                        f"another command has been starting or stopping {name} for "
                        f"{timeout:.0f} s; wait for it or end it ('{path}')"
                    ) from None
                time.sleep(0.02)
        # Closing the file drops the lock; the file stays, so that everyone locks the same one.
        yield


@contextmanager
def in_use(home: Path, name: str, at_last: Callable[[], None]) -> Iterator[None]:
    """Count among the users of something; the last of them to leave calls ``at_last``.

    While ``at_last`` works, whoever comes next waits. A user that is killed no longer counts.
    """
    with (home / "run" / f"{name}.users").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        try:
            yield
        finally:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                at_last()
