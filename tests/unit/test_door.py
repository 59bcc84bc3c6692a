"""The door of the UI: who comes in, with what, and who does not."""

import base64

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from stocks_assets.adapters.door import SESSION_SECONDS, Door
from stocks_assets.settings import Settings
from stocks_assets.ui import tls_host

PASSWORD = "päss:word-of-mine"
HERE = "http://127.0.0.1:3000"
PAGE = {"accept": "text/html"}
HOST = {"host": "127.0.0.1:3000"}
CHANGES = [("POST", "/graphql"), ("GET", "/graphql?query=mutation"), ("POST", "/report_asset/x")]


def basic(password, user="stocks"):
    given = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"authorization": f"Basic {given}"}


async def hello(websocket):
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.close()


@pytest.fixture
def asked():
    return []


@pytest.fixture
def now():
    return [1_000_000.0]


@pytest.fixture
def ui(asked, now):
    def answer(request):
        asked.append((request.method, request.url.path))
        return PlainTextResponse("inside")

    app = Starlette(
        routes=[
            WebSocketRoute("/graphql", hello),
            Route("/{path:path}", answer, methods=["GET", "HEAD", "POST", "DELETE"]),
        ]
    )
    names = {"127.0.0.1", "localhost", "stocks.example"}
    door = Door(app, PASSWORD, names, "stocks.example", clock=lambda: now[0])
    with TestClient(door, base_url=HERE, follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/graphql", "/runs/1", "//server_info", "/server_info/x"])
def test_nobody_comes_in_without_the_password(ui, asked, method, path):
    refused = ui.request(method, path)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic ")
    assert asked == []


@pytest.mark.parametrize(
    "given",
    [
        basic("wrong"),
        basic(""),
        basic(PASSWORD[:-1]),
        {"authorization": "Basic"},
        {"authorization": "Basic !"},
        {"authorization": f"Bearer {PASSWORD}".encode()},
        {"cookie": "=;\x01"},
    ],
)
def test_nobody_comes_in_with_another_one(ui, asked, given):
    assert ui.get("/graphql", headers=given).status_code == 401
    assert asked == []


def cookie_of(ui, **headers):
    """Return the name and the value of the cookie that a browser is given, and what it is told."""
    sent = ui.get("/", headers=PAGE | basic(PASSWORD) | headers)
    cookie, _, told = sent.headers["set-cookie"].partition("; ")
    ui.cookies.clear()
    name, _, value = cookie.partition("=")
    return name, value, set(told.split("; "))


def test_nobody_makes_or_mends_a_cookie(ui, asked):
    name, value, _ = cookie_of(ui)
    end, _, seal = value.partition(".")
    for forged in ("", "0", ".", f"{int(end) + 1}.{seal}", f"{end}.{seal[:-1]}", f".{seal}", end):
        refused = ui.get("/graphql", headers={"cookie": f"{name}={forged}"})
        assert refused.status_code == 401
    assert asked == []


def test_a_cookie_ends_after_a_week(ui, asked, now):
    name, value, told = cookie_of(ui)
    assert f"Max-Age={SESSION_SECONDS}" in told
    now[0] += SESSION_SECONDS - 1
    assert ui.get("/", headers={"cookie": f"{name}={value}"}).text == "inside"
    now[0] += 1
    assert ui.get("/", headers={"cookie": f"{name}={value}"}).status_code == 401


def test_uis_of_two_homes_on_one_machine_have_cookies_of_their_own(ui):
    with TestClient(Door(ui.app, "another", {"127.0.0.1"}), base_url=HERE) as other:
        sent = other.get("/", headers=PAGE | basic("another"), follow_redirects=False)
    assert sent.headers["set-cookie"].partition("=")[0] != cookie_of(ui)[0]


def test_behind_a_proxy_with_tls_the_address_and_the_cookie_are_of_tls(ui):
    by = {"host": "Stocks.example"}
    sent = ui.get("/runs", headers=PAGE | basic(PASSWORD) | by)
    assert sent.headers["location"] == "https://Stocks.example/runs"
    assert "Secure" in cookie_of(ui, **by)[2]
    assert "Secure" not in cookie_of(ui)[2]
    ours = {"origin": "https://stocks.example", "host": "stocks.example"}
    assert ui.post("/graphql", headers=basic(PASSWORD) | ours).text == "inside"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (None, None),
        ("http://stocks.example", None),
        ("https://stocks.example/", "stocks.example"),
        ("https://Stocks.example:443", "stocks.example"),
        ("https://stocks.example:8443", "stocks.example:8443"),
    ],
)
def test_an_address_with_tls_is_one_that_says_so(url, host):
    assert tls_host(Settings(_env_file=None, STOCKS_UI_URL=url)) == host


