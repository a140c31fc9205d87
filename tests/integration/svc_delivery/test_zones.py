"""Zones: creation, quotes, and the slots that their rules create."""

import asyncio
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from google.protobuf.duration_pb2 import Duration
from google.type.money_pb2 import Money
from google.type.timeofday_pb2 import TimeOfDay

from chassis import Database
from chassis.testing import as_user, eventually
from shop.chassis.v1.chassis_errors import (
    IdempotencyKeyReused,
    InvalidRequest,
    PageTokenInvalid,
    RoleMissing,
    TokenMissing,
)
from shop.delivery.v1 import delivery_service_pb2 as pb
from shop.delivery.v1.delivery_errors import (
    AddressNotServed,
    CurrencyMismatch,
    PostalPrefixTaken,
    ZoneIdTaken,
    ZoneNotFound,
)
from svc_delivery import store
from svc_delivery.service import DeliveryService
from tests.integration.svc_delivery.conftest import EVERY_DAY, a_zone


def a_rule(first, last, *, weekdays=EVERY_DAY, lead=timedelta(), capacity=5):
    """Return a rule for slots from one hour to another."""
    rule = pb.SlotRule(
        weekdays=weekdays, start_time=TimeOfDay(hours=first), end_time=TimeOfDay(hours=last), capacity=capacity
    )
    if lead:
        rule.lead_time.FromTimedelta(lead)
    return rule


def quote(postal_code, weight_grams=0, country_code="TH", currency_code=""):
    return pb.QuoteDeliveryRequest(
        country_code=country_code, postal_code=postal_code, weight_grams=weight_grams, currency_code=currency_code
    )


async def test_zones_are_listed_as_they_were_created_page_by_page(delivery, create_zone):
    rule = a_rule(9, 12, weekdays=["SATURDAY", "MONDAY"], lead=timedelta(hours=2))
    await create_zone(a_zone("bkk", "1050", "10 1", slot_rules=[rule]))
    await create_zone(a_zone("cnx", "50"))
    first = await delivery.ListZones(pb.ListZonesRequest(page_size=1))
    rest = await delivery.ListZones(pb.ListZonesRequest(page_size=1, page_token=first.next_page_token))
    ((bkk,), (cnx,)) = (first.zones, rest.zones)
    assert (bkk.zone_id, bkk.postal_prefixes, cnx.zone_id, rest.next_page_token) == ("bkk", ["101", "1050"], "cnx", "")
    (stored,) = bkk.slot_rules
    assert (list(stored.weekdays), stored.start_time.hours, stored.lead_time) == ([1, 6], 9, Duration(seconds=7200))
    assert (bkk.fee_per_kg, bkk.time_zone) == (Money(currency_code="THB", units=12, nanos=500_000_000), "Asia/Bangkok")


async def test_only_staff_may_create_a_zone(delivery, issuer):
    request = pb.CreateZoneRequest(zone=a_zone(), request_id="k-1")
    with pytest.raises(TokenMissing):
        await delivery.CreateZone(request)
    with as_user(f"Bearer {issuer.token('user-1')}"), pytest.raises(RoleMissing):
        await delivery.CreateZone(request)


async def test_a_zone_is_created_once_for_each_key_and_each_id(create_zone):
    first = await create_zone(request_id="k-1")
    assert await create_zone(request_id="k-1") == first
    with pytest.raises(IdempotencyKeyReused):
        await create_zone(a_zone("other", "20"), request_id="k-1")
    with pytest.raises(ZoneIdTaken):
        await create_zone(a_zone("bkk", "20"))


async def test_a_prefix_belongs_to_one_zone_of_a_country_in_any_spelling(delivery, create_zone):
    await create_zone(a_zone("london", "SW1", country_code="GB"))
    with pytest.raises(PostalPrefixTaken) as error:
        await create_zone(a_zone("chelsea", "SW3", "sw-1", country_code="GB"))
    assert error.value.metadata == {"prefix": "SW1", "zone_id": "london"}
    zones = (await delivery.ListZones(pb.ListZonesRequest())).zones
    assert [zone.zone_id for zone in zones] == ["london"]
    assert (await create_zone(a_zone("elsewhere", "SW1", country_code="IE"))).zone_id == "elsewhere"


async def test_of_concurrent_zones_with_one_prefix_one_is_created(delivery, create_zone):
    outcomes = await asyncio.gather(
        *(create_zone(a_zone(f"z-{number}", "10", f"2{number}")) for number in range(8)), return_exceptions=True
    )
    created = [one for one in outcomes if isinstance(one, pb.Zone)]
    assert len(created) == 1
    assert all(isinstance(one, PostalPrefixTaken) for one in outcomes if one not in created)
    assert list((await delivery.ListZones(pb.ListZonesRequest())).zones) == created


