"""What stands before the UI: a password, and no way in for pages of other sites."""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Set
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Literal
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SESSION_SECONDS = 7 * 24 * 3600
# Says which versions run, and so whether it runs.
_OPEN = "/server_info"
_REALM = 'Basic realm="stocks", charset="UTF-8"'


class Door:
    """An ASGI application that lets `app` be seen by who knows the password only.

    The password comes by HTTP's basic authentication, from scripts each time; a browser is given a
    cookie for a week, which its web sockets carry as well. `hosts` are the names that the UI has:
    with another one, a page elsewhere has made its own name lead here. `tls_host` is the `Host` by
    which a proxy speaks TLS for the UI.
    """

    def __init__(
        self,
        app: ASGIApp,
        password: str,
        hosts: Set[str],
        tls_host: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self._password = password.encode()
        self._hosts = hosts
        self._tls_host = tls_host
        self._clock = clock
        # Browsers tell no ports apart: the UI of another home has a cookie of another name.
        self._name = f"stocks_session_{self._sealed('name')[:8]}"

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
        if _is_question_by_link(scope, headers):
            # Others' pages can make a browser follow a link, and not all browsers say whose it was.
            await _refuse(scope, receive, send, HTTPStatus.METHOD_NOT_ALLOWED, "ask by POST")
            return
        if by != "password" or scope["type"] == "websocket":
            await self._app(scope, receive, send)
        elif scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            # The address in the browser may hold the password: it goes, the cookie stays.
            query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
            scheme = "https" if self._is_by_tls(headers) else scope["scheme"]
            clean = f"{scheme}://{headers['host']}{scope['path']}{query}"
            response = RedirectResponse(clean, HTTPStatus.SEE_OTHER)
            response.headers.append("set-cookie", self._cookie(headers))
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, self._with_cookie(headers, send))

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
        morsel = cookies.get(self._name)
        if morsel is not None and self._is_session(morsel.value):
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

    def _sealed(self, text: str) -> str:
        """Return what cannot be had without the password, and gives nothing of it away."""
        return hmac.new(self._password, text.encode(), hashlib.sha256).hexdigest()

    def _is_session(self, value: str) -> bool:
        end, _, seal = value.partition(".")
        is_ours = hmac.compare_digest(seal.encode(), self._sealed(f"session to {end}").encode())
        return is_ours and self._clock() < int(end)

    def _is_by_tls(self, headers: Headers) -> bool:
        return self._tls_host is not None and headers.get("host", "").lower() == self._tls_host

    def _cookie(self, headers: Headers) -> str:
        end = int(self._clock()) + SESSION_SECONDS
        value = f"{end}.{self._sealed(f'session to {end}')}"
        kept = f"{self._name}={value}; Max-Age={SESSION_SECONDS}; Path=/; HttpOnly; SameSite=Lax"
        return f"{kept}; Secure" if self._is_by_tls(headers) else kept

    def _with_cookie(self, headers: Headers, send: Send) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("set-cookie", self._cookie(headers))
            await send(message)

        return sent


def _is_question_by_link(scope: Scope, headers: Headers) -> bool:
    """Tell whether a question, which may be to change something, is in the address.

    Who accepts HTML is given the page to ask from, whatever is in the address.
    """
    return (
        scope.get("method") == "GET"
        and scope["path"].startswith("/graphql")
        and "text/html" not in headers.get("accept", "")
    )


async def _refuse(scope: Scope, receive: Receive, send: Send, status: HTTPStatus, why: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    ask = {"www-authenticate": _REALM} if status is HTTPStatus.UNAUTHORIZED else {}
    response = PlainTextResponse(f"{why}\n", status, headers=ask)
    await response(scope, receive, send)
