"""The RPCs of sagas, for staff."""

from collections.abc import Callable
from datetime import datetime
from functools import partial

from chassis import Context, Database, Transaction, current_user, transactional
from chassis.types.pagination import START_OF_TIME, Keyset, parse_time
from chassis.work.worker import Worker
from shop.order.v1 import saga_pb2
from shop.order.v1 import saga_service_pb2 as pb
from shop.order.v1.order_errors import SagaStateConflict
from shop.order.v1.saga_service_pb2_grpc import SagaServiceServicer
from svc_order import converters, store, store_operators
from svc_order.domain_saga import Saga
from svc_order.domain_settlement import resumed, settled
from svc_order.domain_steps import Done, StepResult
from svc_order.saga import save_progress
from svc_order.steps import Claim

_SAGAS = Keyset(parse_time, str, start=(START_OF_TIME, ""))
_BULK = 100

#: Returns a saga after a decision of an operator; raises SagaStateConflict.
_Decide = Callable[[Saga, datetime], Saga]


class SagaService(SagaServiceServicer):
    """Shows sagas to staff, and resumes or compensates them."""

    def __init__(self, db: Database, worker: Worker[Claim, StepResult]) -> None:
        """`worker` executes the sagas."""
        self.db = db
        self.worker = worker

    async def ListSagas(self, request: pb.ListSagasRequest, context: Context) -> pb.ListSagasResponse:
        page = _SAGAS.page(request)
        state = converters.saga_state_from_proto(request.state)
        async with self.db.connection() as tx:
            rows = await store_operators.list_sagas(
                tx, state=state, stuck=request.stuck, after=page.after, limit=page.limit
            )
        rows, next_page_token = page.cut(rows, lambda row: (row["create_time"], row["saga_id"]))
        return pb.ListSagasResponse(sagas=map(converters.saga_to_proto, rows), next_page_token=next_page_token)

    async def GetSaga(self, request: pb.GetSagaRequest, context: Context) -> saga_pb2.Saga:
        async with self.db.connection() as tx:
            return await _read(tx, request.saga_id)

    @transactional
    async def RetrySaga(self, request: pb.RetrySagaRequest, tx: Transaction) -> saga_pb2.Saga:
        await _decide(tx, request.saga_id, "RETRY", request.reason, Saga.retried)
        self.db.on_commit(tx, partial(self.worker.start, request.saga_id))
        return await _read(tx, request.saga_id)

    @transactional
    async def CompensateSaga(self, request: pb.CompensateSagaRequest, tx: Transaction) -> saga_pb2.Saga:
        await _decide(tx, request.saga_id, "COMPENSATE", request.reason, _compensating(request.reason))
        self.db.on_commit(tx, partial(self.worker.start, request.saga_id))
        return await _read(tx, request.saga_id)

    @transactional
    async def SettleSaga(self, request: pb.SettleSagaRequest, tx: Transaction) -> saga_pb2.Saga:
        parked, now = await store.lock_saga(tx, request.saga_id)
        saga, settlement = resumed(parked), converters.settlement_from_proto(request.action)
        before = await store.lock_order(tx, saga.order_id)
        order, after = settled(before, saga, settlement, now)
        await store.write_steps(tx, (saga, Done()))
        await store.update_saga(tx, after)
        await save_progress(tx, before, order, now)
        await store_operators.insert_decision(tx, parked, settlement.name, current_user().id, request.reason)
        self.db.on_commit(tx, partial(self.worker.start, saga.id))
        return await _read(tx, saga.id)

    @transactional
    async def RetrySagas(self, request: pb.RetrySagasRequest, tx: Transaction) -> pb.RetrySagasResponse:
        saga_ids, more = await self._decide_all(tx, request, "RETRY", Saga.retried)
        return pb.RetrySagasResponse(saga_ids=saga_ids, more=more)

    @transactional
    async def CompensateSagas(self, request: pb.CompensateSagasRequest, tx: Transaction) -> pb.CompensateSagasResponse:
        saga_ids, more = await self._decide_all(tx, request, "COMPENSATE", _compensating(request.reason))
        return pb.CompensateSagasResponse(saga_ids=saga_ids, more=more)

    async def _decide_all(
        self, tx: Transaction, request: pb.RetrySagasRequest | pb.CompensateSagasRequest, action: str, decide: _Decide
    ) -> tuple[list[str], bool]:
        """Decide about all sagas that match; return their ids, and whether there are more."""
        limit = request.limit or _BULK
        found = await store_operators.list_parked(tx, request.filter, limit + 1)
        decided = []
        for saga_id in sorted(found[:limit]):  # the lock order of several rows
            try:
                await _decide(tx, saga_id, action, request.reason, decide)
            except SagaStateConflict:
                continue
            decided.append(saga_id)
        self.db.on_commit(tx, self.worker.wake)
        return decided, len(found) > limit


async def _decide(tx: Transaction, saga_id: str, action: str, reason: str, decide: _Decide) -> None:
    saga, now = await store.lock_saga(tx, saga_id)
    await store.update_saga(tx, decide(saga, now))
    await store_operators.insert_decision(tx, saga, action, current_user().id, reason)


async def _read(tx: Transaction, saga_id: str) -> saga_pb2.Saga:
    row = await store.read_saga_row(tx, saga_id)
    steps = await store_operators.list_steps(tx, saga_id)
    return converters.saga_to_proto(row, steps, await store_operators.list_decisions(tx, saga_id))


def _compensating(reason: str) -> _Decide:
    return lambda saga, now: saga.compensated_by_operator(now, reason)
