"""The RPCs of cancelled lines."""

import uuid
from functools import partial

from chassis import Context, Database, Transaction, current_time, current_user, outbox, require_owner, transactional
from chassis.work.worker import Worker
from shop.order.v1 import cancellation_service_pb2 as pb
from shop.order.v1.cancellation_service_pb2_grpc import CancellationServiceServicer
from shop.order.v1.order_errors import OrderNotFound
from svc_order import converters_cancellations as converters
from svc_order import converters_returns, store, store_cancellations
from svc_order.cancellations import CancellationClaim
from svc_order.domain_cancellation import CancellationState, cancel_lines
from svc_order.refunds import Attempt


class CancellationService(CancellationServiceServicer):
    """Cancels lines of orders that are not shipped yet."""

    def __init__(self, db: Database, worker: Worker[CancellationClaim, Attempt]) -> None:
        """`worker` releases and refunds what was cancelled."""
        self.db = db
        self.worker = worker

    async def CancelOrderLines(self, request: pb.CancelOrderLinesRequest, context: Context) -> pb.LineCancellation:
        cancelled = await self._cancel(request, context)
        if await self.worker.join(cancelled.cancellation_id):
            async with self.db.connection() as tx:
                one = await store_cancellations.read_cancellation(tx, cancelled.cancellation_id)
            return converters.cancellation_to_proto(one, cancelled.amount.currency_code)
        return cancelled

    @transactional
    async def SettleLineCancellation(
        self, request: pb.SettleLineCancellationRequest, tx: Transaction
    ) -> pb.LineCancellation:
        before, order = await store_cancellations.lock_cancellation(tx, request.cancellation_id)
        decision = converters_returns.decision_from_proto(request.decision)
        after = before.refund_decided(decision, await current_time(tx))
        await store_cancellations.update_cancellation(tx, after)
        await store_cancellations.insert_decision(tx, after, decision, current_user().id, request.reason)
        if after.state is CancellationState.REQUESTED:
            self.db.on_commit(tx, partial(self.worker.start, after.id))
        decisions = await store_cancellations.list_decisions(tx, after.id)
        return converters.cancellation_to_proto(after, order.totals.currency, decisions)

    @transactional
    async def _cancel(self, request: pb.CancelOrderLinesRequest, tx: Transaction) -> pb.LineCancellation:
        """Take the units out of the order; the worker releases and refunds them after the commit."""
        saga, before, now = await store.lock_saga_and_order(tx, request.order_id)
        require_owner(before.user_id, OrderNotFound(order_id=before.id))
        units = converters.units_from_request(request)
        after = cancel_lines(before, units, now, is_awaiting_shipment=saga.is_awaiting_shipment)
        cancellation_id = f"cancellation-{uuid.uuid4().hex}"
        one = converters.cancellation_from_request(request, before, after, cancellation_id, now)
        await store_cancellations.insert_cancellation(tx, one, current_user().id)
        await store_cancellations.update_lines(tx, after)
        saved = await store.update_order(tx, before, after)
        await outbox.add(tx, converters.lines_cancelled_event(one, saved))
        self.db.on_commit(tx, partial(self.worker.start, one.id))
        return converters.cancellation_to_proto(one, saved.totals.currency)
