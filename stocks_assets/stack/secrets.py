"""Passwords and keys of the embedded servers: generated once, kept in the home folder."""

import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from stocks_assets.errors import StackError
from stocks_assets.stack import home as homes
from stocks_assets.stack.lock import held

# Who does the work in PostgreSQL, see `adapters.roles`: loader, transformer, Dagster.
ROLES = ("stocks_loader", "stocks_transformer", "stocks_dagster")
# By which the parts of the S3 server prove to each other who they are, as it calls them.
S3_SIGNING_KEYS = (
    "WEED_JWT_SIGNING_KEY",
    "WEED_JWT_SIGNING_READ_KEY",
    "WEED_JWT_FILER_SIGNING_KEY",
    "WEED_JWT_FILER_SIGNING_READ_KEY",
)


@dataclass(frozen=True)
class Secrets:
    """What the servers are opened with. Every value is safe in a URL as it is."""

    database_password: str = field(repr=False)
    s3_access_key_id: str = field(repr=False)
    s3_secret_access_key: str = field(repr=False)
    s3_signing_key: str = field(repr=False)

    @property
    def reader_password(self) -> str:
        """The password of the role that may only read; homes made before that role have it too."""
        return self.signing_key("POSTGRES_READER_PASSWORD")

    @property
    def ui_password(self) -> str:
        """The password of the UI."""
        return self.signing_key("UI_PASSWORD")[:32]

    @property
    def s3_pipeline_key_id(self) -> str:
        """The name of the S3 user that the pipeline comes in as."""
        return self.signing_key("S3_PIPELINE_ACCESS_KEY_ID")[:20].upper()

    @property
    def s3_pipeline_secret_key(self) -> str:
        """What that user proves itself with."""
        return self.signing_key("S3_PIPELINE_SECRET_ACCESS_KEY")[:40]

    def role_password(self, role: str) -> str:
        """The password of a role in PostgreSQL that may do less than the owner."""
        return self.signing_key(f"POSTGRES_{role.upper()}_PASSWORD")

    def values(self) -> list[str]:
        """Return all that nobody else may see: what the servers are opened with, but for names."""
        return [
            self.database_password,
            self.reader_password,
            *map(self.role_password, ROLES),
            self.ui_password,
            self.s3_secret_access_key,
            self.s3_pipeline_secret_key,
            self.s3_signing_key,
            *map(self.signing_key, S3_SIGNING_KEYS),
        ]

    def signing_key(self, purpose: str) -> str:
        """A key for one purpose, from which neither the others nor the root can be found."""
        return hmac.new(self.s3_signing_key.encode(), purpose.encode(), hashlib.sha256).hexdigest()


def path(home: Path) -> Path:
    """Where the secrets of this home are."""
    return home / "secrets.json"


def load_or_create(home: Path) -> Secrets:
    """The secrets of this home, generated at the first call; concurrent first calls agree."""
    with held(home, "secrets"):
        if not path(home).exists():
            generated = Secrets(
                database_password=secrets.token_urlsafe(24),
                s3_access_key_id=secrets.token_hex(10).upper(),
                s3_secret_access_key=secrets.token_hex(20),
                s3_signing_key=secrets.token_hex(32),
            )
            homes.write_private(path(home), json.dumps(asdict(generated), indent=2) + "\n")
        return load(home)


def load(home: Path) -> Secrets:
    """The secrets of this home.

    Raises:
        StackError: The file is missing or damaged.
    """
    try:
        return Secrets(**json.loads(path(home).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        raise StackError(
            f"'{path(home)}' is missing or damaged; restore it, or remove the home folder "
            "with its data to start anew"
        ) from None
