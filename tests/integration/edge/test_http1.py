"""HTTP/1.1: malformed, endless and slow requests, and the headers of browsers and proxies."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import brotli
import pytest
import uvicorn
import zstandard

from edge_gateway.http import http1
from tests.edge import processes
from tests.edge.client import fetch
from tests.edge.live import Live, eventually_sync

BROWSER = "https://shop.example"


@pytest.fixture(scope="session")
def guarded_port(edge_folder: Path, descriptors: str, back_end: int) -> Iterator[int]:
    """Start an edge with allowed origins and a short body timeout."""
    options = (
        "--cors-origin",
        BROWSER,
        "--cors-origin",
        "https://*.shop.example",
        "--cors-origin",
        "http://localhost:*",
        "--body-timeout",
        "0.3",
    )
    with processes.edge(
        edge_folder / "guarded.log", "--descriptor-set", descriptors, "--upstream", f"*=127.0.0.1:{back_end}", *options
    ) as (_, port):
        yield port


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET /v1/shelves/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"SHIP / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"POST /v1/shelves HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/shelves HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/shelves HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/shelves HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=range(9),
)
def test_s21_a_malformed_request_is_rejected_as_json(raw: bytes, edge_port: int) -> None:
    with Live.raw(edge_port, raw) as live:
        head, _, body = live.rest().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["code"] == 3


def test_s21_a_line_cannot_be_smuggled_into_a_response(edge_port: int) -> None:
    answer = fetch(edge_port, "GET", "/v1/echo?name=%0D%0Ax-evil:%201", headers=[("x-request-id", "a")])
    assert answer.json["name"] == "\r\nx-evil: 1"
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize("piece", [b"a" * 65_536, b"X-A: b\r\n" * 8_192], ids=["one-header", "many-headers"])
def test_s10_endless_headers_are_rejected(piece: bytes, edge_port: int) -> None:
    with Live.raw(edge_port, b"GET / HTTP/1.1\r\nHost: x\r\nX-B: ") as live:
        live.flood(piece, 20)
        assert b" 431 " in live.rest()


def test_s10_a_stalled_body_times_out(guarded_port: int) -> None:
    with Live(
        guarded_port, "/v1/shelves", "Content-Length: 10", "Content-Type: application/json", method="POST"
    ) as live:
        live.send(b'{"s"')
        seen = live.until(b"}")
    assert b" 408 " in seen


def test_s21_trailers_are_not_headers(edge_port: int) -> None:
    trailers = "0\r\nAuthorization: Bearer late\r\nGrpc-Metadata-Late: late\r\n\r\n"
    with Live(edge_port, "/v1/inspect", "Transfer-Encoding: chunked", "", trailers, method="POST") as live:
        seen = live.until(b"timeRemaining")
    assert b" 200 " in seen
    assert b"late" not in seen


async def test_s10_blank_lines_do_not_keep_a_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(http1.EdgeProtocol) as port, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"hello")
        monkeypatch.setattr(http1, "HEAD_TIMEOUT", 0.3)
        writer.write(b"\r\n")
        assert b" 408 " in await reader.read()
        writer.close()


@contextlib.asynccontextmanager
async def serving(protocol: type[asyncio.Protocol]) -> AsyncIterator[int]:
    """Start an application that responds with hello, in this process."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})

    server = uvicorn.Server(uvicorn.Config(app, http=protocol, port=0, lifespan="off", log_config=None))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]  # signals are pytest's
    running = asyncio.ensure_future(server.serve())
    async with asyncio.timeout(60):
        while not server.started:
            await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running


def test_s10_a_client_that_reads_nothing_is_disconnected(guarded_port: int) -> None:
    with Live(guarded_port, "/v1/shelves?name=30000", receive_buffer=4096) as live:
        live.until(b" 200 ")
        eventually_sync(lambda: established(guarded_port), lambda peers: live.port not in peers)


