"""What happens to a payment without the shop: the customer, the bank and the provider's clock act on it."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from mesh.simulators import payments
from mesh.simulators.engine import Event, SimulatorCore
from mesh.simulators.errors import ApiError
from mesh.simulators.faults import Fault
from mesh.simulators.payments import Kind, Payment, Status, wrong_status
from mesh.simulators.store import timestamp

#: How long a customer can confirm, or pay a slip, and how long an authorization and a dispute last, in seconds.
ACTION_SECONDS, SLIP_SECONDS = 900, 3 * 86_400
AUTHORIZATION_SECONDS = DISPUTE_SECONDS = 7 * 86_400
#: How long after which the customer or the bank of a token acts, and for which a lapsing authorization lasts.
SOON_SECONDS = 1

REDIRECTS = {
    Fault.REDIRECT: None,
    Fault.REDIRECT_CONFIRMED: "confirm",
    Fault.REDIRECT_REFUSED: "refuse",
    Fault.REDIRECT_EXPIRED: "expire",
}
SLIPS = {Fault.SLIP: None, Fault.SLIP_PAID: "confirm", Fault.SLIP_EXPIRED: "expire"}
DISPUTES = {Fault.DISPUTED: None, Fault.DISPUTE_WON: "win", Fault.DISPUTE_LOST: "lose"}


@dataclass(frozen=True, slots=True)
class Change:
    """The payment after an operation, the operation, its amount, and the key of the request that it completes."""

    payment: Payment
    kind: Kind
    amount: int
    key: str


def begin(payment: Payment, fault: Fault, action_url: str) -> Payment:
    """Return a new payment as the token's fault wants it: authorized, or waiting for the customer."""
    if fault not in REDIRECTS | SLIPS:
        return _authorized(payment, SOON_SECONDS if fault is Fault.LAPSING else AUTHORIZATION_SECONDS)
    seconds = ACTION_SECONDS if fault in REDIRECTS else SLIP_SECONDS
    waiting = replace(payment, status=Status.REQUIRES_ACTION, action_url=action_url, expires_at=timestamp(-seconds))
    action = (REDIRECTS | SLIPS)[fault]
    if action is None:
        return replace(waiting, next_action="expire", next_time=waiting.expires_at)
    expires_at = timestamp(-SOON_SECONDS) if action == "expire" else waiting.expires_at
    return replace(waiting, expires_at=expires_at, next_action=action, next_time=timestamp(-SOON_SECONDS))


def after_capture(payment: Payment, fault: Fault) -> Payment:
    """Return a captured payment, which the customer disputes soon if the token wants it."""
    if fault not in DISPUTES:
        return payment
    return replace(payment, next_action="dispute", next_time=timestamp(-SOON_SECONDS))


def reauthorize(payment: Payment) -> Payment:
    """Authorize the amount anew after the authorization has expired. Raises ApiError."""
    if payment.status is not Status.EXPIRED or payment.action_url:
        raise wrong_status(payment, "payment_not_reauthorizable")
    return _authorized(replace(payment, version=payment.version + 1), AUTHORIZATION_SECONDS)


def confirm(payment: Payment, _: Fault) -> Sequence[Change]:
    """Authorize a payment that the customer confirms; a slip that is paid is captured at once. Raises ApiError."""
    _require(payment, Status.REQUIRES_ACTION)
    authorized = _authorized(_next(payment), AUTHORIZATION_SECONDS)
    change = Change(authorized, Kind.AUTHORIZED, payment.amount, payment.reference)
    if payment.payment_method.startswith("tok_konbini"):
        captured = payments.capture(authorized, payment.amount)
        return (change, Change(captured, Kind.CAPTURED, payment.amount, _key()))
    return (change,)


def refuse(payment: Payment, _: Fault) -> Sequence[Change]:
    """Fail a payment that the customer does not confirm. Raises ApiError."""
    _require(payment, Status.REQUIRES_ACTION)
    failed = replace(_next(payment), status=Status.FAILED, failure_code="authentication_failed")
    return (Change(failed, Kind.FAILED, payment.amount, payment.reference),)


def expire(payment: Payment, _: Fault) -> Sequence[Change]:
    """End the time of the customer, or the authorization. Raises ApiError."""
    _require(payment, Status.REQUIRES_ACTION, Status.AUTHORIZED)
    expired = replace(_next(payment), status=Status.EXPIRED)
    if payment.status is Status.REQUIRES_ACTION:
        return (Change(expired, Kind.ACTION_EXPIRED, payment.amount, payment.reference),)
    return (Change(replace(expired, action_url=None), Kind.EXPIRED, payment.amount, _key()),)


