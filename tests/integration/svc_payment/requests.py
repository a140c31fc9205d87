"""The requests of svc_order and staff, and the checks of both ledgers."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import asyncpg

from chassis import OutcomeUnknown, testing
from chassis.types.money import minor_units, money
from shop.payment.v1 import payment_service_pb2 as pb

AMOUNT = 1200
#: Unknown results take several attempts.
eventually = partial(testing.eventually, seconds=60)


def new_key() -> str:
    return uuid.uuid4().hex


def authorize(payment_id, token="tok_ok", amount=AMOUNT, **changes):
    values = {
        "payment_id": payment_id,
        "order_id": f"order-of-{payment_id}",
        "user_id": "user-1",
        "amount": money(amount, changes.pop("currency", "USD")),
        "payment_method_token": token,
        "request_id": f"{payment_id[-20:]}-authorize",
    }
    return pb.AuthorizePaymentRequest(**{**values, **changes})


def capture(payment_id, amount=None, request_id=None, currency="USD"):
    request = pb.CapturePaymentRequest(payment_id=payment_id, request_id=request_id or new_key())
    if amount is not None:
        request.amount.CopyFrom(money(amount, currency))
    return request


def refund(payment_id, amount=None, request_id=None, reason="came broken", currency="USD"):
    request = pb.RefundPaymentRequest(payment_id=payment_id, reason=reason, request_id=request_id or new_key())
    if amount is not None:
        request.amount.CopyFrom(money(amount, currency))
    return request


def void(payment_id, request_id=None, reason="order cancelled"):
    return pb.VoidPaymentRequest(payment_id=payment_id, reason=reason, request_id=request_id or new_key())


def of_order(payment_id):
    return pb.GetPaymentByOrderRequest(order_id=f"order-of-{payment_id}")


def sums(payment) -> tuple[int, int, int]:
    amounts = (payment.authorized_amount, payment.captured_amount, payment.refunded_amount)
    return tuple(minor_units(amount, "amount") for amount in amounts)


def is_pending(payment) -> bool:
    """Return whether an operation that was requested has no result yet, and waits for nobody."""
    if payment.state == pb.PAYMENT_STATE_REQUIRES_ACTION:
        return False
    outcomes = Counter(one.outcome == pb.TRANSACTION_OUTCOME_REQUEST for one in payment.transactions)
    waited = sum(one.outcome == pb.TRANSACTION_OUTCOME_ACTION_REQUIRED for one in payment.transactions)
    of_bank = sum(one.kind == pb.TRANSACTION_KIND_EXPIRY for one in payment.transactions)
    return outcomes[True] > outcomes[False] - waited - of_bank


async def until_known(call: Callable[[], Awaitable[pb.Payment]]) -> pb.Payment:
    """Repeat a request with its key until its result is known."""
    async with asyncio.timeout(60):
        while True:
            with suppress(OutcomeUnknown):
                payment = await call()
                if payment is None or not is_pending(payment):
                    return payment
            await asyncio.sleep(0.02)


#: Each returns the payments that break a rule.
_BROKEN = {
    "amounts are sums of entries": """
        SELECT payment_id FROM payment p WHERE (authorized, captured, refunded) <> (
            SELECT coalesce(sum(CASE kind WHEN 'AUTHORIZATION' THEN amount WHEN 'EXPIRY' THEN -amount END), 0),
                   coalesce(sum(amount) FILTER (WHERE kind = 'CHARGE'), 0),
                   coalesce(sum(amount) FILTER (WHERE kind = 'REFUND'), 0)
            FROM entry WHERE entry.payment_id = p.payment_id AND outcome = 'SUCCESS')""",
    "every version was published": """
        SELECT payment_id FROM payment p
        WHERE version <> (SELECT count(*) FROM outbox WHERE key = p.payment_id)""",
    "no result precedes its request or has another amount": """
        SELECT payment_id FROM entry e JOIN entry r USING (payment_id, operation_id)
        WHERE r.outcome = 'REQUEST' AND e.outcome <> 'REQUEST' AND (e.entry_id < r.entry_id OR e.amount <> r.amount)""",
    "a voided or failed payment holds no funds": """
        SELECT payment_id FROM payment p WHERE attempts = 0
        AND (void_request_time IS NOT NULL OR state IN ('VOIDED', 'FAILED')) AND captured <> refunded""",
}
_KINDS = {
    "AUTHORIZATION": {"authorized", "reauthorized"},
    "CHARGE": {"captured"},
    "REFUND": {"refunded"},
    "CANCEL": {"voided"},
    "CHARGEBACK": {"charged_back"},
    "EXPIRY": {"expired"},
    "EVIDENCE": {"evidence_submitted"},
    "ACCEPTANCE": {"dispute_accepted"},
}


class Books:
    """The service's database and the provider's ledger."""

    def __init__(self, rows: asyncpg.Connection, provider: Any) -> None:
        self.rows = rows
        self.provider = provider

    async def ledger(self, payment_id) -> list[tuple[str, int]]:
        return await self.provider.ledger(payment_id)

    async def state(self, payment_id) -> str:
        """Return the state in the payment's row, without a call of the service."""
        return await self.rows.fetchval("SELECT state FROM payment WHERE payment_id = $1", payment_id)

    async def events(self, payment_id) -> list[str]:
        found = await self.rows.fetch("SELECT type FROM outbox WHERE key = $1 ORDER BY id", payment_id)
        return [row["type"].removeprefix("shop.payment.v1.Payment") for row in found]

    async def until_settled(self, payment_id, state) -> None:
        """Wait until nothing is left to attempt, and check the state."""
        attempts = "SELECT attempts FROM payment WHERE payment_id = $1"

        async def settled():
            return await self.rows.fetchval(attempts, payment_id) == 0

        await eventually(settled)
        assert await self.state(payment_id) == state

    async def check(self, *payment_ids) -> None:
        """Check the service's ledger, and that it agrees with the provider's about these payments."""
        for rule, query in _BROKEN.items():
            assert not await self.rows.fetch(query), rule
        for payment_id in payment_ids:
            query = "SELECT kind, amount FROM entry WHERE payment_id = $1 AND outcome = 'SUCCESS'"
            ours = [(row["kind"], row["amount"]) for row in await self.rows.fetch(query, payment_id)]
            names = {word: kind for kind, words in _KINDS.items() for word in words}
            theirs = [(names[word], amount) for word, amount in await self.ledger(payment_id) if word in names]
            assert sorted(ours) == sorted(theirs)