async def test_a_zone_with_two_currencies_a_fraction_or_an_unknown_time_zone_is_rejected(create_zone):
    with pytest.raises(CurrencyMismatch):
        await create_zone(a_zone(fee_per_kg=Money(currency_code="USD", units=1)))
    with pytest.raises(InvalidRequest) as error:
        await create_zone(a_zone(base_fee=Money(currency_code="THB", nanos=1)))
    assert error.value.metadata["field"] == "zone.base_fee"
    with pytest.raises(InvalidRequest) as error:
        await create_zone(a_zone(time_zone="Asia/Atlantis"))
    assert error.value.metadata["field"] == "zone.time_zone"


INVALID_ZONES = {
    "zone.zone_id": {"zone_id": "a b"},
    "zone.country_code": {"country_code": "th"},
    "zone.fee_per_kg": {"fee_per_kg": Money(currency_code="THB", units=-1)},
    "zone.base_fee": {"base_fee": Money(currency_code="THB", units=2**63 - 1)},
    "zone.name": {"name": "a\x00b"},
    "zone.slot_rules[0]": {"slot_rules": [a_rule(12, 12)]},
    "zone.slot_rules[0].end_time": {"slot_rules": [a_rule(9, 24)]},
    "zone.slot_rules[0].capacity": {"slot_rules": [a_rule(9, 12, capacity=0)]},
    "zone.slot_rules[0].weekdays": {"slot_rules": [a_rule(9, 12, weekdays=[])]},
    "zone.slot_rules[0].weekdays[0]": {"slot_rules": [a_rule(9, 12, weekdays=[9])]},
    "zone.slot_rules[0].lead_time": {"slot_rules": [a_rule(9, 12, lead=timedelta(days=8))]},
}


async def test_an_invalid_zone_is_rejected_with_the_field_named(create_zone):
    for field, change in INVALID_ZONES.items():
        with pytest.raises(InvalidRequest) as error:
            await create_zone(a_zone(**{"zone_id": "bkk"} | change))
        assert error.value.metadata["field"] == field


async def test_a_quote_uses_the_zone_with_the_longest_prefix_and_the_weight(delivery, create_zone):
    await create_zone(a_zone("thailand", ""))
    await create_zone(a_zone("bkk", "10", base_fee=Money(currency_code="THB", units=20)))
    near = await delivery.QuoteDelivery(quote("10-500", 1001))
    assert (near.zone_id, near.fee, near.tax_rate_basis_points) == (
        "bkk",
        Money(currency_code="THB", units=45),
        700,
    )
    far = await delivery.QuoteDelivery(quote("50000", 0))
    assert (far.zone_id, far.fee) == ("thailand", Money(currency_code="THB", units=40))


async def test_an_address_that_is_not_served_or_another_currency_has_no_quote(delivery, create_zone):
    await create_zone()
    with pytest.raises(AddressNotServed) as error:
        await delivery.QuoteDelivery(quote("50000"))
    assert error.value.metadata == {"postal_code": "50000", "country_code": "TH"}
    with pytest.raises(AddressNotServed):
        await delivery.QuoteDelivery(quote("10500", country_code="JP"))
    with pytest.raises(CurrencyMismatch) as mismatch:
        await delivery.QuoteDelivery(quote("10500", currency_code="USD"))
    assert mismatch.value.metadata == {"expected": "USD", "actual": "THB"}


async def test_the_heaviest_parcel_at_the_highest_fees_has_a_price(delivery, create_zone):
    highest = {
        "base_fee": Money(currency_code="KWD", units=10**12),
        "fee_per_kg": Money(currency_code="KWD", units=10**7),
    }
    await create_zone(a_zone("dear", "", country_code="KW", **highest))
    quoted = await delivery.QuoteDelivery(quote("13001", 100_000_000, country_code="KW"))
    assert quoted.fee == Money(currency_code="KWD", units=2 * 10**12)


async def test_the_rules_of_a_zone_create_its_slots_in_its_time_zone(delivery, create_zone):
    await create_zone(a_zone(slot_rules=[a_rule(9, 12, lead=timedelta(hours=1)), a_rule(18, 21, capacity=2)]))

    async def look():
        slots = (await delivery.ListSlots(pb.ListSlotsRequest(zone_id="bkk", page_size=100))).slots
        times = ((slot.start_time, slot.end_time, slot.cutoff_time) for slot in slots)
        listed = [
            (*(moment.ToDatetime(UTC) for moment in three), slot.available)
            for three, slot in zip(times, slots, strict=True)
        ]
        return listed, expected_slots(datetime.now(UTC))

    # A day may end, or a slot be closed, between the two.
    await eventually(look, lambda seen: seen[0] == seen[1])


