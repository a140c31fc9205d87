"""Reads what people look at: sagas and the histories of orders; and records what operators decide."""

from datetime import UTC, datetime

from chassis import Record, Transaction
from shop.order.v1.saga_service_pb2 import SagaFilter
from svc_order.domain_saga import Saga
from svc_order.store import sql

_START, _END = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


async def list_sagas(
    tx: Transaction, *, state: str, stuck: bool, after: tuple[datetime, str], limit: int
) -> list[Record]:
    """Return sagas after a position, oldest first; an empty `state` means any, `stuck` those that need attention."""
    if stuck:
        return await tx.fetch(sql.list_stuck_sagas, *after, limit)
    if state == "PARKED":
        return await tx.fetch(sql.list_parked_sagas, *after, limit)
    if state in ("RUNNING", "COMPENSATING"):
        return await tx.fetch(sql.list_active_sagas, state, *after, limit)
    if state:
        return await tx.fetch(sql.list_ended_sagas, state, *after, limit)
    return await tx.fetch(sql.list_sagas, *after, limit)


async def list_parked(tx: Transaction, wanted: SagaFilter, limit: int) -> list[str]:
    """Return the ids of parked sagas that match a filter, the oldest first."""
    after = wanted.created_after.ToDatetime(UTC) if wanted.HasField("created_after") else _START
    before = wanted.created_before.ToDatetime(UTC) if wanted.HasField("created_before") else _END
    rows = await tx.fetch(sql.filter_parked_sagas, wanted.reason, wanted.step, after, before, limit)
    return [row["saga_id"] for row in rows]


async def list_history(tx: Transaction, order_id: str) -> list[Record]:
    """Return an order's transitions, oldest first."""
    return await tx.fetch(sql.list_history, order_id)


async def list_steps(tx: Transaction, saga_id: str) -> list[Record]:
    """Return a saga's steps in the order of their last attempts."""
    return await tx.fetch(sql.list_steps, saga_id)


async def list_decisions(tx: Transaction, saga_id: str) -> list[Record]:
    """Return what operators decided about a saga, oldest first."""
    return await tx.fetch(sql.list_decisions, saga_id)


async def insert_decision(tx: Transaction, saga: Saga, action: str, actor: str, reason: str) -> None:
    """Record a decision about a saga, which is as it was before."""
    await tx.execute(sql.insert_decision, saga.id, action, actor, reason, saga.step.value)
