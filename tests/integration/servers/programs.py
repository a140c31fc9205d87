"""Small real programs for tests of the supervisor."""

import sys
from pathlib import Path

from mesh.proxy.inputs import IngressInputs
from mesh.stack.environment import inherited
from mesh.stack.environment import python as module
from mesh.stack.process import Program, running
from mesh.stack.readiness import tcp_open

#: Listens on a port, writes what it is told to, and obeys SIGTERM.
_SERVER = """
import os, signal, socket, subprocess, sys
port, script = int(sys.argv[1]), sys.argv[2]
exec(script)
server = socket.create_server(("127.0.0.1", port))
print("listening", os.getpid(), flush=True)
while True:
    server.accept()[0].close()
"""


def python(script: str, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", script, *words)


def a_server(name: str, port: int, script: str = "", **changes) -> Program:
    """A program that does `script` before it listens."""
    address = f"127.0.0.1:{port}"
    told = {"name": name, "argv": python(_SERVER, str(port), script), "ready": tcp_open(address), "address": address}
    return Program(**told | changes)


def a_task(name: str, script: str, **changes) -> Program:
    """A program that runs once."""
    return Program(**{"name": name, "argv": python(script)} | changes)


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


async def write_bootstrap(inputs: IngressInputs, path: Path) -> None:
    """Render as the stack does: in a process of its own."""
    inputs.write(path.with_suffix(".json"))
    words = module("mesh.proxy", str(path.with_suffix(".json")), str(path))
    async with running(Program(name="render", argv=words, env=inherited()), path.with_name("render.log")):
        pass
