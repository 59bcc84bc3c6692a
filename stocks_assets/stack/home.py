"""The folder that holds everything the embedded servers write."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stocks_assets.errors import StackError


def prepare(home: Path) -> None:
    """Make the folder and its rooms, closed to other users.

    Raises:
        StackError: The folder cannot be made or written.
    """
    with working_in(home):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        # As root, the folder itself has to let PostgreSQL's user pass; these let nobody.
        for room in ("run", "logs", "dagster", "reports"):
            (home / room).mkdir(mode=0o700, exist_ok=True)
            if (home / room).stat().st_mode & 0o077:
                (home / room).chmod(0o700)
        ignore = home / ".gitignore"
        if not ignore.exists():
            write_private(ignore, "*\n")
        with tempfile.TemporaryFile(dir=home / "run"):
            pass


@contextmanager
def working_in(home: Path) -> Iterator[None]:
    """Say what is wrong with the folder when the operating system refuses to work there.

    Raises:
        StackError: In place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise StackError(
            f"cannot keep the embedded servers in '{home}': {error.strerror or error} "
            f"({error.filename or home}); make it writable or choose another home folder"
        ) from error


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner only."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
