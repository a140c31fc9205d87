"""Slots and their bookings: how many there are, who has them, and what races do to them."""

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
from tests.integration.svc_delivery.conftest import SERVICE, a_zone

START = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(days=2)


@pytest.fixture
def put(counter, staff, open_zone):
    """Creates a slot: `slot = await put(capacity=3)`; its zone is there already."""

    async def put(*, hours=0, capacity=5, cutoff=None, request_id=None, zone_id="bkk"):
        request = pb.CreateSlotRequest(
            zone_id=zone_id,
            start_time=timestamp(START + timedelta(hours=hours)),
            end_time=timestamp(START + timedelta(hours=hours + 2)),
            cutoff_time=timestamp(cutoff) if cutoff else None,
            capacity=capacity,
            request_id=request_id or uuid.uuid4().hex,
        )
        with staff():
            return await counter.CreateSlot(request)

    return put


@pytest.fixture
async def slot(open_zone, put):
    await open_zone()
    return await put()


def book(order_id, slot_id, postal_code="10500"):
    return pb.BookSlotRequest(order_id=order_id, slot_id=slot_id, country_code="TH", postal_code=postal_code)


def release(order_id):
    return pb.ReleaseSlotRequest(order_id=order_id)


async def open_slots(counter, **where):
    return list((await counter.ListSlots(pb.ListSlotsRequest(**{"zone_id": "bkk"} | where))).slots)


async def assert_places_are_the_bookings_that_stand(rows):
    drifted = await rows.fetch(
        """SELECT slot_id FROM slot LEFT JOIN (
               SELECT slot_id, count(*) n FROM booking WHERE state = 'BOOKED' GROUP BY 1) standing USING (slot_id)
           WHERE booked <> coalesce(n, 0) OR booked > capacity"""
    )
    assert not drifted


async def test_a_slot_is_listed_with_what_is_left_of_it(bookings, counter, put, slot):
    later = await put(hours=3)
    await bookings.BookSlot(book("o-1", slot.slot_id))
    listed = await open_slots(counter)
    assert [(one.slot_id, one.available) for one in listed] == [(slot.slot_id, 4), (later.slot_id, 5)]
    assert await open_slots(counter, zone_id="", country_code="TH", postal_code="10 500") == listed
    assert (slot.zone_id, slot.cutoff_time) == ("bkk", slot.start_time)


async def test_slots_are_listed_from_one_time_to_another_page_by_page(counter, put, slot):
    slots = [slot, *[await put(hours=hours) for hours in (3, 6, 9)]]
    page = pb.ListSlotsRequest(zone_id="bkk", start_time=slots[1].start_time, end_time=slots[3].start_time, page_size=1)
    first = await counter.ListSlots(page)
    page.page_token = first.next_page_token
    rest = await counter.ListSlots(page)
    assert [*first.slots, *rest.slots] == slots[1:3]
    assert rest.next_page_token == ""


async def test_what_is_full_or_closed_is_not_listed_and_cannot_be_booked(bookings, counter, put, slot):
    full = await put(hours=3, capacity=1)
    closed = await put(hours=6, cutoff=datetime.now(UTC) - timedelta(seconds=1))
    await bookings.BookSlot(book("o-1", full.slot_id))
    assert await open_slots(counter) == [slot]
    with pytest.raises(SlotFull):
        await bookings.BookSlot(book("o-2", full.slot_id))
    with pytest.raises(SlotClosed) as refusal:
        await bookings.BookSlot(book("o-2", closed.slot_id))
    assert refusal.value.metadata["slot_id"] == closed.slot_id


async def test_a_slot_is_created_once_for_each_key_and_each_span(put, slot):
    first = await put(hours=3, request_id="k-1")
    assert await put(hours=3, request_id="k-1") == first
    with pytest.raises(IdempotencyKeyReused):
        await put(hours=6, request_id="k-1")
    with pytest.raises(SlotExists):
        await put(hours=3)
    with pytest.raises(ZoneNotFound):
        await put(zone_id="nowhere")


