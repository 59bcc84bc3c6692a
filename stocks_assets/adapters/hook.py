"""Where a store pushes its events to: a route before the UI's door, and the hints it leaves."""

import hmac
import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Self

import psycopg
from psycopg_pool import ConnectionPool
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from stocks_assets.domain.hints import HINTS_KEPT, LARGEST_EVENT, hinted_keys

PATH = "/hooks/bucket"
# Events come one by one, and a lost one costs nothing: a store is not kept waiting.
_CONNECTIONS, _SECONDS = 2, 5.0
_log = logging.getLogger(__name__)


class Hints:
    """What events named, in `bronze.hints`: it takes the right to add to it, and to count."""

    def __init__(self, database_url: str) -> None:
        self._pool = ConnectionPool(
            database_url,
            min_size=0,
            max_size=_CONNECTIONS,
            timeout=_SECONDS,
            kwargs={"autocommit": True, "application_name": "stocks_hook", "connect_timeout": 5},
            open=False,
        )

    def __enter__(self) -> Self:
        """Let connections be made, once they are needed."""
        self._pool.open()
        return self

    def __exit__(self, *error: object) -> None:
        """Close them."""
        self._pool.close()

    def note(self, keys: Sequence[str]) -> None:
        """Note `keys`, each once; as many as wait already at most.

        Raises:
            psycopg.Error: the database does not take them.
        """
        with self._pool.connection() as connection:
            connection.execute(
                "insert into bronze.hints (key) select key from unnest(%s::text[]) as named (key) "
                "limit greatest(%s - (select count(*) from bronze.hints), 0) "
                "on conflict do nothing",
                (list(keys), HINTS_KEPT),
            )


class Hook:
    """An ASGI application that takes events at `PATH`, and hands on to `app` all else.

    Who has the token may leave hints, and do nothing else; without a token there is no such route.
    It comes before the door: stores call the web server by names of their own, and know neither
    its password nor its cookies.
    """

    def __init__(
        self, app: ASGIApp, token: str | None, bucket: str, note: Callable[[Sequence[str]], None]
    ) -> None:
        self._app = app
        self._token = token.encode() if token else None
        self._bucket = bucket
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of the web server."""
        if scope["type"] == "http" and scope["path"] == PATH:
            await (await self._answer(Request(scope, receive)))(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        body = await _body(request)
        if body is None:
            return _refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {LARGEST_EVENT:,} bytes"
            )
        try:
            keys = hinted_keys(body, self._bucket)
        except ValueError:
            return _refusal(HTTPStatus.BAD_REQUEST, "not an event of S3, MinIO or SeaweedFS")
        if keys:
            try:
                await run_in_threadpool(self._note, keys)
            except psycopg.Error as error:
                _log.warning("hints of the bucket are not kept: %s", error)
                return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "not kept; a look finds it anyway")
        return Response(status_code=HTTPStatus.NO_CONTENT)

    def _refused(self, request: Request) -> Response | None:
        if self._token is None:
            return _refusal(HTTPStatus.NOT_FOUND, "events of the bucket are not taken")
        if not self._is_known(request.headers):
            return _refusal(HTTPStatus.UNAUTHORIZED, "a token is needed")
        if request.method != "POST":
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, "events are posted")
        return None

    def _is_known(self, headers: Headers) -> bool:
        assert self._token is not None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode("latin-1"), self._token
        )


async def _body(request: Request) -> bytes | None:
    """Return the body; None of one that is too large, of which no more is read."""
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_EVENT:
                return None
    except ClientDisconnect:
        return b""
    return body


def _refusal(status: HTTPStatus, why: str) -> Response:
    ask = {"www-authenticate": "Bearer"} if status is HTTPStatus.UNAUTHORIZED else {}
    return PlainTextResponse(f"{why}\n", status, headers=ask)
