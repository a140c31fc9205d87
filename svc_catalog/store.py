"""Reads and writes the rows of products as domain objects."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chassis import Record, Transaction
from shop.catalog.v1.catalog_errors import ProductIdTaken, ProductNotFound, SkuTaken
from svc_catalog.domain import Product, Status, Variant
from svc_catalog.store_categories import require_categories, sql


@dataclass(frozen=True, slots=True)
class StoredProduct:
    """A product and its row, which has the times and the sort key besides."""

    row: Record
    product: Product


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """The products that a list shows; an empty text matches all."""

    status: Status
    category_id: str
    words: str
    brand: str
    #: Of the prices; empty for products in all currencies.
    currency: str
    min_price: int
    max_price: int


async def insert_product(tx: Transaction, product: Product) -> StoredProduct:
    """Insert a new product; raises ProductIdTaken, SkuTaken or CategoryNotFound."""
    row = await tx.fetchrow(sql.insert_product, *_product_values(product))
    if row is None:
        raise ProductIdTaken(product_id=product.id)
    await _write_parts(tx, product)
    return StoredProduct(row, product)


async def update_product(tx: Transaction, product: Product) -> StoredProduct:
    """Replace a product that was locked; raises SkuTaken or CategoryNotFound."""
    row = await tx.fetchrow(sql.update_product, *_product_values(product))
    assert row is not None, "the row is locked"
    await tx.execute(sql.drop_variants, product.id, product.skus)
    await tx.execute(sql.delete_categories_of, product.id)
    await _write_parts(tx, product)
    return StoredProduct(row, product)


async def delete_product(tx: Transaction, product: Product) -> None:
    """Mark a product as deleted and remove it from its categories; its SKUs stay taken."""
    await tx.execute(sql.delete_product, product.id, product.version)
    await tx.execute(sql.delete_categories_of, product.id)


async def read_product(tx: Transaction, product_id: str) -> StoredProduct:
    """Return a product; raises ProductNotFound."""
    return await _product(tx, await tx.fetchrow(sql.read_products, [product_id]), product_id)


async def lock_product(tx: Transaction, product_id: str) -> StoredProduct:
    """Return a product, locked against every other change until this transaction ends; raises ProductNotFound."""
    return await _product(tx, await tx.fetchrow(sql.lock_product, product_id), product_id)


async def list_products(
    tx: Transaction, wanted: Filter, *, order: str, after: tuple[Any, ...], limit: int
) -> list[StoredProduct]:
    """Return products after a (sort key, id), in an order such as `price_desc`; each row has its `sort_key`.

    `tx` must be a transaction, whose statements are planned anew.
    """
    values = (
        wanted.category_id,
        wanted.currency,
        wanted.status.name,
        wanted.words,
        wanted.brand,
        wanted.min_price,
        wanted.max_price,
        *after,
        limit,
    )
    await tx.execute(sql.plan_with_arguments)
    return await _products(tx, await tx.fetch(getattr(sql, f"list_by_{order}"), *values))


async def read_snapshots(tx: Transaction, skus: Sequence[str]) -> dict[str, Record]:
    """Return the rows of some variants, each with its product's name and whether it is on sale, by SKU."""
    return {row["sku"]: row for row in await tx.fetch(sql.read_snapshots, skus)}


async def _write_parts(tx: Transaction, product: Product) -> None:
    await require_categories(tx, product.category_ids)
    await tx.execute(sql.insert_categories_of, product.id, product.category_ids)
    rows = await tx.fetch(
        sql.write_variants,
        product.id,
        product.skus,
        [json.dumps(dict(variant.attributes)) for variant in product.variants],
        [variant.price for variant in product.variants],
        [variant.currency for variant in product.variants],
        [variant.tax_rate_basis_points for variant in product.variants],
        [variant.weight_grams for variant in product.variants],
    )
    if taken := set(product.skus) - {row["sku"] for row in rows}:
        raise SkuTaken(sku=min(taken))


async def _product(tx: Transaction, row: Record | None, product_id: str) -> StoredProduct:
    if row is None:
        raise ProductNotFound(product_id=product_id)
    (stored,) = await _products(tx, [row])
    return stored


async def _products(tx: Transaction, rows: Sequence[Record]) -> list[StoredProduct]:
    ids = [row["product_id"] for row in rows]
    variants: defaultdict[str, list[Variant]] = defaultdict(list)
    for row in await tx.fetch(sql.read_variants_of, ids):
        variants[row["product_id"]].append(_variant_from_row(row))
    categories: defaultdict[str, list[str]] = defaultdict(list)
    for row in await tx.fetch(sql.read_categories_of, ids):
        categories[row["product_id"]].append(row["category_id"])
    return [
        StoredProduct(row, _product_from_row(row, variants[row["product_id"]], categories[row["product_id"]]))
        for row in rows
    ]


def _product_from_row(row: Record, variants: Sequence[Variant], category_ids: Sequence[str]) -> Product:
    return Product(
        id=row["product_id"],
        name=row["name"],
        description=row["description"],
        brand=row["brand"],
        category_ids=tuple(category_ids),
        variants=tuple(variants),
        status=Status[row["status"]],
        version=row["version"],
    )


def _variant_from_row(row: Record) -> Variant:
    return Variant(
        sku=row["sku"],
        attributes=json.loads(row["attributes"]),
        price=row["price"],
        currency=row["currency"],
        tax_rate_basis_points=row["tax_rate_basis_points"],
        weight_grams=row["weight_grams"],
    )


def _product_values(product: Product) -> tuple[object, ...]:
    return (
        product.id,
        product.name,
        product.description,
        product.brand,
        product.status.name,
        product.lowest_price,
        product.version,
    )
