"""Runs the gateway on uvicorn: listening, draining on SIGTERM, and several workers on one port."""

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence

import uvicorn

from edge_gateway.gateway import Gateway
from edge_gateway.http.http1 import EdgeProtocol
from edge_gateway.http.socket_options import keepalive, user_timeout
from edge_gateway.settings import Settings

log = logging.getLogger("edge_gateway")

#: Exit code of a worker that would fail again: EX_CONFIG of sysexits.h.
CANNOT_START = 78


def bind(listen: str, *, shared: bool, write_timeout: float) -> socket.socket:
    """Bind host:port, shared by SO_REUSEPORT if wanted; drop clients that read nothing for `write_timeout` seconds."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    for option in (*keepalive(), *user_timeout(write_timeout)):  # accepted connections inherit these
        sock.setsockopt(*option)
    try:
        sock.bind((host, int(port)))
    except OSError as error:
        sock.close()
        raise OSError(f"cannot listen at {listen}: {error.strerror}") from error
    sock.set_inheritable(False)
    return sock


class _Server(uvicorn.Server):
    """Reports when it accepts connections; leaves signals to `serve`, which drains before it stops."""

    def __init__(
        self, config: uvicorn.Config, ready: Callable[[], None], end_streams: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._end_streams = end_streams

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._end_streams()  # uvicorn would close their sockets without an error
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Quiet(logging.Filter):
    """Drops uvicorn's log lines about responses that are cut off, or replace a handshake, on purpose."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("ASGI callable returned without completing")


def _allow_files() -> None:
    """Raise the soft limit of open files, meant for programs that use select(): each stream needs one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems report a hard limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def serve(gateway: Gateway, sock: socket.socket, settings: Settings, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    _allow_files()
    logging.getLogger("uvicorn.error").addFilter(_Quiet())
    config = uvicorn.Config(
        gateway,
        http=EdgeProtocol,
        ws="websockets-sansio",
        loop="uvloop",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(settings.drain)),
        ws_max_size=settings.max_body,
    )
    server = _Server(config, ready, gateway.end_streams)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        gateway.begin_drain()
        loop.call_later(settings.drain_delay, close)

    def close() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await server.serve(sockets=[sock])


async def supervise(arguments: Sequence[str], count: int) -> int:
    """Run `count` worker processes, replace those that die, and pass a stop on to all; return the exit code."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    command = [sys.executable, "-m", "edge_gateway", *arguments]
    codes = await asyncio.gather(*(_keep(command, stopping) for _ in range(count)))
    return max(codes)


async def _keep(command: list[str], stopping: asyncio.Event) -> int:
    """Keep one worker running; stop all workers if it cannot start."""
    while not stopping.is_set():
        worker = await asyncio.create_subprocess_exec(*command, stdin=subprocess.DEVNULL)
        stopped = asyncio.ensure_future(stopping.wait())
        ended = asyncio.ensure_future(worker.wait())
        await asyncio.wait({stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not ended.done():
            worker.terminate()
            await ended
        elif worker.returncode == CANNOT_START:
            stopping.set()
            return 1
        elif not stopping.is_set():
            log.warning("worker %d ended with %s; starting another", worker.pid, worker.returncode)
    return 0
