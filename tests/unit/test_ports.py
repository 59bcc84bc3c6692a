import socket
import sys

import pytest

from stocks_assets.errors import StackError
from stocks_assets.stack import home as homes
from stocks_assets.stack import ports


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_free_port_is_taken_as_preferred():
    free = ports.choose_port(None)
    assert ports.choose_port(free) == free


def test_a_taken_port_is_replaced_by_a_free_one(taken_port):
    chosen = ports.choose_port(taken_port)
    assert chosen != taken_port
    assert ports.is_free(chosen)


def test_a_port_promised_to_another_server_is_not_chosen():
    free = ports.choose_port(None)
    assert ports.choose_port(free, taken={free}) != free


def test_a_port_that_somebody_holds_on_all_addresses_is_not_free():
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert not ports.is_free(server.getsockname()[1])


def test_a_port_is_free_again_while_its_last_connections_are_closing():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = server.accept()
            accepted.close()
    assert ports.is_free(port)


@pytest.mark.skipif(
    sys.platform == "darwin", reason="macOS tells the holder of a port to root only"
)
def test_insisting_on_a_taken_port_names_the_port_its_holder_and_the_setting(taken_port):
    with pytest.raises(StackError, match=rf"port {taken_port} is taken by .*process \d+.*UI_PORT"):
        ports.require_free(taken_port, "UI_PORT")


def test_ports_are_remembered_and_a_damaged_memory_counts_as_none(tmp_path):
    homes.prepare(tmp_path)
    assert ports.remembered(tmp_path, "postgres") == {}
    ports.remember(tmp_path, "postgres", {"postgres": 5433})
    assert ports.remembered(tmp_path, "postgres") == {"postgres": 5433}
    (tmp_path / "run" / "postgres.ports.json").write_text("5433")
    assert ports.remembered(tmp_path, "postgres") == {}
