"""Back ends that violate HTTP/2: every call ends soon, with a status, and affects no other call."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

import hpack
import pytest

from edge_gateway.grpc_client import http2
from edge_gateway.grpc_client.upstreams import Reply, UpstreamError, Upstreams

SETTINGS = http2.settings(())


def headers(fields: list[tuple[str, str]], *, end: bool, stream: int = 1, flags: int = http2.END_HEADERS) -> bytes:
    block = hpack.Encoder().encode(fields)
    return http2.frame(http2.HEADERS, flags | (http2.END_STREAM if end else 0), stream, block)


OK = headers([(":status", "200"), ("content-type", "application/grpc")], end=False)
GOOD_END = headers([("grpc-status", "0")], end=True)
MESSAGE = b"\0" + http2.long(2) + b"hi"
DATA = http2.frame(http2.DATA, 0, 1, MESSAGE)
PADDED = http2.frame(http2.DATA, http2.PADDED, 1, b"\x03" + MESSAGE + b"\0\0\0")
OVERPADDED = http2.frame(http2.HEADERS, http2.END_HEADERS | http2.PADDED, 1, b"\xff")
BYTE_BY_BYTE = b"".join(http2.frame(http2.DATA, 0, 1, bytes([byte])) for byte in MESSAGE)
#: More than a stream's window.
FLOOD = http2.frame(http2.DATA, 0, 1, b"\0" + http2.long(8_000) + b"x" * 8_000) * 40
STRANGE = headers([("grpc-status", "5"), ("grpc-message", "%zz%C3")], end=True)
CONTINUED = http2.frame(http2.CONTINUATION, 0, 1, b"\0" * 16_000)


@contextlib.asynccontextmanager
async def peer(*answers: bytes, close: bool = False) -> AsyncIterator[Upstreams]:
    """Start a server that sends each prepared answer on its own connection, after a call's first bytes."""
    left = list(answers)
    ended: list[asyncio.Task[None]] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = left.pop(0) if len(left) > 1 else left[0]
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            writer.write(answer[: len(SETTINGS)])
            await reader.readuntil(b"application/grpc")
            writer.write(answer[len(SETTINGS) :])
            await writer.drain()
            while not close and await reader.read(65536):
                pass
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.ensure_future(converse(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    upstreams = Upstreams({"*": f"127.0.0.1:{server.sockets[0].getsockname()[1]}"}, max_message=10_000)
    try:
        yield upstreams
    finally:
        await upstreams.close()
        await asyncio.gather(*ended)
        server.close()
        await server.wait_closed()


async def outcome(upstreams: Upstreams, deadline: float = 30) -> int | bytes:
    """Return the code of a call, or its reply, soon after its deadline at the latest."""
    try:
        async with asyncio.timeout(60):
            reply: Reply = await upstreams.unary("/t.S/M", b"x", (), deadline)
    except UpstreamError as error:
        return error.code
    return reply.message


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(OK + DATA + GOOD_END, b"hi", id="a-good-reply"),
        pytest.param(OK + PADDED + GOOD_END, b"hi", id="padding"),
        pytest.param(OK + BYTE_BY_BYTE + GOOD_END, b"hi", id="byte-by-byte"),
        pytest.param(http2.frame(http2.PING, 0, 0, b"12345678") + OK + DATA + GOOD_END, b"hi", id="a-ping-first"),
        pytest.param(OK + http2.frame(77, 9, 1, b"unknown") + DATA + GOOD_END, b"hi", id="an-unknown-frame"),
        pytest.param(OK + http2.frame(http2.DATA, 0, 99, b"x") + DATA + GOOD_END, b"hi", id="data-of-no-stream"),
        pytest.param(OK + GOOD_END, 13, id="no-message"),
        pytest.param(OK + DATA + DATA + GOOD_END, 13, id="two-messages"),
        pytest.param(OK + http2.frame(http2.DATA, 0, 1, MESSAGE[:4]) + GOOD_END, 13, id="half-a-message"),
        pytest.param(OK + DATA, 4, id="no-end"),
        pytest.param(b"", 4, id="nothing"),
        pytest.param(OK + DATA + headers([], end=True), 2, id="no-status"),
        pytest.param(OK + DATA + headers([("grpc-status", "x")], end=True), 2, id="a-strange-status"),
        pytest.param(OK + DATA + headers([("grpc-status", "99")], end=True), 2, id="an-unknown-status"),
        pytest.param(OK + DATA + STRANGE, 5, id="a-strange-message"),
        pytest.param(OK + http2.frame(http2.DATA, http2.END_STREAM, 1, MESSAGE), 2, id="data-ends-it"),
        pytest.param(OK + http2.frame(http2.DATA, 0, 1, b"\1" + MESSAGE[1:]) + GOOD_END, 13, id="compressed"),
        pytest.param(OK + http2.frame(http2.DATA, 0, 1, b"\0\xff\xff\xff\xff"), 8, id="a-huge-length"),
        pytest.param(headers([(":status", "503")], end=False), 14, id="http-503"),
        pytest.param(headers([(":status", "404")], end=True), 12, id="http-404-at-once"),
        pytest.param(headers([(":status", "200"), ("grpc-status", "7")], end=True), 7, id="trailers-only"),
        pytest.param(http2.frame(http2.RST_STREAM, 0, 1, http2.long(11)), 8, id="reset-calm-down"),
        pytest.param(http2.frame(http2.RST_STREAM, 0, 1, http2.long(2)), 13, id="reset-internal"),
        pytest.param(http2.frame(http2.RST_STREAM, 0, 1, b"xx"), 13, id="a-short-reset"),
        pytest.param(http2.frame(http2.SETTINGS, 0, 0, b"12345"), 13, id="strange-settings"),
        pytest.param(http2.settings([(http2.SETTING_MAX_FRAME, 0)]), 13, id="frames-without-room"),
        pytest.param(http2.settings([(http2.SETTING_WINDOW, 2**31)]), 13, id="an-endless-window"),
        pytest.param(http2.frame(http2.HEADERS, http2.END_HEADERS, 1, b"\xff\xff\xff"), 13, id="a-strange-block"),
        pytest.param(http2.frame(http2.HEADERS, http2.END_HEADERS, 1, b"\xbe"), 13, id="an-index-beyond-the-table"),
        pytest.param(OVERPADDED, 13, id="padding-beyond-the-frame"),
        pytest.param(http2.frame(http2.CONTINUATION, http2.END_HEADERS, 1, b""), 13, id="a-continuation-of-nothing"),
        pytest.param(headers([(":status", "200")], end=False, flags=0) + DATA, 13, id="an-interrupted-block"),
        pytest.param(headers([], end=False, flags=0) + CONTINUED * 10, 13, id="a-flood-of-continuations"),
        pytest.param(b"\x7f\xff\xff" + DATA[3:], 13, id="a-frame-beyond-the-limit"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", 13, id="http-1"),
    ],
)  # fmt: skip
async def test_a_call_ends_with_the_expected_status_whatever_the_peer_sends(sent: bytes, expected: int | bytes) -> None:
    async with peer(SETTINGS + sent) as upstreams:
        assert await outcome(upstreams, 1 if expected == 4 else 30) == expected


@pytest.mark.parametrize("sent", [b"", OK, OK + DATA, OK + DATA[:11]])
async def test_a_closed_connection_is_unavailable(sent: bytes) -> None:
    async with peer(SETTINGS + sent, close=True) as upstreams:
        assert await outcome(upstreams) == 14


async def test_a_call_that_the_peer_did_not_process_is_retried() -> None:
    away = http2.frame(http2.GOAWAY, 0, 0, http2.long(0) + http2.long(0))
    async with peer(SETTINGS + away, SETTINGS + OK + DATA + GOOD_END) as upstreams:
        assert await outcome(upstreams) == b"hi"


async def test_a_call_without_the_peers_settings_ends_at_its_deadline() -> None:
    async with peer(b"") as upstreams:
        assert await outcome(upstreams, 1) == 4


async def test_a_peer_that_ignores_flow_control_fails_the_call() -> None:
    async with peer(SETTINGS + OK + FLOOD) as upstreams, asyncio.timeout(60):
        call = await upstreams.stream("/t.S/M", (), None)
        while not call._stream.ended:
            await asyncio.sleep(0.01)
        while call._stream.messages:
            await call.read()
        with pytest.raises(UpstreamError) as caught:
            await call.read()
        assert caught.value.code == 13


def noise(seed: int) -> bytes:
    """Return random frames, most of them valid."""
    chance = random.Random(seed)

    def some() -> bytes:
        return chance.randbytes(chance.randrange(40))

    sizes = [0, 1, 16_384, 2**31 - 1, 2**32 - 1]
    pieces: list[Callable[[], bytes]] = [
        lambda: OK,
        lambda: DATA,
        lambda: GOOD_END,
        lambda: http2.frame(chance.randrange(12), chance.randrange(256), chance.choice([0, 1, 3]), some()),
        some,
        lambda: http2.settings([(chance.randrange(8), chance.choice(sizes))]),
        lambda: http2.frame(http2.WINDOW_UPDATE, 0, chance.choice([0, 1]), http2.long(chance.choice(sizes))),
    ]

    return b"".join(chance.choice(pieces)() for _ in range(chance.randrange(1, 8)))


@pytest.mark.parametrize("seed", range(60))
async def test_random_frames_end_in_a_status_or_a_reply(seed: int) -> None:
    async with peer(SETTINGS + noise(seed), close=seed % 2 == 0) as upstreams:
        found = await outcome(upstreams, 1)
    assert found == b"hi" or isinstance(found, int)
