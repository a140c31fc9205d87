"""What shoppers read after a product changed, when no event comes to clear the cache."""

import asyncio

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chassis.events import outbox
from chassis.types.money import money
from shop.catalog.v1 import catalog_service_pb2 as pb
from tests.integration.database_control import connected, held_commits, until_blocked

SHIRT = pb.GetProductRequest(product_id="shirt")
EVERYTHING = pb.ListProductsRequest()


@pytest.fixture
async def rows(database):
    """A connection that leads the relays of this database: none of them publishes anything."""
    async with connected(database) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", outbox._LEADER_LOCK)
        yield connection


@pytest.fixture
async def shoppers(rows, catalog, staff):
    """The service as shoppers call it, with one product, which the cache holds."""
    variant = pb.Variant(sku="s", price=money(10_000, "THB"))
    product = pb.Product(product_id="shirt", name="Shirt", variants=[variant])
    with staff():
        await catalog.CreateProduct(pb.CreateProductRequest(product=product, request_id="create"))
    await read_names(catalog)
    return catalog


async def read_names(catalog):
    """Return the product's name on its own page and in the list."""
    shown, listed = await catalog.GetProduct(SHIRT), await catalog.ListProducts(EVERYTHING)
    return [shown.name, *(product.name for product in listed.products)]


async def rename(catalog, staff):
    with staff():
        product = pb.Product(product_id="shirt", name="Coat")
        mask = FieldMask(paths=["name"])
        await catalog.UpdateProduct(pb.UpdateProductRequest(product=product, update_mask=mask, request_id="rename"))


async def test_an_update_is_shown_as_soon_as_it_is_acknowledged(shoppers, staff):
    assert await read_names(shoppers) == ["Shirt", "Shirt"]
    await rename(shoppers, staff)
    assert await read_names(shoppers) == ["Coat", "Coat"]


async def test_a_page_that_was_read_and_cached_before_the_update_committed_is_not_shown_afterwards(
    shoppers, staff, rows
):
    async with held_commits(rows, "product"):
        update = asyncio.create_task(rename(shoppers, staff))
        await until_blocked(rows)
        assert await read_names(shoppers) == ["Shirt", "Shirt"]
    await update
    assert await read_names(shoppers) == ["Coat", "Coat"]


async def test_a_deleted_product_is_gone_as_soon_as_its_deletion_is_acknowledged(shoppers, staff):
    with staff():
        await shoppers.DeleteProduct(pb.DeleteProductRequest(product_id="shirt", request_id="delete"))
    assert not (await shoppers.ListProducts(EVERYTHING)).products


async def test_a_new_product_is_listed_as_soon_as_it_is_acknowledged(shoppers, staff):
    variant = pb.Variant(sku="c", price=money(10_000, "THB"))
    product = pb.Product(product_id="cap", name="Cap", variants=[variant])
    with staff():
        await shoppers.CreateProduct(pb.CreateProductRequest(product=product, request_id="cap"))
    listed = (await shoppers.ListProducts(EVERYTHING)).products
    assert {product.name for product in listed} == {"Shirt", "Cap"}
