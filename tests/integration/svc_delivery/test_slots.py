"""Slots and their bookings: lists, capacity, idempotency, events and races."""

import asyncio
import random
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import OutcomeUnknown, current_call, timestamp
from chassis.telemetry import trace_id
from chassis.testing import as_user, client_for
from shop.chassis.v1.chassis_errors import (
    CallerDenied,
    IdempotencyKeyReused,
    InvalidRequest,
    Overloaded,
    WriteContended,
)
from shop.delivery.v1 import delivery_events_pb2 as events
from shop.delivery.v1 import delivery_service_pb2 as pb
from shop.delivery.v1.delivery_errors import (
    AddressNotServed,
    BookingNotFound,
    BookingReleased,
    SlotAlreadyBooked,
    SlotClosed,
    SlotExists,
    SlotFull,
    SlotNotFound,
    ZoneNotFound,
)
from shop.delivery.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from tests.integration.svc_delivery.conftest import a_zone

START = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(days=2)


@pytest.fixture
def create_slot(delivery, staff):
    """Create a slot in a zone that exists: `slot = await create_slot(capacity=3)`."""

    async def create_slot(*, hours=0, capacity=5, cutoff=None, request_id=None, zone_id="bkk"):
        request = pb.CreateSlotRequest(
            zone_id=zone_id,
            start_time=timestamp(START + timedelta(hours=hours)),
            end_time=timestamp(START + timedelta(hours=hours + 2)),
            cutoff_time=timestamp(cutoff) if cutoff else None,
            capacity=capacity,
            request_id=request_id or uuid.uuid4().hex,
        )
        with staff():
            return await delivery.CreateSlot(request)

    return create_slot


@pytest.fixture
async def slot(create_zone, create_slot):
    await create_zone()
    return await create_slot()


def book(order_id, slot_id, postal_code="10500"):
    return pb.BookSlotRequest(order_id=order_id, slot_id=slot_id, country_code="TH", postal_code=postal_code)


def release(order_id):
    return pb.ReleaseSlotRequest(order_id=order_id)


async def list_slots(delivery, **where):
    return list((await delivery.ListSlots(pb.ListSlotsRequest(**{"zone_id": "bkk"} | where))).slots)


async def assert_booked_counts_match(rows):
    mismatches = await rows.fetch(
        """SELECT slot_id FROM slot LEFT JOIN (
               SELECT slot_id, count(*) n FROM booking WHERE state = 'BOOKED' GROUP BY 1) counts USING (slot_id)
           WHERE booked <> coalesce(n, 0) OR booked > capacity"""
    )
    assert not mismatches


async def test_a_slot_is_listed_with_its_free_places(booking_client, delivery, create_slot, slot):
    later = await create_slot(hours=3)
    await booking_client.BookSlot(book("o-1", slot.slot_id))
    listed = await list_slots(delivery)
    assert [(one.slot_id, one.available) for one in listed] == [(slot.slot_id, 4), (later.slot_id, 5)]
    assert await list_slots(delivery, zone_id="", country_code="TH", postal_code="10 500") == listed
    assert (slot.zone_id, slot.cutoff_time) == ("bkk", slot.start_time)


async def test_slots_of_a_span_of_time_are_listed_page_by_page(delivery, create_slot, slot):
    slots = [slot, *[await create_slot(hours=hours) for hours in (3, 6, 9)]]
    page = pb.ListSlotsRequest(zone_id="bkk", start_time=slots[1].start_time, end_time=slots[3].start_time, page_size=1)
    first = await delivery.ListSlots(page)
    page.page_token = first.next_page_token
    rest = await delivery.ListSlots(page)
    assert [*first.slots, *rest.slots] == slots[1:3]
    assert rest.next_page_token == ""


async def test_a_full_or_closed_slot_is_not_listed_and_cannot_be_booked(booking_client, delivery, create_slot, slot):
    full = await create_slot(hours=3, capacity=1)
    closed = await create_slot(hours=6, cutoff=datetime.now(UTC) - timedelta(seconds=1))
    await booking_client.BookSlot(book("o-1", full.slot_id))
    assert await list_slots(delivery) == [slot]
    with pytest.raises(SlotFull):
        await booking_client.BookSlot(book("o-2", full.slot_id))
    with pytest.raises(SlotClosed) as error:
        await booking_client.BookSlot(book("o-2", closed.slot_id))
    assert error.value.metadata["slot_id"] == closed.slot_id


