"""The universe's file on disk: the one that a setting names, or the project's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from stocks_assets.domain.universe import Universe, parse_universe
from stocks_assets.errors import SettingsError
from stocks_assets.settings import PROJECT_ROOT, Settings


@dataclass(frozen=True, slots=True)
class UniverseFile:
    """Where the file is, and whether it has to be there."""

    path: Path
    must_exist: bool = False

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the file STOCKS_UNIVERSE_FILE, or else `universe.yaml` in the project's folder."""
        if settings.universe_file is not None:
            return cls(settings.universe_file, must_exist=True)
        return cls(PROJECT_ROOT / "universe.yaml")

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> Universe | None:
        """Return what the file asks for; None where there is none and need not be.

        Raises:
            SettingsError: it is not there though it must be, or cannot be read.
        """
        try:
            text = self.path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            if not self.must_exist:
                return None
            raise SettingsError(
                f"STOCKS_UNIVERSE_FILE={self} is not there; put it there, or unset that to do "
                "without a file"
            ) from None
        except OSError as error:
            raise SettingsError(f"{self} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise SettingsError(
                f"{self} cannot be read: byte {error.start} is no UTF-8; save it as UTF-8"
            ) from None
        return parse_universe(text, str(self))
