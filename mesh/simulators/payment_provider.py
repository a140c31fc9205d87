"""A payment provider as a process: `python -m mesh.simulators.payment_provider`.

docs/simulators.md describes its API and the tokens that cause faults.
"""

import re
from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mesh.simulators import payments, serving
from mesh.simulators.engine import Event, Reply, SimulatorCore
from mesh.simulators.errors import ApiError
from mesh.simulators.faults import NO_FAULT, Fault, FaultInjector, Plan, Vocabulary
from mesh.simulators.fields import IDENTIFIER, Fields
from mesh.simulators.payments import Kind, Payment
from mesh.simulators.serving import Settings, json_response, read_object

MAX_AMOUNT = 10**12

VOCABULARY = Vocabulary(
    operations=("validate", "authorize", "capture", "void", "refund"),
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
            return Reply(200, method)

        requested_fault = _requested_fault(token, "validate")
        # An expired card is detected without a charge.
        if _requested_fault(token, "authorize").fault is Fault.EXPIRED_CARD:
            requested_fault = Plan(Fault.EXPIRED_CARD)
        return await self.core.perform(request, "validate", {}, effect, key=None, requested_fault=requested_fault)

    async def authorize(self, request: Request) -> Response:
        """Create a payment, authorized or failed."""
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
            reply = self._save(payment, Kind.FAILED if failure else Kind.AUTHORIZED, payment.amount, key)
            return _declined(failure, reply.events) if failure else reply

        requested_fault = _requested_fault(token, "authorize")
        return await self.core.perform(request, "authorize", values, effect, key=key, requested_fault=requested_fault)

    async def capture(self, request: Request) -> Response:
        """Capture an authorized payment, in whole or in part."""

        def change(payment: Payment, amount: int | None) -> tuple[Payment, int]:
            amount = payment.amount if amount is None else amount
            return payments.capture(payment, amount), amount

        return await self._change(request, "capture", Kind.CAPTURED, change)

    async def void(self, request: Request) -> Response:
        """Void an authorized payment."""

        def change(payment: Payment, amount: int | None) -> tuple[Payment, int]:
            if amount is not None:
                raise ApiError(400, "unknown_field", "a payment is voided as a whole", param="amount")
            return payments.void(payment), payment.amount

        return await self._change(request, "void", Kind.VOIDED, change)

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
            return self._save(payment, kind, changed, key)

        requested_fault = _requested_fault(self._get(request).payment_method, operation)
        return await self.core.perform(request, operation, values, effect, key=key, requested_fault=requested_fault)

    def _get(self, request: Request) -> Payment:
        payment = payments.find(self.store, payment_id=request.path_params["id"])
        if payment is None:
            raise ApiError(404, "payment_not_found", "there is no such payment", param="id")
        return payment

    def _save(self, payment: Payment, kind: Kind, amount: int, key: str) -> Reply:
        payments.save(self.store, payment, kind, amount, key)
        document = payments.as_json(self.store, payment)
        return Reply(201 if payment.version == 1 else 200, document, (Event(f"payment.{kind}", payment.id, document),))


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if not re.fullmatch(IDENTIFIER, key):
        raise ApiError(400, "idempotency_key_required", "1 to 100 letters, digits or _.:-", param="Idempotency-Key")
    return key


def _requested_fault(token: str, operation: str) -> Plan:
    """Return the plan that a token requests for an operation; a word without an operation means `authorize`."""
    prefix, _, word = token.partition("_")
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
    return serving.application(provider.routes(), settings.api_key, provider.core.open)


if __name__ == "__main__":
    serving.run(make_app)
