"""Calls by the edge's own HTTP/2 client to real gRPC servers."""

import asyncio
import contextlib
import datetime as dt
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_gateway.grpc_client.connection_pool import client_tls
from edge_gateway.grpc_client.upstreams import GrpcCall, UnknownServiceError, UpstreamError, Upstreams, parse_upstreams

Handler = Callable[..., Any]
MAX = 32 * 1024 * 1024


@contextlib.asynccontextmanager
async def serving(
    listen: str = "127.0.0.1:0", *options: tuple[str, Any], credentials: Any = None, **handlers: Any
) -> AsyncIterator[int]:
    """Start a server of `/t.S/<name>`: unary, or bidirectional if the handler is an async generator."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX), *options])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.S", handlers),))
    port = server.add_secure_port(listen, credentials) if credentials else server.add_insecure_port(listen)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def calling(target: str, **options: Any) -> AsyncIterator[Upstreams]:
    upstreams = Upstreams({"*": target}, max_message=MAX, **options)
    try:
        yield upstreams
    finally:
        await upstreams.close()


async def echo(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    return request


async def hang(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    await asyncio.Event().wait()
    return b""


unary = grpc.unary_unary_rpc_method_handler
streams = grpc.stream_stream_rpc_method_handler


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_384, 65_535, 65_536, 300_000, 5_000_000, 20_000_000])
async def test_messages_of_any_size_are_sent_and_received(size: int) -> None:
    message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with serving(Echo=unary(echo)) as port, calling(f"127.0.0.1:{port}") as upstreams:
        assert (await upstreams.unary("/t.S/Echo", message, (), 60)).message == message


async def test_many_calls_share_a_connection() -> None:
    async with serving(Echo=unary(echo)) as port, calling(f"127.0.0.1:{port}") as upstreams:
        messages = [str(number).encode() * 5_000 for number in range(200)]
        replies = await asyncio.gather(*(upstreams.unary("/t.S/Echo", message, (), 30) for message in messages))
        assert [reply.message for reply in replies] == messages


async def test_the_servers_limit_of_concurrent_streams_is_kept() -> None:
    running, two = 0, asyncio.Event()

    async def counted(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        nonlocal running
        running += 1
        if running == 2:
            two.set()
        await two.wait()
        running -= 1
        return request

    limit = ("grpc.max_concurrent_streams", 2)
    async with serving("127.0.0.1:0", limit, Echo=unary(counted)) as port, calling(f"127.0.0.1:{port}") as upstreams:
        replies = await asyncio.gather(*(upstreams.unary("/t.S/Echo", b"%d" % n, (), 30) for n in range(200)))
    assert [reply.message for reply in replies] == [b"%d" % n for n in range(200)]


async def test_a_call_that_waits_uses_the_first_free_stream() -> None:
    begun = 0

    async def hold(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        nonlocal begun
        begun += 1
        return await hang(request, context)

    limit, handlers = ("grpc.max_concurrent_streams", 1), {"Hold": unary(hold), "Echo": unary(echo)}
    async with serving("127.0.0.1:0", limit, **handlers) as port, calling(f"127.0.0.1:{port}") as upstreams:
        held = [asyncio.ensure_future(upstreams.unary("/t.S/Hold", b"", (), None)) for _ in range(32)]
        async with asyncio.timeout(60):
            while begun < 32:
                await asyncio.sleep(0.01)
            late = asyncio.ensure_future(upstreams.unary("/t.S/Echo", b"late", (), None))
            while not next(iter(upstreams._pools.values()))._waiting:
                await asyncio.sleep(0.01)
            held[20].cancel()
            assert (await late).message == b"late"
        for call in held:
            call.cancel()
        await asyncio.gather(*held, return_exceptions=True)


async def test_connections_closed_by_age_lose_no_call() -> None:
    aging = (("grpc.max_connection_age_ms", 150), ("grpc.max_connection_age_grace_ms", 5_000))
    async with serving("127.0.0.1:0", *aging, Echo=unary(echo)) as port, calling(f"127.0.0.1:{port}") as upstreams:
        end = asyncio.get_running_loop().time() + 2
        count = 0
        while count < 50 or asyncio.get_running_loop().time() < end:
            await asyncio.gather(*(upstreams.unary("/t.S/Echo", b"x" * 1000, (), 30) for _ in range(5)))
            count += 5


async def test_metadata_is_sent_and_received() -> None:
    async def echo_metadata(request: bytes, context: Any) -> bytes:
        seen = dict(context.invocation_metadata())
        await context.send_initial_metadata((("first", seen["given"]), ("raw-bin", seen["given-bin"])))
        context.set_trailing_metadata((("last", "x" * 300), ("last-bin", b"\x00\xff")))
        return str(context.time_remaining()).encode()

    async with serving(Echo=unary(echo_metadata)) as port, calling(f"127.0.0.1:{port}") as upstreams:
        for _ in range(2):
            reply = await upstreams.unary("/t.S/Echo", b"", (("given", "a b,c"), ("given-bin", b"\x01\x02\x03")), 30)
            assert reply.initial == (("first", "a b,c"), ("raw-bin", b"\x01\x02\x03"))
            assert reply.trailing == (("last", "x" * 300), ("last-bin", b"\x00\xff"))
            assert 15 < float(reply.message) <= 30.1


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_a_status_has_its_message_and_trailers(code: grpc.StatusCode) -> None:
    async def fail(request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("why-bin", b"\x00\x01"),))
        await context.abort(code, "théme 100%\n")

    async with serving(Fail=unary(fail)) as port, calling(f"127.0.0.1:{port}") as upstreams:
        with pytest.raises(UpstreamError) as caught:
            await upstreams.unary("/t.S/Fail", b"", (), 30)
    assert (caught.value.code, caught.value.message) == (code.value[0], "théme 100%\n")
    assert ("why-bin", b"\x00\x01") in caught.value.trailing


async def test_an_unknown_method_is_unimplemented() -> None:
    async with serving() as port, calling(f"127.0.0.1:{port}") as upstreams:
        with pytest.raises(UpstreamError) as caught:
            await upstreams.unary("/t.S/Nope", b"", (), 30)
    assert caught.value.code == 12


async def test_a_deadline_ends_the_call_on_both_sides() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return b""

    async with serving(Wait=unary(wait)) as port, calling(f"127.0.0.1:{port}") as upstreams:
        while not begun.is_set():  # a server that is slow to look never hears of a call that is over
            with pytest.raises(UpstreamError) as caught:
                await upstreams.unary("/t.S/Wait", b"", (), 0.1)
            assert caught.value.code == 4
        await asyncio.wait_for(ended.wait(), 30)


async def test_a_cancelled_call_is_cancelled_on_the_server() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return b""

    async with serving(Wait=unary(wait)) as port, calling(f"127.0.0.1:{port}") as upstreams:
        call = asyncio.ensure_future(upstreams.unary("/t.S/Wait", b"", (), None))
        await asyncio.wait_for(begun.wait(), 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(ended.wait(), 30)


async def test_a_server_that_dies_fails_its_calls_and_is_reconnected(free_port: Callable[[], int]) -> None:
    listen, begun = f"127.0.0.1:{free_port()}", asyncio.Event()

    async def begin(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        begun.set()
        return await hang(request, context)

    async with calling(listen) as upstreams:
        async with serving(listen, Hang=unary(begin), Echo=unary(echo)):
            await upstreams.unary("/t.S/Echo", b"", (), 30)
            call = asyncio.ensure_future(upstreams.unary("/t.S/Hang", b"", (), 30))
            await asyncio.wait_for(begun.wait(), 30)
        with pytest.raises(UpstreamError) as caught:
            await asyncio.wait_for(call, 30)
        assert caught.value.code in (1, 14)
        with pytest.raises(UpstreamError) as caught:
            await upstreams.unary("/t.S/Echo", b"", (), 30)
        assert caught.value.code == 14
        async with serving(listen, Echo=unary(echo)):
            reply = await until(lambda: upstreams.unary("/t.S/Echo", b"again", (), 30))
            assert reply.message == b"again"


async def until(call: Callable[[], Awaitable[Any]]) -> Any:
    deadline = asyncio.get_running_loop().time() + 60
    while True:
        try:
            return await call()
        except UpstreamError:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)


async def test_a_bidirectional_stream_alternates_messages() -> None:
    async def double(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request * 2

    async with serving(Double=streams(double)) as port, calling(f"127.0.0.1:{port}") as upstreams:
        call = await upstreams.stream("/t.S/Double", (), 30)
        for size in (0, 1, 10_000, 400_000, 3):
            assert await call.write(b"x" * size)
            assert await call.read() == b"x" * size * 2
        await call.done_writing()
        assert await call.read() is None


async def test_a_long_stream_arrives_whole_and_in_order() -> None:
    async def count(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            for number in range(int(request)):
                yield b"%d" % number

    async with serving(Count=streams(count)) as port, calling(f"127.0.0.1:{port}") as upstreams:
        call = await upstreams.stream("/t.S/Count", (), 60)
        await call.write(b"5000")
        await call.done_writing()
        for number in range(5000):
            assert await call.read() == b"%d" % number
        assert await call.read() is None


async def test_a_slow_reader_blocks_the_server() -> None:
    sent = 0

    async def flood(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(2_000):
            yield b"x" * 10_000
            sent += 1

    async with serving(Flood=streams(flood)) as port, calling(f"127.0.0.1:{port}") as upstreams:
        slow = await upstreams.stream("/t.S/Flood", (), 60)
        await slow.done_writing()
        await slow.read()
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 500, "twenty megabytes were to come, and most of them must still wait"
        quick = await upstreams.stream("/t.S/Flood", (), 60)
        await quick.done_writing()
        count = 0
        while await quick.read() is not None:
            count += 1
        assert count == 2_000, "another stream on the same connection is not held up"
        slow.cancel()


async def test_a_server_that_does_not_read_blocks_the_writer() -> None:
    async def deaf(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with serving(Deaf=streams(deaf)) as port, calling(f"127.0.0.1:{port}") as upstreams:
        call = await upstreams.stream("/t.S/Deaf", (), 60)
        writing = asyncio.ensure_future(write_on(call))
        _, waiting = await asyncio.wait({writing}, timeout=1)
        assert waiting, "the server reads nothing, so its window is full"
        call.cancel()
        assert not await asyncio.wait_for(writing, 30)


async def write_on(call: GrpcCall) -> bool:
    while await call.write(b"x" * 100_000):
        pass
    return False


async def test_a_server_that_ends_early_ends_the_writer() -> None:
    async def brief(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        yield b"enough"

    async with serving(Brief=streams(brief)) as port, calling(f"127.0.0.1:{port}") as upstreams:
        call = await upstreams.stream("/t.S/Brief", (), 60)
        assert await call.read() == b"enough"
        assert await call.read() is None
        assert not await call.write(b"more")


async def test_a_reply_that_is_too_large_is_rejected() -> None:
    async with serving(Echo=unary(echo)) as port:
        upstreams = Upstreams({"*": f"127.0.0.1:{port}"}, max_message=1000)
        with pytest.raises(UpstreamError, match="larger than max") as caught:
            await upstreams.unary("/t.S/Echo", b"x" * 2000, (), 30)
        assert caught.value.code == 8
        assert (await upstreams.unary("/t.S/Echo", b"x" * 900, (), 30)).message == b"x" * 900
        await upstreams.close()


async def test_a_unix_socket_is_a_target(tmp_path: Path) -> None:
    target = f"unix:{tmp_path}/s"
    async with serving(target, Echo=unary(echo)), calling(target) as upstreams:
        assert (await upstreams.unary("/t.S/Echo", b"x", (), 30)).message == b"x"


def certificate() -> tuple[bytes, bytes]:
    """Create a key and a self-signed certificate for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, made.public_bytes(serialization.Encoding.PEM)


