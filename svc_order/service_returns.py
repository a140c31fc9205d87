"""The RPCs of returns."""

import uuid
from datetime import timedelta
from functools import partial

from chassis import (
    Context,
    Database,
    Transaction,
    current_time,
    current_user,
    outbox,
    owner_filter,
    require_owner,
    transactional,
)
from chassis.types.pagination import END_OF_TIME, Keyset, parse_time
from chassis.work.worker import Worker
from shop.chassis.v1.chassis_errors import InvalidRequest
from shop.order.v1 import return_service_pb2 as pb
from shop.order.v1.order_errors import OrderNotFound, ReturnNotFound
from shop.order.v1.return_service_pb2_grpc import ReturnServiceServicer
from svc_order import converters_returns as converters
from svc_order import store, store_returns
from svc_order.domain import State
from svc_order.domain_returns import ReturnState, check_returnable, units_of
from svc_order.refunds import Attempt
from svc_order.returns import ReturnClaim, end_return

_RETURNS = Keyset(parse_time, str, start=(END_OF_TIME, ""))


class ReturnService(ReturnServiceServicer):
    """Takes goods back."""

    def __init__(self, db: Database, worker: Worker[ReturnClaim, Attempt], *, window: timedelta) -> None:
        """`worker` restocks and refunds what was received; `window` is counted from an order's delivery."""
        self.db = db
        self.worker = worker
        self.window = window

    @transactional
    async def CreateReturn(self, request: pb.CreateReturnRequest, tx: Transaction) -> pb.Return:
        order, now = await store.lock_order(tx, request.order_id), await current_time(tx)
        require_owner(order.user_id, OrderNotFound(order_id=order.id))
        one = converters.return_from_request(request, order, f"return-{uuid.uuid4().hex}", now)
        delivered = await store_returns.read_delivery_time(tx, order.id)
        returned = units_of(await store_returns.read_returns_of(tx, order.id))
        check_returnable(order, one.lines, returned, is_open=delivered is None or now <= delivered + self.window)
        await store_returns.insert_return(tx, one, current_user().id)
        saved = await store.update_order(tx, order, order.transition_to(State.RETURN_REQUESTED, now))
        await outbox.add(tx, converters.return_changed_event(one, saved))
        return await self._reply(tx, one.id)

    async def GetReturn(self, request: pb.GetReturnRequest, context: Context) -> pb.Return:
        async with self.db.connection() as tx:
            found = await self._reply(tx, request.return_id)
        require_owner(found.user_id, ReturnNotFound(return_id=found.return_id))
        return found

    async def ListReturns(self, request: pb.ListReturnsRequest, context: Context) -> pb.ListReturnsResponse:
        page = _RETURNS.page(request)
        async with self.db.connection() as tx:
            found = await store_returns.list_returns(
                tx,
                user_id=owner_filter(),
                order_id=request.order_id,
                state=converters.state_from_proto(request.state),
                before=page.after,
                limit=page.limit,
            )
            orders = await store.read_orders(tx, {one.order_id for one in found})
        found, next_page_token = page.cut(found, lambda one: (one.create_time, one.id))
        replies = [converters.return_to_proto(one, orders[one.order_id].totals.currency) for one in found]
        return pb.ListReturnsResponse(returns=replies, next_page_token=next_page_token)

    @transactional
    async def ApproveReturn(self, request: pb.ApproveReturnRequest, tx: Transaction) -> pb.Return:
        before, order = await store_returns.lock_return(tx, request.return_id)
        after = before.transition_to(ReturnState.APPROVED, await current_time(tx))
        await store_returns.update_return(tx, before, after, current_user().id, request.message)
        await outbox.add(tx, converters.return_changed_event(after, order))
        return await self._reply(tx, after.id)

    @transactional
    async def RejectReturn(self, request: pb.RejectReturnRequest, tx: Transaction) -> pb.Return:
        return await self._end(tx, request, ReturnState.REJECTED)

    @transactional
    async def CancelReturn(self, request: pb.CancelReturnRequest, tx: Transaction) -> pb.Return:
        return await self._end(tx, request, ReturnState.CANCELLED)

    async def ReceiveReturn(self, request: pb.ReceiveReturnRequest, context: Context) -> pb.Return:
        received = await self._receive(request, context)
        if await self.worker.join(received.return_id):
            async with self.db.connection() as tx:
                return await self._reply(tx, received.return_id)
        return received

    @transactional
    async def _receive(self, request: pb.ReceiveReturnRequest, tx: Transaction) -> pb.Return:
        lines = converters.received_lines(request.lines)
        if any(line.restocked and not line.location_id for line in lines.values()):
            raise InvalidRequest(field="lines", problem="need a location_id where units are restocked")
        before, order = await store_returns.lock_return(tx, request.return_id)
        returned = units_of(await store_returns.read_returns_of(tx, order.id))
        after = before.received(order, returned, lines, await current_time(tx))
        await store_returns.update_return(tx, before, after, current_user().id, request.message)
        await outbox.add(tx, converters.return_changed_event(after, order))
        self.db.on_commit(tx, partial(self.worker.start, after.id))
        return await self._reply(tx, after.id)

    @transactional
    async def SettleReturn(self, request: pb.SettleReturnRequest, tx: Transaction) -> pb.Return:
        before, order = await store_returns.lock_return(tx, request.return_id)
        decision = converters.decision_from_proto(request.decision)
        after = before.refund_decided(decision, await current_time(tx))
        if after.state is ReturnState.COMPLETED:
            await end_return(tx, before, after, order, actor=current_user().id, message=request.reason)
        else:
            await store_returns.update_return(tx, before, after, current_user().id, request.reason)
            await outbox.add(tx, converters.return_changed_event(after, order))
            self.db.on_commit(tx, partial(self.worker.start, after.id))
        return await self._reply(tx, after.id)

    async def _end(
        self, tx: Transaction, request: pb.RejectReturnRequest | pb.CancelReturnRequest, to: ReturnState
    ) -> pb.Return:
        before, order = await store_returns.lock_return(tx, request.return_id)
        if to is ReturnState.CANCELLED:
            require_owner(order.user_id, ReturnNotFound(return_id=before.id))
        after = before.transition_to(to, await current_time(tx))
        await end_return(tx, before, after, order, actor=current_user().id, message=request.message)
        return await self._reply(tx, before.id)

    async def _reply(self, tx: Transaction, return_id: str) -> pb.Return:
        one = await store_returns.read_return(tx, return_id)
        order = await store.read_order(tx, one.order_id)
        return converters.return_to_proto(one, order.totals.currency)
