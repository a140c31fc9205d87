"""The RPCs of svc_catalog, on a real database and a real cache."""

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chassis.testing import as_user
from chassis.types.money import money
from shop.catalog.v1 import catalog_service_pb2 as pb
from shop.catalog.v1 import category_service_pb2 as category_pb
from shop.catalog.v1.catalog_errors import (
    CategoryCycle,
    CategoryIdTaken,
    CategoryNotEmpty,
    CategoryNotFound,
    ProductIdTaken,
    ProductNotFound,
    SkuTaken,
    VersionMismatch,
)
from shop.chassis.v1.chassis_errors import CallerDenied, InvalidRequest, PageTokenInvalid, RoleMissing, TokenMissing


def variant(sku, price=10_000, **changes):
    return pb.Variant(sku=sku, **{"price": money(price, "THB"), "attributes": {"color": "red"}, **changes})


def product(product_id, *variants, **changes):
    return pb.Product(**{"product_id": product_id, "name": product_id.title(), "variants": variants, **changes})


@pytest.fixture
async def create(catalog, staff):
    async def create(name, *variants, **changes):
        request = pb.CreateProductRequest(
            product=product(name, *(variants or (variant(f"{name}-1"),)), **changes), request_id=f"create-{name}"
        )
        with staff():
            return await catalog.CreateProduct(request)

    return create


@pytest.fixture
async def create_category(categories, staff):
    async def create_category(category_id, parent_id="", position=0):
        category = category_pb.Category(
            category_id=category_id, parent_id=parent_id, name=category_id.title(), position=position
        )
        with staff():
            return await categories.CreateCategory(
                category_pb.CreateCategoryRequest(category=category, request_id=f"create-{category_id}")
            )

    return create_category


async def names(catalog, **request):
    listed = await catalog.ListProducts(pb.ListProductsRequest(**request))
    return [product.product_id for product in listed.products]


async def test_get_returns_a_product_as_it_was_created(catalog, create):
    created = await create(
        "shirt", variant("shirt-s", 19_950), variant("shirt-m"), brand="Loom", description="Of cotton."
    )
    assert (created.etag, created.status) == ("1", pb.PRODUCT_STATUS_ACTIVE)
    assert await catalog.GetProduct(pb.GetProductRequest(product_id="shirt")) == created
    assert created.variants[0].price == money(19_950, "THB")


async def test_a_repeated_creation_returns_the_first_reply_and_a_taken_sku_is_rejected(create):
    assert await create("shirt") == await create("shirt")
    with pytest.raises(SkuTaken):
        await create("coat", variant("shirt-1"))


async def test_ids_and_skus_stay_taken_after_deletion(catalog, create, staff):
    await create("shirt")
    with staff():
        again = pb.CreateProductRequest(product=product("shirt", variant("other")), request_id="again")
        with pytest.raises(ProductIdTaken):
            await catalog.CreateProduct(again)
        await catalog.DeleteProduct(pb.DeleteProductRequest(product_id="shirt", request_id="delete"))
    with pytest.raises(SkuTaken):
        await create("coat", variant("shirt-1"))
    with pytest.raises(ProductNotFound):
        await catalog.GetProduct(pb.GetProductRequest(product_id="shirt"))


async def test_a_price_with_a_fraction_of_a_minor_unit_is_rejected_by_its_field(catalog, create):
    half = variant("shirt-1")
    half.price.nanos = 5_000_000
    with pytest.raises(InvalidRequest) as error:
        await create("shirt", variant("shirt-0"), half)
    assert error.value.metadata["field"] == "product.variants[1].price"


async def test_an_update_with_a_mask_replaces_the_named_fields(catalog, create, staff):
    created = await create("shirt", description="Old.", brand="Loom")
    change = product("shirt", name="Better shirt", description="", etag=created.etag)
    with staff():
        updated = await catalog.UpdateProduct(
            pb.UpdateProductRequest(
                product=change, update_mask=FieldMask(paths=["name", "description"]), request_id="update"
            )
        )
    assert (updated.name, updated.description, updated.brand, updated.etag) == ("Better shirt", "", "Loom", "2")
    assert updated.variants == created.variants


async def test_an_update_without_a_mask_replaces_the_set_fields(catalog, create, staff):
    created = await create("shirt", brand="Loom")
    with staff():
        updated = await catalog.UpdateProduct(
            pb.UpdateProductRequest(product=pb.Product(product_id="shirt", description="New."), request_id="update")
        )
    assert (updated.description, updated.brand, updated.variants) == ("New.", "Loom", created.variants)


async def test_an_update_with_a_stale_etag_is_rejected(catalog, create, staff):
    await create("shirt")
    with staff():
        first = pb.UpdateProductRequest(product=pb.Product(product_id="shirt", brand="A", etag="1"), request_id="u-1")
        await catalog.UpdateProduct(first)
        second = pb.UpdateProductRequest(product=pb.Product(product_id="shirt", brand="B", etag="1"), request_id="u-2")
        with pytest.raises(VersionMismatch):
            await catalog.UpdateProduct(second)


