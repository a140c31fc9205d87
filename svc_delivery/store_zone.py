"""Reads and writes zones, with their postal prefixes, slot rules and tariffs, as domain objects."""

from collections import defaultdict
from collections.abc import Sequence

from chassis import Record, Transaction
from shop.delivery.v1.delivery_errors import AddressNotServed, PostalPrefixTaken, ZoneIdTaken, ZoneNotFound
from svc_delivery.domain_zone import Destination, SlotRule, Tariff, Zone, normalized_postal_code
from svc_delivery.store import sql


async def time_zone_exists(tx: Transaction, name: str) -> bool:
    """Return whether a time zone is one of the IANA's."""
    return bool(await tx.fetchval(sql.time_zone_exists, name))


async def insert_zone(tx: Transaction, zone: Zone) -> None:
    """Write a new zone; raises ZoneIdTaken or PostalPrefixTaken."""
    inserted = await tx.fetchval(
        sql.insert_zone,
        zone.id,
        zone.name,
        zone.country_code,
        zone.tariff.currency_code,
        zone.tariff.base_fee,
        zone.tariff.fee_per_kg,
        zone.tariff.tax_rate_basis_points,
        zone.time_zone,
    )
    if not inserted:
        raise ZoneIdTaken(zone_id=zone.id)
    prefixes = (zone.id, zone.country_code, zone.prefixes)
    if await tx.fetchval(sql.insert_prefixes, *prefixes) != len(zone.prefixes):
        taken = await tx.fetchrow(sql.read_prefix_of_another_zone, *prefixes)
        assert taken is not None, "the insert met this row"
        raise PostalPrefixTaken(prefix=taken["prefix"], zone_id=taken["zone_id"])
    for position, rule in enumerate(zone.rules):
        await tx.execute(
            sql.insert_rule,
            zone.id,
            position,
            rule.weekdays,
            rule.start_time,
            rule.end_time,
            rule.lead_time,
            rule.capacity,
        )


async def list_zone_ids(tx: Transaction, after: str, limit: int) -> list[str]:
    """Return the ids of zones after one, in order."""
    return [row["zone_id"] for row in await tx.fetch(sql.list_zone_ids, after, limit)]


async def list_zones(tx: Transaction, *, after: tuple[str], limit: int) -> list[Zone]:
    """Return zones with ids after one, in order of id."""
    rows = await tx.fetch(sql.list_zones, *after, limit)
    ids = [row["zone_id"] for row in rows]
    prefixes: defaultdict[str, list[str]] = defaultdict(list)
    for row in await tx.fetch(sql.read_prefixes, ids):
        prefixes[row["zone_id"]].append(row["prefix"])
    rules: defaultdict[str, list[SlotRule]] = defaultdict(list)
    for row in await tx.fetch(sql.read_rules, ids):
        rules[row["zone_id"]].append(_rule_from_row(row))
    return [
        Zone(
            id=row["zone_id"],
            name=row["name"],
            country_code=row["country_code"],
            prefixes=tuple(prefixes[row["zone_id"]]),
            tariff=_tariff_from_row(row),
            time_zone=row["time_zone"],
            rules=tuple(rules[row["zone_id"]]),
        )
        for row in rows
    ]


async def read_tariff(tx: Transaction, zone_id: str) -> Tariff:
    """Return the tariff of a zone; raises ZoneNotFound."""
    row = await tx.fetchrow(sql.read_zone, zone_id)
    if row is None:
        raise ZoneNotFound(zone_id=zone_id)
    return _tariff_from_row(row)


async def find_tariff(tx: Transaction, destination: Destination) -> tuple[str, Tariff]:
    """Return the id and the tariff of the zone that serves a destination; raises AddressNotServed."""
    code = normalized_postal_code(destination.postal_code)
    row = await tx.fetchrow(sql.find_tariff, destination.country_code, code)
    if row is None:
        raise AddressNotServed(postal_code=destination.postal_code, country_code=destination.country_code)
    return row["zone_id"], _tariff_from_row(row)


async def require_zone(tx: Transaction, zone_id: str) -> None:
    """Raise ZoneNotFound unless the zone exists."""
    await read_tariff(tx, zone_id)


async def find_zones(tx: Transaction, destinations: Sequence[Destination]) -> dict[Destination, str]:
    """Return the ids of the zones that serve some destinations; none for one that is not served."""
    rows = await tx.fetch(
        sql.find_zones,
        [one.country_code for one in destinations],
        [normalized_postal_code(one.postal_code) for one in destinations],
    )
    return {destinations[row["number"] - 1]: row["zone_id"] for row in rows}


def _tariff_from_row(row: Record) -> Tariff:
    return Tariff(
        currency_code=row["currency_code"],
        base_fee=row["base_fee"],
        fee_per_kg=row["fee_per_kg"],
        tax_rate_basis_points=row["tax_rate_basis_points"],
    )


def _rule_from_row(row: Record) -> SlotRule:
    return SlotRule(
        weekdays=tuple(row["weekdays"]),
        start_time=row["start_time"],
        end_time=row["end_time"],
        lead_time=row["lead_time"],
        capacity=row["capacity"],
    )
