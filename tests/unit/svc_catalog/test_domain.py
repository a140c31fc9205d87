"""The rules of products and categories, without any I/O."""

import pytest

from shop.catalog.v1.catalog_errors import VersionMismatch
from svc_catalog.domain import Category, Product, Status, Variant


def a_variant(sku, price=100):
    return Variant(sku=sku, price=price, currency="THB")


def a_product(**changes):
    fields = {"id": "shirt", "name": "Shirt", "category_ids": ("clothes",), "variants": (a_variant("s"),), "version": 3}
    return Product(**{**fields, **changes})


RESOURCES = [a_product(), Category(id="clothes", name="Clothes", version=3)]


def test_lowest_price_is_that_of_the_cheapest_variant():
    assert a_product(variants=(a_variant("m", 300), a_variant("s", 200))).lowest_price == 200


def test_an_update_replaces_fields_and_increments_the_version():
    updated = a_product().updated({"brand": "Loom", "status": Status.DRAFT}, "3")
    assert updated == a_product(brand="Loom", status=Status.DRAFT, version=4)


@pytest.mark.parametrize("resource", RESOURCES, ids=["product", "category"])
def test_an_update_without_changes_returns_the_same_object(resource):
    assert resource.updated({"name": resource.name}, "") is resource
    assert resource.updated({}, "3") is resource


@pytest.mark.parametrize("etag", ["2", "4", "x"])
@pytest.mark.parametrize("resource", RESOURCES, ids=["product", "category"])
def test_the_etag_of_another_version_is_rejected(resource, etag):
    with pytest.raises(VersionMismatch):
        resource.updated({"name": "New"}, etag)


def test_a_deleted_product_has_no_categories_and_keeps_its_skus():
    deleted = a_product().deleted("3")
    assert (deleted.category_ids, deleted.skus, deleted.version) == ((), ["s"], 4)
    with pytest.raises(VersionMismatch):
        a_product().deleted("2")