async def test_an_update_to_no_variants_is_rejected(catalog, create, staff):
    await create("shirt")
    request = pb.UpdateProductRequest(
        product=pb.Product(product_id="shirt"), update_mask=FieldMask(paths=["variants"]), request_id="u-1"
    )
    with staff(), pytest.raises(InvalidRequest):
        await catalog.UpdateProduct(request)


async def test_cached_reads_show_a_change_at_once(catalog, create, staff):
    await create("shirt")
    assert (await catalog.GetProduct(pb.GetProductRequest(product_id="shirt"))).brand == ""
    assert await names(catalog) == ["shirt"]
    with staff():
        await catalog.UpdateProduct(
            pb.UpdateProductRequest(product=pb.Product(product_id="shirt", brand="Loom"), request_id="u-1")
        )
    assert (await catalog.GetProduct(pb.GetProductRequest(product_id="shirt"))).brand == "Loom"
    await create("coat")
    assert await names(catalog) == ["coat", "shirt"]


async def test_drafts_are_shown_to_staff_alone(catalog, create, staff):
    await create("shirt", status=pb.PRODUCT_STATUS_DRAFT)
    with pytest.raises(ProductNotFound):
        await catalog.GetProduct(pb.GetProductRequest(product_id="shirt"))
    assert await names(catalog) == []
    assert await names(catalog, status=pb.PRODUCT_STATUS_DRAFT) == []
    with staff():
        assert (await catalog.GetProduct(pb.GetProductRequest(product_id="shirt"))).product_id == "shirt"
        assert await names(catalog, status=pb.PRODUCT_STATUS_DRAFT) == ["shirt"]
    assert await names(catalog, status=pb.PRODUCT_STATUS_DRAFT) == []


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ("", ["p2", "p4", "p3", "p1", "p0"]),
        ("create_time", ["p0", "p1", "p3", "p4", "p2"]),
        ("name", ["p0", "p1", "p2", "p3", "p4"]),
        ("name desc", ["p4", "p3", "p2", "p1", "p0"]),
        ("price", ["p3", "p1", "p0", "p2", "p4"]),
        ("price desc", ["p4", "p2", "p0", "p1", "p3"]),
    ],
)
async def test_pages_are_contiguous_in_every_order(catalog, create, order_by, expected):
    for name, price in [("p0", 300), ("p1", 200), ("p3", 100), ("p4", 1_000_000), ("p2", 400)]:
        await create(name, variant(f"{name}-1", price))
    listed, token = [], ""
    while True:
        request = pb.ListProductsRequest(page_size=2, page_token=token, order_by=order_by, currency_code="THB")
        page = await catalog.ListProducts(request)
        listed += [product.product_id for product in page.products]
        token = page.next_page_token
        if not token:
            break
    assert listed == expected


async def test_each_filter_limits_the_list(catalog, create, create_category):
    await create_category("clothes")
    await create_category("shirts", "clothes")
    await create("shirt", variant("shirt-1", 10_000), brand="Loom", category_ids=["shirts"], description="Soft cotton")
    await create("coat", variant("coat-1", 90_000), brand="Wool", category_ids=["clothes"])
    assert await names(catalog, category_id="clothes") == ["coat", "shirt"]
    assert await names(catalog, category_id="shirts") == ["shirt"]
    assert await names(catalog, query="cotton") == ["shirt"]
    assert await names(catalog, brand="Wool") == ["coat"]
    assert await names(catalog, min_price=money(50_000, "THB")) == ["coat"]
    assert await names(catalog, max_price=money(50_000, "THB")) == ["shirt"]
    assert await names(catalog, max_price=money(50_000, "JPY")) == []
    with pytest.raises(InvalidRequest):
        await names(catalog, min_price=money(1, "THB"), max_price=money(1, "JPY"))


async def test_the_order_by_price_compares_the_lowest_prices_of_one_currency(catalog, create):
    await create("both", variant("b-1", 1_000), pb.Variant(sku="b-2", price=money(9, "JPY")))
    await create("baht", variant("t-1", 500))
    assert await names(catalog, order_by="price", currency_code="THB") == ["baht", "both"]
    assert await names(catalog, order_by="price", currency_code="JPY") == ["both"]
    assert await names(catalog, order_by="price", min_price=money(600, "THB")) == ["both"]
    for request in ({}, {"currency_code": "JPY", "max_price": money(600, "THB")}):
        with pytest.raises(InvalidRequest) as rejection:
            await names(catalog, order_by="price", **request)
        assert rejection.value.metadata["field"] == "currency_code"


async def test_lists_follow_every_change_of_a_product(catalog, create, create_category, staff):
    for category in ("clothes", "sale"):
        await create_category(category)
    await create("shirt", variant("s-1", 900), category_ids=["clothes"])
    changed = product("shirt", variant("s-2", 300), category_ids=["sale"], name="Anorak")
    mask = FieldMask(paths=["name", "variants", "category_ids"])
    with staff():
        await catalog.UpdateProduct(pb.UpdateProductRequest(product=changed, update_mask=mask, request_id="u-1"))
    await create("coat", variant("c-1", 500), category_ids=["sale"])
    assert await names(catalog, category_id="clothes") == []
    assert await names(catalog, category_id="sale", order_by="price", currency_code="THB") == ["shirt", "coat"]
    assert await names(catalog, order_by="name") == ["shirt", "coat"]
    with staff():
        await catalog.DeleteProduct(pb.DeleteProductRequest(product_id="shirt", request_id="d-1"))
    assert await names(catalog, category_id="sale") == ["coat"]


