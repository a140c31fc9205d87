"""A call to an external API ends as Ok, Refused or Unknown, within its limits of time and size."""

import asyncio
import ssl
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from chassis.external.api import ExternalApi, Ok, Refused, Unknown, field
from chassis.external.breaker import FAILURES, Breaker

DAY = timedelta(days=1)
REFUSAL = b'{"error": {"code": "too_late", "message": "it is closed", "param": "when"}}'


def answer(status, body=b"{}", *headers):
    head = [f"HTTP/1.1 {status} Status", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def partner(raw: bytes | None, *, patience=60.0):
    """A server that sends these bytes to every client, or nothing for None."""
    asked = asyncio.Queue()

    async def serve(reader, writer):
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # who asks may give up at any moment
            try:
                asked.put_nowait(await reader.readuntil(b"\r\n\r\n"))
                if raw is None:
                    await reader.read()
                writer.write(raw or b"")
            finally:
                writer.close()
                await writer.wait_closed()

    async with asyncio.TaskGroup() as calls:
        server = await asyncio.start_server(lambda *ends: calls.create_task(serve(*ends)), "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        async with server:
            client = ExternalApi(url=f"http://{host}:{port}", key="key", timeout=patience, max_response_bytes=1000)
            try:
                yield client, asked
            finally:
                await client.aclose()


@pytest.fixture
def server_tls(tmp_path):
    """TLS with a certificate that nobody has signed but itself."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "partner")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + DAY)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    (tmp_path / "pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "pem")
    return context


def number(body):
    return field(body, "number", int)


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        (answer(200, b'{"number": 7}'), Ok(7)),
        (answer(201, b'{"number": 7, "and": "more"}'), Ok(7)),
        (answer(200, b'{"number": "7"}'), Unknown("malformed_answer")),
        (answer(200, b'{"number": true}'), Unknown("malformed_answer")),
        (answer(200, b'{"number": 7.0}'), Unknown("malformed_answer")),
        (answer(200, b"[7]"), Unknown("malformed_answer")),
        (answer(200, b"null"), Unknown("malformed_answer")),
        (answer(200, b""), Unknown("malformed_answer")),
        (answer(200, b'{"number": 7, "fill": "' + b"x" * 1000 + b'"}'), Unknown("malformed_answer")),
        (answer(409, REFUSAL), Refused("too_late", "it is closed", "when")),
        (answer(422, b'{"error": {"code": "no"}}'), Refused("no")),
        (answer(400, b'{"error": "no"}'), Unknown("malformed_answer")),
        (answer(404, b"<html>not here</html>"), Unknown("malformed_answer")),
        *((answer(status, REFUSAL), Unknown(f"http_{status}")) for status in (401, 403, 408, 425, 429, 500, 503)),
        (answer(308, b"", "location: http://127.0.0.1:1/"), Unknown("http_308")),
        (b"SSH-2.0-OpenSSH\r\n", Unknown("unreachable")),
        (b"", Unknown("unreachable")),
        (answer(200, b'{"number": 7}')[:-5], Unknown("unreachable")),
    ],
)
async def test_a_reply_is_ok_refused_or_unknown(raw, outcome):
    async with partner(raw) as (client, _):
        assert await client.call("GET", "/", read=number) == outcome


async def test_a_timeout_is_unknown():
    async with partner(None, patience=0.2) as (client, _):
        assert await client.call("GET", "/", read=number) == Unknown("timeout")


async def test_a_refused_connection_is_unknown():
    client = ExternalApi(url="http://127.0.0.1:1", key="key", timeout=5)
    assert await client.call("GET", "/", read=number) == Unknown("unreachable")
    await client.aclose()


async def test_the_key_of_the_api_and_of_the_request_are_sent():
    async with partner(answer(200, b'{"number": 7}')) as (client, asked):
        await client.call("POST", "/v1/things", read=number, body={"a": 1}, key="once")
    head = asked.get_nowait()
    assert b"authorization: bearer key\r\n" in head.lower()
    assert b"idempotency-key: once\r\n" in head.lower()
    assert head.startswith(b"POST /v1/things HTTP/1.1\r\n")


async def test_after_failures_in_a_row_no_request_is_sent_until_a_probe_succeeds():
    async with partner(answer(500)) as (client, asked):
        results = [await client.call("POST", "/", read=number) for _ in range(FAILURES + 3)]
        assert results == [Unknown("http_500")] * FAILURES + [Unknown("circuit_open")] * 3
        assert asked.qsize() == FAILURES
        assert not client.breaker.admits


async def test_a_reply_to_a_read_does_not_close_the_circuit_and_a_cancelled_probe_leaves_room_for_the_next():
    now = 0.0
    async with partner(answer(200, b'{"number": 7}')) as (client, asked):
        client.breaker = Breaker("partner", clock=lambda: now)
        for _ in range(FAILURES):
            client.breaker.failed()
        now += 60
        assert await client.call("GET", "/", read=number) == Ok(7)
        assert not client.breaker.is_closed
        probe = asyncio.create_task(client.call("POST", "/", read=number))
        await asyncio.wait_for(asked.get(), 60)
        probe.cancel()
        await asyncio.wait([probe])
        assert await client.call("POST", "/", read=number) == Ok(7)
        assert client.breaker.is_closed


async def test_a_server_whose_certificate_is_not_trusted_is_unreachable_and_gets_no_key(server_tls):
    heard = []

    async def serve(reader, writer):
        heard.append(await reader.read(1))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_tls)
    host, port = server.sockets[0].getsockname()
    async with server:
        client = ExternalApi(url=f"https://{host}:{port}", key="key", timeout=5)
        assert await client.call("GET", "/", read=number) == Unknown("unreachable")
        await client.aclose()
    assert not any(heard)


async def test_a_call_that_is_cancelled_stays_cancelled():
    async with partner(None) as (client, asked):
        call = asyncio.create_task(client.call("GET", "/", read=number))
        await asyncio.wait_for(asked.get(), 60)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
