"""The sample shop is large enough, valid, and the same every time."""

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import protovalidate
import pytest

from mesh.qa.sample_data.shop import CURRENCY, LOCATIONS, VAT_BASIS_POINTS, sample_shop
from shop.catalog.v1.catalog_service_pb2 import CreateProductRequest
from shop.catalog.v1.category_service_pb2 import CreateCategoryRequest
from shop.delivery.v1.delivery_service_pb2 import CreateZoneRequest
from shop.inventory.v1.inventory_service_pb2 import SetStockRequest

SHOP = sample_shop()
SKUS = [variant.sku for product in SHOP.products for variant in product.variants]

_DIGEST = """
import hashlib
from mesh.qa.sample_data.shop import sample_shop
shop = sample_shop()
print(hashlib.sha256(repr((shop.categories, shop.products, shop.levels, shop.zones)).encode()).hexdigest())
"""


def test_the_sample_shop_has_enough_products():
    assert len(SHOP.products) >= 300
    assert len(SKUS) > len(SHOP.products)
    assert {level.location_id for level in SHOP.levels} == set(LOCATIONS)
    assert len(LOCATIONS) == 3
    assert all(zone.slot_rules for zone in SHOP.zones)


@pytest.mark.parametrize(
    "names",
    [
        [product.product_id for product in SHOP.products],
        [product.name for product in SHOP.products],
        [category.category_id for category in SHOP.categories],
        [zone.zone_id for zone in SHOP.zones],
        SKUS,
    ],
    ids=["product_id", "name", "category_id", "zone_id", "sku"],
)
def test_ids_are_unique(names):
    assert [name for name, times in Counter(names).items() if times > 1] == []


def test_every_message_passes_the_validation_of_the_services():
    for product in SHOP.products:
        protovalidate.validate(CreateProductRequest(product=product, request_id="x"))
    for category in SHOP.categories:
        protovalidate.validate(CreateCategoryRequest(category=category, request_id="x"))
    for zone in SHOP.zones:
        protovalidate.validate(CreateZoneRequest(zone=zone, request_id="x"))
    for level in SHOP.levels:
        protovalidate.validate(
            SetStockRequest(sku=level.sku, location_id=level.location_id, on_hand=level.on_hand, request_id="x")
        )


def test_a_category_comes_after_its_parent():
    seen = {""}
    for category in SHOP.categories:
        assert category.parent_id in seen
        seen.add(category.category_id)


def test_every_product_is_in_a_category_without_children():
    shelves = {category.category_id for category in SHOP.categories}
    parents = {category.parent_id for category in SHOP.categories}
    found = {category_id for product in SHOP.products for category_id in product.category_ids}
    assert found == shelves - parents


def test_prices_are_in_one_currency_with_its_tax():
    variants = [variant for product in SHOP.products for variant in product.variants]
    assert {variant.price.currency_code for variant in variants} == {CURRENCY}
    assert {variant.tax_rate_basis_points for variant in variants} == {VAT_BASIS_POINTS}
    assert all(variant.price.units > 0 and not variant.price.nanos for variant in variants)
    assert all(variant.weight_grams > 0 for variant in variants)


def test_every_sku_is_in_stock_at_some_location():
    assert {level.sku for level in SHOP.levels if level.on_hand > 0} == set(SKUS)


def test_texts_read_as_sentences():
    for product in SHOP.products:
        assert product.description.endswith(".")
        assert product.description[0].isupper()
        assert "{" not in product.name + product.description
        assert ".." not in product.description


def test_the_sample_shop_is_the_same_in_every_process(repository: Path):
    said = {
        subprocess.run(
            [sys.executable, "-c", _DIGEST],
            env={"PYTHONPATH": f"{repository}:{repository / 'gen'}", "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    shop = repr((SHOP.categories, SHOP.products, SHOP.levels, SHOP.zones))
    assert said == {hashlib.sha256(shop.encode()).hexdigest()}