async def test_a_malformed_page_token_is_rejected(catalog):
    with pytest.raises(PageTokenInvalid):
        await names(catalog, page_token="abcd")


async def test_batch_get_variants_returns_prices_and_marks_deleted_products_inactive(
    create, order_client, catalog, staff
):
    await create("shirt", variant("shirt-1", 19_900, weight_grams=200, tax_rate_basis_points=700))
    await create("coat")
    with staff():
        await catalog.DeleteProduct(pb.DeleteProductRequest(product_id="coat", request_id="delete"))
    found = await order_client.BatchGetVariants(pb.BatchGetVariantsRequest(skus=["coat-1", "nothing", "shirt-1"]))
    assert [(one.sku, one.active) for one in found.variants] == [("coat-1", False), ("shirt-1", True)]
    assert found.variants[1].price == money(19_900, "THB")
    assert (found.variants[1].name, found.variants[1].weight_grams) == ("Shirt", 200)


async def test_batch_get_variants_is_denied_to_the_edge(catalog):
    with pytest.raises(CallerDenied):
        await catalog.BatchGetVariants(pb.BatchGetVariantsRequest(skus=["s"]))


async def test_customers_and_anonymous_callers_cannot_create_products(catalog, issuer):
    request = pb.CreateProductRequest(product=product("shirt", variant("shirt-1")), request_id="create")
    with pytest.raises(TokenMissing):
        await catalog.CreateProduct(request)

    with as_user(f"Bearer {issuer.token('customer-1', 'customer')}"), pytest.raises(RoleMissing):
        await catalog.CreateProduct(request)


async def test_categories_are_listed_in_order_page_by_page(categories, create_category):
    await create_category("b", position=2)
    await create_category("a", position=1)
    await create_category("a-2", "a", position=2)
    await create_category("a-1", "a", position=2)
    first = await categories.ListCategories(category_pb.ListCategoriesRequest(page_size=3))
    rest = await categories.ListCategories(
        category_pb.ListCategoriesRequest(page_size=3, page_token=first.next_page_token)
    )
    assert [one.category_id for one in first.categories] == ["a", "b", "a-1"]
    assert [one.category_id for one in rest.categories] == ["a-2"]
    below = await categories.ListCategories(category_pb.ListCategoriesRequest(parent_id="a"))
    assert [one.category_id for one in below.categories] == ["a-1", "a-2"]


async def test_a_category_cannot_be_moved_below_its_descendant(categories, create_category, staff):
    await create_category("a")
    await create_category("b", "a")
    await create_category("c", "b")
    move = category_pb.UpdateCategoryRequest(
        category=category_pb.Category(category_id="a", parent_id="c"), request_id="move"
    )
    with staff(), pytest.raises(CategoryCycle):
        await categories.UpdateCategory(move)


async def test_a_category_with_products_cannot_be_deleted(catalog, categories, create_category, create, staff):
    await create_category("a")
    await create("shirt", category_ids=["a"])
    with staff():
        with pytest.raises(CategoryNotEmpty):
            await categories.DeleteCategory(category_pb.DeleteCategoryRequest(category_id="a", request_id="d-1"))
        await catalog.DeleteProduct(pb.DeleteProductRequest(product_id="shirt", request_id="d-2"))
        await categories.DeleteCategory(category_pb.DeleteCategoryRequest(category_id="a", request_id="d-3"))
    with pytest.raises(CategoryNotFound):
        await categories.GetCategory(category_pb.GetCategoryRequest(category_id="a"))


async def test_unknown_parents_and_taken_category_ids_are_rejected(categories, create_category, create, staff):
    await create_category("a")
    with pytest.raises(CategoryNotFound):
        await create("shirt", category_ids=["nowhere"])
    with pytest.raises(CategoryNotFound):
        await create_category("b", "nowhere")
    again = category_pb.CreateCategoryRequest(
        category=category_pb.Category(category_id="a", name="A"), request_id="again"
    )
    with staff(), pytest.raises(CategoryIdTaken):
        await categories.CreateCategory(again)


async def test_a_category_without_a_name_is_rejected_and_the_request_id_stays_free(categories, create_category, staff):
    await create_category("a")
    unnamed, named = category_pb.Category(category_id="a"), category_pb.Category(category_id="a", name="New")
    mask = FieldMask(paths=["name"])
    with staff():
        with pytest.raises(InvalidRequest):
            await categories.UpdateCategory(
                category_pb.UpdateCategoryRequest(category=unnamed, update_mask=mask, request_id="u-1")
            )
        updated = await categories.UpdateCategory(
            category_pb.UpdateCategoryRequest(category=named, update_mask=mask, request_id="u-1")
        )
    assert (updated.name, updated.etag) == ("New", "2")