def dispute(payment: Payment, fault: Fault) -> Sequence[Change]:
    """Open a dispute of what is left of the captured amount. Raises ApiError."""
    _require(payment, Status.CAPTURED, Status.PARTIALLY_REFUNDED)
    dispute_id, due_at = f"dp_{secrets.token_hex(12)}", timestamp(-DISPUTE_SECONDS)
    end = DISPUTES.get(fault)
    disputed = replace(
        _next(payment),
        status=Status.DISPUTED,
        dispute_id=dispute_id,
        dispute_due_at=due_at,
        next_action=end or "lose",
        next_time=timestamp(-SOON_SECONDS) if end else due_at,
    )
    return (Change(disputed, Kind.DISPUTED, left(payment), dispute_id),)


def submit_evidence(payment: Payment, fault: Fault) -> Payment:
    """Let the bank decide about a dispute soon: for the shop, unless the token says otherwise. Raises ApiError."""
    if payment.status is not Status.DISPUTED:
        raise wrong_status(payment, "dispute_closed")
    end = DISPUTES.get(fault) or "win"
    return replace(payment, version=payment.version + 1, next_action=end, next_time=timestamp(-SOON_SECONDS))


def accept_dispute(payment: Payment) -> Payment:
    """Let the bank charge a disputed amount back at once. Raises ApiError."""
    if payment.status is not Status.DISPUTED:
        raise wrong_status(payment, "dispute_closed")
    return replace(payment, version=payment.version + 1, next_action="lose", next_time=timestamp())


def win(payment: Payment, _: Fault) -> Sequence[Change]:
    """Close a dispute in favour of the shop. Raises ApiError."""
    _require(payment, Status.DISPUTED)
    status = Status.PARTIALLY_REFUNDED if payment.amount_refunded else Status.CAPTURED
    return (Change(replace(_next(payment), status=status), Kind.DISPUTE_WON, left(payment), str(payment.dispute_id)),)


def lose(payment: Payment, _: Fault) -> Sequence[Change]:
    """Charge a disputed amount back. Raises ApiError."""
    _require(payment, Status.DISPUTED)
    charged_back = replace(_next(payment), status=Status.CHARGED_BACK)
    return (Change(charged_back, Kind.CHARGED_BACK, left(payment), str(payment.dispute_id)),)


ACTIONS: dict[str, Callable[[Payment, Fault], Sequence[Change]]] = {
    action.__name__: action for action in (confirm, refuse, expire, dispute, win, lose)
}


class ProviderClock:
    """Executes the actions of customers and banks: at once, or when their time has come."""

    def __init__(self, core: SimulatorCore, fault_of: Callable[[str], Fault]) -> None:
        """`fault_of` returns the fault that a token requests of an authorization."""
        self._core = core
        self._fault_of = fault_of
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Look for the next action anew."""
        self._changed.set()

    def act(self, payment: Payment, action: str) -> Payment:
        """Execute an action, and enqueue its webhooks. Raises ApiError."""
        with self._core.store.transaction():
            for change in ACTIONS[action](payment, self._fault_of(payment.payment_method)):
                payment = change.payment
                payments.save(self._core.store, payment, change.kind, change.amount, change.key)
                document = payments.as_json(self._core.store, payment)
                self._core.enqueue_webhooks((Event(f"payment.{change.kind}", payment.id, document),))
        self.wake()
        return payment

    async def run(self) -> None:
        """Execute every action when it is due, until cancelled."""
        while True:
            self._changed.clear()
            for payment in self._due():
                with suppress(ApiError):  # it was captured or voided at the same moment
                    self.act(payment, str(payment.next_action))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_until_next()):
                    await self._changed.wait()

    def _due(self) -> list[Payment]:
        sql = "SELECT id FROM waits WHERE next_time <= :now ORDER BY next_time LIMIT 100"
        ids = [row["id"] for row in self._core.store.rows(sql, now=timestamp())]
        found = (payments.find(self._core.store, payment_id=payment_id) for payment_id in ids)
        return [payment for payment in found if payment]

    def _seconds_until_next(self) -> float | None:
        row = self._core.store.row("SELECT min(next_time) AS next FROM waits WHERE next_time IS NOT NULL")
        if row is None or row["next"] is None:
            return None
        return max(0.01, (datetime.fromisoformat(row["next"]) - datetime.now(UTC)).total_seconds())


def _authorized(payment: Payment, seconds: float) -> Payment:
    expires_at = timestamp(-seconds)
    return replace(payment, status=Status.AUTHORIZED, expires_at=expires_at, next_action="expire", next_time=expires_at)


def _next(payment: Payment) -> Payment:
    return replace(
        payment, version=payment.version + 1, expires_at=None, dispute_due_at=None, next_action=None, next_time=None
    )


def left(payment: Payment) -> int:
    """Return what is left of the captured amount."""
    return payment.amount_captured - payment.amount_refunded


def _key() -> str:
    return f"key_{secrets.token_hex(12)}"


def _require(payment: Payment, *statuses: Status) -> None:
    if payment.status not in statuses:
        raise wrong_status(payment, "action_not_possible")
