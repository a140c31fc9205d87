"""The inventory's RPCs. Reservations go through the write lane; counts set by hand lock their one row."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from chassis import Batch, Context, Database, Lane, Transaction, current_user, idempotent, outbox
from chassis.types.pagination import int_position, page_size, page_token
from shop.errors import ShopError
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_errors import InsufficientStock, ReservationNotFound, SkuNotFound
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceServicer
from svc_inventory import domain, messages, store
from svc_inventory.domain import Command, Move, Reservation, Reserve, Shelf, State

_SWEPT_AT_ONCE = 200
#: Only svc_order may reserve, so it is who moves stock here.
_ACTOR = "svc_order"
_BEYOND_ALL = 2**62


class InventoryService(InventoryServiceServicer):
    """Keeps stock levels and never promises the same unit twice."""

    def __init__(self, db: Database, *, hold: timedelta) -> None:
        """`hold` is how long a reservation lasts when ReserveStock does not say."""
        self.db = db
        self.hold = hold
        self.lane: Lane[Command, Reservation] = Lane(self._apply)

    async def SetStock(self, request: pb.SetStockRequest, context: Context) -> pb.StockLevel:
        async def change(tx: Transaction) -> pb.StockLevel:
            before = await store.lock_level(tx, request.sku, request.location_id)
            level, movement = domain.set_level(
                before,
                sku=request.sku,
                location_id=request.location_id,
                on_hand=request.on_hand,
                safety_stock=request.safety_stock,
                etag=request.etag,
                reason=request.reason,
            )
            row = await store.write_level(tx, level, new=before is None)
            await store.insert_movements(tx, [movement], current_user().id)
            await outbox.add(tx, messages.level_changed(level))
            return messages.level_to_proto(row)

        return await idempotent(self.db, request, pb.StockLevel, change)

    async def GetStock(self, request: pb.GetStockRequest, context: Context) -> pb.Stock:
        async with self.db.connection() as tx:
            levels = await store.read_levels(tx, [request.sku])
        if not levels:
            raise SkuNotFound(sku=request.sku)
        return messages.stock_to_proto(request.sku, levels)

    async def BatchGetStock(self, request: pb.BatchGetStockRequest, context: Context) -> pb.BatchGetStockResponse:
        async with self.db.connection() as tx:
            by_sku = messages.stocks_by_sku(await store.read_levels(tx, request.skus))
        stocks = [messages.stock_to_proto(sku, by_sku[sku]) for sku in request.skus if sku in by_sku]
        return pb.BatchGetStockResponse(stocks=stocks)

    async def ListStockLevels(self, request: pb.ListStockLevelsRequest, context: Context) -> pb.ListStockLevelsResponse:
        async with self.db.connection() as tx:
            rows = await store.list_level_rows(tx, request.sku)
        if not rows:
            raise SkuNotFound(sku=request.sku)
        start, size = int_position(request.page_token, 0), page_size(request.page_size)
        page = [messages.level_to_proto(row) for row in rows[start : start + size]]
        more = page_token(start + size) if len(rows) > start + size else ""
        return pb.ListStockLevelsResponse(levels=page, next_page_token=more)

    async def ListStockMovements(
        self, request: pb.ListStockMovementsRequest, context: Context
    ) -> pb.ListStockMovementsResponse:
        size = page_size(request.page_size)
        below = int_position(request.page_token, _BEYOND_ALL)
        async with self.db.connection() as tx:
            rows = await store.list_movements(tx, request.sku, below=below, limit=size + 1)
        more = page_token(rows[size - 1]["movement_id"]) if len(rows) > size else ""
        movements = [messages.movement_to_proto(row) for row in rows[:size]]
        return pb.ListStockMovementsResponse(movements=movements, next_page_token=more)

    async def WatchAvailability(
        self, request: pb.WatchAvailabilityRequest, context: Context
    ) -> AsyncIterator[pb.WatchAvailabilityResponse]:
        skus = list(dict.fromkeys(request.skus))
        seen = messages.seen_versions(skus, request.resume_token)
        async for _ in self.db.change_feed.subscribe(skus):
            async with self.db.connection() as tx:
                by_sku = messages.stocks_by_sku(await store.read_levels(tx, skus))
            for sku, levels in by_sku.items():
                version = messages.version_of(levels)
                if seen.get(sku) != version:
                    seen[sku] = version
                    yield pb.WatchAvailabilityResponse(
                        stock=messages.stock_to_proto(sku, levels), resume_token=messages.seen_token(skus, seen)
                    )

    async def ReserveStock(self, request: pb.ReserveStockRequest, context: Context) -> pb.Reservation:
        reserve = Reserve(
            reservation_id=request.reservation_id,
            order_id=request.order_id,
            lines=tuple((line.sku, line.quantity) for line in request.lines),
            ttl=request.ttl.ToTimedelta() if request.HasField("ttl") else self.hold,
        )
        return messages.reservation_to_proto(await self.lane.submit(reserve))

    async def ConfirmReservation(self, request: pb.ConfirmReservationRequest, context: Context) -> pb.Reservation:
        return await self._move(request.reservation_id, State.CONFIRMED)

    async def ReleaseReservation(self, request: pb.ReleaseReservationRequest, context: Context) -> pb.Reservation:
        return await self._move(request.reservation_id, State.RELEASED)

    async def FulfillReservation(self, request: pb.FulfillReservationRequest, context: Context) -> pb.Reservation:
        return await self._move(request.reservation_id, State.FULFILLED)

    async def GetReservation(self, request: pb.GetReservationRequest, context: Context) -> pb.Reservation:
        async with self.db.connection() as tx:
            found = await store.read_reservations(tx, [request.reservation_id])
        if not found:
            raise ReservationNotFound(reservation_id=request.reservation_id)
        return messages.reservation_to_proto(found[request.reservation_id])

    async def sweep(self) -> bool:
        """Expire some lapsed holds; returns whether there may be more."""
        async with self.db.connection() as tx:
            lapsed = await store.list_lapsed(tx, _SWEPT_AT_ONCE)
        expiries = [self.lane.submit(Move(reservation_id=key, to=State.EXPIRED)) for key in lapsed]
        await asyncio.gather(*expiries, return_exceptions=True)
        return len(lapsed) == _SWEPT_AT_ONCE

    async def _move(self, reservation_id: str, to: State) -> pb.Reservation:
        return messages.reservation_to_proto(await self.lane.submit(Move(reservation_id=reservation_id, to=to)))

    async def _apply(self, commands: Batch[Command]) -> Sequence[Reservation | ShopError]:
        """Apply a batch in one transaction: what the lane calls."""
        traces = dict(zip((one.reservation_id for one in commands), commands.traceparents, strict=True))
        async with self.db.transaction() as tx:
            shelf = await store.read_shelf(tx, commands)
            outcomes = shelf.fold(commands)
            if any(isinstance(outcome, InsufficientStock) for outcome in outcomes) and (
                lapsed := await self._lapsed_in_the_way(tx, shelf)
            ):
                shelf = await store.read_shelf(tx, [*lapsed, *commands])
                outcomes = shelf.fold([*lapsed, *commands])[len(lapsed) :]
            await store.write_shelf(tx, shelf, _ACTOR)
            last = {one.sku: traces.get(one.reservation_id, "") for one in shelf.movements}
            await outbox.add(tx, *map(messages.level_changed, shelf.changed_levels()), traces=last)
            await outbox.add(tx, *map(messages.reservation_moved, shelf.moves), traces=traces)
        return outcomes

    async def _lapsed_in_the_way(self, tx: Transaction, shelf: Shelf) -> list[Command]:
        """Return what expires the holds that the sweeper has not come to yet: no buyer is refused because of them."""
        skus = sorted({sku for sku, _ in shelf.levels})
        lapsed = await store.list_lapsed_of(tx, skus, _SWEPT_AT_ONCE)
        return [Move(reservation_id=key, to=State.EXPIRED) for key in lapsed]
