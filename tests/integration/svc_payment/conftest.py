"""svc_payment with a simulated provider in a process of its own, and an endpoint for its webhooks."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus

import asyncpg
import grpc
import httpx
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from chassis.testing import as_user, client_for, serving
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from svc_payment.__main__ import compose
from svc_payment.settings import Settings
from tests.integration.svc_payment.requests import Books

SERVICE = "shop.payment.v1.PaymentService"
SECRET = "whsec_" + "c2ltdWxhdG9ycy1hbmQtdGhlLXNob3Atc2hhcmUtdGhpcw=="
KEY = "key-of-the-tests"


@dataclass(frozen=True)
class Delivery:
    headers: dict[str, str]
    body: bytes


@dataclass
class WebhookEndpoint:
    """Receives the provider's webhooks, and forwards them to the service as the edge does, or only accepts them."""

    address: str = ""
    forwarding: bool = False
    deliveries: list[Delivery] = field(default_factory=list)
    arrival: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until_received(self, subject: str, kind: str, count: int = 1) -> list[Delivery]:
        """Return the webhooks of a kind about a payment once `count` have arrived."""

        def found():
            wanted = (f'"type":"{kind}"'.encode(), subject.encode())
            return [one for one in self.deliveries if all(part in one.body for part in wanted)]

        async with asyncio.timeout(60), self.arrival:
            await self.arrival.wait_for(lambda: len(found()) >= count)
        return found()

    async def deliver(self, body: bytes, headers: dict[str, str], caller: str = "edge") -> grpc.StatusCode:
        """Deliver a webhook to the service as the edge does; return the status."""
        metadata = [(name, value) for name, value in headers.items() if name.startswith("webhook-")]
        async with grpc.aio.insecure_channel(self.address) as channel:
            receive = channel.unary_unary(
                f"/{SERVICE}/ReceiveProviderEvent",
                request_serializer=HttpBody.SerializeToString,
                response_deserializer=Empty.FromString,
            )
            try:
                await receive(
                    HttpBody(content_type="application/json", data=body),
                    metadata=[*metadata, ("x-shop-caller", caller)],
                    timeout=10,
                )
            except grpc.aio.AioRpcError as error:
                return error.code()
        return grpc.StatusCode.OK

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head)}
            body = await reader.readexactly(int(headers["content-length"]))
            accepted = not self.forwarding or await self.deliver(body, headers) is grpc.StatusCode.OK
            async with self.arrival:
                self.deliveries.append(Delivery(headers, body))
                self.arrival.notify_all()
            status = HTTPStatus.NO_CONTENT if accepted else HTTPStatus.BAD_GATEWAY
            writer.write(f"HTTP/1.1 {status} {status.phrase}\r\nconnection: close\r\n\r\n".encode())
            await writer.drain()
        writer.close()


