"""`python -m bench.edge`: CPU microseconds a request of each edge, for the same requests and the same back end."""

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop

from bench.edge import edges, load
from tests.edge.compile import descriptor_set, python_modules

_PROTOS = Path(__file__).parent / "protos"
_LINE = {
    "sku": "SKU-00001",
    "title": "A product title number 1",
    "quantity": 2,
    "unitPrice": {"currencyCode": "THB", "units": "101", "nanos": 500000000},
    "total": {"currencyCode": "THB", "units": "200"},
}
_ORDER = json.dumps({"customer": "users/42", "lines": [_LINE] * 5, "labels": {"channel": "web"}}).encode()
CASES = {
    "one order": b"GET /v1/orders/1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "list of 20": b"GET /v1/orders?pageSize=20 HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST an order": b"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
    + str(len(_ORDER)).encode()
    + b"\r\n\r\n"
    + _ORDER,
}


def main() -> None:
    it = argparse.ArgumentParser(prog="bench.edge")
    it.add_argument("--requests", type=int, default=4000)
    it.add_argument("--rounds", type=int, default=3)
    it.add_argument("--concurrency", type=int, default=16)
    it.add_argument("--only", action="append", help="ours, envoy, starlette, go")
    it.add_argument("--json", action="store_true")
    options = it.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        started = dict(_edges(Path(name), stack, options.only))
        table = uvloop.run(_measure(started, options))
    print(json.dumps(table, indent=2) if options.json else _text(table))


async def _measure(started: dict[str, edges.Started], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Takes turns, so that a busy moment of the machine falls on all; the median of the rounds counts."""
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


def _edges(folder: Path, stack: ExitStack, only: list[str] | None) -> Iterator[tuple[str, edges.Started]]:
    python_modules(_PROTOS, folder)
    descriptors = descriptor_set(_PROTOS, folder)
    back_end = _free_port()
    command = [sys.executable, "-m", "bench.edge.back_end", str(folder), f"127.0.0.1:{back_end}"]
    stack.enter_context(_ended(subprocess.Popen(command, stdout=subprocess.DEVNULL)))
    _await(back_end)
    starts = {
        "ours": lambda port, log: edges.ours(descriptors, back_end, port, log),
        "envoy": lambda port, log: edges.envoy(descriptors, back_end, port, log),
        "starlette": lambda port, log: edges.starlette(folder, back_end, port, log),
    }
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
        return sock.getsockname()[1]


def _await(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _text(table: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(table.values())))
    lines = ["CPU us a request | " + " | ".join(names), "---|" + "---|" * len(names)]
    for case, row in table.items():
        lines.append(f"{case} | " + " | ".join(f"{row[name]:.0f}" for name in names))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
