"""Dagster's web server behind a password: `python -m stocks_assets.defs.webserver -p 3000 ..`.

It takes the options of `dagster-webserver`, which has no users of its own.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dagster_webserver import cli
from dagster_webserver.app import create_app_from_workspace_process_context as make_app
from starlette.types import ASGIApp

# On Kubernetes the storage is not the one that brings it along.
import stocks_assets.defs.partitions  # noqa: F401
from stocks_assets.adapters.door import Door
from stocks_assets.adapters.hook import Hints, Hook
from stocks_assets.errors import SettingsError
from stocks_assets.settings import Settings, read_settings
from stocks_assets.ui import hosts, tls_host, ui_password


def main() -> None:
    """Serve until a signal ends it."""
    settings = read_settings()
    token = settings.bucket_events_token
    with _hints(settings) as note:

        @functools.wraps(make_app)
        def make_closed_app(*arguments: object, **options: object) -> ASGIApp:
            app: ASGIApp = make_app(*arguments, **options)  # type: ignore[arg-type] # handed on
            door = Door(app, ui_password(settings), hosts(settings), tls_host(settings))
            return Hook(door, token.get_secret_value() if token else None, settings.bucket, note)

        # The command has no place to hang a middleware into.
        setattr(cli, make_app.__name__, make_closed_app)
        cli.dagster_webserver(sys.argv[1:], auto_envvar_prefix="DAGSTER_WEBSERVER")


@contextmanager
def _hints(settings: Settings) -> Iterator[Callable[[Sequence[str]], None]]:
    """Yield what notes hints; without a token nobody leaves any, and no database is needed."""
    if settings.bucket_events_token is None:
        yield lambda _: None
        return
    if settings.bucket_events_database_url is None:
        raise SettingsError(
            "STOCKS_BUCKET_EVENTS_TOKEN needs STOCKS_BUCKET_EVENTS_DATABASE_URL where the web "
            "server is not started by `stocks`"
        )
    with Hints(settings.bucket_events_database_url.get_secret_value()) as hints:
        yield hints.note


if __name__ == "__main__":
    main()