def expected_slots(now):
    zone = ZoneInfo("Asia/Bangkok")
    today = now.astimezone(zone).date()
    expected = []
    for day in (today + timedelta(days=ahead) for ahead in range(15)):
        for first, last, lead, capacity in ((9, 12, timedelta(hours=1), 5), (18, 21, timedelta(), 2)):
            start, end = (datetime.combine(day, time(hour), zone) for hour in (first, last))
            if start - lead > now:
                expected.append((start, end, start - lead, capacity))
    return expected


async def test_slots_are_created_on_the_weekdays_of_a_rule_only(delivery, create_zone):
    await create_zone(a_zone(slot_rules=[a_rule(9, 12, weekdays=["TUESDAY", "SUNDAY"])]))
    slots = (await delivery.ListSlots(pb.ListSlotsRequest(zone_id="bkk", page_size=100))).slots
    starts = [slot.start_time.ToDatetime(UTC).astimezone(ZoneInfo("Asia/Bangkok")) for slot in slots]
    assert {start.isoweekday() for start in starts} == {2, 7}


async def test_missing_slots_are_created_again_and_none_twice(delivery, create_zone, rows):
    await create_zone(a_zone(slot_rules=[a_rule(9, 12), a_rule(9, 12, capacity=7)]))
    before = await rows.fetch("SELECT start_time, capacity FROM slot ORDER BY start_time")
    await rows.execute("DELETE FROM slot WHERE start_time > now() + interval '3 days'")
    query = "SELECT start_time, capacity FROM slot ORDER BY start_time"
    assert await eventually(lambda: rows.fetch(query), lambda slots: len(slots) >= len(before)) == before
    assert {row["capacity"] for row in before} == {5}


async def test_slots_of_many_zones_are_created_some_zones_at_a_time(rows, settings):
    await rows.execute("""
        INSERT INTO zone SELECT 'z-' || number, 'Z', 'TH', 'THB', 1, 1, 700, 'Asia/Bangkok'
        FROM generate_series(1, 250) AS number""")
    await rows.execute("""
        INSERT INTO slot_rule SELECT zone_id, 1, '{1,2,3,4,5,6,7}', '09:00', '12:00', '0', 5 FROM zone""")
    async with Database.open(settings.database_url, 2) as db:
        await DeliveryService(db, days_ahead=2).create_slots()
    assert await rows.fetchval("SELECT count(DISTINCT zone_id) FROM slot") == 250
    # Each transaction created the slots of some of the zones.
    assert await rows.fetchval("SELECT count(DISTINCT xmin::text) FROM slot") == 3


@pytest.fixture
async def new_york(create_zone):
    rules = [a_rule(2, 3), a_rule(1, 4)]
    await create_zone(a_zone("nyc", "1", country_code="US", time_zone="America/New_York", slot_rules=rules))


async def test_slots_keep_local_time_across_changes_to_and_from_summer_time(new_york, rows):
    """On 2040-03-11 the hour from two to three does not exist in New York; on 2040-11-04 one to two comes twice."""
    for day in (datetime(2040, 3, 10, 12, tzinfo=UTC), datetime(2040, 11, 3, 12, tzinfo=UTC)):
        await store.insert_slots_by_rule(rows, day, 1, ["nyc"])
    created = await rows.fetch("SELECT * FROM slot WHERE start_time > '2040-01-01' ORDER BY start_time, end_time")
    assert [(row["start_time"].isoformat()[5:16], row["end_time"] - row["start_time"]) for row in created] == [
        ("03-11T06:00", timedelta(hours=2)),
        ("11-04T06:00", timedelta(hours=3)),
        ("11-04T07:00", timedelta(hours=1)),
    ]


async def test_a_list_of_slots_of_an_unknown_zone_or_an_unserved_address_fails(delivery, create_zone):
    await create_zone()
    with pytest.raises(ZoneNotFound):
        await delivery.ListSlots(pb.ListSlotsRequest(zone_id="nowhere"))
    with pytest.raises(AddressNotServed):
        await delivery.ListSlots(pb.ListSlotsRequest(country_code="TH", postal_code="50000"))
    with pytest.raises(InvalidRequest):
        await delivery.ListSlots(pb.ListSlotsRequest(country_code="TH"))
    with pytest.raises(PageTokenInvalid):
        await delivery.ListSlots(pb.ListSlotsRequest(zone_id="bkk", page_token="bm90aGluZw=="))


async def test_the_database_rejects_an_overbooked_slot(create_zone, rows):
    await create_zone(a_zone(slot_rules=[a_rule(9, 12)]))
    for change in ("booked = capacity + 1", "booked = -1", "cutoff_time = start_time + interval '1 hour'"):
        with pytest.raises(asyncpg.CheckViolationError):
            await rows.execute(f"UPDATE slot SET {change}")
