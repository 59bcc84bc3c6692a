"""The route for events of the bucket: who may leave hints, how many, and that nothing else is open."""

import asyncio
import json

import psycopg
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from stocks_assets.adapters.door import Door
from stocks_assets.adapters.hook import PATH, Hook
from stocks_assets.domain.hints import LARGEST_EVENT
from tests.unit.test_hint_rules import EVENTS, HOSTILE, key, of_minio, of_s3

TOKEN = "a-token-of-the-store"
KNOWN = {"authorization": f"Bearer {TOKEN}"}
PASSWORD = "a-password-of-mine"


@pytest.fixture
def noted():
    return []


@pytest.fixture
def asked():
    return []


@pytest.fixture
def serve(noted, asked):
    """Return how to serve what the web server does, with a token or without."""
    clients = []

    def served(token=TOKEN, note=noted.extend):
        def answer(request):
            asked.append(request.url.path)
            return PlainTextResponse("inside")

        methods = ["GET", "HEAD", "POST", "DELETE", "PUT"]
        app = Starlette(routes=[Route("/{path:path}", answer, methods=methods)])
        hook = Hook(Door(app, PASSWORD, {"127.0.0.1"}), token, "stocks-raw", note)
        # By a name that the door does not know.
        client = TestClient(hook, base_url="http://webserver:3000")
        clients.append(client)
        return client

    yield served
    for client in clients:
        client.close()


@pytest.mark.parametrize("event", EVENTS)
def test_who_has_the_token_leaves_a_hint(serve, noted, asked, event):
    reply = serve().post(PATH, content=event(key()), headers=KNOWN)
    assert (reply.status_code, reply.content) == (204, b"")
    assert noted == [key()]
    assert asked == []


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": TOKEN},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Bearer tökens".encode("latin-1")},
        {"cookie": TOKEN},
    ],
)
def test_nobody_else_leaves_one(serve, noted, asked, given):
    refused = serve().post(f"{PATH}?token={TOKEN}", content=of_minio(key()), headers=given)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert noted == asked == []


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_token_there_is_no_such_route(serve, noted, asked, token):
    for given in ({}, KNOWN, {"authorization": "Bearer "}):
        assert serve(token).post(PATH, content=of_minio(key()), headers=given).status_code == 404
    assert noted == asked == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_events_are_posted_and_nothing_else_is_done_there(serve, noted, asked, method):
    assert serve().request(method, PATH, headers=KNOWN).status_code == 405
    assert noted == asked == []


@pytest.mark.parametrize("path", ["/", "/graphql", f"{PATH}/", f"{PATH}/x", "/hooks", f"/x{PATH}"])
def test_the_token_opens_nothing_else(serve, asked, path):
    ui = serve()
    assert ui.post(path, headers=KNOWN).status_code == 403  # the door's word on that name
    assert ui.post(path, headers=KNOWN | {"host": "127.0.0.1"}).status_code == 401
    assert asked == []


def test_the_password_of_the_ui_leaves_no_hint(serve, noted, asked):
    ui = serve()
    here = {"host": "127.0.0.1"}
    assert ui.get("/", headers=here, auth=("stocks", PASSWORD)).text == "inside"
    refused = ui.post(PATH, content=of_minio(key()), headers=here, auth=("stocks", PASSWORD))
    assert refused.status_code == 401
    assert noted == []
    assert asked == ["/"]


def test_an_event_without_a_hint_is_taken_and_leaves_none(serve, noted):
    hook = serve()
    for named in HOSTILE:
        assert hook.post(PATH, content=of_s3(named), headers=KNOWN).status_code == 204
    assert noted == []


def in_parts(size):
    for _ in range(size // 1000):
        yield b" " * 1000


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"nonsense", 400),
        (b"[" * 100_000, 400),
        (b" " * (LARGEST_EVENT + 1), 413),
        (in_parts(LARGEST_EVENT + 1000), 413),
        (json.dumps({"x": "y" * (LARGEST_EVENT - 100)}).encode(), 204),
    ],
)
def test_what_is_no_event_or_too_large_is_refused(serve, noted, body, status):
    assert serve().post(PATH, content=body, headers=KNOWN).status_code == status
    assert noted == []


def test_no_more_is_read_of_what_is_too_large_or_of_whom_nobody_knows(serve):
    for given, status in ((KNOWN, 413), ({}, 401)):
        sent = []

        async def receive(sent=sent):
            sent.append(1)
            return {"type": "http.request", "body": b" " * 100_000, "more_body": True}

        said = ask(serve().app, given, receive)
        assert said[0]["status"] == status
        assert len(sent) <= 3


def ask(app, headers, receive):
    said = []

    async def send(message):
        said.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(app(scope, receive, send))
    return said


def test_a_store_is_told_where_its_hint_is_not_kept(serve, caplog):
    def note(keys):
        raise psycopg.OperationalError("no server")

    assert serve(note=note).post(PATH, content=of_minio(key()), headers=KNOWN).status_code == 503
    assert "no server" in caplog.text
