"""Where the servers are: as the settings say, or else where the embedded stack runs."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr

from stocks_assets.adapters.object_store import S3Location
from stocks_assets.errors import StackError
from stocks_assets.settings import Settings
from stocks_assets.stack.embedded import EmbeddedStack


@dataclass(frozen=True, slots=True, repr=False)
class Connections:
    """What it takes to reach each server."""

    database_url: str
    dagster_database_url: str
    s3: S3Location


def embedded_stack(settings: Settings) -> EmbeddedStack:
    """Return the embedded stack with the servers that no setting replaces."""
    return EmbeddedStack(
        settings.home,
        postgres=settings.database_url is None,
        s3=settings.s3_endpoint_url is None,
    )


def find_connections(settings: Settings) -> Connections:
    """Return the connections, starting nothing.

    Raises:
        StackError: an embedded server is needed and does not run.
    """
    endpoints = embedded_stack(settings).endpoints()
    if endpoints is None:
        raise StackError(f"the stack in {settings.home} is not running; start it with: stocks up")
    if settings.database_url is not None:
        database_url = settings.database_url.get_secret_value()
    else:
        assert endpoints.database_url is not None
        database_url = endpoints.database_url
    if settings.dagster_database_url is not None:
        dagster_database_url = settings.dagster_database_url.get_secret_value()
    elif settings.database_url is not None:
        dagster_database_url = _beside(database_url, "dagster")
    else:
        assert endpoints.dagster_database_url is not None
        dagster_database_url = endpoints.dagster_database_url
    if settings.s3_endpoint_url is not None:
        s3 = S3Location(
            settings.s3_endpoint_url,
            _plain(settings.aws_access_key_id),
            _plain(settings.aws_secret_access_key),
            _plain(settings.aws_session_token),
            settings.aws_region,
        )
    else:
        assert endpoints.s3_endpoint_url is not None
        s3 = S3Location(
            endpoints.s3_endpoint_url,
            endpoints.aws_access_key_id,
            endpoints.aws_secret_access_key,
        )
    return Connections(database_url, dagster_database_url, s3)


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def _beside(database_url: str, name: str) -> str:
    """Return the URL of database `name` on the same server."""
    parts = urlsplit(database_url)
    return parts._replace(path=f"{parts.path}_{name}").geturl()
