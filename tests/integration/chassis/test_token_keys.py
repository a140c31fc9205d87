"""Token keys: fetched from the RPC that the contract marks, by the service's own clients."""

import pytest

from chassis import Settings
from chassis.app import App
from chassis.rpc.auth import KeysUnavailable, TokenVerifier
from chassis.rpc.client import Clients, contract_key_source
from chassis.testing import Issuer
from shop.contract import RPCS
from shop.user.v1 import auth_service_pb2 as user


@pytest.fixture
async def keys(serve, issuer):
    """Yield the key source of a service whose calls reach svc_user, which publishes the issuer's key."""

    async def get_jwks(request, context):
        return user.JsonWebKeySet(keys=[user.JsonWebKey(**key) for key in (await issuer.keys())["keys"]])

    async with serve(GetJwks=get_jwks) as app:
        clients = Clients(f"*={app.address}", "svc_order")
        yield contract_key_source(clients)
        await clients.close()


def verifier(source):
    return TokenVerifier(source, Settings().token_issuer, Settings().token_audience)


def test_the_contract_marks_one_rpc():
    assert [rpc.method for rpc in RPCS.values() if rpc.token_keys] == ["GetJwks"]


async def test_the_keys_of_the_marked_rpc_verify_tokens(keys, issuer):
    assert await keys() == await issuer.keys()
    verified = await verifier(keys).verify(issuer.token("user-1", "staff"))
    assert (verified.id, verified.roles) == ("user-1", {"staff"})


async def test_tokens_of_another_issuer_are_not_verified_by_them(keys):
    with pytest.raises(Exception, match="unknown key"):
        await verifier(keys).verify(Issuer().token("user-1"))


@pytest.mark.parametrize("upstreams", ["", "*=127.0.0.1:1"])
async def test_without_the_service_that_publishes_them_no_token_can_be_verified(issuer, upstreams):
    clients = Clients(upstreams, "svc_order")
    with pytest.raises(KeysUnavailable):
        await verifier(contract_key_source(clients)).verify(issuer.token("user-1"))
    await clients.close()


async def test_a_service_may_verify_by_a_source_of_its_own(issuer):
    app = App("svc_toy", Settings(), issuer.keys)
    other = Issuer()
    app.token_keys(other.keys)
    assert (await app._verifier.verify(other.token("user-1"))).id == "user-1"
    await app.close_unserved()
