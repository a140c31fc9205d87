import asyncpg
import pytest

from chassis.testing import as_user, client_for, serving
from shop.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from shop.catalog.v1.category_service_pb2_grpc import CategoryServiceStub
from svc_catalog.__main__ import compose
from svc_catalog.settings import Settings


@pytest.fixture
async def database(fresh_database):
    async with fresh_database("svc_catalog") as url:
        yield url


@pytest.fixture
async def app(database, redis_url, event_prefix, issuer):
    settings = Settings(database_url=database, redis_url=redis_url, event_prefix=event_prefix)
    async with serving("svc_catalog", settings, compose, issuer) as app:
        yield app


@pytest.fixture
async def catalog(app):
    """Calls CatalogService as the edge does."""
    async with client_for(app.address, CatalogServiceStub) as stub:
        yield stub


@pytest.fixture
async def categories(app):
    """Calls CategoryService as the edge does."""
    async with client_for(app.address, CategoryServiceStub) as stub:
        yield stub


@pytest.fixture
async def order_client(app):
    """Calls CatalogService as svc_order does."""
    async with client_for(app.address, CatalogServiceStub, caller="svc_order") as stub:
        yield stub


@pytest.fixture
def staff(issuer):
    """`with staff():` makes the calls in the block as a user with the role `staff`."""
    return lambda: as_user(f"Bearer {issuer.token('staff-1', 'staff')}")


@pytest.fixture
def staff_catalog(catalog, staff):
    """Calls CatalogService as staff."""
    with staff():
        yield catalog


@pytest.fixture
def staff_categories(categories, staff):
    """Calls CategoryService as staff."""
    with staff():
        yield categories


@pytest.fixture
async def rows(database):
    """Executes a statement on the service's database as its owner."""
    connection = await asyncpg.connect(database)
    yield connection.fetch
    await connection.close()