async def test_a_slot_that_is_none_is_refused_with_the_field_named(counter, staff, put, slot):
    with pytest.raises(InvalidRequest):
        await put(cutoff=START + timedelta(hours=1))
    for moment in (Timestamp(seconds=2**62), Timestamp(seconds=5, nanos=-1), Timestamp(nanos=2 * 10**9)):
        request = pb.CreateSlotRequest(
            zone_id="bkk", start_time=slot.start_time, end_time=slot.end_time, capacity=1, request_id="k-1"
        )
        request.cutoff_time.CopyFrom(moment)
        if moment.seconds == 2**62:
            request.start_time.CopyFrom(moment)
            request.end_time.seconds = 2**62 + 1
        with staff(), pytest.raises(InvalidRequest):
            await counter.CreateSlot(request)


async def test_an_order_has_one_booking_and_a_repeat_returns_it(bookings, put, slot, rows):
    other = await put(hours=3)
    first = await bookings.BookSlot(book("o-1", slot.slot_id))
    assert (first.state, first.start_time) == (pb.SLOT_BOOKING_STATE_BOOKED, slot.start_time)
    assert await bookings.BookSlot(book("o-1", slot.slot_id)) == first
    with pytest.raises(SlotAlreadyBooked) as refusal:
        await bookings.BookSlot(book("o-1", other.slot_id))
    assert refusal.value.metadata == {"order_id": "o-1", "slot_id": slot.slot_id}
    await assert_places_are_the_bookings_that_stand(rows)


async def test_a_repeat_returns_the_booking_even_when_the_slot_is_full_and_closed(bookings, put, slot, rows):
    last = await put(hours=3, capacity=1)
    first = await bookings.BookSlot(book("o-1", last.slot_id))
    await rows.execute("UPDATE slot SET cutoff_time = now() - interval '1 second'")
    assert await bookings.BookSlot(book("o-1", last.slot_id)) == first


async def test_a_slot_is_for_the_places_of_its_zone(bookings, open_zone, slot):
    await open_zone(a_zone("cnx", "50", "1059"))
    for postal_code in ("50000", "10590", "99999"):
        with pytest.raises(AddressNotServed):
            await bookings.BookSlot(book("o-1", slot.slot_id, postal_code))
    with pytest.raises(SlotNotFound):
        await bookings.BookSlot(book("o-1", "no-slot"))


async def test_a_release_gives_the_place_to_another_and_the_order_books_no_more(bookings, put, slot, rows):
    last = await put(hours=3, capacity=1)
    await bookings.BookSlot(book("o-1", last.slot_id))
    released = await bookings.ReleaseSlot(release("o-1"))
    assert released.state == pb.SLOT_BOOKING_STATE_RELEASED
    assert await bookings.ReleaseSlot(release("o-1")) == released
    with pytest.raises(BookingReleased):
        await bookings.BookSlot(book("o-1", last.slot_id))
    await bookings.BookSlot(book("o-2", last.slot_id))
    await assert_places_are_the_bookings_that_stand(rows)


async def test_a_booking_that_arrives_after_the_release_of_its_order_takes_no_place(bookings, slot, rows):
    for _ in range(2):
        with pytest.raises(BookingNotFound):
            await bookings.ReleaseSlot(release("o-1"))
    with pytest.raises(BookingReleased):
        await bookings.BookSlot(book("o-1", slot.slot_id))
    assert await rows.fetchval("SELECT sum(booked) FROM slot") == 0


async def test_only_svc_order_books_and_releases(counter, slot):
    with pytest.raises(CallerDenied):
        await counter.BookSlot(book("o-1", slot.slot_id))
    with pytest.raises(CallerDenied):
        await counter.ReleaseSlot(release("o-1"))


async def test_a_booking_is_told_in_the_trace_of_the_request_that_made_it(bookings, slot, rows):
    async def ask(order_id):
        with as_user():
            await bookings.BookSlot(book(order_id, slot.slot_id))
            return order_id, trace_id(current_call().traceparent)

    caused = dict(await asyncio.gather(*map(ask, ("o-1", "o-2", "o-3"))))
    told = {row["key"]: trace_id(row["traceparent"]) for row in await rows.fetch("SELECT key, traceparent FROM outbox")}
    assert told == caused


