"""The RPCs of sagas, for staff."""

from functools import partial

from chassis import Context, Database, Transaction, transactional
from chassis.types.pagination import START_OF_TIME, Keyset, parse_time
from chassis.work.worker import Worker
from shop.order.v1 import saga_pb2
from shop.order.v1 import saga_service_pb2 as pb
from shop.order.v1.saga_service_pb2_grpc import SagaServiceServicer
from svc_order import converters, store
from svc_order.domain_saga import StepResult
from svc_order.saga import Claim

_SAGAS = Keyset(parse_time, str, start=(START_OF_TIME, ""))


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
            rows = await store.list_saga_rows(tx, state=state, after=page.after, limit=page.limit)
        rows, next_page_token = page.cut(rows, lambda row: (row["create_time"], row["saga_id"]))
        return pb.ListSagasResponse(sagas=map(converters.saga_to_proto, rows), next_page_token=next_page_token)

    async def GetSaga(self, request: pb.GetSagaRequest, context: Context) -> saga_pb2.Saga:
        async with self.db.connection() as tx:
            row = await store.read_saga_row(tx, request.saga_id)
            return converters.saga_to_proto(row, await store.list_steps(tx, request.saga_id))

    @transactional
    async def RetrySaga(self, request: pb.RetrySagaRequest, tx: Transaction) -> saga_pb2.Saga:
        saga, now = await store.lock_saga(tx, request.saga_id)
        await store.update_saga(tx, saga.retried(now))
        self.db.on_commit(tx, partial(self.worker.start, saga.id))
        return converters.saga_to_proto(await store.read_saga_row(tx, saga.id))

    @transactional
    async def CompensateSaga(self, request: pb.CompensateSagaRequest, tx: Transaction) -> saga_pb2.Saga:
        saga, now = await store.lock_saga(tx, request.saga_id)
        await store.update_saga(tx, saga.compensated_by_operator(now, request.reason))
        self.db.on_commit(tx, partial(self.worker.start, saga.id))
        return converters.saga_to_proto(await store.read_saga_row(tx, saga.id))
