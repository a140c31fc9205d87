import pytest

from chassis.testing import client_for, serving
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from svc_inventory.__main__ import compose
from svc_inventory.settings import Settings


@pytest.fixture
async def database(fresh_database):
    async with fresh_database("svc_inventory") as url:
        yield url


@pytest.fixture
async def app(database, redis_url, event_prefix, issuer):
    settings = Settings(database_url=database, redis_url=redis_url, event_prefix=event_prefix, expire_seconds=0.05)
    async with serving("svc_inventory", settings, compose, issuer) as app:
        yield app


@pytest.fixture
async def inventory(app):
    """The service as svc_order calls it."""
    async with client_for(app.address, InventoryServiceStub, caller="svc_order") as stub:
        yield stub


@pytest.fixture
async def public(app):
    """The service as clients reach it through the edge."""
    async with client_for(app.address, InventoryServiceStub) as stub:
        yield stub
