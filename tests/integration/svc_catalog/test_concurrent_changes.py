"""Concurrent changes, published changes, and changes whose process dies."""

import asyncio

import pytest

from chassis.testing import eventually
from shop.catalog.v1 import catalog_events_pb2 as events
from shop.catalog.v1 import catalog_service_pb2 as pb
from shop.catalog.v1 import category_service_pb2 as category_pb
from shop.catalog.v1.catalog_errors import (
    CategoryCycle,
    CategoryNotEmpty,
    CategoryNotFound,
    SkuTaken,
    VersionMismatch,
)
from tests.integration.svc_catalog.catalog_requests import create_request, new_category, update_request, variant


async def error_of(call, *kinds):
    """Return the class of the error that a call raises, None when it succeeds."""
    try:
        await call
    except kinds as error:
        return type(error)


async def test_a_dropped_sku_stays_with_its_product(staff_catalog, order_client):
    await staff_catalog.CreateProduct(create_request("shirt", "s", "m"))
    updated = await staff_catalog.UpdateProduct(
        update_request("shirt", "variants", request_id="u-1", variants=[variant("m")])
    )
    assert [one.sku for one in updated.variants] == ["m"]
    with pytest.raises(SkuTaken) as error:
        await staff_catalog.CreateProduct(create_request("coat", "s"))
    assert error.value.metadata == {"sku": "s"}
    request = pb.BatchGetVariantsRequest(skus=["s", "m"])
    known = (await order_client.BatchGetVariants(request)).variants
    assert [(one.sku, one.active) for one in known] == [("s", False), ("m", True)]
    back = [variant("s", 20_000), variant("m")]
    restored = await staff_catalog.UpdateProduct(update_request("shirt", "variants", request_id="u-2", variants=back))
    assert [(one.sku, one.price.units) for one in restored.variants] == [("s", 200), ("m", 100)]
    assert all(one.active for one in (await order_client.BatchGetVariants(request)).variants)


async def test_of_concurrent_creations_with_one_sku_one_succeeds(staff_catalog, rows):
    requests = [create_request(f"p-{number}", f"own-{number}", "shared") for number in range(8)]
    outcomes = await asyncio.gather(*(error_of(staff_catalog.CreateProduct(one), SkuTaken) for one in requests))
    assert sorted(map(str, outcomes)).count("None") == 1
    assert len(await rows("SELECT 1 FROM product")) == 1
    assert len(await rows("SELECT 1 FROM variant")) == 2


async def test_concurrent_updates_to_the_same_new_skus_end_in_sku_taken_and_not_in_a_deadlock(staff_catalog, rows):
    await staff_catalog.CreateProduct(create_request("a", "a-1"))
    await staff_catalog.CreateProduct(create_request("b", "b-1"))
    wanted = [("a", ["z", "y", "a-1"]), ("b", ["y", "z", "b-1"])]
    changes = [
        update_request(product_id, "variants", request_id=f"u-{n}-{product_id}", variants=map(variant, skus))
        for n in range(5)
        for product_id, skus in wanted
    ]
    await asyncio.gather(*(error_of(staff_catalog.UpdateProduct(one), SkuTaken) for one in changes))
    owners = {row["sku"]: row["product_id"] for row in await rows("SELECT sku, product_id FROM variant")}
    assert owners["y"] == owners["z"]


async def test_of_concurrent_updates_with_one_etag_one_succeeds(staff_catalog):
    await staff_catalog.CreateProduct(create_request("shirt", "s"))
    changes = [update_request("shirt", "brand", request_id=f"u-{n}", brand=f"b-{n}", etag="1") for n in range(8)]
    outcomes = await asyncio.gather(*(error_of(staff_catalog.UpdateProduct(one), VersionMismatch) for one in changes))
    assert outcomes.count(None) == 1
    assert (await staff_catalog.GetProduct(pb.GetProductRequest(product_id="shirt"))).etag == "2"


