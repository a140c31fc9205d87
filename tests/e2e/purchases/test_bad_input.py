"""An invalid request is rejected with its field or reason, by gRPC and JSON alike, and nothing is written."""

import asyncio
import json
import re
from dataclasses import dataclass

import grpc
import httpx
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from mesh.qa.shop_client import RequestRejected, new_key, state
from shop.order.v1 import order_service_pb2 as pb
from tests.e2e.purchases.conftest import PASSWORD, wish

CREATE = "/shop.order.v1.OrderService/CreateOrder"
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@dataclass
class Answer:
    """A rejection, however it came."""

    status: object
    reason: str
    fields: list[str]
    message: str


class Caller:
    """Sends requests as raw as one likes."""

    def __init__(self, stack, bearer):
        self.edge = stack.info["edge"]
        self.ingress = stack.info["grpc"]
        self.bearer = bearer

    async def by_json(self, content, *, bearer=None, path="/v1/orders"):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"content-type": "application/json"} | self._headers(bearer)
        async with httpx.AsyncClient(base_url=self.edge, trust_env=False, timeout=20) as client:
            reply = await client.post(path, content=body, headers=headers)
        info = reply.json()
        assert reply.headers["content-type"] == "application/json"
        found = {detail["@type"].rpartition(".")[2]: detail for detail in info.get("details", ())}
        violations = found.get("BadRequest", {}).get("fieldViolations", ())
        fields = [one["field"] for one in violations]
        return Answer(reply.status_code, found.get("ErrorInfo", {}).get("reason", ""), fields, info["message"])

    async def by_grpc(self, content, *, bearer=None, method=CREATE):
        request = content if isinstance(content, bytes) else content.SerializeToString()
        async with grpc.aio.insecure_channel(self.ingress) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as rejection:
                await channel.unary_unary(method)(request, metadata=tuple(self._headers(bearer).items()), timeout=20)
        status = status_pb2.Status()
        for key, value in rejection.value.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                status.ParseFromString(value)
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in status.details:
            _ = detail.Unpack(info) or detail.Unpack(bad)
        fields = [one.field for one in bad.field_violations]
        return Answer(rejection.value.code(), info.reason, fields, rejection.value.details() or "")

    def _headers(self, bearer):
        value = self.bearer if bearer is None else bearer
        return {"authorization": value} if value else {}


@pytest.fixture(scope="module")
def bearer(stack):
    """One customer makes all these mistakes, and in the end has made no order."""
    account = {"email": f"{new_key()}@example.com", "password": PASSWORD}
    with httpx.Client(base_url=stack.info["edge"], trust_env=False, timeout=30) as client:
        client.post("/v1/auth/register", json=account | {"requestId": new_key()}).raise_for_status()
        tokens = client.post("/v1/auth/login", json=account).raise_for_status().json()
        client.headers["authorization"] = f"Bearer {tokens['accessToken']}"
        yield client.headers["authorization"]
        assert client.get("/v1/orders").json()["orders"] == []


@pytest.fixture
def caller(stack, bearer):
    return Caller(stack, bearer)


@pytest.fixture
def wanted():
    """A request that nothing is wrong with."""
    return wish("BEANS-DOI-CHANG-250")


def changed(wanted, path, value):
    """The request with one value replaced."""
    copy = json.loads(json.dumps(wanted))
    *way, last = path
    target = copy
    for step in way:
        target = target[step]
    target[last] = value
    return copy


WRONG_VALUES = [
    pytest.param(("lines", 0, "quantity"), -1, "lines[0].quantity", id="negative quantity"),
    pytest.param(("lines", 0, "quantity"), 0, "lines[0].quantity", id="no quantity"),
    pytest.param(("lines", 0, "sku"), "a/b", "lines[0].sku", id="sku with a slash"),
    pytest.param(("lines",), [], "lines", id="nothing wanted"),
    pytest.param(("currencyCode",), "baht", "currency_code", id="no currency"),
    pytest.param(("paymentMethodToken",), "4242 4242 4242 4242", "payment_method_token", id="card number"),
    pytest.param(("requestId",), "", "request_id", id="no request_id"),
    pytest.param(
        ("expectedTotal",), {"currencyCode": "THB", "units": 2**63 - 1}, "expected_total", id="larger than any amount"
    ),
]


@pytest.mark.parametrize(("path", "value", "field"), WRONG_VALUES)
async def test_an_invalid_value_is_reported_with_its_field(caller, wanted, path, value, field):
    wrong = changed(wanted, path, value)
    by_json = await caller.by_json(wrong)
    by_grpc = await caller.by_grpc(json_format.ParseDict(wrong, pb.CreateOrderRequest()))
    assert (by_json.status, by_grpc.status) == (400, INVALID)
    assert by_json.reason == by_grpc.reason == "INVALID_REQUEST"
    spelled = re.sub("_(.)", lambda found: found[1].upper(), field)
    assert (by_json.fields, by_grpc.fields) == ([spelled], [field])
    assert by_json.message == by_grpc.message.replace(field, spelled)


async def test_a_nul_byte_is_rejected_with_its_field(caller, wanted):
    wrong = changed(wanted, ("shippingAddress", "recipient"), "Malee\0Srisai")
    by_json = await caller.by_json(wrong)
    by_grpc = await caller.by_grpc(json_format.ParseDict(wrong, pb.CreateOrderRequest()))
    assert (by_json.status, by_grpc.status) == (400, INVALID)
    assert (by_json.fields, by_grpc.fields) == (["shippingAddress.recipient"], ["shipping_address.recipient"])


