"""Concurrent changes, changes whose process dies, and lists while the catalog changes."""

import asyncio

import asyncpg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chassis.testing import eventually
from chassis.types.money import money
from chassis.types.pagination import page_token
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
from shop.chassis.v1.chassis_errors import CallerDenied, PageTokenInvalid


def variant(sku, price=10_000):
    return pb.Variant(sku=sku, price=money(price, "THB"))


def create_request(product_id, *skus, **fields):
    product = pb.Product(product_id=product_id, name=product_id, variants=map(variant, skus), **fields)
    return pb.CreateProductRequest(product=product, request_id=f"create-{product_id}")


def update_request(product_id, *paths, request_id, **fields):
    product = pb.Product(product_id=product_id, **fields)
    return pb.UpdateProductRequest(product=product, update_mask=FieldMask(paths=paths), request_id=request_id)


def new_category(category_id, parent_id=""):
    category = category_pb.Category(category_id=category_id, name=category_id, parent_id=parent_id)
    return category_pb.CreateCategoryRequest(category=category, request_id=f"create-{category_id[:40]}")


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


async def test_the_price_of_a_dropped_variant_matches_no_filter(staff_catalog):
    await staff_catalog.CreateProduct(create_request("shirt", "s"))
    dear = pb.Variant(sku="m", price=money(90_000, "THB"))
    await staff_catalog.UpdateProduct(update_request("shirt", "variants", request_id="u-1", variants=[dear]))
    assert not (await staff_catalog.ListProducts(pb.ListProductsRequest(max_price=money(10_000, "THB")))).products
    assert (await staff_catalog.ListProducts(pb.ListProductsRequest(min_price=money(90_000, "THB")))).products


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


async def test_the_longest_names_are_listed_page_by_page(staff_catalog, staff_categories):
    names = [("ก" * 199) + end for end in "ขคงจ"]
    top = "t" * 64
    await staff_categories.CreateCategory(new_category(top))
    for number, name in enumerate(names):
        product = pb.Product(product_id=f"{number}{'x' * 63}", name=name, variants=[variant(f"s-{number}")])
        await staff_catalog.CreateProduct(pb.CreateProductRequest(product=product, request_id=f"c-{number}"))
        category = category_pb.Category(
            category_id=f"{number}{'x' * 63}", name=name[-100:], position=1_000_000, parent_id=top
        )
        await staff_categories.CreateCategory(
            category_pb.CreateCategoryRequest(category=category, request_id=f"c-{number}")
        )

    for order_by in ("name", "name desc"):
        listed, token = [], None
        while token != "":
            page = await staff_catalog.ListProducts(
                pb.ListProductsRequest(page_size=1, page_token=token or "", order_by=order_by)
            )
            listed += [product.name for product in page.products]
            token = page.next_page_token
        assert sorted(listed) == sorted(names)
    first = await staff_categories.ListCategories(category_pb.ListCategoriesRequest(page_size=3, parent_id=top))
    rest = await staff_categories.ListCategories(
        category_pb.ListCategoriesRequest(page_size=3, parent_id=top, page_token=first.next_page_token)
    )
    assert len({category.category_id for category in (*first.categories, *rest.categories)}) == 4


async def test_paging_neither_skips_nor_repeats_products_while_the_catalog_changes(staff_catalog):
    for number in range(6):
        await staff_catalog.CreateProduct(create_request(f"p-{number}", f"s-{number}"))
    first = await staff_catalog.ListProducts(pb.ListProductsRequest(page_size=3))
    await staff_catalog.CreateProduct(create_request("newer", "s-newer"))
    await staff_catalog.DeleteProduct(pb.DeleteProductRequest(product_id="p-3", request_id="d-1"))
    rest = await staff_catalog.ListProducts(pb.ListProductsRequest(page_size=3, page_token=first.next_page_token))
    listed = [product.product_id for product in (*first.products, *rest.products)]
    assert listed == ["p-5", "p-4", "p-3", "p-2", "p-1", "p-0"]


@pytest.mark.parametrize(
    ("order_by", "position"),
    [
        ("create_time", ("not a time", "p")),
        ("create_time", ("2026-11-20T12:00:00", "p")),
        ("create_time desc", ("0001-01-01T00:00:00+14:00", "p")),
        ("price", ("-1", "p")),
        ("price desc", ("9" * 30, "p")),
        ("name", ("a\0b", "p")),
        ("name", ("one part",)),
        ("name", ("of", "three", "parts")),
    ],
)
async def test_a_forged_page_token_of_products_is_rejected(catalog, order_by, position):
    with pytest.raises(PageTokenInvalid):
        await catalog.ListProducts(pb.ListProductsRequest(page_token=page_token(*position), order_by=order_by))


@pytest.mark.parametrize("position", ["x", "-5", "2147483648", "9" * 30])
async def test_a_forged_page_token_of_categories_is_rejected(categories, position):
    with pytest.raises(PageTokenInvalid):
        await categories.ListCategories(
            category_pb.ListCategoriesRequest(page_token=page_token("a", position, "b", "c"))
        )


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("cotton shirt", True),
        ("COTTON", True),
        ("cotton -linen", True),
        ("cotton -soft", False),
        ('"soft cotton"', True),
        ('"cotton soft"', False),
        ("cotton linen", False),
        ("linen or cotton", True),
        ("'; DROP TABLE product; --", False),
        ("& | ! ( ) :* <->", False),
        ("ผ้าฝ้าย", True),
    ],
)
async def test_a_search_accepts_any_text(staff_catalog, query, found):
    await staff_catalog.CreateProduct(create_request("shirt", "s", description="A soft cotton shirt. ผ้าฝ้าย"))
    listed = await staff_catalog.ListProducts(pb.ListProductsRequest(query=query))
    assert bool(listed.products) is found


async def test_batch_get_variants_is_denied_to_the_edge(catalog):
    with pytest.raises(CallerDenied):
        await catalog.BatchGetVariants(pb.BatchGetVariantsRequest(skus=["s"]))
