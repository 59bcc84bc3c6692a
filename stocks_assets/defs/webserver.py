"""Dagster's web server behind a password: `python -m stocks_assets.defs.webserver -p 3000 ..`.

It takes the options of `dagster-webserver`, which has no users of its own.
"""

import functools
import sys

from dagster_webserver import cli
from dagster_webserver.app import create_app_from_workspace_process_context as make_app
from starlette.types import ASGIApp

from stocks_assets.adapters.door import Door
from stocks_assets.settings import read_settings
from stocks_assets.ui import hosts, tls_host, ui_password


def main() -> None:
    """Serve until a signal ends it."""
    settings = read_settings()

    @functools.wraps(make_app)
    def make_closed_app(*arguments: object, **options: object) -> ASGIApp:
        app: ASGIApp = make_app(*arguments, **options)  # type: ignore[arg-type] # handed on
        return Door(app, ui_password(settings), hosts(settings), tls_host(settings))

    # The command has no place to hang a middleware into.
    setattr(cli, make_app.__name__, make_closed_app)
    cli.dagster_webserver(sys.argv[1:], auto_envvar_prefix="DAGSTER_WEBSERVER")


if __name__ == "__main__":
    main()
