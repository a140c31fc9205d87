"""`python -m bench.edge`: what each edge costs, for the same requests and the same back end.

Prints CPU microseconds a request, and the memory that a thousand idle streams take in ours. Machines are noisy, so the
edges take turns and the median of the rounds counts; ratios survive what absolute figures do not.
"""

import argparse
import asyncio
import json
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.edge import edges, load
from tests.edge import golang
from tests.edge.compile import descriptor_set, python_modules

_HERE = Path(__file__).parent
_PROTOS = _HERE / "protos"
_LINE = {
    "sku": "SKU-00001",
    "title": "A product title number 1",
    "quantity": 2,
    "unitPrice": {"currencyCode": "THB", "units": "101", "nanos": 500000000},
    "total": {"currencyCode": "THB", "units": "200"},
}
_ORDER = json.dumps({"customer": "users/42", "lines": [_LINE] * 5, "labels": {"channel": "web"}}).encode()
_HEAD = "POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CASES = {
    "one order": b"GET /v1/orders/1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "list of 20": b"GET /v1/orders?pageSize=20 HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST an order": f"{_HEAD}Content-Length: {len(_ORDER)}\r\n\r\n".encode() + _ORDER,
}
_WATCH = b"GET /v1/orders/1:watch HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
_SOCKET = (
    b"GET /v1/orders/1:watch HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_WATCHES = {"server-sent events": _WATCH, "WebSocket": _SOCKET}
_IDLE = 1000


@dataclass(frozen=True, slots=True)
class _Made:
    """What all edges are given: the compiled protos and the port of the back end."""

    folder: Path
    descriptors: Path
    back_end: int


def main() -> None:
    it = argparse.ArgumentParser(prog="bench.edge")
    it.add_argument("--requests", type=int, default=3000)
    it.add_argument("--rounds", type=int, default=5)
    it.add_argument("--concurrency", type=int, default=16)
    it.add_argument("--only", action="append", choices=["ours", "envoy", "go", "starlette"])
    it.add_argument("--json", action="store_true")
    options = it.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        made = _make(Path(name), stack)
        table = uvloop.run(_measure(dict(_edges(made, stack, options.only)), options))
        rates = uvloop.run(_workers(made, options))
        idle = {kind: uvloop.run(_idle(made, request)) for kind, request in _WATCHES.items()}
    found = {"cpu_us": table, "workers_a_second": rates, "idle_mib": idle}
    print(json.dumps(found, indent=2) if options.json else _text(table, rates, idle))


async def _measure(started: dict[str, edges.Started], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    seen: dict[str, dict[str, list[float]]] = {case: {edge: [] for edge in started} for case in CASES}
    for case, request in CASES.items():
        for edge in started.values():
            await load.run(edge.port, request, 500, options.concurrency)
        for _ in range(options.rounds):
            for name, edge in started.items():
                before = load.cpu_seconds(edge.process.pid)
                await load.run(edge.port, request, options.requests, options.concurrency)
                used = load.cpu_seconds(edge.process.pid) - before
                seen[case][name].append(used / options.requests * 1e6)
    return {case: {edge: statistics.median(runs) for edge, runs in row.items()} for case, row in seen.items()}


async def _workers(made: _Made, options: argparse.Namespace) -> dict[int, float]:
    """How many lists a second one worker of ours answers, and how many two do, in turns."""
    seen: dict[int, list[float]] = {1: [], 2: []}
    with ExitStack() as stack:
        ports = {}
        for count in seen:
            ports[count] = _free_port()
            log = made.folder / f"workers{count}.log"
            edge = edges.ours(made.descriptors, made.back_end, ports[count], log, "--workers", str(count))
            stack.enter_context(_ended(edge.process))
            await asyncio.to_thread(_await, ports[count])
            await load.run(ports[count], CASES["list of 20"], 1000, 2 * options.concurrency)
        for _ in range(options.rounds):
            for count, runs in seen.items():
                runs.append(
                    await load.run(ports[count], CASES["list of 20"], options.requests, 2 * options.concurrency)
                )
    return {count: statistics.median(runs) for count, runs in seen.items()}


async def _idle(made: _Made, request: bytes) -> float:
    """What idle clients add to the memory of one of our edges that has done nothing else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 2 * _IDLE), hard), hard))
    port = _free_port()
    edge = edges.ours(made.descriptors, made.back_end, port, made.folder / "idle.log")
    with _ended(edge.process):
        _await(port)
        await load.run(port, CASES["one order"], 500, 8)
        before = load.resident(edge.process.pid)
        clients = [await _client(port, request) for _ in range(_IDLE)]
        grown = load.resident(edge.process.pid) - before
        for client in clients:
            client.close()
        await asyncio.gather(*(client.wait_closed() for client in clients), return_exceptions=True)
    return grown


async def _client(port: int, request: bytes) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await reader.readuntil(b'"version":"7"')
    return writer


def _make(folder: Path, stack: ExitStack) -> _Made:
    python_modules(_PROTOS, folder)
    back_end = _free_port()
    command = [sys.executable, "-m", "bench.edge.back_end", str(folder), f"127.0.0.1:{back_end}"]
    stack.enter_context(_ended(subprocess.Popen(command, stdout=subprocess.DEVNULL)))
    _await(back_end)
    return _Made(folder, descriptor_set(_PROTOS, folder), back_end)


def _edges(made: _Made, stack: ExitStack, only: list[str] | None) -> Iterator[tuple[str, edges.Started]]:
    folder, descriptors, back_end = made.folder, made.descriptors, made.back_end
    starts: dict[str, Callable[[int, Path], edges.Started]] = {
        "ours": lambda port, log: edges.ours(descriptors, back_end, port, log),
        "envoy": lambda port, log: edges.envoy(descriptors, back_end, port, log),
        "starlette": lambda port, log: edges.starlette(folder, back_end, port, log),
    }
    if shutil.which("go") and (only is None or "go" in only):
        program = golang.build(_HERE / "go_gateway", _PROTOS, folder)
        starts["go"] = lambda port, log: edges.go_gateway(program, back_end, port, log)
    for name, start in starts.items():
        if only is None or name in only:
            port = _free_port()
            started = start(port, folder / f"{name}.log")
            stack.enter_context(_ended(started.process))
            _await(port)
            yield name, started


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _await(port: int) -> None:
    deadline = time.monotonic() + 20
    while not _answers(port):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing listens on port {port}")
        time.sleep(0.05)


def _answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _text(table: dict[str, dict[str, float]], rates: dict[int, float], idle: dict[str, float]) -> str:
    names = list(next(iter(table.values())))
    lines = ["| CPU us a request | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for case, row in table.items():
        lines.append(f"| {case} | " + " | ".join(f"{row[name]:.0f}" for name in names) + " |")
    lines += [f"lists of 20 a second with {count} of our workers: {rate:.0f}" for count, rate in rates.items()]
    lines += [f"{_IDLE} idle clients by {kind}: {grown:.1f} MiB" for kind, grown in idle.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
