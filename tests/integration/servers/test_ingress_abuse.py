"""Clients that hold connections and requests open: the ingress bounds them before they reach the mesh."""

import asyncio
import json
import time
from contextlib import suppress

import grpc
import httpx
import pytest

from tests.integration.servers.test_ingress import GET_ORDER, GET_PRODUCT, WATCH_ORDER, Http2, call

pytestmark = pytest.mark.asyncio(loop_scope="session")

GRPC_HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "x"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


def connect(address):
    host, _, port = address.rpartition(":")
    return asyncio.open_connection(host, int(port))


async def test_half_open_streams_never_reach_a_service_and_are_ended(ingress):
    """A request without its message: 500 of them would use up what a service admits."""
    ingress.orders.opened.clear()
    clients = [Http2(ingress.address) for _ in range(5)]
    for client in clients:
        await client.__aenter__()
        for _ in range(100):
            stream = client.it.get_next_available_stream_id()
            client.it.send_headers(stream, [(":path", WATCH_ORDER), *GRPC_HEADERS])
        await client.flush()
    assert (await call(ingress.address, GET_ORDER))["path"] == GET_ORDER
    assert ingress.orders.opened.keys() == {GET_ORDER}
    ended = 0
    async with asyncio.timeout(30):  # the ingress waits 10 s for a request
        while ended < 100:
            events = await clients[0].events()
            ended += sum(type(event).__name__ in ("StreamEnded", "StreamReset") for event in events)
    assert ingress.orders.opened.keys() == {GET_ORDER}
    for client in clients:
        await client.__aexit__()


async def test_slow_bodies_never_reach_the_edge_and_are_answered_408(ingress):
    streams = [await connect(ingress.address) for _ in range(20)]
    for _, writer in streams:
        writer.write(b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nx")
    async with httpx.AsyncClient(base_url=ingress.url) as http:
        assert (await http.get("/")).status_code == 200
    async with asyncio.timeout(30):
        reply = await streams[0][0].readuntil(b"\r\n")
        assert reply == b"HTTP/1.1 408 Request Timeout\r\n"
    for _, writer in streams:
        writer.close()


async def test_connections_that_say_nothing_are_closed_within_seconds(ingress):
    began = time.monotonic()
    silent = [await connect(ingress.address) for _ in range(100)]
    async with asyncio.timeout(20):
        assert await asyncio.gather(*(reader.read() for reader, _ in silent)) == [b""] * 100
    assert time.monotonic() - began < 10
    for _, writer in silent:
        writer.close()


async def test_a_body_of_a_mebibyte_passes_and_a_larger_one_is_413(ingress):
    async with httpx.AsyncClient(base_url=ingress.url) as http:
        assert (await http.post("/v1/orders", content=b"x" * 2**20)).json()["size"] == 2**20
        rejected = await http.post("/v1/orders", content=b"x" * 2**21)
    assert (rejected.status_code, rejected.json()["code"]) == (413, 8)
    assert rejected.json()["details"][0]["reason"] == "BODY_TOO_LARGE"


async def test_headers_that_are_too_large_are_named_as_the_reason(ingress):
    async with httpx.AsyncClient(base_url=ingress.url) as http:
        for rejected in (
            await http.get("/", headers={"x": "y" * 17_000}),
            await http.get("/" + "y" * 17_000),
        ):
            assert (rejected.status_code, rejected.json()["code"]) == (431, 3)
            assert rejected.json()["details"][0]["reason"] == "HEADERS_TOO_LARGE"


async def test_a_client_that_floods_with_pings_is_disconnected(ingress):
    """S19: it reads no answers, which would otherwise pile up."""
    reader, writer = await connect(ingress.address)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    ping = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + b"12345678"
    async with asyncio.timeout(30):
        with suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(ping * 10_000)
                await writer.drain()
                await asyncio.sleep(0)
    assert (await call(ingress.address, GET_ORDER))["path"] == GET_ORDER


async def test_a_frozen_process_of_several_fails_no_idempotent_call_and_is_ejected(ingress):
    frozen, _ = ingress.catalogs
    frozen.freeze()
    try:
        async with grpc.aio.insecure_channel(ingress.address) as channel:
            for _ in range(8):
                seen = json.loads(await channel.unary_unary(GET_PRODUCT)(b"", timeout=10))
                assert seen["path"] == GET_PRODUCT
        async with asyncio.timeout(30):
            while True:
                frozen.calls.clear()
                began = time.monotonic()
                await asyncio.gather(*(call(ingress.address, GET_PRODUCT) for _ in range(4)))
                if not frozen.calls:
                    break
        assert time.monotonic() - began < 2
    finally:
        frozen.thaw()
