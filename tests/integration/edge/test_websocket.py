"""Streams over WebSocket."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from chassis.testing import eventually
from edge_gateway.gateway import Gateway
from edge_gateway.grpc_client.upstreams import Upstreams
from edge_gateway.routing.descriptors import load_registry
from edge_gateway.routing.rules import compile_routes
from edge_gateway.settings import Settings
from tests.edge import processes
from tests.edge.library import Library, start
from tests.edge.live import SOON, Live, begun, cancelled, eventually_sync


def opened(port: int, path: str, **options: Any) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{port}{path}", open_timeout=60, close_timeout=2, **options)


def received(socket: ClientConnection) -> Any:
    return json.loads(socket.recv(timeout=60))


def closed(socket: ClientConnection) -> int:
    """Return the close code of the connection."""
    with pytest.raises(ConnectionClosed) as caught:
        socket.recv(timeout=60)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


KEY = "Sec-WebSocket-Key: " + "A" * 22 + "=="
HANDSHAKE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("POST", ("Content-Length: 0",)),
        ("GET", ("X: " + "y" * 9_000,)),
        ("GET", tuple(f"X-{number}: y" for number in range(150))),
        ("GET", tuple(f"X-{number}: y" for number in range(105))),
    ],
    ids=["post", "long-header", "many-headers", "too-many-headers"],
)
def test_an_invalid_handshake_is_rejected_at_once(method: str, more: tuple[str, ...], edge_port: int) -> None:
    with Live(edge_port, "/v1/watch/w", *HANDSHAKE, *more, method=method) as live:
        assert live.rest().startswith(b"HTTP/1.1 4")


@contextlib.asynccontextmanager
async def serving(descriptors: str) -> AsyncIterator[tuple[Gateway, Library]]:
    """Start the edge and its back end in this process."""
    library = Library()
    server, port, _ = await start("127.0.0.1:0", library)
    registry = load_registry(Path(descriptors).read_bytes())
    upstreams = Upstreams({"*": f"127.0.0.1:{port}"}, max_message=1_000)
    try:
        yield Gateway(registry, compile_routes(registry), upstreams, Settings()), library
    finally:
        await upstreams.close()
        await server.stop(None)


def scope(path: bytes, query: bytes = b"") -> dict[str, Any]:
    return {"type": "websocket", "raw_path": path, "query_string": query, "headers": []}


async def test_a_client_that_disconnects_during_the_handshake_cancels_the_call(descriptors: str) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        raise ConnectionResetError

    async with serving(descriptors) as (gateway, library):
        with pytest.raises(ConnectionResetError):
            await gateway(scope(b"/v1/chat"), receive, send)
        await eventually(lambda: library.cancelled == ["chat"])


async def test_end_streams_returns_after_clients_received_the_close_frame(descriptors: str) -> None:
    received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    received.put_nowait({"type": "websocket.connect"})
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async with serving(descriptors) as (gateway, library):
        running = asyncio.ensure_future(gateway(scope(b"/v1/watch/ended", b"hold=true"), received.get, send))
        await eventually(lambda: library.begun == ["ended"])
        await gateway.end_streams()
        assert (sent[-1]["type"], sent[-1]["code"]) == ("websocket.close", 4014)
        await running


def test_both_sides_send_in_turns(edge_port: int) -> None:
    with opened(edge_port, "/v1/chat") as socket:
        for number in range(3):
            socket.send(json.dumps({"text": "hi", "n": number}))
            assert received(socket) == {"result": {"text": "re: hi", "n": number + 1}}
        socket.send("")
        assert closed(socket) == 1000


def test_an_empty_frame_half_closes_the_stream(edge_port: int) -> None:
    with opened(edge_port, "/v1/collect") as socket:
        socket.send('{"text":"a","n":1}')
        socket.send('{"text":"b","n":2}')
        socket.send("")
        assert received(socket) == {"result": {"text": "a,b", "n": 3}}
        assert closed(socket) == 1000


def test_a_request_in_the_path_needs_no_frame(edge_port: int) -> None:
    with opened(edge_port, "/v1/watch/w?count=2&fields=n") as socket:
        assert [received(socket), received(socket)] == [{"result": {"n": 1}}, {"result": {"n": 2}}]
        assert closed(socket) == 1000


def test_a_request_in_a_body_is_the_first_frame(edge_port: int) -> None:
    with opened(edge_port, "/v1/watch") as socket:
        socket.send('{"name":"x","count":1}')
        assert received(socket)["result"]["name"] == "x"
        assert closed(socket) == 1000


def test_an_error_is_the_last_frame_and_part_of_the_close_code(edge_port: int) -> None:
    with opened(edge_port, "/v1/chat") as socket:
        socket.send('{"text":"fail"}')
        error = received(socket)["error"]
        assert (error["code"], error["message"], error["details"][0]["reason"]) == (9, "no more", "CHAT_OVER")
        assert closed(socket) == 4009


@pytest.mark.parametrize("frame", ['{"n":"x"}', "not json", '{"bogus":1}', "[]", b"\x00"])
def test_an_invalid_frame_ends_the_stream_with_an_error(frame: str | bytes, edge_port: int) -> None:
    with opened(edge_port, "/v1/chat") as socket:
        socket.send(frame)
        assert received(socket)["error"]["code"] == 3
        assert closed(socket) == 4003


def test_a_frame_that_is_too_large_closes_the_connection(edge_port: int) -> None:
    with Live(edge_port, "/v1/chat", *HANDSHAKE) as live:
        live.until(b"\r\n\r\n")
        live.send(b"\x81\xff" + (1_100_000).to_bytes(8) + b"mask")  # the rest may come too late
        frame = live.rest().partition(b"\r\n\r\n")[2]
    assert (frame[0], frame[2:4]) == (0x88, (1009).to_bytes(2))


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/nothing", {}, 404),
        ("/v1/shelves/1", {}, 404),
        ("/v1/watch/x?count=y", {}, 400),
        ("/v1/watch/x?bogus=1", {}, 400),
        ("/v1/watch/x", {"Grpc-Timeout": "x"}, 400),
        ("/v1/watch/x", {"Origin": "https://evil.example"}, 403),
    ],
)
def test_a_handshake_that_cannot_be_served_is_rejected_as_http(
    path: str, headers: dict[str, str], status: int, edge_port: int
) -> None:
    with pytest.raises(InvalidStatus) as caught:
        opened(edge_port, path, additional_headers=headers)
    assert caught.value.response.status_code == status
    assert json.loads(caught.value.response.body)["message"]


def test_the_edges_own_origin_is_allowed(edge_port: int) -> None:
    with opened(edge_port, "/v1/watch/w", origin=f"http://127.0.0.1:{edge_port}") as socket:
        assert closed(socket) == 1000


def test_a_browser_sends_its_token_as_a_subprotocol(edge_port: int) -> None:
    with opened(edge_port, "/v1/whoami", subprotocols=["edge.v1", "bearer.abc.def"]) as socket:
        assert socket.subprotocol == "edge.v1"
        assert received(socket)["result"]["metadata"]["authorization"] == "Bearer abc.def"


@pytest.mark.parametrize("path", ["/v1/watch/{}?hold=true", "/v1/watch/{}?count=1&hold=true"])
def test_c58_a_client_that_disconnects_cancels_its_call(path: str, edge_port: int) -> None:
    name = uuid.uuid4().hex
    with opened(edge_port, path.format(name)):
        eventually_sync(lambda: begun(edge_port), lambda names: name in names)
    eventually_sync(lambda: cancelled(edge_port), lambda names: name in names, within=SOON)


def test_a_drain_closes_the_sockets_of_clients_with_an_error(
    edge_folder: Path, descriptors: str, back_end: int
) -> None:
    options = ("--descriptor-set", descriptors, "--upstream", f"*=127.0.0.1:{back_end}")
    with processes.edge(edge_folder / "draining-sockets.log", *options) as (running, port):
        with opened(port, "/v1/watch/w?count=1&hold=true") as socket:
            received(socket)
            running.terminate()
            assert received(socket)["error"]["code"] == 14
            assert closed(socket) == 4014
        assert running.wait(60) == 0
