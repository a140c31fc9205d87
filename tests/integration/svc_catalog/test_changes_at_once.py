"""What the catalog promises when several change it at once, or a process dies over a change."""

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


def creation(product_id, *skus, **fields):
    product = pb.Product(product_id=product_id, name=product_id, variants=map(variant, skus), **fields)
    return pb.CreateProductRequest(product=product, request_id=f"create-{product_id}")


def update(product_id, *paths, request_id, **fields):
    product = pb.Product(product_id=product_id, **fields)
    return pb.UpdateProductRequest(product=product, update_mask=FieldMask(paths=paths), request_id=request_id)


def shelf(category_id, parent_id=""):
    category = category_pb.Category(category_id=category_id, name=category_id, parent_id=parent_id)
    return category_pb.CreateCategoryRequest(category=category, request_id=f"create-{category_id[:40]}")


@pytest.fixture
def back_office(catalog, staff):
    """The service as staff calls it."""
    with staff():
        yield catalog


@pytest.fixture
def staff_categories(categories, staff):
    """The categories as staff calls them."""
    with staff():
        yield categories


@pytest.fixture
async def rows(database):
    """Runs a statement on the service's database, as its owner."""
    connection = await asyncpg.connect(database)
    yield connection.fetch
    await connection.close()


async def refusal_of(call, *kinds):
    """Return the class of the refusal that a call ends in, None when it is done."""
    try:
        await call
    except kinds as refusal:
        return type(refusal)


async def test_a_sku_that_a_product_drops_stays_its_own(back_office, for_orders):
    await back_office.CreateProduct(creation("shirt", "s", "m"))
    updated = await back_office.UpdateProduct(update("shirt", "variants", request_id="u-1", variants=[variant("m")]))
    assert [one.sku for one in updated.variants] == ["m"]
    with pytest.raises(SkuTaken) as refusal:
        await back_office.CreateProduct(creation("coat", "s"))
    assert refusal.value.metadata == {"sku": "s"}
    asked = pb.BatchGetVariantsRequest(skus=["s", "m"])
    known = (await for_orders.BatchGetVariants(asked)).variants
    assert [(one.sku, one.active) for one in known] == [("s", False), ("m", True)]
    back = [variant("s", 20_000), variant("m")]
    restored = await back_office.UpdateProduct(update("shirt", "variants", request_id="u-2", variants=back))
    assert [(one.sku, one.price.units) for one in restored.variants] == [("s", 200), ("m", 100)]
    assert all(one.active for one in (await for_orders.BatchGetVariants(asked)).variants)


async def test_a_price_that_was_dropped_is_not_found_by_it(back_office):
    await back_office.CreateProduct(creation("shirt", "s"))
    dear = pb.Variant(sku="m", price=money(90_000, "THB"))
    await back_office.UpdateProduct(update("shirt", "variants", request_id="u-1", variants=[dear]))
    assert not (await back_office.ListProducts(pb.ListProductsRequest(max_price=money(10_000, "THB")))).products
    assert (await back_office.ListProducts(pb.ListProductsRequest(min_price=money(90_000, "THB")))).products


async def test_of_products_made_at_once_with_one_sku_one_has_it(back_office, rows):
    requests = [creation(f"p-{number}", f"own-{number}", "shared") for number in range(8)]
    outcomes = await asyncio.gather(*(refusal_of(back_office.CreateProduct(one), SkuTaken) for one in requests))
    assert sorted(map(str, outcomes)).count("None") == 1
    assert len(await rows("SELECT 1 FROM product")) == 1
    assert len(await rows("SELECT 1 FROM variant")) == 2


async def test_products_that_want_each_others_skus_end_in_refusals_and_not_in_a_deadlock(back_office, rows):
    await back_office.CreateProduct(creation("a", "a-1"))
    await back_office.CreateProduct(creation("b", "b-1"))
    wanted = [("a", ["z", "y", "a-1"]), ("b", ["y", "z", "b-1"])]
    changes = [
        update(product_id, "variants", request_id=f"u-{n}-{product_id}", variants=map(variant, skus))
        for n in range(5)
        for product_id, skus in wanted
    ]
    await asyncio.gather(*(refusal_of(back_office.UpdateProduct(one), SkuTaken) for one in changes))
    owners = {row["sku"]: row["product_id"] for row in await rows("SELECT sku, product_id FROM variant")}
    assert owners["y"] == owners["z"]


async def test_of_updates_at_once_with_one_etag_one_wins(back_office):
    await back_office.CreateProduct(creation("shirt", "s"))
    changes = [update("shirt", "brand", request_id=f"u-{n}", brand=f"b-{n}", etag="1") for n in range(8)]
    outcomes = await asyncio.gather(*(refusal_of(back_office.UpdateProduct(one), VersionMismatch) for one in changes))
    assert outcomes.count(None) == 1
    assert (await back_office.GetProduct(pb.GetProductRequest(product_id="shirt"))).etag == "2"


async def test_two_categories_moved_into_each_other_at_once_make_no_circle(staff_categories):
    for round_ in range(5):
        left, right = f"left-{round_}", f"right-{round_}"
        await staff_categories.CreateCategory(shelf(left))
        await staff_categories.CreateCategory(shelf(right))
        moves = [
            category_pb.UpdateCategoryRequest(
                category=category_pb.Category(category_id=one, parent_id=other), request_id=f"move-{one}"
            )
            for one, other in ((left, right), (right, left))
        ]
        outcomes = await asyncio.gather(
            *(refusal_of(staff_categories.UpdateCategory(move), CategoryCycle) for move in moves)
        )
        assert sorted(map(str, outcomes)) == sorted([str(CategoryCycle), "None"])


