"""The RPCs of zones, fees and slots.

Bookings go through the write lane: those that wait are folded over the slots in one transaction.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from chassis import Batch, Context, Database, Lane, Transaction, idempotent, outbox
from chassis.types.pagination import page_position, page_size, page_token, time_position
from chassis.types.times import to_datetime
from shop.chassis.v1.chassis_errors import InvalidRequest
from shop.delivery.v1 import delivery_service_pb2 as pb
from shop.delivery.v1.delivery_errors import AddressNotServed, CurrencyMismatch
from shop.delivery.v1.delivery_service_pb2_grpc import DeliveryServiceServicer
from shop.errors import ShopError
from svc_delivery import converters, store
from svc_delivery.domain import Board, Book, Booking, Command, Place, Release

_BEFORE_ALL = datetime(1, 1, 1, tzinfo=UTC)
_AFTER_ALL = datetime(9999, 12, 31, tzinfo=UTC)


class DeliveryService(DeliveryServiceServicer):
    """Manages delivery zones and slots, and quotes delivery fees."""

    def __init__(self, db: Database, *, days_ahead: int) -> None:
        """`days_ahead` is for how long the rules of zones make slots."""
        self.db = db
        self.days_ahead = days_ahead
        self.lane: Lane[Command, Booking] = Lane(self._apply)

    async def ListZones(self, request: pb.ListZonesRequest, context: Context) -> pb.ListZonesResponse:
        size = page_size(request.page_size)
        (after,) = page_position(request.page_token, 1) or [""]
        async with self.db.connection() as tx:
            zones = await store.list_zones(tx, after=after, limit=size + 1)
        more = page_token(zones[size - 1].id) if len(zones) > size else ""
        return pb.ListZonesResponse(zones=map(converters.zone_to_proto, zones[:size]), next_page_token=more)

    async def CreateZone(self, request: pb.CreateZoneRequest, context: Context) -> pb.Zone:
        zone = converters.zone_from_proto(request.zone)

        async def change(tx: Transaction) -> pb.Zone:
            if not await store.knows_time_zone(tx, zone.time_zone):
                raise InvalidRequest(field="zone.time_zone", problem="is not a time zone that the IANA names")
            await store.insert_zone(tx, zone)
            await store.insert_slots_by_rule(tx, await store.read_now(tx), self.days_ahead, zone.id)
            return converters.zone_to_proto(zone)

        return await idempotent(self.db, request, pb.Zone, change)

    async def QuoteDelivery(self, request: pb.QuoteDeliveryRequest, context: Context) -> pb.QuoteDeliveryResponse:
        async with self.db.connection() as tx:
            zone_id = await _zone_of(tx, _place(request))
            tariff = await store.read_tariff(tx, zone_id)
        if request.currency_code not in ("", tariff.currency_code):
            raise CurrencyMismatch(expected=request.currency_code, actual=tariff.currency_code)
        return converters.quote_to_proto(zone_id, tariff, request.weight_grams)

    async def ListSlots(self, request: pb.ListSlotsRequest, context: Context) -> pb.ListSlotsResponse:
        size = page_size(request.page_size)
        start = to_datetime(request.start_time, "start_time") if request.HasField("start_time") else _BEFORE_ALL
        end = to_datetime(request.end_time, "end_time") if request.HasField("end_time") else _AFTER_ALL
        after = time_position(request.page_token, (_BEFORE_ALL, ""))
        async with self.db.connection() as tx:
            zone_id = request.zone_id or await _zone_of(tx, _place(request))
            await store.check_zone(tx, zone_id)
            slots = await store.list_slots(tx, zone_id, start=start, end=end, after=after, limit=size + 1)
        last = slots[size - 1] if len(slots) > size else None
        return pb.ListSlotsResponse(
            slots=map(converters.slot_to_proto, slots[:size]),
            next_page_token=page_token(last.start_time.isoformat(), last.id) if last else "",
        )

    async def CreateSlot(self, request: pb.CreateSlotRequest, context: Context) -> pb.Slot:
        start, end = to_datetime(request.start_time, "start_time"), to_datetime(request.end_time, "end_time")
        cutoff = to_datetime(request.cutoff_time, "cutoff_time") if request.HasField("cutoff_time") else start

        async def change(tx: Transaction) -> pb.Slot:
            await store.check_zone(tx, request.zone_id)
            slot = await store.insert_slot(
                tx,
                zone_id=request.zone_id,
                start_time=start,
                end_time=end,
                cutoff_time=cutoff,
                capacity=request.capacity,
            )
            return converters.slot_to_proto(slot)

        return await idempotent(self.db, request, pb.Slot, change)

    async def BookSlot(self, request: pb.BookSlotRequest, context: Context) -> pb.SlotBooking:
        book = Book(order_id=request.order_id, slot_id=request.slot_id, place=_place(request))
        return converters.booking_to_proto(await self.lane.submit(book))

    async def ReleaseSlot(self, request: pb.ReleaseSlotRequest, context: Context) -> pb.SlotBooking:
        return converters.booking_to_proto(await self.lane.submit(Release(order_id=request.order_id)))

    async def create_slots(self) -> bool:
        """Create the slots that the rules of all zones ask for; returns False, since these are all."""
        async with self.db.transaction() as tx:
            await store.insert_slots_by_rule(tx, await store.read_now(tx), self.days_ahead)
        return False

    async def _apply(self, commands: Batch[Command]) -> Sequence[Booking | ShopError]:
        """Apply a batch in one transaction: what the lane calls."""
        traces = dict(zip((one.order_id for one in commands), commands.traceparents, strict=True))
        async with self.db.transaction() as tx:
            board: Board = await store.read_board(tx, commands)
            outcomes = board.fold(commands)
            await store.write_board(tx, board)
            await outbox.add(tx, *map(converters.slot_booking_event, board.moves), traces=traces)
        return outcomes


async def _zone_of(tx: Transaction, place: Place) -> str:
    """Return the zone that serves a place; raises AddressNotServed."""
    zones = await store.find_zones(tx, [place])
    if place not in zones:
        raise AddressNotServed(postal_code=place.postal_code, country_code=place.country_code)
    return zones[place]


def _place(request: pb.QuoteDeliveryRequest | pb.ListSlotsRequest | pb.BookSlotRequest) -> Place:
    return Place(country_code=request.country_code, postal_code=request.postal_code)
