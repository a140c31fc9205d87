"""The ingress as clients use it: a real Envoy, real sockets."""

import asyncio
import base64
import ipaddress
import json
import struct
from contextlib import suppress

import grpc
import grpc.aio
import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import websockets

from mesh.proxy.admin import proxy_status

pytestmark = pytest.mark.asyncio(loop_scope="session")

GET_ORDER = "/shop.order.v1.OrderService/GetOrder"
WATCH_ORDER = "/shop.order.v1.OrderService/WatchOrder"
GET_PRODUCT = "/shop.catalog.v1.CatalogService/GetProduct"
LOGIN = "/shop.user.v1.AuthService/Login"
FOR_SERVICES_ONLY = "/shop.delivery.v1.ShipmentService/CreateShipment"


async def call(address, path, *metadata, timeout=30.0, body=b""):
    async with grpc.aio.insecure_channel(address) as channel:
        return json.loads(await channel.unary_unary(path)(body, metadata=metadata, timeout=timeout))


async def refusal(address, path, *metadata, timeout=30.0):
    with pytest.raises(grpc.aio.AioRpcError) as it:
        await call(address, path, *metadata, timeout=timeout)
    return it.value


@pytest.fixture
async def http(ingress):
    async with httpx.AsyncClient(base_url=ingress.url) as client:
        yield client


# gRPC


async def test_grpc_goes_straight_to_its_service_as_a_call_of_the_edge(ingress):
    seen = await call(ingress.address, GET_ORDER)
    assert seen["path"] == GET_ORDER
    assert seen["metadata"]["x-shop-caller"] == "edge"


async def test_streams_pass(ingress):
    async with grpc.aio.insecure_channel(ingress.address) as channel:
        messages = [one async for one in channel.unary_stream(WATCH_ORDER)(b"", metadata=[("do", "stream")])]
    assert len(messages) == 3


@pytest.mark.parametrize(
    "path",
    [
        FOR_SERVICES_ONLY,
        "/shop.order.v1.OrderService/Nothing",
        "/shop.order.v1.OrderService/getorder",
        "/shop.order.v1.OrderService/GetOrder/",
        "/shop.order.v1.OrderService%2FGetOrder",
        "/shop.delivery.v1.ShipmentService/CreateShipment%2f",
        "/shop.delivery.v1.ShipmentService/GetShipment%2f..%2fCreateShipment",
        "/shop.delivery.v1.ShipmentService/GetShipment;/CreateShipment",
        "/shop.payment.v1.PaymentService/GetPayment",  # a service that this stack leaves out
    ],
)
async def test_methods_that_do_not_admit_the_edge_are_unimplemented(ingress, path):
    before = ingress.orders.calls.total() + ingress.shipments.calls.total()
    assert (await refusal(ingress.address, path)).code() is grpc.StatusCode.UNIMPLEMENTED
    assert ingress.orders.calls.total() + ingress.shipments.calls.total() == before


