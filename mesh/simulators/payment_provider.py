"""A payment provider as a process: `python -m mesh.simulators.payment_provider`.

docs/simulators.md describes its API and the tokens that cause faults.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from hmac import compare_digest
from secrets import token_urlsafe
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mesh.simulators import payment_actions as actions
from mesh.simulators import payments, serving
from mesh.simulators.engine import Event, Reply, SimulatorCore
from mesh.simulators.errors import ApiError
from mesh.simulators.faults import NO_FAULT, Fault, FaultInjector, Plan, Vocabulary
from mesh.simulators.fields import IDENTIFIER, Fields
from mesh.simulators.payment_actions import ProviderClock
from mesh.simulators.payments import Kind, Payment, Status
from mesh.simulators.serving import Settings, json_response, read_object

MAX_AMOUNT = 10**12

VOCABULARY = Vocabulary(
    operations=("validate", "authorize", "reauthorize", "capture", "void", "refund", "evidence", "accept"),
    faults={
        "ok": Fault.NONE,
        "declined": Fault.DECLINED,
        "insufficient_funds": Fault.INSUFFICIENT_FUNDS,
        "expired_card": Fault.EXPIRED_CARD,
        "500": Fault.ERROR,
        "500_then_charged": Fault.ERROR_AFTER,
        "timeout_then_charged": Fault.NO_REPLY_AFTER,
        "webhook_first": Fault.WEBHOOK_FIRST,
        "duplicate_webhook": Fault.DUPLICATE_WEBHOOK,
        "wrong_amount": Fault.WRONG_AMOUNT,
        "wrong_currency": Fault.WRONG_CURRENCY,
        "3ds": Fault.REDIRECT,
        "3ds_confirmed": Fault.REDIRECT_CONFIRMED,
        "3ds_refused": Fault.REDIRECT_REFUSED,
        "3ds_expired": Fault.REDIRECT_EXPIRED,
        "konbini": Fault.SLIP,
        "konbini_paid": Fault.SLIP_PAID,
        "konbini_expired": Fault.SLIP_EXPIRED,
        "lapsing": Fault.LAPSING,
        "disputed": Fault.DISPUTED,
        "dispute_won": Fault.DISPUTE_WON,
        "dispute_lost": Fault.DISPUTE_LOST,
    },
)
DECLINES = {
    Fault.DECLINED: "card_declined",
    Fault.INSUFFICIENT_FUNDS: "insufficient_funds",
    Fault.EXPIRED_CARD: "expired_card",
}
WRONG_CURRENCY = "XTS"  # ISO 4217's code for testing


class PaymentProvider:
    """The payment provider's API."""

    def __init__(self, settings: Settings) -> None:
        self.core = SimulatorCore(settings, payments.SCHEMA, FaultInjector(VOCABULARY, declinable="authorize"))
        self.store = self.core.store
        self.clock = ProviderClock(self.core, lambda token: _requested_fault(token, "authorize").fault)

    def open(self) -> AbstractAsyncContextManager[None]:
        """Deliver webhooks and run the clock while the block runs."""
        return self.core.open(self.clock.run())

    def routes(self) -> list[Route]:
        """Return every route of the API."""
        return [
            Route("/v1/payment_methods/{token}/validate", self.validate, methods=["POST"]),
            Route("/v1/payments", self.authorize, methods=["POST"]),
            Route("/v1/payments", self.list_payments, methods=["GET"]),
            Route("/v1/payments/{id}", self.get_payment, methods=["GET"]),
            Route("/v1/payments/{id}/capture", self.capture, methods=["POST"]),
            Route("/v1/payments/{id}/void", self.void, methods=["POST"]),
            Route("/v1/payments/{id}/refunds", self.refund, methods=["POST"]),
            Route("/v1/payments/{id}/reauthorize", self.reauthorize, methods=["POST"]),
            Route("/v1/payments/{id}/evidence", self.submit_evidence, methods=["POST"]),
            Route("/v1/payments/{id}/accept", self.accept_dispute, methods=["POST"]),
            Route("/v1/payments/{id}/actions", self.act, methods=["POST"]),
            Route("/v1/disputes", self.list_disputes, methods=["GET"]),
            Route("/customer/{id}/{secret}", self.act_as_customer, methods=["POST"]),
            Route("/v1/ledger", self.ledger, methods=["GET"]),
            *self.core.routes(),
        ]

    async def validate(self, request: Request) -> Response:
        """Return the payment method of a token."""
        token = request.path_params["token"]

        def effect(fault: Fault) -> Reply:
            if code := DECLINES.get(fault):
                return _declined(code)
            method = {"token": token, "kind": "card", "brand": "visa", "last4": "4242", "expires": "2035-12"}
            if token.startswith("tok_konbini"):
                method |= {"kind": "convenience_store", "brand": "konbini", "last4": ""}
            return Reply(200, method)

        requested_fault = _requested_fault(token, "validate")
        # An expired card is detected without a charge.
        if _requested_fault(token, "authorize").fault is Fault.EXPIRED_CARD:
            requested_fault = Plan(Fault.EXPIRED_CARD)
        return await self.core.perform(request, "validate", {}, effect, key=None, requested_fault=requested_fault)

    async def authorize(self, request: Request) -> Response:
        """Create a payment, authorized, failed, or waiting for the customer."""
        key, values = _idempotency_key(request), await read_object(request)
        fields = Fields(values)
        reference = fields.text("reference", IDENTIFIER)
        token = fields.text("payment_method")
        amount = fields.integer("amount", 1, MAX_AMOUNT)
        currency = fields.text("currency", r"[A-Z]{3}")
        fields.end()

        def effect(fault: Fault) -> Reply:
            if payments.find(self.store, reference=reference):
                raise ApiError(
                    409, "reference_already_used", "there is a payment with this reference", param="reference"
                )
            failure = DECLINES.get(fault)
            payment = payments.new(
                reference=reference,
                payment_method=token,
                amount=_amount(amount, fault),
                currency=WRONG_CURRENCY if fault is Fault.WRONG_CURRENCY else currency,
                failure_code=failure,
            )
            if failure:
                return _declined(failure, self._save(payment, Kind.FAILED, payment.amount, key).events)
            payment = actions.begin(payment, fault, f"{request.base_url}customer/{payment.id}/{token_urlsafe()}")
            waits = payment.status is Status.REQUIRES_ACTION
            return self._save(payment, Kind.REQUIRES_ACTION if waits else Kind.AUTHORIZED, payment.amount, key)

        requested_fault = _requested_fault(token, "authorize")
        return await self.core.perform(request, "authorize", values, effect, key=key, requested_fault=requested_fault)

    async def capture(self, request: Request) -> Response:
        """Capture an authorized payment, in whole or in part."""

        def change(payment: Payment, amount: int | None) -> tuple[Payment, int]:
            amount = payment.amount if amount is None else amount
            fault = _requested_fault(payment.payment_method, "authorize").fault
            return actions.after_capture(payments.capture(payment, amount), fault), amount

        return await self._change(request, "capture", Kind.CAPTURED, change)

    async def void(self, request: Request) -> Response:
        """Void an authorized payment, or one that waits for the customer."""

        def change(payment: Payment, amount: int | None) -> tuple[Payment, int]:
            if amount is not None:
                raise ApiError(400, "unknown_field", "a payment is voided as a whole", param="amount")
            return payments.void(payment), payment.amount

        is_waiting = self._get(request).status is Status.REQUIRES_ACTION
        return await self._change(request, "void", Kind.CANCELLED if is_waiting else Kind.VOIDED, change)

    async def reauthorize(self, request: Request) -> Response:
        """Authorize the amount of an expired authorization anew."""

        def change(payment: Payment, _: int | None) -> tuple[Payment, int]:
            return actions.reauthorize(payment), payment.amount

        return await self._change(request, "reauthorize", Kind.REAUTHORIZED, change)

    async def submit_evidence(self, request: Request) -> Response:
        """Take evidence of the shop against a dispute."""
        values = await read_object(request)
        fields = Fields(values)
        fields.text("text", r"(?s).{1,2000}")
        fields.end()
        fault = _requested_fault(self._get(request).payment_method, "authorize").fault
        change = partial(actions.submit_evidence, fault=fault)
        return await self._respond(request, "evidence", Kind.EVIDENCE_SUBMITTED, values, change)

    async def accept_dispute(self, request: Request) -> Response:
        """Take the shop's acceptance of a dispute, which is charged back next."""
        values = await read_object(request)
        Fields(values).end()
        return await self._respond(request, "accept", Kind.DISPUTE_ACCEPTED, values, actions.accept_dispute)

    async def act(self, request: Request) -> Response:
        """Have the customer, the bank or the clock act now."""
        fields = Fields(await read_object(request))
        action = fields.text("action", "|".join(actions.ACTIONS))
        fields.end()
        return json_response(payments.as_json(self.store, self.clock.act(self._get(request), action)))

    async def act_as_customer(self, request: Request) -> Response:
        """Confirm or refuse a payment at its action_url, as the customer's browser does."""
        payment = self._get(request)
        if not compare_digest(str(request.url), payment.action_url or ""):
            raise ApiError(404, "payment_not_found", "there is no such payment", param="id")
        fields = Fields(await read_object(request))
        action = fields.text("decision", "confirm|refuse")
        fields.end()
        return json_response({"status": self.clock.act(payment, action).status})

    async def list_disputes(self, _: Request) -> Response:
        """Return the open disputes."""
        sql = "SELECT dispute_id AS id, reference, dispute_due_at AS due_at FROM payments JOIN waits USING (id)"
        rows = self.store.rows(f"{sql} WHERE status = 'disputed' ORDER BY dispute_due_at LIMIT 1000")
        return json_response({"data": [dict(row) for row in rows]})

    async def refund(self, request: Request) -> Response:
        """Refund a captured payment, in whole or in part."""

        def change(payment: Payment, amount: int | None) -> tuple[Payment, int]:
            amount = payment.amount_captured - payment.amount_refunded if amount is None else amount
            return payments.refund(payment, amount), amount

        return await self._change(request, "refund", Kind.REFUNDED, change)

    async def get_payment(self, request: Request) -> Response:
        """Return one payment."""
        return json_response(payments.as_json(self.store, self._get(request)))

    async def list_payments(self, request: Request) -> Response:
        """Return the payment with a reference, as a list."""
        self.core.check_up()
        query = Fields(request.query_params)
        payment = payments.find(self.store, reference=query.text("reference", IDENTIFIER))
        query.end()
        return json_response({"data": [payments.as_json(self.store, payment)] if payment else []})

    async def ledger(self, request: Request) -> Response:
        """Return a page of all operations."""
        return self.core.page(request, payments.LEDGER)

    async def _change(
        self,
        request: Request,
        operation: str,
        kind: Kind,
        change: Callable[[Payment, int | None], tuple[Payment, int]],
    ) -> Response:
        """Change an existing payment: read, decide, save, publish."""
        key, values = _idempotency_key(request), await read_object(request)
        fields = Fields(values)
        requested = fields.integer("amount", 1, MAX_AMOUNT) if fields.has("amount") else None
        fields.end()

        def effect(fault: Fault) -> Reply:
            if code := DECLINES.get(fault):
                return _declined(code)
            amount = requested and _amount(requested, fault)
            payment, changed = change(self._get(request), amount)
            # What the shop cancels completes the authorization that it requested.
            return self._save(payment, kind, changed, payment.reference if kind is Kind.CANCELLED else key)

        requested_fault = _requested_fault(self._get(request).payment_method, operation)
        return await self.core.perform(request, operation, values, effect, key=key, requested_fault=requested_fault)

    async def _respond(
        self,
        request: Request,
        operation: str,
        kind: Kind,
        values: Mapping[str, Any],
        change: Callable[[Payment], Payment],
    ) -> Response:
        """Change a disputed payment by a response of the shop."""
        key = _idempotency_key(request)

        def effect(fault: Fault) -> Reply:
            if code := DECLINES.get(fault):
                return _declined(code)
            payment = self._get(request)
            return self._save(change(payment), kind, actions.left(payment), key)

        requested_fault = _requested_fault(self._get(request).payment_method, operation)
        return await self.core.perform(request, operation, values, effect, key=key, requested_fault=requested_fault)

    def _get(self, request: Request) -> Payment:
        self.core.check_up()
        payment = payments.find(self.store, payment_id=request.path_params["id"])
        if payment is None:
            raise ApiError(404, "payment_not_found", "there is no such payment", param="id")
        return payment

    def _save(self, payment: Payment, kind: Kind, amount: int, key: str) -> Reply:
        payments.save(self.store, payment, kind, amount, key)
        self.clock.wake()
        document = payments.as_json(self.store, payment)
        return Reply(201 if payment.version == 1 else 200, document, (Event(f"payment.{kind}", payment.id, document),))


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if not re.fullmatch(IDENTIFIER, key):
        raise ApiError(400, "idempotency_key_required", "1 to 100 letters, digits or _.:-", param="Idempotency-Key")
    return key


def _requested_fault(token: str, operation: str) -> Plan:
    """Return the plan that a token requests for an operation; a word without an operation means `authorize`.

    What follows a hyphen distinguishes payment methods with the same fault.
    """
    prefix, _, word = token.partition("-")[0].partition("_")
    read = VOCABULARY.read(word) if prefix == "tok" else None
    if read is None:
        raise ApiError(400, "payment_method_unknown", "there is no such payment method", param="payment_method")
    operation_of_word, plan = read
    return plan if (operation_of_word or "authorize") == operation else NO_FAULT


def _declined(code: str, events: Sequence[Event] = ()) -> Reply:
    error = ApiError(402, code, "the payment method was declined", param="payment_method")
    return Reply(402, error.body(), events)


def _amount(requested: int, fault: Fault) -> int:
    """Return the amount; with the fault, one minor unit less."""
    return max(requested - 1, 1) if fault is Fault.WRONG_AMOUNT else requested


def make_app(settings: Settings) -> Starlette:
    """Return the application."""
    provider = PaymentProvider(settings)
    return serving.application(provider.routes(), settings.api_key, provider.open)


if __name__ == "__main__":
    serving.run(make_app)