async def test_every_move_of_a_booking_is_told_once(bookings, slot, rows):
    for _ in range(2):
        await bookings.BookSlot(book("o-1", slot.slot_id))
    for _ in range(2):
        await bookings.ReleaseSlot(release("o-1"))
    told = await rows.fetch("SELECT type, key, payload FROM outbox ORDER BY id")
    assert [(row["type"], row["key"]) for row in told] == [
        ("shop.delivery.v1.SlotBooked", "o-1"),
        ("shop.delivery.v1.SlotReleased", "o-1"),
    ]
    assert events.SlotBooked.FromString(told[0]["payload"]) == events.SlotBooked(
        order_id="o-1", version=1, slot_id=slot.slot_id
    )
    assert events.SlotReleased.FromString(told[1]["payload"]).version == 2


async def insist(rpc, request):
    """Asks until there is an answer, as svc_order does: the same request is answered alike however often it comes."""
    while True:
        try:
            return await rpc(request)
        except (OutcomeUnknown, Overloaded, WriteContended):
            await asyncio.sleep(0.05)


@pytest.fixture
async def twin(replica):
    """Another process of the service on the same database, as svc_order calls it."""
    async with (
        replica() as app,
        client_for(app.address, DeliveryServiceStub, SERVICE, caller="svc_order") as stub,
    ):
        yield stub


async def test_two_hundred_orders_for_twenty_places_over_two_processes_get_exactly_twenty(
    bookings, twin, put, slot, rows
):
    rush = await put(hours=3, capacity=20)

    async def buy(number):
        try:
            await insist((twin if number % 2 else bookings).BookSlot, book(f"o-{number}", rush.slot_id))
        except SlotFull:
            return False
        return True

    assert sum(await asyncio.gather(*map(buy, range(200)))) == 20
    await assert_places_are_the_bookings_that_stand(rows)


async def test_one_order_that_is_booked_twenty_times_at_once_takes_one_place(bookings, twin, slot, rows):
    answers = await asyncio.gather(
        *(insist((twin if number % 2 else bookings).BookSlot, book("o-1", slot.slot_id)) for number in range(20))
    )
    assert all(answer == answers[0] for answer in answers)
    assert await rows.fetchval("SELECT booked FROM slot WHERE slot_id = $1", slot.slot_id) == 1


async def test_orders_that_ask_for_two_slots_at_once_have_one_of_them_each(bookings, twin, put, slot, rows):
    slots = [await put(hours=3, capacity=100), await put(hours=6, capacity=100)]
    orders = [f"o-{number}" for number in range(60)]

    async def ask(stub, wanted):
        return await asyncio.gather(
            *(insist(stub.BookSlot, book(order, wanted.slot_id)) for order in orders), return_exceptions=True
        )

    # Each process books another slot for the same orders, so that they meet at the bookings and not at the slots.
    pairs = zip(*await asyncio.gather(ask(bookings, slots[0]), ask(twin, slots[1])), strict=True)
    for outcomes in pairs:
        assert sorted(type(one).__name__ for one in outcomes) == ["SlotAlreadyBooked", "SlotBooking"]
    assert await rows.fetchval("SELECT sum(booked) FROM slot") == len(orders)
    await assert_places_are_the_bookings_that_stand(rows)


async def test_bookings_and_releases_that_race_leave_no_place_taken_for_nobody(bookings, twin, put, slot, rows):
    slots = [slot, await put(hours=3, capacity=2)]
    rng = random.Random(7)
    orders = [f"o-{number}" for number in range(40)]
    requests = [*(book(order, rng.choice(slots).slot_id) for order in orders), *map(release, orders)]
    rng.shuffle(requests)

    async def ask(request):
        stub = rng.choice((bookings, twin))
        return await insist(stub.BookSlot if isinstance(request, pb.BookSlotRequest) else stub.ReleaseSlot, request)

    await asyncio.gather(*map(ask, requests), return_exceptions=True)
    # Whoever released has nothing, however the two met.
    await assert_places_are_the_bookings_that_stand(rows)
    assert await rows.fetchval("SELECT count(*) FROM booking WHERE state = 'BOOKED'") == 0
    assert await rows.fetchval("SELECT sum(booked) FROM slot") == 0
    counted = await rows.fetch(
        """SELECT order_id, version, count(outbox.id) AS told FROM booking LEFT JOIN outbox ON key = order_id
           GROUP BY 1, 2"""
    )
    assert len(counted) == 40
    assert all(row["told"] == row["version"] for row in counted)
