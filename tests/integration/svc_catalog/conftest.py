import pytest

from chassis.testing import as_user, client_for, serving
from shop.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from shop.catalog.v1.category_service_pb2_grpc import CategoryServiceStub
from svc_catalog.__main__ import compose
from svc_catalog.settings import Settings

SERVICE = "shop.catalog.v1.CatalogService"


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
    """The service as clients reach it through the edge."""
    async with client_for(app.address, CatalogServiceStub, SERVICE) as stub:
        yield stub


@pytest.fixture
async def categories(app):
    """The categories, as clients reach them through the edge."""
    async with client_for(app.address, CategoryServiceStub, "shop.catalog.v1.CategoryService") as stub:
        yield stub


@pytest.fixture
async def for_orders(app):
    """The service as svc_order calls it."""
    async with client_for(app.address, CatalogServiceStub, SERVICE, caller="svc_order") as stub:
        yield stub


@pytest.fixture
def staff(issuer):
    """`with staff():` makes the calls in the block a member of staff's."""
    return lambda: as_user(f"Bearer {issuer.token('staff-1', 'staff')}")