def test_whether_it_runs_can_be_asked_but_not_changed(ui, asked):
    assert ui.get("/server_info").text == "inside"
    assert ui.post("/server_info").status_code == 401
    assert asked == [("GET", "/server_info")]


def test_a_script_gives_the_password_each_time(ui):
    for user in ("stocks", "anybody"):
        assert ui.post("/graphql", headers=basic(PASSWORD, user)).text == "inside"


def test_a_browser_is_given_a_cookie_and_an_address_without_the_password(ui, asked):
    sent = ui.get("/runs?tag=a%20b", headers=PAGE | basic(PASSWORD))
    assert (sent.status_code, sent.headers["location"]) == (303, f"{HERE}/runs?tag=a%20b")
    assert asked == []
    cookie = sent.headers["set-cookie"]
    assert PASSWORD not in cookie
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert ui.get(sent.headers["location"], headers=PAGE).text == "inside"
    with ui.websocket_connect(
        "/graphql", headers=HOST | {"cookie": cookie.partition(";")[0]}
    ) as socket:
        assert socket.receive_text() == "hello"


def test_a_web_socket_needs_the_password_too(ui):
    with pytest.raises(WebSocketDisconnect), ui.websocket_connect("/graphql", headers=HOST):
        pass
    with ui.websocket_connect("/graphql", headers=HOST | basic(PASSWORD)) as socket:
        assert socket.receive_text() == "hello"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:3000", "127.0.0.1.evil.example", ""]
)
def test_a_name_that_is_not_ours_leads_nowhere(ui, asked, host):
    refused = ui.get("/", headers=basic(PASSWORD) | {"host": host})
    assert refused.status_code == 403
    assert asked == []


@pytest.mark.parametrize(
    "host", ["localhost:3000", "127.0.0.1", "stocks.example", "STOCKS.example"]
)
def test_the_names_that_are_ours_do(ui, host):
    assert ui.get("/", headers=basic(PASSWORD) | {"host": host}).text == "inside"


@pytest.mark.parametrize(
    "by",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:8000"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
    ],
)
@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_pages_of_others_change_nothing_with_the_password_that_a_browser_knows(
    ui, asked, by, method, path
):
    refused = ui.request(method, path, headers=basic(PASSWORD) | by)
    if method == "GET" and "navigate" in by.values() and not path.startswith("/graphql"):
        return
    assert refused.status_code == 403
    assert asked == []


@pytest.mark.parametrize("path", ["/graphql?query=mutation", "/graphql", "/graphql/?query=x"])
@pytest.mark.parametrize("accept", ["*/*", "image/avif,image/webp", "application/json", ""])
def test_nothing_is_asked_or_changed_by_a_link(ui, asked, path, accept):
    """A browser that says not whose link it was knows the password or the cookie all the same."""
    name, value, _ = cookie_of(ui)
    for by in (basic(PASSWORD), {"cookie": f"{name}={value}"}):
        assert ui.get(path, headers=by | {"accept": accept}).status_code == 405
    assert asked == []


def test_the_page_to_ask_from_is_given_to_who_accepts_pages(ui):
    name, value, _ = cookie_of(ui)
    page = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    assert ui.get("/graphql", headers={"cookie": f"{name}={value}"} | page).text == "inside"


def test_a_link_from_elsewhere_opens_a_page(ui):
    by = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert ui.get("/runs/1", headers=basic(PASSWORD) | by).text == "inside"


def test_the_ui_itself_may_ask(ui):
    by = {"origin": HERE, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
    assert ui.post("/graphql", headers=basic(PASSWORD) | by).text == "inside"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "["}, 403),
        ({"host": "127.0.0.1:3000", "origin": "http://["}, 403),
        ({"host": "127.0.0.1:3000", "authorization": "Basic p\xe4ss".encode("latin-1")}, 401),
        ({"host": "127.0.0.1:3000", "authorization": "Basic ==="}, 401),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_done(ui, asked, headers, status):
    assert ui.get("/", headers=headers).status_code == status
    assert asked == []
