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


def test_a_product_is_sorted_by_its_lowest_price():
    assert a_product(variants=(a_variant("m", 300), a_variant("s", 200))).lowest_price == 200


def test_an_update_replaces_fields_and_raises_the_version():
    updated = a_product().updated({"brand": "Loom", "status": Status.DRAFT}, "3")
    assert updated == a_product(brand="Loom", status=Status.DRAFT, version=4)


@pytest.mark.parametrize("resource", RESOURCES, ids=["product", "category"])
def test_an_update_that_changes_nothing_is_none(resource):
    assert resource.updated({"name": resource.name}, "") is resource
    assert resource.updated({}, "3") is resource


@pytest.mark.parametrize("etag", ["2", "4", "x"])
@pytest.mark.parametrize("resource", RESOURCES, ids=["product", "category"])
def test_another_versions_etag_is_refused(resource, etag):
    with pytest.raises(VersionMismatch):
        resource.updated({"name": "New"}, etag)


def test_a_product_that_is_gone_stands_in_no_category_and_keeps_its_skus():
    gone = a_product().deleted("3")
    assert (gone.category_ids, gone.skus, gone.version) == ((), ["s"], 4)
    with pytest.raises(VersionMismatch):
        a_product().deleted("2")
