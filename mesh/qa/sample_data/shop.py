"""The content of the sample shop as protobuf messages, the same at every call on every machine."""

import re
import tomllib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.type.dayofweek_pb2 import DayOfWeek
from google.type.money_pb2 import Money
from google.type.timeofday_pb2 import TimeOfDay

from shop.catalog.v1.catalog_service_pb2 import Product, Variant
from shop.catalog.v1.category_service_pb2 import Category
from shop.delivery.v1.delivery_service_pb2 import SlotRule, Zone

CURRENCY = "THB"
COUNTRY = "TH"
VAT_BASIS_POINTS = 700
TIME_ZONE = "Asia/Bangkok"

#: The locations, with the maximum units of a SKU in stock at each.
LOCATIONS: Mapping[str, int] = {"bangkok": 240, "chiang-mai": 90, "phuket": 60}
#: The percentage of SKUs in stock at each location.
_STOCKED_PERCENT = {"bangkok": 100, "chiang-mai": 45, "phuket": 30}


@dataclass(frozen=True, slots=True)
class Level:
    """The units of a SKU at a location."""

    sku: str
    location_id: str
    on_hand: int


@dataclass(frozen=True, slots=True)
class Shop:
    """Everything that the sample data create."""

    #: Parents before their children.
    categories: tuple[Category, ...]
    products: tuple[Product, ...]
    levels: tuple[Level, ...]
    zones: tuple[Zone, ...]


@cache
def sample_shop() -> Shop:
    """Return the sample shop of shelves.toml."""
    shelves = tomllib.loads(files(__package__).joinpath("shelves.toml").read_text(encoding="utf-8"))
    products = tuple(product for family in shelves["family"] for product in _products(family))
    return Shop(
        categories=tuple(_categories(shelves["category"])),
        products=products,
        levels=tuple(level for product in products for variant in product.variants for level in _levels(variant.sku)),
        zones=tuple(map(_zone, shelves["zone"])),
    )


def _categories(rows: list[list[str]]) -> Iterator[Category]:
    for position, (category_id, name, parent_id) in enumerate(rows, 1):
        yield Category(category_id=category_id, parent_id=parent_id, name=name, position=position)


def _products(family: Mapping[str, Any]) -> Iterator[Product]:
    for kind, price, note in family["kinds"]:
        name = family["name"].format(kind=kind)
        yield Product(
            product_id=_slug(name),
            name=name,
            description=family["description"].format(kind=kind, note=note),
            brand=family["brand"],
            category_ids=[family["category"]],
            variants=_variants(family, f"{family['id']}-{_slug(kind)}".upper(), price),
        )


def _variants(family: Mapping[str, Any], stem: str, price: int) -> Iterator[Variant]:
    for label, suffix, percent, weight in family["variants"]:
        yield Variant(
            sku=f"{stem}-{suffix}",
            attributes={family["axis"]: label},
            price=Money(currency_code=CURRENCY, units=-(-price * percent // 100)),
            tax_rate_basis_points=VAT_BASIS_POINTS,
            weight_grams=weight,
        )


def _levels(sku: str) -> Iterator[Level]:
    for location_id, most in LOCATIONS.items():
        # A checksum is spread evenly and reproducible.
        draw = zlib.crc32(f"{sku}@{location_id}".encode())
        if draw % 100 < _STOCKED_PERCENT[location_id]:
            yield Level(sku, location_id, most // 6 + draw // 100 % (most - most // 6))


def _zone(row: Mapping[str, Any]) -> Zone:
    return Zone(
        zone_id=row["id"],
        name=row["name"],
        country_code=COUNTRY,
        postal_prefixes=row["prefixes"],
        base_fee=Money(currency_code=CURRENCY, units=row["fee"]),
        fee_per_kg=Money(currency_code=CURRENCY, units=row["fee_per_kg"]),
        tax_rate_basis_points=VAT_BASIS_POINTS,
        time_zone=TIME_ZONE,
        slot_rules=[_rule(start, end, row) for start, end in row["hours"]],
    )


def _rule(start: int, end: int, row: Mapping[str, Any]) -> SlotRule:
    return SlotRule(
        weekdays=range(DayOfWeek.MONDAY, DayOfWeek.SUNDAY),  # no deliveries on Sunday
        start_time=TimeOfDay(hours=start),
        end_time=TimeOfDay(hours=end),
        lead_time=Duration(seconds=3600 * row["lead_hours"]),
        capacity=row["capacity"],
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("'", "")).strip("-")
