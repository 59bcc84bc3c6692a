"""What stands before the UI: a password, and no way in for pages of other sites."""

import base64
import hashlib
import hmac
from collections.abc import Set
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Literal
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "stocks_session"
# Says which versions run, and so whether it runs.
_OPEN = "/server_info"
_REALM = 'Basic realm="stocks", charset="UTF-8"'


class Door:
    """An ASGI application that lets `app` be seen by who knows the password only.

    The password comes by HTTP's basic authentication, from scripts each time; a browser is given a
    cookie, which its web sockets carry as well. `hosts` are the names that the UI has: with another
    one, a page elsewhere has made its own name lead here.
    """

    def __init__(self, app: ASGIApp, password: str, hosts: Set[str]) -> None:
        self._app = app
        self._password = password.encode()
        self._hosts = hosts
        # What cannot be had without the password, and gives nothing of it away.
        self._session = hmac.new(self._password, b"session", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of the web server."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if self._is_foreign(scope, headers):
            await _refuse(scope, receive, send, HTTPStatus.FORBIDDEN, "not from here")
            return
        by = self._proof(headers)
        if by is None and not (scope["path"] == _OPEN and scope.get("method") in ("GET", "HEAD")):
            await _refuse(scope, receive, send, HTTPStatus.UNAUTHORIZED, "a password is needed")
            return
        if by != "password" or scope["type"] == "websocket":
            await self._app(scope, receive, send)
        elif scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            # The address in the browser may hold the password: it goes, the cookie stays.
            query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
            clean = f"{scope['scheme']}://{headers['host']}{scope['path']}{query}"
            response = RedirectResponse(clean, HTTPStatus.SEE_OTHER)
            response.headers.append("set-cookie", self._cookie())
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, self._with_cookie(send))

    def _is_foreign(self, scope: Scope, headers: Headers) -> bool:
        """Tell whether a page of another site is behind the request."""
        try:
            host = urlsplit(f"//{headers.get('host', '')}")
            origin = urlsplit(headers["origin"]) if "origin" in headers else None
        except ValueError:  # what is no address is none of ours
            return True
        if host.hostname not in self._hosts:
            return True
        if origin is not None and origin.netloc != host.netloc:
            return True
        is_elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        is_a_link = (
            scope.get("method") == "GET"
            and headers.get("sec-fetch-mode") == "navigate"
            and not scope["path"].startswith("/graphql")
        )
        return is_elsewhere and not is_a_link

    def _proof(self, headers: Headers) -> Literal["cookie", "password"] | None:
        """Return what the request proves itself with, if it does."""
        cookies = SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except CookieError:
            cookies.clear()
        morsel = cookies.get(COOKIE)
        if morsel is not None and hmac.compare_digest(
            morsel.value.encode(), self._session.encode()
        ):
            return "cookie"
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                _, _, password = base64.b64decode(given, validate=True).partition(b":")
            except ValueError:  # text that is no base64
                return None
            if hmac.compare_digest(password, self._password):
                return "password"
        return None

    def _cookie(self) -> str:
        return f"{COOKIE}={self._session}; Path=/; HttpOnly; SameSite=Lax"

    def _with_cookie(self, send: Send) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("set-cookie", self._cookie())
            await send(message)

        return sent


async def _refuse(scope: Scope, receive: Receive, send: Send, status: HTTPStatus, why: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    ask = {"www-authenticate": _REALM} if status is HTTPStatus.UNAUTHORIZED else {}
    response = PlainTextResponse(f"{why}\n", status, headers=ask)
    await response(scope, receive, send)
