"""The catalog's rows: what the domain knows goes in and comes out; SQL stops here."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chassis import Queries, Record, Transaction
from shop.catalog.v1.catalog_errors import (
    CategoryIdTaken,
    CategoryNotFound,
    ProductIdTaken,
    ProductNotFound,
    SkuTaken,
)
from svc_catalog.domain import Category, Product, Status, Variant

sql = Queries(Path(__file__).parent / "queries.sql")


@dataclass(frozen=True, slots=True)
class Stored:
    """A product or category together with its row, which tells when it was made and changed."""

    row: Record
    product: Product


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which products a list shows; empty asks for nothing in particular."""

    status: Status
    category_id: str
    words: str
    brand: str
    currency: str
    least: int
    most: int


async def insert_product(tx: Transaction, product: Product) -> Stored:
    """Insert a new product; raises ProductIdTaken, SkuTaken or CategoryNotFound."""
    row = await tx.fetchrow(sql.insert_product, *_product_values(product))
    if row is None:
        raise ProductIdTaken(product_id=product.id)
    await _write_parts(tx, product)
    return Stored(row, product)


async def update_product(tx: Transaction, product: Product) -> Stored:
    """Replace a product that was locked; raises SkuTaken or CategoryNotFound."""
    row = await tx.fetchrow(sql.update_product, *_product_values(product))
    assert row is not None, "the row is locked"
    await tx.execute(sql.drop_variants, product.id, product.skus)
    await tx.execute(sql.delete_categories_of, product.id)
    await _write_parts(tx, product)
    return Stored(row, product)


async def delete_product(tx: Transaction, product: Product) -> None:
    """Hide a product for good and take it out of its categories; its SKUs stay taken."""
    await tx.execute(sql.delete_product, product.id, product.version)
    await tx.execute(sql.delete_categories_of, product.id)


async def read_product(tx: Transaction, product_id: str) -> Stored:
    """Return a product; raises ProductNotFound."""
    return await _product(tx, await tx.fetchrow(sql.read_products, [product_id]), product_id)


async def lock_product(tx: Transaction, product_id: str) -> Stored:
    """Return a product, kept from changes by others until this transaction ends; raises ProductNotFound."""
    return await _product(tx, await tx.fetchrow(sql.lock_product, product_id), product_id)


async def list_products(
    tx: Transaction, wanted: Filter, *, order: str, after: tuple[object, str], limit: int
) -> list[Stored]:
    """Return products after a position, in an order such as `price_desc`; `sort_key` of a row begins the next one."""
    values = (
        wanted.status.name,
        wanted.category_id,
        wanted.words,
        wanted.brand,
        wanted.currency,
        wanted.least,
        wanted.most,
        *after,
        limit,
    )
    return await _products(tx, await tx.fetch(getattr(sql, f"list_by_{order}"), *values))


async def read_snapshots(tx: Transaction, skus: Sequence[str]) -> dict[str, Record]:
    """Return the rows of some variants with what their products lend them, by SKU."""
    return {row["sku"]: row for row in await tx.fetch(sql.read_snapshots, skus)}


async def insert_category(tx: Transaction, category: Category) -> Record:
    """Insert a new category; raises CategoryIdTaken or CategoryNotFound for its parent."""
    await _check_categories(tx, [category.parent_id] if category.parent_id else [])
    row = await tx.fetchrow(sql.insert_category, *_category_values(category))
    if row is None:
        raise CategoryIdTaken(category_id=category.id)
    return row


async def update_category(tx: Transaction, category: Category) -> Record:
    """Replace a category while the tree is locked; raises CategoryNotFound for its parent."""
    await _check_categories(tx, [category.parent_id] if category.parent_id else [])
    row = await tx.fetchrow(sql.update_category, *_category_values(category))
    assert row is not None, "the tree is locked"
    return row


async def delete_category(tx: Transaction, category_id: str) -> None:
    """Delete a category that is not used."""
    await tx.execute(sql.delete_category, category_id)


async def lock_categories(tx: Transaction) -> None:
    """Keep the tree of categories as it is until this transaction ends."""
    await tx.execute(sql.lock_categories)


async def read_category(tx: Transaction, category_id: str) -> Record:
    """Return a category's row; raises CategoryNotFound."""
    row = await tx.fetchrow(sql.read_category, category_id)
    if row is None:
        raise CategoryNotFound(category_id=category_id)
    return row


async def lock_category(tx: Transaction, category_id: str) -> Record:
    """Return a category's row, locked so that nothing can be put into it; raises CategoryNotFound."""
    row = await tx.fetchrow(sql.lock_category, category_id)
    if row is None:
        raise CategoryNotFound(category_id=category_id)
    return row


async def is_below(tx: Transaction, category_id: str, top: str) -> bool:
    """Tell whether a category is, or stands in, `top`."""
    below: bool = await tx.fetchval(sql.is_below, category_id, top)
    return below


async def is_used(tx: Transaction, category_id: str) -> bool:
    """Tell whether a category has products or categories."""
    used: bool = await tx.fetchval(sql.is_used, category_id)
    return used


async def list_categories(
    tx: Transaction, parent_id: str, after: tuple[str, int, str, str], limit: int
) -> list[Record]:
    """Return the rows of categories after a position (parent, position, name, id)."""
    return await tx.fetch(sql.list_categories, parent_id, *after, limit)


def category_from_row(row: Record) -> Category:
    """Return the category that a row holds."""
    return Category(
        id=row["category_id"],
        parent_id=row["parent_id"] or "",
        name=row["name"],
        position=row["position"],
        version=row["version"],
    )


async def _write_parts(tx: Transaction, product: Product) -> None:
    await _check_categories(tx, product.category_ids)
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


async def _check_categories(tx: Transaction, category_ids: Sequence[str]) -> None:
    unknown = await tx.fetchval(sql.find_unknown_category, category_ids)
    if unknown is not None:
        raise CategoryNotFound(category_id=unknown)


async def _product(tx: Transaction, row: Record | None, product_id: str) -> Stored:
    if row is None:
        raise ProductNotFound(product_id=product_id)
    (stored,) = await _products(tx, [row])
    return stored


async def _products(tx: Transaction, rows: Sequence[Record]) -> list[Stored]:
    ids = [row["product_id"] for row in rows]
    variants: defaultdict[str, list[Variant]] = defaultdict(list)
    for row in await tx.fetch(sql.read_variants_of, ids):
        variants[row["product_id"]].append(_variant_from_row(row))
    categories: defaultdict[str, list[str]] = defaultdict(list)
    for row in await tx.fetch(sql.read_categories_of, ids):
        categories[row["product_id"]].append(row["category_id"])
    return [
        Stored(row, _product_from_row(row, variants[row["product_id"]], categories[row["product_id"]])) for row in rows
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


def _category_values(category: Category) -> tuple[object, ...]:
    return (category.id, category.parent_id or None, category.name, category.position, category.version)
