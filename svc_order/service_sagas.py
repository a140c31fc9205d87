"""The RPCs of sagas, for staff."""

from datetime import UTC, datetime

from chassis import Context, Database, Transaction, idempotent
from chassis.types.pagination import page_size, page_token, time_position
from shop.order.v1 import saga_pb2
from shop.order.v1 import saga_service_pb2 as pb
from shop.order.v1.saga_service_pb2_grpc import SagaServiceServicer
from svc_order import messages, store
from svc_order.saga import Driver

_AFTER_NONE = (datetime(1970, 1, 1, tzinfo=UTC), "")


class SagaService(SagaServiceServicer):
    """Shows sagas to staff, and resumes or reverses them."""

    def __init__(self, db: Database, driver: Driver) -> None:
        """Resume sagas by `driver`."""
        self.db = db
        self.driver = driver

    async def ListSagas(self, request: pb.ListSagasRequest, context: Context) -> pb.ListSagasResponse:
        size = page_size(request.page_size)
        state = saga_pb2.SagaState.Name(request.state).removeprefix("SAGA_STATE_") if request.state else ""
        async with self.db.connection() as tx:
            after = time_position(request.page_token, _AFTER_NONE)
            rows = await store.list_saga_rows(tx, state=state, after=after, limit=size + 1)
        last = rows[size - 1] if len(rows) > size else None
        return pb.ListSagasResponse(
            sagas=[messages.saga_to_proto(row) for row in rows[:size]],
            next_page_token=page_token(last["create_time"].isoformat(), last["saga_id"]) if last else "",
        )

    async def GetSaga(self, request: pb.GetSagaRequest, context: Context) -> saga_pb2.Saga:
        async with self.db.connection() as tx:
            row = await store.read_saga_row(tx, request.saga_id)
            return messages.saga_to_proto(row, await store.list_steps(tx, request.saga_id))

    async def RetrySaga(self, request: pb.RetrySagaRequest, context: Context) -> saga_pb2.Saga:
        async def change(tx: Transaction) -> saga_pb2.Saga:
            saga, now = await store.lock_saga(tx, request.saga_id)
            await store.update_saga(tx, saga.retried(now))
            return messages.saga_to_proto(await store.read_saga_row(tx, saga.id))

        reply = await idempotent(self.db, request, saga_pb2.Saga, change)
        self.driver.start(request.saga_id)
        return reply

    async def CompensateSaga(self, request: pb.CompensateSagaRequest, context: Context) -> saga_pb2.Saga:
        async def change(tx: Transaction) -> saga_pb2.Saga:
            saga, now = await store.lock_saga(tx, request.saga_id)
            await store.update_saga(tx, saga.compensated_by_hand(now, request.reason))
            return messages.saga_to_proto(await store.read_saga_row(tx, saga.id))

        reply = await idempotent(self.db, request, saga_pb2.Saga, change)
        self.driver.start(request.saga_id)
        return reply
