"""Products and categories. Pure: no I/O, no clock, no proto. Prices are integer minor units, tax included."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from shop.catalog.v1.catalog_errors import VersionMismatch


class Status(Enum):
    """Whether a product is on sale."""

    DRAFT = "DRAFT"
    ACTIVE = "ACTIVE"
    ARCHIVED = "ARCHIVED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One form of a product, with its own SKU, price and stock."""

    sku: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    price: int
    currency: str
    tax_rate_basis_points: int = 0
    weight_grams: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """Something that the shop sells."""

    id: str
    name: str
    description: str = ""
    brand: str = ""
    category_ids: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()
    status: Status = Status.ACTIVE
    version: int = 1

    @property
    def lowest_price(self) -> int:
        """Return the price of the cheapest variant."""
        return min(variant.price for variant in self.variants)

    @property
    def skus(self) -> list[str]:
        """Return the SKUs of all variants."""
        return [variant.sku for variant in self.variants]

    def updated(self, changes: Mapping[str, Any], etag: str) -> "Product":
        """Return the product with some fields replaced, itself when none differs; raises VersionMismatch."""
        check_etag(f"The product {self.id}", self.version, etag)
        updated = replace(self, **changes)
        return self if updated == self else replace(updated, version=self.version + 1)

    def deleted(self, etag: str) -> "Product":
        """Return the product without categories, at the version of its deletion; raises VersionMismatch."""
        check_etag(f"The product {self.id}", self.version, etag)
        return replace(self, category_ids=(), version=self.version + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A node of the category tree."""

    id: str
    parent_id: str = ""
    name: str
    position: int = 0
    version: int = 1

    def updated(self, changes: Mapping[str, Any], etag: str) -> "Category":
        """Return the category with some fields replaced, itself when none differs; raises VersionMismatch."""
        check_etag(f"The category {self.id}", self.version, etag)
        updated = replace(self, **changes)
        return self if updated == self else replace(updated, version=self.version + 1)


def check_etag(resource: str, version: int, etag: str) -> None:
    """Raise VersionMismatch unless `etag` is empty or names this version."""
    if etag and etag != str(version):
        raise VersionMismatch(resource=resource)