async def test_after_a_validation_error_a_valid_request_with_the_same_key_succeeds(customer, market):
    right = wish(await market.new_sku(10))
    for wrong in (changed(right, ("lines", 0, "quantity"), -1), right | {"currencyCode": "JPY"}):
        with pytest.raises(RequestRejected):
            await customer.front.post("/v1/orders", wrong)
    assert state(await customer.front.post("/v1/orders", right)) == "CONFIRMED"


WRONG_JSON = [
    pytest.param(("discount",), 5, "discount", id="unknown field"),
    pytest.param(("shippingAddress", "planet"), "Mars", "shippingAddress.planet", id="unknown field within"),
    pytest.param(("lines", 0, "quantity"), "two", "lines[0].quantity", id="wrong type"),
    pytest.param(("lines", 0, "quantity"), 1.5, "lines[0].quantity", id="half a unit"),
    pytest.param(("lines", 0, "quantity"), 2**63, "lines[0].quantity", id="2^63 units"),
    pytest.param(
        ("expectedTotal",), {"currencyCode": "THB", "units": str(2**63)}, "expectedTotal.units", id="2^63 baht"
    ),
    pytest.param(("lines",), {"sku": "A"}, "lines", id="object for a list"),
]


@pytest.mark.parametrize(("path", "value", "field"), WRONG_JSON)
async def test_an_invalid_json_value_is_reported_with_its_field(caller, wanted, path, value, field):
    answer = await caller.by_json(changed(wanted, path, value))
    assert answer.status == 400
    assert answer.fields == [field]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff\xfe", b'{"requestId": "a", "requestId": "b"}', b"null"])
async def test_a_body_that_is_no_json_object_is_rejected(caller, body):
    answer = await caller.by_json(body)
    assert answer.status == 400
    assert answer.message


async def test_a_body_of_ten_megabytes_is_rejected(stack, caller, wanted):
    wrong = changed(wanted, ("shippingAddress", "line2"), "x" * 10_000_000)
    head, info = await post_while_listening(stack.info["edge"], json.dumps(wrong).encode())
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b'"reason":"BODY_TOO_LARGE"' in info
    by_grpc = await caller.by_grpc(json_format.ParseDict(wrong, pb.CreateOrderRequest()))
    assert by_grpc.status is grpc.StatusCode.RESOURCE_EXHAUSTED


async def post_while_listening(edge, body):
    """Send a body and read the answer meanwhile: it comes before the end of the body, and the line is cut then."""
    host, _, port = edge.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        head = f"POST /v1/orders HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        async with asyncio.timeout(60):
            answer = await reader.readuntil(b"\r\n\r\n")
            (length,) = re.findall(rb"content-length: (\d+)", answer)
            return answer, await reader.readexactly(int(length))
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("bearer", "reason"), [("", "TOKEN_MISSING"), ("Bearer nonsense", "TOKEN_INVALID"), ("Basic x", "TOKEN_INVALID")]
)
async def test_an_anonymous_request_is_unauthenticated(caller, wanted, bearer, reason):
    by_json = await caller.by_json(wanted, bearer=bearer)
    by_grpc = await caller.by_grpc(json_format.ParseDict(wanted, pb.CreateOrderRequest()), bearer=bearer)
    assert (by_json.status, by_grpc.status) == (401, grpc.StatusCode.UNAUTHENTICATED)
    assert by_json.reason == by_grpc.reason == reason


async def test_the_order_of_another_user_is_not_found(caller, wanted, customer):
    order = await customer.front.post("/v1/orders", wanted)
    order_id = order["orderId"]
    by_json = await caller.by_json({"requestId": new_key()}, path=f"/v1/orders/{order_id}/cancel")
    request = pb.CancelOrderRequest(order_id=order_id, request_id=new_key())
    by_grpc = await caller.by_grpc(request, method="/shop.order.v1.OrderService/CancelOrder")
    assert (by_json.status, by_grpc.status) == (404, grpc.StatusCode.NOT_FOUND)
    assert by_json.reason == by_grpc.reason == "ORDER_NOT_FOUND"
    assert await customer.front.get(f"/v1/orders/{order_id}") == order


CURRENCIES = [
    pytest.param({"currencyCode": "JPY"}, id="order"),
    pytest.param({"expectedTotal": {"currencyCode": "JPY", "units": 100}}, id="expected total"),
]


@pytest.mark.parametrize("change", CURRENCIES)
async def test_currencies_are_not_mixed(caller, wanted, change):
    wrong = wanted | change
    by_json = await caller.by_json(wrong)
    by_grpc = await caller.by_grpc(json_format.ParseDict(wrong, pb.CreateOrderRequest()))
    assert (by_json.status, by_grpc.status) == (400, INVALID)
    assert by_json.reason == by_grpc.reason == "CURRENCY_MISMATCH"


async def test_an_unknown_sku_is_reported_by_name(caller, wanted):
    wrong = changed(wanted, ("lines", 0, "sku"), "NO-SUCH-THING")
    by_json = await caller.by_json(wrong)
    by_grpc = await caller.by_grpc(json_format.ParseDict(wrong, pb.CreateOrderRequest()))
    assert (by_json.status, by_grpc.status) == (404, grpc.StatusCode.NOT_FOUND)
    assert by_json.reason == by_grpc.reason == "SKU_NOT_FOUND"
    assert "NO-SUCH-THING" in by_json.message
