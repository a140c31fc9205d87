"""Converts the domain objects of svc_catalog to messages and events, and requests back."""

from collections.abc import Callable, Collection
from typing import Any

from chassis import Record, timestamp
from chassis.types.money import minor_units, money
from shop.catalog.v1 import catalog_events_pb2 as events
from shop.catalog.v1 import catalog_service_pb2 as pb
from shop.catalog.v1 import category_service_pb2 as category_pb
from shop.chassis.v1.chassis_errors import InvalidRequest
from svc_catalog.domain import Category, Product, Status, Variant
from svc_catalog.store import Filter, StoredProduct
from svc_catalog.store_categories import category_from_row


def product_to_proto(stored: StoredProduct) -> pb.Product:
    """Return a product."""
    product, row = stored.product, stored.row
    return pb.Product(
        product_id=product.id,
        name=product.name,
        description=product.description,
        brand=product.brand,
        category_ids=product.category_ids,
        variants=[_variant_to_proto(variant) for variant in product.variants],
        status=_status_to_proto(product.status),
        etag=str(product.version),
        create_time=timestamp(row["create_time"]),
        update_time=timestamp(row["update_time"]),
    )


def product_from_proto(product_id: str, product: pb.Product) -> Product:
    """Return the new product that a request describes; raises InvalidRequest over its prices."""
    return Product(id=product_id, **product_changes(product, _PRODUCT_FIELDS))


def product_changes(product: pb.Product, paths: Collection[str]) -> dict[str, Any]:
    """Return the fields of the domain's Product that `paths` name; raises InvalidRequest over its prices."""
    readers: dict[str, Callable[[], Any]] = {
        "name": lambda: product.name,
        "description": lambda: product.description,
        "brand": lambda: product.brand,
        "category_ids": lambda: tuple(product.category_ids),
        "variants": lambda: tuple(_variant_from_proto(one, at) for at, one in enumerate(product.variants)),
        "status": lambda: status_from_proto(product.status),
    }
    return {path: readers[path]() for path in paths if path in readers}


def filter_from_proto(request: pb.ListProductsRequest) -> Filter:
    """Return which products a request lists; raises InvalidRequest over its prices."""
    lower = request.min_price if request.HasField("min_price") else None
    upper = request.max_price if request.HasField("max_price") else None
    currencies = {price.currency_code for price in (lower, upper) if price}
    if len(currencies) > 1:
        raise InvalidRequest(field="max_price.currency_code", problem="must be the currency of min_price")
    if request.currency_code and not currencies <= {request.currency_code}:
        raise InvalidRequest(field="currency_code", problem="must be the currency of min_price and max_price")
    currency = request.currency_code or next(iter(currencies), "")
    if request.order_by.startswith("price") and not currency:
        raise InvalidRequest(field="currency_code", problem="is required to order by price")
    return Filter(
        status=status_from_proto(request.status),
        category_id=request.category_id,
        words=_bounded(request.query),
        brand=request.brand,
        currency=currency,
        min_price=minor_units(lower, "min_price") if lower else 0,
        max_price=minor_units(upper, "max_price") if upper else _NO_MAXIMUM,
    )


def has_free_bounds(request: pb.ListProductsRequest) -> bool:
    """Return whether a request has bounds of which a client can invent any number."""
    prices = request.HasField("min_price") or request.HasField("max_price")
    return bool(prices or request.query or request.brand or request.page_token)


def category_from_proto(category_id: str, category: category_pb.Category) -> Category:
    """Return the new category that a request describes."""
    return Category(id=category_id, **category_changes(category, _CATEGORY_FIELDS))


def category_changes(category: category_pb.Category, paths: Collection[str]) -> dict[str, Any]:
    """Return the fields of the domain's Category that `paths` name."""
    return {path: getattr(category, path) for path in paths if path in _CATEGORY_FIELDS}


def status_from_proto(status: "pb.ProductStatus.ValueType") -> Status:
    """Return a status; unspecified means ACTIVE."""
    return Status[pb.ProductStatus.Name(status).removeprefix("PRODUCT_STATUS_")] if status else Status.ACTIVE


def snapshot_to_proto(row: Record) -> pb.VariantSnapshot:
    """Return the fields of a variant that an order copies."""
    return pb.VariantSnapshot(
        sku=row["sku"],
        product_id=row["product_id"],
        name=row["name"],
        price=money(row["price"], row["currency"]),
        tax_rate_basis_points=row["tax_rate_basis_points"],
        weight_grams=row["weight_grams"],
        active=row["active"],
    )


def category_to_proto(row: Record) -> category_pb.Category:
    """Return a category."""
    category = category_from_row(row)
    return category_pb.Category(
        category_id=category.id,
        parent_id=category.parent_id,
        name=category.name,
        position=category.position,
        etag=str(category.version),
        create_time=timestamp(row["create_time"]),
        update_time=timestamp(row["update_time"]),
    )


def product_event(
    kind: type[events.ProductCreated] | type[events.ProductUpdated], product: Product
) -> events.ProductCreated | events.ProductUpdated:
    """Return the event that a product was created or updated, with its present fields."""
    return kind(
        product_id=product.id,
        version=product.version,
        name=product.name,
        brand=product.brand,
        category_ids=product.category_ids,
        variants=[_variant_to_proto(variant) for variant in product.variants],
        status=_status_to_proto(product.status),
    )


def product_deleted_event(product: Product) -> events.ProductDeleted:
    """Return the event that a product was deleted."""
    return events.ProductDeleted(product_id=product.id, version=product.version, skus=product.skus)


def category_event(
    kind: type[events.CategoryCreated] | type[events.CategoryUpdated], category: Category
) -> events.CategoryCreated | events.CategoryUpdated:
    """Return the event that a category was created or updated, with its present fields."""
    return kind(category_id=category.id, version=category.version, parent_id=category.parent_id, name=category.name)


#: PostgreSQL fails over some thirty negations that wait for a word.
_MOST_NEGATIONS = 20
#: More than any amount of money.
_NO_MAXIMUM = 2**62
_PRODUCT_FIELDS = ("name", "description", "brand", "category_ids", "variants", "status")
_CATEGORY_FIELDS = frozenset({"parent_id", "name", "position"})


def _bounded(query: str) -> str:
    """Return the words of a search, in which later dashes are no negations."""
    parts = query.split("-")
    kept = _MOST_NEGATIONS + 1
    return " ".join(("-".join(parts[:kept]), *parts[kept:]))


def _variant_to_proto(variant: Variant) -> pb.Variant:
    return pb.Variant(
        sku=variant.sku,
        attributes=variant.attributes,
        price=money(variant.price, variant.currency),
        tax_rate_basis_points=variant.tax_rate_basis_points,
        weight_grams=variant.weight_grams,
    )


def _variant_from_proto(variant: pb.Variant, position: int) -> Variant:
    return Variant(
        sku=variant.sku,
        attributes=dict(variant.attributes),
        price=minor_units(variant.price, f"product.variants[{position}].price"),
        currency=variant.price.currency_code,
        tax_rate_basis_points=variant.tax_rate_basis_points,
        weight_grams=variant.weight_grams,
    )


def _status_to_proto(status: Status) -> "pb.ProductStatus.ValueType":
    return pb.ProductStatus.Value(f"PRODUCT_STATUS_{status.name}")