def established(port: int) -> set[int]:
    """Return the peers of a server's connections."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2][-4:], 16) for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "01"}


def test_c49_a_body_without_a_length_is_limited_too(edge_port: int) -> None:
    chunked = ("Transfer-Encoding: chunked", "Content-Type: application/json")
    with Live(edge_port, "/v1/shelves", *chunked, method="POST") as live:
        live.flood(b"10000\r\n" + b"x" * 65_536 + b"\r\n", 40)
        assert b" 413 " in live.until(b"}")


def test_pipelined_requests_are_answered_in_order(edge_port: int) -> None:
    one = b"GET /v1/single/%d HTTP/1.1\r\nHost: x\r\n\r\n"
    with Live.raw(edge_port, b"".join(one % number for number in range(20))) as live:
        seen = live.until(b'"name":"19"')
    assert [seen.index(b'"name":"%d"' % number) for number in range(20)] == sorted(
        seen.index(b'"name":"%d"' % number) for number in range(20)
    )


@pytest.mark.parametrize(
    "origin", [BROWSER, "https://a.shop.example", "https://a.b.shop.example", "http://localhost:5173"]
)
def test_an_allowed_origin_may_read_replies_and_errors(origin: str, guarded_port: int) -> None:
    for path in ("/v1/shelves/1", "/nothing", "/v1/watch/x?count=1"):
        answer = fetch(guarded_port, "GET", path, headers=[("Origin", origin)])
        assert answer.headers["access-control-allow-origin"] == origin
        assert "etag" in answer.headers["access-control-expose-headers"]
        assert "origin" in answer.headers.get("vary", "origin")
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://shop.example",
        "https://shop.example.evil",
        "null",
        "https://.shop.example",
        "http://localhost:1.evil",
    ],
)
def test_another_origin_gets_no_cors_headers(origin: str, guarded_port: int) -> None:
    answer = fetch(guarded_port, "GET", "/v1/shelves/1", headers=[("Origin", origin)])
    assert (answer.status, "access-control-allow-origin" in answer.headers) == (200, False)
    preflight = fetch(
        guarded_port, "OPTIONS", "/v1/shelves", headers=[("Origin", origin), ("Access-Control-Request-Method", "POST")]
    )
    assert "access-control-allow-origin" not in preflight.headers


def test_a_preflight_lists_methods_and_headers(guarded_port: int) -> None:
    headers = [
        ("Origin", BROWSER),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "Content-Type, Idempotency-Key, X-Evil, Grpc-Metadata-Foo"),
    ]
    answer = fetch(guarded_port, "OPTIONS", "/v1/shelves", headers=headers)
    assert answer.status == 204
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS, POST"
    assert answer.headers["access-control-allow-headers"] == "content-type, idempotency-key, grpc-metadata-foo"
    assert answer.headers["access-control-max-age"] == "7200"
    assert fetch(guarded_port, "OPTIONS", "/nothing", headers=headers).status == 404


@pytest.mark.parametrize(
    ("accept", "coding"), [("gzip", "gzip"), ("br, gzip", "br"), ("zstd;q=1, gzip;q=0.5", "zstd"), ("identity", None)]
)
def test_a_long_reply_is_compressed_as_the_client_accepts(accept: str, coding: str | None, edge_port: int) -> None:
    answer = fetch(edge_port, "GET", "/v1/shelves?name=50", headers=[("Accept-Encoding", accept)])
    assert answer.headers.get("content-encoding") == coding
    assert int(answer.headers["content-length"]) == len(answer.body)
    inflate = {
        "gzip": gzip.decompress,
        "br": brotli.decompress,
        "zstd": zstandard.ZstdDecompressor().decompressobj().decompress,
    }
    body = inflate[coding](answer.body) if coding else answer.body
    assert len(json.loads(body)["shelves"]) == 50


@pytest.mark.parametrize("path", ["/v1/shelves/1", "/v1/files/" + "x" * 3000, "/v1/watch/x?count=99"])
def test_short_binary_and_streamed_replies_are_not_compressed(path: str, edge_port: int) -> None:
    assert "content-encoding" not in fetch(edge_port, "GET", path, headers=[("Accept-Encoding", "gzip")]).headers
