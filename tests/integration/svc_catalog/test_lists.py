"""Lists of products and categories: pages, page tokens and searches."""

from random import Random

import pytest

from chassis.types.money import money
from chassis.types.pagination import page_token
from shop.catalog.v1 import catalog_service_pb2 as pb
from shop.catalog.v1 import category_service_pb2 as category_pb
from shop.chassis.v1.chassis_errors import PageTokenInvalid
from svc_catalog.converters import filter_from_proto
from tests.integration.svc_catalog.catalog_requests import create_request, new_category, update_request, variant


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


@pytest.mark.parametrize("query", ["-" * 33, "-" * 200, "- " * 100, "-shirt " * 25, '-"' * 100, '"-' * 100, "or " * 66])
async def test_a_search_accepts_any_number_of_operators(staff_catalog, query):
    await staff_catalog.ListProducts(pb.ListProductsRequest(query=query))


async def test_postgresql_accepts_every_text_that_the_search_passes_on(rows):
    """Texts of all that has a meaning to a search, many in one statement."""
    random = Random(20)
    signs = ["-", "-", '"', " ", " ", "or", "a", "!", "&", "|", "(", ")", "<->", ":*", "'", "\\\\", "ก", "\t"]
    few = [random.sample(signs, random.randrange(1, 4)) for _ in range(5_000)]  # so that some come often in a row
    texts = ["".join(random.choices(one, k=random.randrange(200)))[:200] for one in few]
    words = [filter_from_proto(pb.ListProductsRequest(query=text)).words for text in texts]
    await rows("SELECT websearch_to_tsquery('simple', one) FROM unnest($1::text[]) AS one", words)


async def test_the_price_of_a_dropped_variant_matches_no_filter(staff_catalog):
    await staff_catalog.CreateProduct(create_request("shirt", "s"))
    dear = pb.Variant(sku="m", price=money(90_000, "THB"))
    await staff_catalog.UpdateProduct(update_request("shirt", "variants", request_id="u-1", variants=[dear]))
    assert not (await staff_catalog.ListProducts(pb.ListProductsRequest(max_price=money(10_000, "THB")))).products
    assert (await staff_catalog.ListProducts(pb.ListProductsRequest(min_price=money(90_000, "THB")))).products
