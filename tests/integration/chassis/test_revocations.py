"""Revocations: every process rejects the tokens of ended sessions, and ends the streams that they opened."""

import asyncio
import time
from contextlib import asynccontextmanager

import grpc
import pytest

from chassis import require_owner
from chassis.rpc.client import Clients, contract_revocation_source
from chassis.rpc.revocations import Revocations
from chassis.testing import eventually
from shop.contract import RPCS
from shop.order.v1 import order_service_pb2 as order
from shop.order.v1.order_errors import OrderNotFound
from shop.user.v1 import auth_service_pb2 as auth
from shop.user.v1 import user_service_pb2 as user


class Source:
    """A stream of revocations that the test fills."""

    def __init__(self):
        self.opened = 0
        self._batches = asyncio.Queue()

    def revoke(self, *sessions):
        self._batches.put_nowait(dict.fromkeys(sessions, time.time() + 60))

    def fail(self):
        self._batches.put_nowait(ConnectionError("gone"))

    async def __call__(self):
        self.opened += 1
        while True:
            batch = await self._batches.get()
            if isinstance(batch, Exception):
                raise batch
            yield batch


@pytest.fixture
def source():
    return Source()


@pytest.fixture
async def call(serve, connect, source):
    async def get_me(request, context):
        return user.User()

    async def watch(request, context):
        require_owner("user-1", OrderNotFound(order_id="o-1"))
        yield order.WatchOrderResponse(resume_token="1")
        await asyncio.Event().wait()

    async def compose(app):
        app.token_revocations(source)

    async with serve(compose=compose, GetMe=get_me, WatchOrder=watch) as app, connect(app.address) as call:
        yield call


def bearing(issuer, session, **claims):
    token = issuer.token("user-1", sid=session, **claims)
    return (("x-shop-caller", "edge"), ("authorization", f"Bearer {token}"))


async def test_a_call_with_a_token_of_an_ended_session_is_unauthenticated(call, source, issuer, failure):
    first, second = bearing(issuer, "s-1"), bearing(issuer, "s-2")
    await call.GetMe(user.GetMeRequest(), metadata=first)
    source.revoke("s-1")
    rejected = await eventually_rejected(call, first)
    assert rejected == grpc.StatusCode.UNAUTHENTICATED
    await call.GetMe(user.GetMeRequest(), metadata=second)


async def eventually_rejected(call, metadata):
    async def code():
        running = call.GetMe(user.GetMeRequest(), metadata=metadata)
        return await running.code()

    return await eventually(code, lambda found: found is not grpc.StatusCode.OK, seconds=5)


async def test_a_process_is_told_of_earlier_ends_and_of_those_while_the_stream_was_away(call, source, issuer):
    source.revoke("s-1")
    source.fail()
    source.revoke("s-2")
    for session in ("s-1", "s-2"):
        assert await eventually_rejected(call, bearing(issuer, session)) is grpc.StatusCode.UNAUTHENTICATED
    assert source.opened == 2


async def test_the_contract_marks_one_rpc_which_is_read_by_a_client(serve):
    assert [rpc.method for rpc in RPCS.values() if rpc.token_revocations] == ["WatchRevocations"]

    async def watch(request, context):
        one = auth.Revocation(session_id="s-1")
        one.expire_time.FromSeconds(7)
        yield auth.WatchRevocationsResponse(revocations=[one])

    async with serve(WatchRevocations=watch) as app:
        clients = Clients(f"*={app.address}", "svc_order")
        stream = contract_revocation_source(clients)()
        assert await anext(stream) == {"s-1": 7.0}
        await stream.aclose()
        await clients.close()


def test_a_revocation_is_forgotten_when_the_tokens_have_expired():
    revocations = Revocations()
    revocations.add({"old": time.time() - 1, "new": time.time() + 60})
    revocations.add({})
    assert ("old" in revocations, "new" in revocations, len(revocations)) == (False, True, 1)


@asynccontextmanager
async def watching(call, metadata):
    """Open a stream and read its first message."""
    stream = call.WatchOrder(order.WatchOrderRequest(order_id="o-1"), metadata=metadata)
    assert (await stream.read()).resume_token == "1"
    yield stream
    stream.cancel()


async def test_the_end_of_a_session_ends_its_streams_within_a_second_and_no_others(call, source, issuer, failure):
    async with watching(call, bearing(issuer, "s-1")) as first, watching(call, bearing(issuer, "s-2")) as second:
        source.revoke("s-1")
        async with asyncio.timeout(1):
            ended = await failure(first.read())
        assert (ended.code, ended.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")
        assert not second.done()


async def test_a_stream_is_not_opened_with_a_token_of_an_ended_session(call, source, issuer, failure):
    source.revoke("s-1")
    await eventually_rejected(call, bearing(issuer, "s-1"))
    stream = call.WatchOrder(order.WatchOrderRequest(order_id="o-1"), metadata=bearing(issuer, "s-1"))
    assert (await failure(stream.read())).reason == "TOKEN_INVALID"
