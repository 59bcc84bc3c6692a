"""Choosing TCP ports on the loopback address, and keeping the choice from start to start."""

import json
import secrets
import socket
from collections.abc import Collection, Mapping
from pathlib import Path

import psutil

from stocks_assets.errors import StackError
from stocks_assets.stack import home as homes

LOOPBACK = "127.0.0.1"

# Below the range that operating systems give to outgoing connections: such a port would be gone
# by the next start.
_FALLBACK_PORTS = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Whether a server may listen on the port, on the loopback address and on all of them."""
    return all(_can_bind(address, port) for address in (LOOPBACK, "0.0.0.0"))  # noqa: S104


def choose_port(preferred: int | None, taken: Collection[int] = ()) -> int:
    """The preferred port if it is free and not in ``taken``, else any other free one."""
    if preferred and preferred not in taken and is_free(preferred):
        return preferred
    for _ in range(1_000):
        port = secrets.choice(_FALLBACK_PORTS)
        if port not in taken and is_free(port):
            return port
    raise StackError(f"no free port on {LOOPBACK}; stop some of the servers of this machine")


def require_free(port: int, setting: str) -> None:
    """Insist on a port that was asked for by name.

    Raises:
        StackError: The port is taken.
    """
    if not is_free(port):
        raise StackError(
            f"port {port} is taken by {_holder(port)}; stop that or change {setting}",
        )


def remember(home: Path, name: str, ports: Mapping[str, int]) -> None:
    """Keep the ports of a server for its next start."""
    homes.write_private(_memory(home, name), json.dumps(dict(ports)))


def remembered(home: Path, name: str) -> dict[str, int]:
    """The ports of the last start; empty when there was none."""
    try:
        ports = json.loads(_memory(home, name).read_text(encoding="utf-8"))
        return {str(key): int(port) for key, port in ports.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _memory(home: Path, name: str) -> Path:
    return home / "run" / f"{name}.ports.json"


def _can_bind(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections that are still closing after a stop hold nobody up.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr.port == port
                and connection.pid
            ):
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        pass
    return "another process"
