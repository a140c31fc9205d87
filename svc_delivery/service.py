"""The RPCs of zones, fees and slots. Bookings go through the write lane."""

from collections.abc import Sequence

from chassis import Batch, Context, Database, Lane, Transaction, current_time, outbox, transactional
from chassis.types.pagination import END_OF_TIME, START_OF_TIME, Keyset, parse_time
from chassis.types.times import to_datetime
from shop.chassis.v1.chassis_errors import InvalidRequest
from shop.delivery.v1 import delivery_service_pb2 as pb
from shop.delivery.v1.delivery_errors import AddressNotServed, CurrencyMismatch
from shop.delivery.v1.delivery_service_pb2_grpc import DeliveryServiceServicer
from shop.errors import ShopError
from svc_delivery import converters, store, store_zone
from svc_delivery.domain import Book, Booking, Command, Release, SlotTimes
from svc_delivery.domain_zone import Destination, Zone

#: The zones whose slots one transaction creates.
_ZONE_BATCH = 100
_ZONES = Keyset(str, start=("",))
_SLOTS = Keyset(parse_time, str, start=(START_OF_TIME, ""))


class DeliveryService(DeliveryServiceServicer):
    """Manages delivery zones and slots, and quotes delivery fees."""

    def __init__(self, db: Database, *, days_ahead: int) -> None:
        """Create slots by the rules of their zones `days_ahead` days ahead."""
        self.db = db
        self.days_ahead = days_ahead
        self.lane: Lane[Command, Booking] = Lane(self._apply)

    async def ListZones(self, request: pb.ListZonesRequest, context: Context) -> pb.ListZonesResponse:
        page = _ZONES.page(request)
        async with self.db.connection() as tx:
            zones = await store_zone.list_zones(tx, after=page.after, limit=page.limit)
        zones, next_page_token = page.cut(zones, lambda zone: (zone.id,))
        return pb.ListZonesResponse(zones=map(converters.zone_to_proto, zones), next_page_token=next_page_token)

    async def CreateZone(self, request: pb.CreateZoneRequest, context: Context) -> pb.Zone:
        return await self._create_zone(request, context, converters.zone_from_proto(request.zone))

    @transactional
    async def _create_zone(self, _request: pb.CreateZoneRequest, tx: Transaction, zone: Zone) -> pb.Zone:
        if not await store_zone.time_zone_exists(tx, zone.time_zone):
            raise InvalidRequest(field="zone.time_zone", problem="is not a time zone that the IANA names")
        await store_zone.insert_zone(tx, zone)
        await store.insert_slots_by_rule(tx, await current_time(tx), self.days_ahead, [zone.id])
        return converters.zone_to_proto(zone)

    async def QuoteDelivery(self, request: pb.QuoteDeliveryRequest, context: Context) -> pb.QuoteDeliveryResponse:
        async with self.db.connection() as tx:
            zone_id, tariff = await store_zone.find_tariff(tx, _destination(request))
        if request.currency_code not in ("", tariff.currency_code):
            raise CurrencyMismatch(expected=request.currency_code, actual=tariff.currency_code)
        return converters.quote_to_proto(zone_id, tariff, request.weight_grams)

    async def ListSlots(self, request: pb.ListSlotsRequest, context: Context) -> pb.ListSlotsResponse:
        page = _SLOTS.page(request)
        start = to_datetime(request.start_time, "start_time") if request.HasField("start_time") else START_OF_TIME
        end = to_datetime(request.end_time, "end_time") if request.HasField("end_time") else END_OF_TIME
        async with self.db.connection() as tx:
            zone_id = request.zone_id or await _find_zone(tx, _destination(request))
            await store_zone.require_zone(tx, zone_id)
            slots = await store.list_slots(tx, zone_id, start=start, end=end, after=page.after, limit=page.limit)
        slots, next_page_token = page.cut(slots, lambda slot: (slot.start_time, slot.id))
        return pb.ListSlotsResponse(slots=map(converters.slot_to_proto, slots), next_page_token=next_page_token)

    async def CreateSlot(self, request: pb.CreateSlotRequest, context: Context) -> pb.Slot:
        return await self._create_slot(request, context, converters.slot_times_from_proto(request))

    @transactional
    async def _create_slot(self, request: pb.CreateSlotRequest, tx: Transaction, times: SlotTimes) -> pb.Slot:
        await store_zone.require_zone(tx, request.zone_id)
        slot = await store.insert_slot(tx, zone_id=request.zone_id, times=times, capacity=request.capacity)
        return converters.slot_to_proto(slot)

    async def BookSlot(self, request: pb.BookSlotRequest, context: Context) -> pb.SlotBooking:
        book = Book(order_id=request.order_id, slot_id=request.slot_id, destination=_destination(request))
        return converters.booking_to_proto(await self.lane.submit(book))

    async def ReleaseSlot(self, request: pb.ReleaseSlotRequest, context: Context) -> pb.SlotBooking:
        return converters.booking_to_proto(await self.lane.submit(Release(order_id=request.order_id)))

    async def create_slots(self) -> bool:
        """Create the missing slots of the rules of all zones, some zones at a time; return False, since none remain."""
        zone_ids = [""]
        while zone_ids:
            async with self.db.transaction() as tx:
                zone_ids = await store_zone.list_zone_ids(tx, zone_ids[-1], _ZONE_BATCH)
                await store.insert_slots_by_rule(tx, await current_time(tx), self.days_ahead, zone_ids)
        return False

    async def _apply(self, commands: Batch[Command]) -> Sequence[Booking | ShopError]:
        """Apply the commands that the lane has collected, in one transaction."""
        traces = dict(zip((one.order_id for one in commands), commands.traceparents, strict=True))
        destinations = list({one.destination for one in commands if isinstance(one, Book)})
        async with self.db.transaction(optimistic=not commands.had_conflict) as tx:
            zones = await store_zone.find_zones(tx, destinations) if destinations else {}
            batch = await store.read_batch(tx, commands, zones, lock=commands.had_conflict)
            outcomes = batch.fold(commands)
            await store.write_batch(tx, batch)
            await outbox.add(tx, *map(converters.slot_booking_event, batch.transitions), traces=traces)
        return outcomes


async def _find_zone(tx: Transaction, destination: Destination) -> str:
    """Return the zone that serves a destination; raises AddressNotServed."""
    zones = await store_zone.find_zones(tx, [destination])
    if destination not in zones:
        raise AddressNotServed(postal_code=destination.postal_code, country_code=destination.country_code)
    return zones[destination]


def _destination(request: pb.QuoteDeliveryRequest | pb.ListSlotsRequest | pb.BookSlotRequest) -> Destination:
    return Destination(country_code=request.country_code, postal_code=request.postal_code)