def written(folder: Path, **texts: bytes) -> list[str]:
    for name, text in texts.items():
        (folder / name).write_bytes(text)
    return [str(folder / name) for name in texts]


async def test_tls_is_used_and_the_certificate_is_checked(tmp_path: Path) -> None:
    key, chain = certificate()
    (authorities,) = written(tmp_path, chain=chain)
    credentials = grpc.ssl_server_credentials([(key, chain)])
    async with serving("localhost:0", credentials=credentials, Echo=unary(echo)) as port:
        target = f"grpcs://localhost:{port}"
        async with calling(target, tls=client_tls(authorities)) as upstreams:
            assert (await upstreams.unary("/t.S/Echo", b"x" * 100_000, (), 30)).message == b"x" * 100_000
        async with calling(target) as upstreams:
            with pytest.raises(UpstreamError) as caught:
                await upstreams.unary("/t.S/Echo", b"", (), 30)
            assert caught.value.code == 14


async def test_mutual_tls_presents_the_edges_certificate(tmp_path: Path) -> None:
    (server_key, server_chain), (our_key, our_chain) = certificate(), certificate()
    authorities, ours, key = written(tmp_path, server=server_chain, ours=our_chain, key=our_key)
    credentials = grpc.ssl_server_credentials([(server_key, server_chain)], our_chain, require_client_auth=True)
    async with serving("localhost:0", credentials=credentials, Echo=unary(echo)) as port:
        target = f"grpcs://localhost:{port}"
        async with calling(target, tls=client_tls(authorities, ours, key)) as upstreams:
            assert (await upstreams.unary("/t.S/Echo", b"x", (), 30)).message == b"x"
        async with calling(target, tls=client_tls(authorities)) as upstreams:
            with pytest.raises(UpstreamError) as caught:
                await upstreams.unary("/t.S/Echo", b"", (), 30)
            assert caught.value.code == 14


async def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving("127.0.0.1:0", Echo=unary(echo)) as port:
        # 127.0.0.2 is this machine, too, but no process listens there.
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        async with calling(f"both.example:{port}") as upstreams:
            assert (await upstreams.unary("/t.S/Echo", b"x", (), 30)).message == b"x"


def test_a_service_is_called_at_the_most_specific_target() -> None:
    targets = parse_upstreams(["a.v1.S=h:1,a.v1.*=h:2", "a.*=h:3", "*=h:4"])
    upstreams = Upstreams(targets, max_message=1)
    assert [upstreams.target(name) for name in ("a.v1.S", "a.v1.T", "a.v2.S", "b.S")] == ["h:1", "h:2", "h:3", "h:4"]
    with pytest.raises(UnknownServiceError):
        Upstreams({"a.*": "h:1"}, max_message=1).target("b.S")


@pytest.mark.parametrize("text", ["x", "=h:1", "a=", "a=h:1,a=h:2"])
def test_a_malformed_upstream_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="upstream"):
        parse_upstreams([text])
