"""The RPCs of svc_inventory. Reservations and adjustments go through the write lane; SetStock locks its one row."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import timedelta

from chassis import (
    Batch,
    Context,
    Database,
    Lane,
    Transaction,
    Watch,
    WatchPace,
    current_call,
    current_user,
    outbox,
    transactional,
)
from chassis.postgres.lane import shared_reads
from chassis.types.pagination import Keyset, parse_uint
from shop.chassis.v1.chassis_errors import IdempotencyKeyReused
from shop.errors import ShopError
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_errors import InsufficientStock, ReservationNotFound, SkuNotFound
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceServicer
from svc_inventory import converters, domain, store
from svc_inventory.domain import Level
from svc_inventory.domain_adjustment import Adjust, Adjustment
from svc_inventory.domain_batch import Command, Outcome, StockBatch
from svc_inventory.domain_reduction import Reduce
from svc_inventory.domain_reservation import Extend, Reservation, Reserve, State, Transition

_EXPIRY_BATCH = 200
#: The actor of reservations' movements: no other workload may reserve.
_ACTOR = "svc_order"
_LEVELS = Keyset(str, start=("",))
_MOVEMENTS = Keyset(parse_uint, start=(2**63 - 1,))


class InventoryService(InventoryServiceServicer):
    """Keeps stock levels, and promises no unit twice."""

    def __init__(self, db: Database, *, hold: timedelta, pace: WatchPace) -> None:
        """`hold` is how long a reservation is held when ReserveStock does not say."""
        self.db = db
        self.hold = hold
        self.lane: Lane[Command, Outcome] = Lane(self._apply)
        self.pace = pace
        self.reads = shared_reads(self._read_stocks)
        self.levels: Watch[list[Level]] = Watch(db.change_feed, self._read_levels)

    @transactional
    async def SetStock(self, request: pb.SetStockRequest, tx: Transaction) -> pb.StockLevel:
        before = await store.lock_level(tx, request.sku, request.location_id)
        level, movement = domain.set_level(
            before,
            sku=request.sku,
            location_id=request.location_id,
            on_hand=request.on_hand,
            safety_stock=request.safety_stock,
            etag=request.etag,
            actor=current_user().id,
            reason=request.reason,
        )
        row = await store.write_level(tx, level, new=before is None)
        await store.insert_movements(tx, [movement], movement.actor)
        await outbox.add(tx, converters.stock_changed_event(level))
        if before and level.shortfall > before.shortfall:
            await outbox.add(tx, converters.stock_oversold_event(level))
        return converters.level_to_proto(row)

    async def AdjustStock(self, request: pb.AdjustStockRequest, context: Context) -> pb.StockAdjustment:
        adjust = converters.adjust_from_proto(request, _calling_actor())
        adjustment = await self.lane.submit(adjust)
        assert isinstance(adjustment, Adjustment)
        if not adjustment.is_of(adjust):
            raise IdempotencyKeyReused
        return converters.adjustment_to_proto(adjustment)

    async def GetStock(self, request: pb.GetStockRequest, context: Context) -> pb.Stock:
        stock = await self.reads.submit(request.sku)
        if stock is None:
            raise SkuNotFound(sku=request.sku)
        return stock

    async def BatchGetStock(self, request: pb.BatchGetStockRequest, context: Context) -> pb.BatchGetStockResponse:
        levels = await self._read_levels(request.skus)
        stocks = [converters.stock_to_proto(sku, levels[sku]) for sku in request.skus if sku in levels]
        return pb.BatchGetStockResponse(stocks=stocks)

    async def ListStockLevels(self, request: pb.ListStockLevelsRequest, context: Context) -> pb.ListStockLevelsResponse:
        page = _LEVELS.page(request)
        async with self.db.connection() as tx:
            rows = await store.list_levels(tx, request.sku, after=page.after, limit=page.limit)
        if not rows and not request.page_token:
            raise SkuNotFound(sku=request.sku)
        rows, next_page_token = page.cut(rows, lambda row: (row["location_id"],))
        return pb.ListStockLevelsResponse(levels=map(converters.level_to_proto, rows), next_page_token=next_page_token)

    async def ListStockMovements(
        self, request: pb.ListStockMovementsRequest, context: Context
    ) -> pb.ListStockMovementsResponse:
        page = _MOVEMENTS.page(request)
        async with self.db.connection() as tx:
            rows = await store.list_movements(tx, request.sku, before=page.after, limit=page.limit)
        rows, next_page_token = page.cut(rows, lambda row: (row["movement_id"],))
        return pb.ListStockMovementsResponse(
            movements=map(converters.movement_to_proto, rows), next_page_token=next_page_token
        )

    async def WatchAvailability(
        self, request: pb.WatchAvailabilityRequest, context: Context
    ) -> AsyncIterator[pb.WatchAvailabilityResponse]:
        skus = list(dict.fromkeys(request.skus))
        sent = converters.versions_from_token(skus, request.resume_token)
        with self.pace.watching():
            async for changed in self.levels.values(skus):
                for sku, levels in changed.items():
                    version = converters.stock_version(levels)
                    if sent.get(sku) != version:
                        sent[sku] = version
                        yield pb.WatchAvailabilityResponse(
                            stock=converters.stock_to_proto(sku, levels),
                            resume_token=converters.resume_token(skus, sent),
                        )
                await self.pace.pause()  # changes during the pause become one message

    async def ReserveStock(self, request: pb.ReserveStockRequest, context: Context) -> pb.Reservation:
        reserve = Reserve(
            reservation_id=request.reservation_id,
            order_id=request.order_id,
            lines=tuple((line.sku, line.quantity) for line in request.lines),
            ttl=request.ttl.ToTimedelta() if request.HasField("ttl") else self.hold,
        )
        return await self._submit(reserve)

    async def ConfirmReservation(self, request: pb.ConfirmReservationRequest, context: Context) -> pb.Reservation:
        return await self._submit(Transition(reservation_id=request.reservation_id, to=State.CONFIRMED))

    async def ExtendReservation(self, request: pb.ExtendReservationRequest, context: Context) -> pb.Reservation:
        return await self._submit(Extend(reservation_id=request.reservation_id, ttl=request.ttl.ToTimedelta()))

    async def ReleaseReservation(self, request: pb.ReleaseReservationRequest, context: Context) -> pb.Reservation:
        return await self._submit(Transition(reservation_id=request.reservation_id, to=State.RELEASED))

    async def ReduceReservation(self, request: pb.ReduceReservationRequest, context: Context) -> pb.Reservation:
        keeps = tuple((line.sku, line.quantity) for line in request.lines)
        return await self._submit(Reduce(reservation_id=request.reservation_id, keeps=keeps))

    async def FulfillReservation(self, request: pb.FulfillReservationRequest, context: Context) -> pb.Reservation:
        return await self._submit(Transition(reservation_id=request.reservation_id, to=State.FULFILLED))

    async def GetReservation(self, request: pb.GetReservationRequest, context: Context) -> pb.Reservation:
        async with self.db.connection() as tx:
            found = await store.read_reservations(tx, [request.reservation_id])
        if not found:
            raise ReservationNotFound(reservation_id=request.reservation_id)
        return converters.reservation_to_proto(found[request.reservation_id])

    async def expire_holds(self) -> bool:
        """Expire some holds that are past their time; return whether there may be more."""
        async with self.db.connection() as tx:
            expired = await store.list_expired_holds(tx, _EXPIRY_BATCH)
        expiries = [self.lane.submit(Transition(reservation_id=key, to=State.EXPIRED)) for key in expired]
        await asyncio.gather(*expiries, return_exceptions=True)
        return len(expired) == _EXPIRY_BATCH

    async def _submit(self, command: Reserve | Extend | Transition | Reduce) -> pb.Reservation:
        reservation = await self.lane.submit(command)
        assert isinstance(reservation, Reservation)
        return converters.reservation_to_proto(reservation)

    async def _read_stocks(self, skus: Collection[str]) -> dict[str, pb.Stock]:
        levels = await self._read_levels(skus)
        return {sku: converters.stock_to_proto(sku, found) for sku, found in levels.items()}

    async def _read_levels(self, skus: Collection[str]) -> dict[str, list[Level]]:
        async with self.db.connection() as tx:
            return converters.levels_by_sku(await store.read_levels(tx, skus))

    async def _apply(self, commands: Batch[Command]) -> Sequence[Outcome | ShopError]:
        """Apply the commands that the lane has collected, in one transaction."""
        traces = dict(zip(map(_cause, commands), commands.traceparents, strict=True))
        async with self.db.transaction(optimistic=not commands.had_conflict) as tx:
            batch = await store.read_batch(tx, commands, lock=commands.had_conflict)
            outcomes = batch.fold(commands)
            if any(isinstance(outcome, InsufficientStock) for outcome in outcomes) and (
                expiries := await self._expiries(tx, batch)
            ):
                batch = await store.read_batch(tx, [*expiries, *commands], lock=commands.had_conflict)
                outcomes = batch.fold([*expiries, *commands])[len(expiries) :]
            await store.write_batch(tx, batch, _ACTOR)
            await self._publish(tx, batch, traces)
            applied = (
                call for call, one in zip(commands.calls, outcomes, strict=True) if not isinstance(one, ShopError)
            )
            await self.db.audit(tx, applied)
        return outcomes

    async def _publish(self, tx: Transaction, batch: StockBatch, traces: Mapping[str, str]) -> None:
        stock_traces = {one.sku: traces.get(one.reservation_id or one.adjustment_id, "") for one in batch.movements}
        levels = [level for level, _ in batch.levels.changed()]
        await outbox.add(
            tx,
            *map(converters.stock_changed_event, levels),
            *map(converters.stock_oversold_event, batch.oversold),
            traces=stock_traces,
        )
        changes = [
            converters.reservation_event(one, is_reduced=(one.id, one.version) in batch.reduced)
            for one in batch.transitions
        ]
        await outbox.add(tx, *changes, traces=traces)

    async def _expiries(self, tx: Transaction, batch: StockBatch) -> list[Command]:
        """Return the commands that expire holds on the batch's SKUs: none of them may cost a buyer the stock."""
        skus = sorted({sku for sku, _ in batch.levels})
        expired = await store.list_expired_holds_of(tx, skus, _EXPIRY_BATCH)
        return [Transition(reservation_id=key, to=State.EXPIRED) for key in expired]


def _cause(command: Command) -> str:
    """Return the id by which movements name their cause."""
    return command.adjustment_id if isinstance(command, Adjust) else command.reservation_id


def _calling_actor() -> str:
    """Return the end user, or the workload that calls on its own behalf."""
    call = current_call()
    assert call is not None, "only a call adjusts stock"
    return call.user.id if call.user else call.caller
