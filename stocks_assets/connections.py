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
    """What it takes to reach each server, as who does the work there.

    `database_url` is the loader's, `models_url` the transformer's. `owner_url` is None where only
    lesser roles are known; `s3_owner` is who may make buckets. All are the same where the settings
    name one user only.
    """

    database_url: str
    models_url: str
    owner_url: str | None
    dagster_database_url: str
    s3: S3Location
    s3_owner: S3Location


def embedded_stack(settings: Settings) -> EmbeddedStack:
    """Return the embedded stack with the servers that no setting replaces."""
    return EmbeddedStack(
        settings.home,
        postgres=settings.brings_database,
        s3=settings.s3_endpoint_url is None,
        bucket=settings.bucket,
        curated_bucket=settings.curated_bucket,
    )


def find_connections(settings: Settings) -> Connections:
    """Return the connections, starting nothing.

    Raises:
        StackError: an embedded server is needed and does not run.
    """
    endpoints = embedded_stack(settings).endpoints()
    if endpoints is None:
        raise StackError(f"the stack in {settings.home} is not running; start it with: stocks up")
    if settings.brings_database:
        owner, loader = endpoints.database_url, endpoints.loader_url
        transformer, dagster = endpoints.transformer_url, endpoints.dagster_role_url
    else:
        owner = _plain(settings.database_url)
        loader = _plain(settings.loader_database_url) or owner
        transformer = _plain(settings.transformer_database_url) or owner
        dagster = owner and _beside(owner, "dagster")
    dagster = _plain(settings.dagster_database_url) or dagster
    # The settings insist on it.
    assert loader is not None
    assert transformer is not None
    assert dagster is not None
    if settings.s3_endpoint_url is not None:
        s3 = s3_owner = S3Location(
            settings.s3_endpoint_url,
            _plain(settings.aws_access_key_id),
            _plain(settings.aws_secret_access_key),
            _plain(settings.aws_session_token),
            settings.aws_region,
        )
    else:
        url = endpoints.s3_endpoint_url
        assert url is not None
        s3 = S3Location(url, endpoints.pipeline_key_id, endpoints.pipeline_secret_key)
        s3_owner = S3Location(url, endpoints.aws_access_key_id, endpoints.aws_secret_access_key)
    return Connections(loader, transformer, owner, dagster, s3, s3_owner)


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def _beside(database_url: str, name: str) -> str:
    """Return the URL of database `name` on the same server."""
    parts = urlsplit(database_url)
    return parts._replace(path=f"{parts.path}_{name}").geturl()