async def test_a_slot_is_created_once_for_each_key_and_each_span(create_slot, slot):
    first = await create_slot(hours=3, request_id="k-1")
    assert await create_slot(hours=3, request_id="k-1") == first
    with pytest.raises(IdempotencyKeyReused):
        await create_slot(hours=6, request_id="k-1")
    with pytest.raises(SlotExists):
        await create_slot(hours=3)
    with pytest.raises(ZoneNotFound):
        await create_slot(zone_id="nowhere")


async def test_a_slot_with_invalid_times_is_rejected(delivery, staff, create_slot, slot):
    with pytest.raises(InvalidRequest):
        await create_slot(cutoff=START + timedelta(hours=1))
    for moment in (Timestamp(seconds=2**62), Timestamp(seconds=5, nanos=-1), Timestamp(nanos=2 * 10**9)):
        request = pb.CreateSlotRequest(
            zone_id="bkk", start_time=slot.start_time, end_time=slot.end_time, capacity=1, request_id="k-1"
        )
        request.cutoff_time.CopyFrom(moment)
        if moment.seconds == 2**62:
            request.start_time.CopyFrom(moment)
            request.end_time.seconds = 2**62 + 1
        with staff(), pytest.raises(InvalidRequest):
            await delivery.CreateSlot(request)


async def test_an_order_has_one_booking_and_a_repeat_returns_it(booking_client, create_slot, slot, rows):
    other = await create_slot(hours=3)
    first = await booking_client.BookSlot(book("o-1", slot.slot_id))
    assert (first.state, first.start_time) == (pb.SLOT_BOOKING_STATE_BOOKED, slot.start_time)
    assert await booking_client.BookSlot(book("o-1", slot.slot_id)) == first
    with pytest.raises(SlotAlreadyBooked) as error:
        await booking_client.BookSlot(book("o-1", other.slot_id))
    assert error.value.metadata == {"order_id": "o-1", "slot_id": slot.slot_id}
    await assert_booked_counts_match(rows)


async def test_a_repeat_returns_the_booking_although_the_slot_is_full_and_closed(
    booking_client, create_slot, slot, rows
):
    last = await create_slot(hours=3, capacity=1)
    first = await booking_client.BookSlot(book("o-1", last.slot_id))
    await rows.execute("UPDATE slot SET cutoff_time = now() - interval '1 second'")
    assert await booking_client.BookSlot(book("o-1", last.slot_id)) == first


async def test_a_slot_can_be_booked_for_addresses_of_its_zone_only(booking_client, create_zone, slot):
    await create_zone(a_zone("cnx", "50", "1059"))
    for postal_code in ("50000", "10590", "99999"):
        with pytest.raises(AddressNotServed):
            await booking_client.BookSlot(book("o-1", slot.slot_id, postal_code))
    with pytest.raises(SlotNotFound):
        await booking_client.BookSlot(book("o-1", "no-slot"))


async def test_a_released_place_can_be_booked_by_another_order_only(booking_client, create_slot, slot, rows):
    last = await create_slot(hours=3, capacity=1)
    await booking_client.BookSlot(book("o-1", last.slot_id))
    released = await booking_client.ReleaseSlot(release("o-1"))
    assert released.state == pb.SLOT_BOOKING_STATE_RELEASED
    assert await booking_client.ReleaseSlot(release("o-1")) == released
    with pytest.raises(BookingReleased):
        await booking_client.BookSlot(book("o-1", last.slot_id))
    await booking_client.BookSlot(book("o-2", last.slot_id))
    await assert_booked_counts_match(rows)


async def test_a_booking_that_arrives_after_the_release_of_its_order_fails(booking_client, slot, rows):
    for _ in range(2):
        with pytest.raises(BookingNotFound):
            await booking_client.ReleaseSlot(release("o-1"))
    with pytest.raises(BookingReleased):
        await booking_client.BookSlot(book("o-1", slot.slot_id))
    assert await rows.fetchval("SELECT sum(booked) FROM slot") == 0


async def test_only_svc_order_may_book_and_release(delivery, slot):
    with pytest.raises(CallerDenied):
        await delivery.BookSlot(book("o-1", slot.slot_id))
    with pytest.raises(CallerDenied):
        await delivery.ReleaseSlot(release("o-1"))


async def test_a_booking_s_event_has_the_trace_of_its_request(booking_client, slot, rows):
    async def call(order_id):
        with as_user():
            await booking_client.BookSlot(book(order_id, slot.slot_id))
            return order_id, trace_id(current_call().traceparent)

    requested = dict(await asyncio.gather(*map(call, ("o-1", "o-2", "o-3"))))
    published = {
        row["key"]: trace_id(row["traceparent"]) for row in await rows.fetch("SELECT key, traceparent FROM outbox")
    }
    assert published == requested