async def test_dots_and_double_slashes_reach_no_other_method(ingress):
    service = "/shop.delivery.v1.ShipmentService"
    for path in (f"/{service}/CreateShipment", f"{service}/x/../CreateShipment"):
        assert (await refusal(ingress.address, path)).code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("service", ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"])
async def test_reflection_is_served_by_the_edge(ingress, service):
    assert (await call(ingress.address, f"/{service}/ServerReflectionInfo"))["path"].startswith(f"/{service}")
    assert ingress.reflection.calls[f"/{service}/ServerReflectionInfo"]


async def test_a_read_is_retried_when_its_service_is_unavailable(ingress):
    ingress.orders.calls.clear()
    assert (await refusal(ingress.address, GET_ORDER, ("do", "unavailable"))).code() is grpc.StatusCode.UNAVAILABLE
    assert ingress.orders.calls[GET_ORDER] == 3


async def test_a_method_that_is_not_idempotent_is_not_retried(ingress):
    assert (await refusal(ingress.address, LOGIN, ("do", "unavailable"))).code() is grpc.StatusCode.UNAVAILABLE
    assert ingress.users.calls[LOGIN] == 1


async def test_a_call_without_a_reachable_process_is_unavailable(ingress):
    error = await refusal(ingress.address, "/shop.inventory.v1.InventoryService/GetStock")
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_timeout_of_the_contract_applies_to_a_call(ingress):
    began = asyncio.get_running_loop().time()
    error = await refusal(ingress.address, GET_ORDER, ("do", "hang"), timeout=60)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 1.9 < asyncio.get_running_loop().time() - began < 20  # GetOrder may take 2 s


async def test_the_deadline_of_a_caller_is_passed_on(ingress):
    async with grpc.aio.insecure_channel(ingress.address) as channel:
        seen = json.loads(await channel.unary_unary(GET_ORDER)(b"", timeout=30))
    assert "grpc-timeout" not in seen["metadata"]  # grpc keeps it to itself: it is the deadline of the context
    error = await refusal(ingress.address, GET_ORDER, ("do", "hang"), timeout=0.3)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_status_of_the_proxy_names_the_processes_that_get_no_calls(ingress):
    found = await asyncio.to_thread(proxy_status, ingress.admin)
    left_out = {one.cluster: (one.address, one.left_out) for one in found.upstreams}
    assert left_out["svc_inventory"] == (ingress.missing, ("failed_active_health_check",))
    assert left_out["svc_order"][1] == ()
    assert found.tripped == ()


async def test_calls_are_balanced_over_the_processes_of_a_service(ingress):
    for one in ingress.catalogs:
        one.calls.clear()
    async with grpc.aio.insecure_channel(ingress.address) as channel:
        for _ in range(10):
            await channel.unary_unary(GET_PRODUCT)(b"")
    assert [one.calls[GET_PRODUCT] for one in ingress.catalogs] == [5, 5]


async def test_a_retried_call_goes_to_another_process(ingress):
    for one in ingress.catalogs:
        one.calls.clear()
    await refusal(ingress.address, GET_PRODUCT, ("do", "unavailable"))
    assert sorted(one.calls[GET_PRODUCT] for one in ingress.catalogs) == [1, 2]


async def test_within_the_mesh_a_caller_keeps_its_name_and_reaches_methods_for_services(ingress):
    seen = await call(ingress.inner, FOR_SERVICES_ONLY, ("x-shop-caller", "svc_order"))
    assert seen["metadata"]["x-shop-caller"] == "svc_order"


async def test_grpc_web_is_translated(ingress, http):
    frame = struct.pack(">BI", 0, 2) + b"hi"
    headers = {"content-type": "application/grpc-web+proto", "origin": "http://localhost:5173"}
    reply = await http.post(GET_ORDER, content=frame, headers=headers)
    assert reply.headers["content-type"] == "application/grpc-web+proto"
    size = struct.unpack(">I", reply.content[1:5])[0]
    assert json.loads(reply.content[5 : 5 + size])["size"] == 2
    assert b"grpc-status:0" in reply.content[5 + size :]
    assert reply.headers["access-control-allow-origin"] == "http://localhost:5173"
    assert "grpc-status" in reply.headers["access-control-expose-headers"]


async def test_grpc_web_as_text_is_translated(ingress, http):
    content = base64.b64encode(struct.pack(">BI", 0, 0))
    headers = {"content-type": "application/grpc-web-text", "accept": "application/grpc-web-text"}
    reply = await http.post(GET_ORDER, content=content, headers=headers)
    assert base64.b64decode(reply.content.partition(b"=")[0] + b"==")[5:].startswith(b'{"path"')


async def test_grpc_web_does_not_reach_methods_for_services(ingress, http):
    frame = struct.pack(">BI", 0, 0)
    reply = await http.post(FOR_SERVICES_ONLY, content=frame, headers={"content-type": "application/grpc-web+proto"})
    assert (reply.status_code, reply.headers["grpc-status"]) == (200, "12")
    assert reply.headers["content-type"] == "application/grpc-web+proto"


# JSON


async def test_everything_else_goes_to_the_edge(http):
    seen = (await http.post("/v1/orders", content=b"x" * 100_000)).json()
    assert (seen["method"], seen["raw_path"], seen["size"]) == ("POST", "/v1/orders", 100_000)


async def test_an_rpc_path_without_a_grpc_content_type_goes_to_the_edge(http):
    assert (await http.post(FOR_SERVICES_ONLY, json={})).json()["raw_path"] == FOR_SERVICES_ONLY


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        ("/v1/products/a%2Fb", "/v1/products/a%2Fb"),
        ("/v1/products/a%2fb%20c", "/v1/products/a%2fb%20c"),
        ("/v1//products///x", "/v1/products/x"),
        ("/v1/a/../products", "/v1/products"),
        ("/v1/%2e%2e/products", "/products"),
    ],
)
async def test_paths_reach_the_edge_in_one_spelling_with_escaped_slashes_kept(ingress, sent, received):
    assert (await raw_http(ingress, sent))["raw_path"] == received


async def raw_http(ingress, path):
    """A request as it is spelled, which no client library would send."""
    host, port = ingress.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    reply = await reader.read()
    writer.close()
    await writer.wait_closed()
    body = reply.partition(b"\r\n\r\n")[2]
    return json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])


async def test_internal_headers_from_outside_are_removed(ingress, http):
    claims = {
        "x-shop-caller": "svc_order",
        "x-shop-user": "root",
        "x-envoy-original-path": "/admin",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-forwarded-client-cert": "URI=spiffe://shop/svc_order",
        "x-forwarded-for": "10.0.0.1",
        "x-forwarded-host": "evil",
        "x-real-ip": "10.0.0.1",
        "x-user-id": "1",
        "forwarded": "for=10.0.0.1",
    }
    for seen in ((await http.get("/", headers=claims)).json()["headers"], await metadata_of(ingress, claims)):
        assert seen["x-shop-caller"] == "edge"
        assert ipaddress.ip_address(seen["x-forwarded-for"]) != ipaddress.ip_address("10.0.0.1")  # and it is only one
        for name in claims.keys() - {"x-shop-caller", "x-forwarded-for"}:
            assert name not in seen


