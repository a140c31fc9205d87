"""The cache after changes of products while no event is published, so that the handler alone invalidates it."""

import asyncio

import pytest
import redis.asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from chassis.types.money import money
from shop.catalog.v1 import catalog_service_pb2 as pb
from tests.integration.database_control import connected, held_commits, until_blocked

SHIRT = pb.GetProductRequest(product_id="shirt")
LEAD_FOR_EVER = """
INSERT INTO relay (holder, lease_expire_time) VALUES ('this test', 'infinity')
ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, lease_expire_time = excluded.lease_expire_time"""
EVERYTHING = pb.ListProductsRequest()


@pytest.fixture
async def rows(database):
    """A connection of a process that leads for ever, so that no relay publishes."""
    async with connected(database) as connection:
        await connection.execute(LEAD_FOR_EVER)
        yield connection


@pytest.fixture
async def shoppers(rows, catalog, staff):
    """Calls the service as shoppers do; it has one product, which is cached."""
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


async def test_reads_after_the_reply_of_an_update_show_it(shoppers, staff):
    assert await read_names(shoppers) == ["Shirt", "Shirt"]
    await rename(shoppers, staff)
    assert await read_names(shoppers) == ["Coat", "Coat"]


async def test_a_page_cached_before_the_commit_of_an_update_is_not_served_after_its_reply(shoppers, staff, rows):
    async with held_commits(rows, "product"):
        update = asyncio.create_task(rename(shoppers, staff))
        await until_blocked(rows)
        assert await read_names(shoppers) == ["Shirt", "Shirt"]
    await update
    assert await read_names(shoppers) == ["Coat", "Coat"]


async def test_lists_after_the_reply_of_a_deletion_do_not_have_the_product(shoppers, staff):
    with staff():
        await shoppers.DeleteProduct(pb.DeleteProductRequest(product_id="shirt", request_id="delete"))
    assert not (await shoppers.ListProducts(EVERYTHING)).products


async def test_lists_after_the_reply_of_a_creation_have_the_product(shoppers, staff):
    variant = pb.Variant(sku="c", price=money(10_000, "THB"))
    product = pb.Product(product_id="cap", name="Cap", variants=[variant])
    with staff():
        await shoppers.CreateProduct(pb.CreateProductRequest(product=product, request_id="cap"))
    listed = (await shoppers.ListProducts(EVERYTHING)).products
    assert {product.name for product in listed} == {"Shirt", "Cap"}


@pytest.mark.parametrize(
    "request_",
    [
        pb.ListProductsRequest(query="Shirt"),
        pb.ListProductsRequest(min_price=money(1, "THB")),
        pb.ListProductsRequest(max_price=money(99_999, "THB")),
    ],
    ids=["query", "min_price", "max_price"],
)
async def test_only_lists_without_bounds_that_clients_invent_are_cached(shoppers, request_, redis_url, event_prefix):
    """Or clients could fill the cache with lists that no other client reads."""
    async with redis.asyncio.from_url(redis_url, protocol=2) as client:
        lists = f"{{{event_prefix}svc_catalog:lists}}"
        before = await client.hkeys(lists)
        assert (await shoppers.ListProducts(request_)).products
        assert await client.hkeys(lists) == before
        assert len(before) == 1