async def test_every_transition_of_a_booking_is_published_once(booking_client, slot, rows):
    for _ in range(2):
        await booking_client.BookSlot(book("o-1", slot.slot_id))
    for _ in range(2):
        await booking_client.ReleaseSlot(release("o-1"))
    published = await rows.fetch("SELECT type, key, payload FROM outbox ORDER BY id")
    assert [(row["type"], row["key"]) for row in published] == [
        ("shop.delivery.v1.SlotBooked", "o-1"),
        ("shop.delivery.v1.SlotReleased", "o-1"),
    ]
    assert events.SlotBooked.FromString(published[0]["payload"]) == events.SlotBooked(
        order_id="o-1", version=1, slot_id=slot.slot_id
    )
    assert events.SlotReleased.FromString(published[1]["payload"]).version == 2


async def retry(rpc, request):
    """Repeat a request until it is answered, as svc_order does."""
    while True:
        try:
            return await rpc(request)
        except (OutcomeUnknown, Overloaded, WriteContended):
            await asyncio.sleep(0.05)


@pytest.fixture
async def replica_client(replica):
    """A second process of the service on the same database, as svc_order calls it."""
    async with (
        replica() as app,
        client_for(app.address, DeliveryServiceStub, caller="svc_order") as stub,
    ):
        yield stub


async def test_of_two_hundred_orders_for_twenty_places_exactly_twenty_book_over_two_processes(
    booking_client, replica_client, create_slot, slot, rows
):
    popular = await create_slot(hours=3, capacity=20)

    async def booked(number):
        try:
            await retry(
                (replica_client if number % 2 else booking_client).BookSlot, book(f"o-{number}", popular.slot_id)
            )
        except SlotFull:
            return False
        return True

    assert sum(await asyncio.gather(*map(booked, range(200)))) == 20
    await assert_booked_counts_match(rows)


async def test_twenty_concurrent_bookings_of_one_order_take_one_place(booking_client, replica_client, slot, rows):
    answers = await asyncio.gather(
        *(
            retry((replica_client if number % 2 else booking_client).BookSlot, book("o-1", slot.slot_id))
            for number in range(20)
        )
    )
    assert all(answer == answers[0] for answer in answers)
    assert await rows.fetchval("SELECT booked FROM slot WHERE slot_id = $1", slot.slot_id) == 1


async def test_orders_that_book_two_slots_at_once_get_one_of_them(
    booking_client, replica_client, create_slot, slot, rows
):
    slots = [await create_slot(hours=3, capacity=100), await create_slot(hours=6, capacity=100)]
    orders = [f"o-{number}" for number in range(60)]

    async def call(stub, slot):
        return await asyncio.gather(
            *(retry(stub.BookSlot, book(order, slot.slot_id)) for order in orders),
            return_exceptions=True,
        )

    # Each process books another slot for the same orders, so that they conflict on the bookings and not on the slots.
    pairs = zip(*await asyncio.gather(call(booking_client, slots[0]), call(replica_client, slots[1])), strict=True)
    for outcomes in pairs:
        assert sorted(type(one).__name__ for one in outcomes) == ["SlotAlreadyBooked", "SlotBooking"]
    assert await rows.fetchval("SELECT sum(booked) FROM slot") == len(orders)
    await assert_booked_counts_match(rows)


async def test_bookings_and_releases_that_race_leave_every_place_free(
    booking_client, replica_client, create_slot, slot, rows
):
    slots = [slot, await create_slot(hours=3, capacity=2)]
    rng = random.Random(7)
    orders = [f"o-{number}" for number in range(40)]
    requests = [*(book(order, rng.choice(slots).slot_id) for order in orders), *map(release, orders)]
    rng.shuffle(requests)

    async def call(request):
        stub = rng.choice((booking_client, replica_client))
        return await retry(stub.BookSlot if isinstance(request, pb.BookSlotRequest) else stub.ReleaseSlot, request)

    await asyncio.gather(*map(call, requests), return_exceptions=True)
    # Each order was released, before its booking or after it.
    await assert_booked_counts_match(rows)
    assert await rows.fetchval("SELECT count(*) FROM booking WHERE state = 'BOOKED'") == 0
    assert await rows.fetchval("SELECT sum(booked) FROM slot") == 0
    counted = await rows.fetch(
        """SELECT order_id, version, count(outbox.id) AS published FROM booking LEFT JOIN outbox ON key = order_id
           GROUP BY 1, 2"""
    )
    assert len(counted) == 40
    assert all(row["published"] == row["version"] for row in counted)