async def test_concurrent_moves_of_two_categories_below_each_other_make_no_cycle(staff_categories):
    for round_ in range(5):
        left, right = f"left-{round_}", f"right-{round_}"
        await staff_categories.CreateCategory(new_category(left))
        await staff_categories.CreateCategory(new_category(right))
        moves = [
            category_pb.UpdateCategoryRequest(
                category=category_pb.Category(category_id=one, parent_id=other), request_id=f"move-{one}"
            )
            for one, other in ((left, right), (right, left))
        ]
        outcomes = await asyncio.gather(
            *(error_of(staff_categories.UpdateCategory(move), CategoryCycle) for move in moves)
        )
        assert sorted(map(str, outcomes)) == sorted([str(CategoryCycle), "None"])


async def test_a_category_is_either_deleted_or_given_contents_by_concurrent_requests(staff_catalog, staff_categories):
    for round_ in range(8):
        category_id = f"shelf-{round_}"
        await staff_categories.CreateCategory(new_category(category_id))
        outcomes = await asyncio.gather(
            error_of(
                staff_catalog.CreateProduct(create_request(f"p-{round_}", f"s-{round_}", category_ids=[category_id])),
                CategoryNotFound,
            ),
            error_of(staff_categories.CreateCategory(new_category(f"below-{round_}", category_id)), CategoryNotFound),
            error_of(
                staff_categories.DeleteCategory(
                    category_pb.DeleteCategoryRequest(category_id=category_id, request_id=f"d-{round_}")
                ),
                CategoryNotEmpty,
            ),
        )
        assert outcomes in ([None, None, CategoryNotEmpty], [CategoryNotFound, CategoryNotFound, None])


async def test_an_update_without_changes_publishes_nothing(staff_catalog, rows):
    created = await staff_catalog.CreateProduct(create_request("shirt", "s", brand="Loom"))
    assert (
        await staff_catalog.UpdateProduct(update_request("shirt", "brand", request_id="u-1", brand="Loom")) == created
    )
    assert len(await rows("SELECT 1 FROM outbox")) == 1


async def test_every_change_of_a_product_is_published_with_its_version(staff_catalog, rows):
    await staff_catalog.CreateProduct(create_request("shirt", "s"))
    await staff_catalog.UpdateProduct(update_request("shirt", "brand", request_id="u-1", brand="Loom"))
    await staff_catalog.DeleteProduct(pb.DeleteProductRequest(product_id="shirt", etag="2", request_id="d-1"))
    published = [
        getattr(events, row["type"].rpartition(".")[2]).FromString(row["payload"])
        for row in await rows("SELECT type, payload FROM outbox WHERE key = 'shirt' ORDER BY id")
    ]
    assert [(type(event), event.version) for event in published] == [
        (events.ProductCreated, 1),
        (events.ProductUpdated, 2),
        (events.ProductDeleted, 3),
    ]
    assert (published[1].brand, list(published[2].skus)) == ("Loom", ["s"])


async def test_a_deletion_with_a_stale_etag_is_rejected(staff_catalog):
    await staff_catalog.CreateProduct(create_request("shirt", "s"))
    with pytest.raises(VersionMismatch):
        await staff_catalog.DeleteProduct(pb.DeleteProductRequest(product_id="shirt", etag="7", request_id="d-1"))
    assert (await staff_catalog.GetProduct(pb.GetProductRequest(product_id="shirt"))).etag == "1"


async def test_the_event_invalidates_the_cache_when_the_process_died_after_its_commit(catalog, staff, rows):
    """A process that is killed after a commit leaves the row, the event, and a stale cache entry."""
    with staff():
        await catalog.CreateProduct(create_request("shirt", "s"))
    request = pb.GetProductRequest(product_id="shirt")

    async def brands():
        listed = (await catalog.ListProducts(pb.ListProductsRequest())).products
        return (await catalog.GetProduct(request)).brand, [product.brand for product in listed]

    # The creation's own event clears the cache too: the change has to come after it.
    await eventually(lambda: rows("SELECT 1 FROM inbox"))
    assert await brands() == ("", [""])
    await rows("UPDATE product SET brand = 'Loom', version = 2 WHERE product_id = 'shirt'")
    assert await brands() == ("", [""])
    change = events.ProductUpdated(product_id="shirt", version=2)
    await rows(
        "INSERT INTO outbox (topic, key, type, payload) VALUES ('shop.catalog.v1.Product', 'shirt', $1, $2)",
        change.DESCRIPTOR.full_name,
        change.SerializeToString(),
    )

    async def fresh():
        return await brands() == ("Loom", ["Loom"])

    await eventually(fresh)