async def metadata_of(ingress, metadata):
    return (await call(ingress.address, GET_ORDER, *metadata.items()))["metadata"]


async def test_a_token_and_a_trace_pass(http):
    passed = {"authorization": "Bearer x", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    seen = (await http.get("/", headers=passed)).json()["headers"]
    assert passed.items() <= seen.items()


async def test_a_header_with_an_underscore_is_rejected(http):
    assert (await http.get("/", headers={"x_shop_caller": "svc_order"})).status_code == 400


async def test_headers_beyond_16_kib_are_rejected(http):
    assert (await http.get("/", headers={"x": "y" * 17_000})).status_code == 431


async def test_replies_have_a_request_id_and_no_internal_headers(http):
    headers = (await http.get("/")).headers
    assert headers["x-request-id"]
    assert headers["server"] == "shopmesh"
    assert not [name for name in headers if name.startswith("x-envoy")]


async def test_an_event_stream_arrives_as_it_is_sent(http):
    async with http.stream("GET", "/events") as reply:
        first = await anext(reply.aiter_raw())
    assert first == b"data: first\n\n"


async def test_more_than_a_thousand_event_streams_are_live_at_the_same_time(ingress):
    host, port = ingress.address.split(":")
    async with asyncio.timeout(120):
        clients = [await asyncio.open_connection(host, int(port)) for _ in range(1_200)]
        for _, writer in clients:
            writer.write(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n")
        for reader, _ in clients:
            assert b"data: first" in await reader.readuntil(b"first")
    for _, writer in clients:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in clients), return_exceptions=True)


async def test_websockets_pass(ingress):
    async with websockets.connect(f"ws://{ingress.address}/v1/orders/1:watch") as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:5173", True),
        ("http://127.0.0.1:3000", True),
        ("http://localhost.evil.example", False),
        ("https://evil.example", False),
    ],
)
async def test_only_pages_of_this_machine_may_call(http, origin, allowed):
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    reply = await http.options("/v1/orders", headers=asked)
    assert (reply.headers.get("access-control-allow-origin") == origin) is allowed


async def test_a_malformed_request_is_answered_in_the_format_of_all_errors(ingress):
    host, port = ingress.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx_y: 1\r\nconnection: close\r\n\r\n")
    reply = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert b" 400 " in reply.partition(b"\r\n")[0]
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["code"] == 3


# Abuse


class Http2:
    """A bare HTTP/2 client, for what well-behaved ones do not do."""

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection(*self.address.split(":"))
        self.it = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.it.initiate_connection()
        await self.flush()
        return self

    def __init__(self, address):
        self.address = address

    async def __aexit__(self, *_):
        self.writer.close()

    async def flush(self):
        self.writer.write(self.it.data_to_send())
        await self.writer.drain()

    async def open_and_reset(self, times, headers):
        for _ in range(times):
            stream = self.it.get_next_available_stream_id()
            self.it.send_headers(stream, headers, end_stream=True)
            self.it.reset_stream(stream)
            await self.flush()

    async def events(self):
        data = await self.reader.read(65_536)
        return self.it.receive_data(data) if data else None


async def test_a_connection_may_open_100_streams(ingress):
    async with Http2(ingress.address) as client, asyncio.timeout(60):
        while True:
            for event in await client.events():
                if isinstance(event, h2.events.RemoteSettingsChanged):
                    changed = {code.name: setting.new_value for code, setting in event.changed_settings.items()}
                    assert changed["MAX_CONCURRENT_STREAMS"] == 100
                    assert changed["INITIAL_WINDOW_SIZE"] == 65_536
                    return


async def test_a_client_that_opens_streams_only_to_reset_them_is_disconnected(ingress):
    headers = [(":method", "POST"), (":path", GET_ORDER), (":scheme", "http"), (":authority", "x")]
    headers += [("content-type", "application/grpc"), ("do", "hang")]
    async with Http2(ingress.address) as client, asyncio.timeout(60):
        with suppress(ConnectionError):  # which of both ends notices first is a matter of haste
            await client.open_and_reset(2_000, headers)
            await client.reader.read()
    assert (await call(ingress.address, GET_ORDER))["path"] == GET_ORDER  # others are served


async def test_the_access_log_has_no_queries_or_tokens(ingress, http):
    await http.get("/v1/logged?token=hunter2", headers={"authorization": "Bearer hunter3"})
    async with asyncio.timeout(60):
        while "/v1/logged" not in ingress.log.read_text():
            await asyncio.sleep(0.05)
    assert "hunter" not in ingress.log.read_text()
