"""Another machine, as far as the network goes: a namespace that shares no loopback with this one."""

import asyncio
import functools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

_PROBE = (
    "import socket, sys\n"
    "probe = socket.socket()\n"
    "probe.settimeout(5)\n"
    "print(probe.connect_ex((sys.argv[1], int(sys.argv[2]))) == 0)"
)


@dataclass
class Machine:
    """A network namespace with a cable to this one, where `gateway` is all that it reaches."""

    name: str
    gateway: str
    address: str
    # The ports of the gateway that it has connected to.
    asked: set[int] = field(default_factory=set)

    @property
    def enter(self) -> list[str]:
        """What to put before a command that is to run there."""
        return ["ip", "netns", "exec", self.name]

    def reaches(self, host: str, port: int) -> bool:
        """Tell whether a process there can connect to `host`."""
        return "True" in _run(*self.enter, sys.executable, "-I", "-c", _PROBE, host, str(port))


@contextmanager
def machine(ports: Sequence[int]) -> Iterator[Machine]:
    """Yield another machine, to which those ports of this one's loopback are at its gateway.

    The test is skipped where none can be made.
    """
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("only root on Linux can make a network namespace")
    if shutil.which("ip") is None:
        pytest.skip("a network namespace is made with `ip`, of iproute2")
    number = os.getpid()
    name, here, there = f"stocks-{number}", f"sta{number}", f"stb{number}"
    # One of the 16,384 networks of four addresses in 10.203.0.0/16.
    high, low = divmod(number % 2**14 * 4, 256)
    made = Machine(name, gateway=f"10.203.{high}.{low + 1}", address=f"10.203.{high}.{low + 2}")
    try:
        try:
            _run("ip", "netns", "add", name)
            _run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
            _run(*made.enter, "true")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace can be made here: {error.stderr.strip()}")
        _run("ip", "address", "add", f"{made.gateway}/30", "dev", here)
        _run("ip", "link", "set", here, "up")
        _run("ip", "-n", name, "address", "add", f"{made.address}/30", "dev", there)
        _run("ip", "-n", name, "link", "set", there, "up")
        _run("ip", "-n", name, "link", "set", "lo", "up")
        with _passed_on(made, ports):
            yield made
    finally:
        for undo in (("link", "delete", here), ("netns", "delete", name)):
            subprocess.run(["ip", *undo], stderr=subprocess.DEVNULL, check=False)


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@contextmanager
def _passed_on(made: Machine, ports: Sequence[int]) -> Iterator[None]:
    """Let who connects to a port of the gateway speak with the same port of the loopback."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    servers = []

    async def listen() -> None:
        for port in ports:
            pass_on = functools.partial(_pass_on, made, port)
            servers.append(await asyncio.start_server(pass_on, made.gateway, port))

    async def end() -> None:
        for server in servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # What was closed is gone some turns of the loop later.
        await asyncio.sleep(0.1)

    try:
        asyncio.run_coroutine_threadsafe(listen(), loop).result(60)
        yield
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _pass_on(
    made: Machine, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    if writer.get_extra_info("peername")[0] == made.address:
        made.asked.add(port)
    try:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_copy(reader, to_server), _copy(from_server, writer))
    finally:
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until one of them is gone, and then end the other."""
    try:
        with suppress(OSError):
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()