@dataclass(frozen=True)
class Provider:
    """The provider's API, as its own staff uses it."""

    url: str
    http: httpx.AsyncClient

    async def ledger(self, payment_id: str) -> list[tuple[str, int]]:
        """Return all operations of a payment, in order."""
        entries, after = [], 0
        while True:
            page = (await self.http.get("/v1/ledger", params={"after": after})).json()
            entries += page["data"]
            if not page["has_more"]:
                return [(one["kind"], one["amount"]) for one in entries if one["reference"] == payment_id]
            after = entries[-1]["sequence"]

    async def payment(self, payment_id: str) -> dict:
        (found,) = (await self.http.get("/v1/payments", params={"reference": payment_id})).json()["data"]
        return found

    async def execute(self, payment_id: str, action: str, **body: int) -> None:
        """Execute an operation that the shop did not request."""
        path = f"/v1/payments/{(await self.payment(payment_id))['id']}/{action}"
        answer = await self.http.post(path, json=body, headers={"idempotency-key": uuid.uuid4().hex})
        assert answer.status_code == 200, answer.text

    async def receive_authorization(self, payment_id: str, amount: int = 1200) -> None:
        """Deliver an authorization request late, when its sender no longer waits."""
        body = {"reference": payment_id, "payment_method": "tok_ok", "amount": amount, "currency": "USD"}
        answer = await self.http.post("/v1/payments", json=body, headers={"idempotency-key": payment_id})
        assert answer.status_code == 201, answer.text

    async def webhook_body(self, payment_id: str, kind: str = "payment.authorized", **changes: object) -> bytes:
        """A webhook's body about a payment: the truth, but for the changes."""
        return json.dumps({"type": kind, "data": {**await self.payment(payment_id), **changes}}).encode()

    async def set_faults(self, **faults: object) -> None:
        answer = await self.http.put("/v1/faults", json=faults)
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="session")
def webhook_socket():
    """The listening socket of the webhooks' endpoint, on which they wait between two tests."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        yield listener


@pytest.fixture(scope="session")
def provider_url(webhook_socket, repository, tmp_path_factory):
    host, port = webhook_socket.getsockname()
    log = tmp_path_factory.mktemp("payment_provider") / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "mesh.simulators.payment_provider"],
            cwd=repository,
            env={
                "PATH": os.environ["PATH"],
                "LISTEN": "127.0.0.1:0",
                "API_KEY": KEY,
                "WEBHOOK_URL": f"http://{host}:{port}/v1/webhooks/payment",
                "WEBHOOK_SECRET": SECRET,
            },
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    line = process.stdout.readline()
    assert line.startswith("listening on "), log.read_text()
    yield f"http://{line.split()[-1]}"
    process.kill()
    process.stdout.close()
    process.wait(timeout=10)


@pytest.fixture
async def provider(provider_url) -> AsyncIterator[Provider]:
    async with httpx.AsyncClient(base_url=provider_url, headers={"authorization": f"Bearer {KEY}"}) as http:
        provider = Provider(provider_url, http)
        yield provider
        await provider.set_faults()


@pytest.fixture
async def database(fresh_database):
    async with fresh_database("svc_payment") as url:
        yield url


@pytest.fixture
async def books(database, provider) -> AsyncIterator[Books]:
    connection = await asyncpg.connect(database)
    yield Books(connection, provider)
    await connection.close()


@pytest.fixture
def settings(database, redis_url, event_prefix, provider_url) -> Settings:
    return Settings(
        database_url=database,
        redis_url=redis_url,
        event_prefix=event_prefix,
        payment_provider_url=provider_url,
        payment_provider_key=KEY,
        payment_webhook_secret=SECRET,
        payment_provider_timeout=2.0,
        payment_arrival_seconds=30,
        reconcile_seconds=0.05,
    )


@pytest.fixture
async def webhook_endpoint(webhook_socket) -> AsyncIterator[WebhookEndpoint]:
    webhook_endpoint = WebhookEndpoint()
    server = await asyncio.start_server(webhook_endpoint.serve, sock=webhook_socket.dup())
    async with server:
        yield webhook_endpoint


@pytest.fixture
async def app(settings, issuer, webhook_endpoint):
    async with serving("svc_payment", settings, compose, issuer) as app:
        webhook_endpoint.address = app.address
        yield app


@pytest.fixture
async def payments(app):
    """The service as svc_order calls it."""
    async with client_for(app.address, PaymentServiceStub, caller="svc_order") as stub:
        yield stub


@pytest.fixture
async def public_payments(app):
    """The service as clients reach it through the edge."""
    async with client_for(app.address, PaymentServiceStub) as stub:
        yield stub


@pytest.fixture
def staff(issuer):
    """Make calls as a member of staff: `with staff():`."""
    return lambda: as_user(f"Bearer {issuer.token('staff-1', 'staff')}")


@pytest.fixture
def refund_as_staff(public_payments, staff):
    """Refund as a member of staff: `await refund_as_staff(refund(...))`."""

    async def refund_as_staff(request):
        with staff():
            return await public_payments.RefundPayment(request)

    return refund_as_staff


@pytest.fixture
def customer(issuer):
    """Make calls as a customer: `with customer():`."""
    return lambda user_id="user-1": as_user(f"Bearer {issuer.token(user_id)}")


@pytest.fixture
def payment_id() -> str:
    """An id that is new to the provider, which outlives the test."""
    return f"payment-{uuid.uuid4().hex}"