async def test_a_category_is_deleted_or_filled_but_not_both(back_office, staff_categories):
    for round_ in range(8):
        category_id = f"shelf-{round_}"
        await staff_categories.CreateCategory(shelf(category_id))
        outcomes = await asyncio.gather(
            refusal_of(
                back_office.CreateProduct(creation(f"p-{round_}", f"s-{round_}", category_ids=[category_id])),
                CategoryNotFound,
            ),
            refusal_of(staff_categories.CreateCategory(shelf(f"below-{round_}", category_id)), CategoryNotFound),
            refusal_of(
                staff_categories.DeleteCategory(
                    category_pb.DeleteCategoryRequest(category_id=category_id, request_id=f"d-{round_}")
                ),
                CategoryNotEmpty,
            ),
        )
        assert outcomes in ([None, None, CategoryNotEmpty], [CategoryNotFound, CategoryNotFound, None])


async def test_an_update_that_changes_nothing_tells_nothing(back_office, rows):
    made = await back_office.CreateProduct(creation("shirt", "s", brand="Loom"))
    assert await back_office.UpdateProduct(update("shirt", "brand", request_id="u-1", brand="Loom")) == made
    assert len(await rows("SELECT 1 FROM outbox")) == 1


async def test_every_change_of_a_product_is_told_with_its_version(back_office, rows):
    await back_office.CreateProduct(creation("shirt", "s"))
    await back_office.UpdateProduct(update("shirt", "brand", request_id="u-1", brand="Loom"))
    await back_office.DeleteProduct(pb.DeleteProductRequest(product_id="shirt", etag="2", request_id="d-1"))
    told = [
        getattr(events, row["type"].rpartition(".")[2]).FromString(row["payload"])
        for row in await rows("SELECT type, payload FROM outbox WHERE key = 'shirt' ORDER BY id")
    ]
    assert [(type(event), event.version) for event in told] == [
        (events.ProductCreated, 1),
        (events.ProductUpdated, 2),
        (events.ProductDeleted, 3),
    ]
    assert (told[1].brand, list(told[2].skus)) == ("Loom", ["s"])


async def test_a_deletion_compares_its_etag(back_office):
    await back_office.CreateProduct(creation("shirt", "s"))
    with pytest.raises(VersionMismatch):
        await back_office.DeleteProduct(pb.DeleteProductRequest(product_id="shirt", etag="7", request_id="d-1"))
    assert (await back_office.GetProduct(pb.GetProductRequest(product_id="shirt"))).etag == "1"


async def test_the_cache_is_cleared_even_when_the_process_that_changed_a_product_died(catalog, staff, rows):
    """A change whose process was killed after the commit leaves the row, the event, and a stale cache."""
    with staff():
        await catalog.CreateProduct(creation("shirt", "s"))
    asked = pb.GetProductRequest(product_id="shirt")

    async def brands():
        listed = (await catalog.ListProducts(pb.ListProductsRequest())).products
        return (await catalog.GetProduct(asked)).brand, [product.brand for product in listed]

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


async def test_the_longest_names_are_listed_page_by_page(back_office, staff_categories):
    names = [("ก" * 199) + end for end in "ขคงจ"]
    top = "t" * 64
    await staff_categories.CreateCategory(shelf(top))
    for number, name in enumerate(names):
        product = pb.Product(product_id=f"{number}{'x' * 63}", name=name, variants=[variant(f"s-{number}")])
        await back_office.CreateProduct(pb.CreateProductRequest(product=product, request_id=f"c-{number}"))
        category = category_pb.Category(
            category_id=f"{number}{'x' * 63}", name=name[-100:], position=1_000_000, parent_id=top
        )
        await staff_categories.CreateCategory(
            category_pb.CreateCategoryRequest(category=category, request_id=f"c-{number}")
        )

    for order_by in ("name", "name desc"):
        listed, token = [], None
        while token != "":
            page = await back_office.ListProducts(
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


async def test_paging_neither_skips_nor_repeats_while_the_catalog_changes(back_office):
    for number in range(6):
        await back_office.CreateProduct(creation(f"p-{number}", f"s-{number}"))
    first = await back_office.ListProducts(pb.ListProductsRequest(page_size=3))
    await back_office.CreateProduct(creation("newer", "s-newer"))
    await back_office.DeleteProduct(pb.DeleteProductRequest(product_id="p-3", request_id="d-1"))
    rest = await back_office.ListProducts(pb.ListProductsRequest(page_size=3, page_token=first.next_page_token))
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
async def test_a_forged_page_token_is_refused(catalog, order_by, position):
    with pytest.raises(PageTokenInvalid):
        await catalog.ListProducts(pb.ListProductsRequest(page_token=page_token(*position), order_by=order_by))


@pytest.mark.parametrize("place", ["x", "-5", "2147483648", "9" * 30])
async def test_a_forged_page_token_of_categories_is_refused(categories, place):
    with pytest.raises(PageTokenInvalid):
        await categories.ListCategories(category_pb.ListCategoriesRequest(page_token=page_token("a", place, "b", "c")))


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
async def test_a_search_takes_whatever_people_type(back_office, query, found):
    await back_office.CreateProduct(creation("shirt", "s", description="A soft cotton shirt. ผ้าฝ้าย"))
    listed = await back_office.ListProducts(pb.ListProductsRequest(query=query))
    assert bool(listed.products) is found


async def test_only_orders_ask_for_snapshots(catalog):
    with pytest.raises(CallerDenied):
        await catalog.BatchGetVariants(pb.BatchGetVariantsRequest(skus=["s"]))
