"""Zones: where the shop delivers, at what price, and when its slots are. Pure: no I/O, no clock, no proto."""

from dataclasses import dataclass
from datetime import time, timedelta

_GRAMS_PER_KG = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRule:
    """Creates one slot on some days of every week, in the time zone of its zone."""

    #: 1 is Monday.
    weekdays: tuple[int, ...]
    start_time: time
    end_time: time
    #: How long before its start a slot can no longer be booked.
    lead_time: timedelta
    capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """The fees of a zone, in minor units, tax included."""

    currency_code: str
    base_fee: int
    fee_per_kg: int
    tax_rate_basis_points: int

    def fee(self, weight_grams: int) -> int:
        """Return the price of a parcel: the base fee, and the fee of each begun kilogram."""
        return self.base_fee + self.fee_per_kg * -(-weight_grams // _GRAMS_PER_KG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """An area that the shop delivers to at one price."""

    id: str
    name: str
    country_code: str
    #: Prefixes of postal codes, as `normalized_postal_code` returns them.
    prefixes: tuple[str, ...]
    tariff: Tariff
    time_zone: str
    rules: tuple[SlotRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """The part of an address that decides about its zone."""

    country_code: str
    postal_code: str


def normalized_postal_code(code: str) -> str:
    """Return a postal code, or a prefix of one, in the one spelling that is stored: SW1A1AA for `sw1a 1aa`."""
    return code.replace(" ", "").replace("-", "").upper()
