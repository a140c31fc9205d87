"""Runs the gateway on uvicorn: listening, draining on SIGTERM, and several workers on one port."""

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from edge_gateway.app import Gateway

log = logging.getLogger("edge_gateway")


def bind(listen: str, *, shared: bool) -> socket.socket:
    """Binds host:port; several processes share a port by SO_REUSEPORT."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, int(port)))
    sock.set_inheritable(False)
    return sock


class _Server(uvicorn.Server):
    """Tells when it accepts, and leaves the signals to `serve`, which has more to say before it stops."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(gateway: Gateway, sock: socket.socket, *, drain: float, ready: Callable[[], None]) -> None:
    """Serves until SIGTERM or SIGINT, then drains."""
    config = uvicorn.Config(
        gateway,
        http="httptools",
        ws="websockets-sansio",
        loop="uvloop",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(drain)),
    )
    server = _Server(config, ready)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        gateway.begin_drain()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await server.serve(sockets=[sock])


async def supervise(arguments: Sequence[str], count: int) -> int:
    """Runs `count` worker processes, restarts those that die, and passes a stop on to all."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    command = [sys.executable, "-m", "edge_gateway", *arguments]
    await asyncio.gather(*(_keep(command, stopping) for _ in range(count)))
    return 0


async def _keep(command: list[str], stopping: asyncio.Event) -> None:
    delay = 0.1
    while not stopping.is_set():
        worker = await asyncio.create_subprocess_exec(*command, stdin=subprocess.DEVNULL)
        stopped = asyncio.ensure_future(stopping.wait())
        ended = asyncio.ensure_future(worker.wait())
        started = loop_time()
        await asyncio.wait({stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if stopping.is_set():
            if worker.returncode is None:
                worker.terminate()
            await ended
            return
        log.warning("worker %d ended with %s; starting another", worker.pid, worker.returncode)
        delay = 0.1 if loop_time() - started > 10 else min(delay * 2, 5.0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), delay)


def loop_time() -> float:
    return asyncio.get_running_loop().time()
