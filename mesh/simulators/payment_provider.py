"""A payment provider as a process: `python -m mesh.simulators.payment_provider`.

Its API and the tokens that make it misbehave are told in docs/simulators.md.
"""

import re
from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mesh.simulators import payments, serving
from mesh.simulators.engine import Answer, Desk, Event
from mesh.simulators.errors import ApiError
from mesh.simulators.faults import UNTROUBLED, Chance, Plan, Trouble, Vocabulary
from mesh.simulators.fields import IDENTIFIER, Fields
from mesh.simulators.payments import Kind, Payment
from mesh.simulators.serving import Settings, json_response, read_object

AMOUNT_AT_MOST = 10**12

VOCABULARY = Vocabulary(
    operations=("validate", "authorize", "capture", "void", "refund"),
    troubles={
        "ok": Trouble.NONE,
        "declined": Trouble.DECLINED,
        "insufficient_funds": Trouble.INSUFFICIENT_FUNDS,
        "expired_card": Trouble.EXPIRED_CARD,
        "500": Trouble.ERROR,
        "500_then_charged": Trouble.ERROR_AFTER,
        "timeout_then_charged": Trouble.SILENCE_AFTER,
        "webhook_first": Trouble.WEBHOOK_FIRST,
        "duplicate_webhook": Trouble.DUPLICATE_WEBHOOK,
        "wrong_amount": Trouble.WRONG_AMOUNT,
        "wrong_currency": Trouble.WRONG_CURRENCY,
    },
)
DECLINES = {
    Trouble.DECLINED: "card_declined",
    Trouble.INSUFFICIENT_FUNDS: "insufficient_funds",
    Trouble.EXPIRED_CARD: "expired_card",
}
WRONG_CURRENCY = "XTS"  # ISO 4217's code for testing


class PaymentProvider:
    def __init__(self, settings: Settings) -> None:
        self.desk = Desk(settings, payments.SCHEMA, Chance(VOCABULARY, declinable="authorize"))
        self.journal = self.desk.journal

    def routes(self) -> list[Route]:
        return [
            Route("/v1/payment_methods/{token}/validate", self.validate, methods=["POST"]),
            Route("/v1/payments", self.authorize, methods=["POST"]),
            Route("/v1/payments", self.list_payments, methods=["GET"]),
            Route("/v1/payments/{id}", self.get_payment, methods=["GET"]),
            Route("/v1/payments/{id}/capture", self.capture, methods=["POST"]),
            Route("/v1/payments/{id}/void", self.void, methods=["POST"]),
            Route("/v1/payments/{id}/refunds", self.refund, methods=["POST"]),
            Route("/v1/ledger", self.ledger, methods=["GET"]),
            *self.desk.routes(),
        ]

    async def validate(self, request: Request) -> Response:
        token = request.path_params["token"]

        def effect(trouble: Trouble) -> Answer:
            if code := DECLINES.get(trouble):
                return _declined(code)
            method = {"token": token, "kind": "card", "brand": "visa", "last4": "4242", "expires": "2035-12"}
            return Answer(200, method)

        wished = _wish(token, "validate")
        # That a card is out of date shows without charging it.
        if _wish(token, "authorize").trouble is Trouble.EXPIRED_CARD:
            wished = Plan(Trouble.EXPIRED_CARD)
        return await self.desk.perform(request, "validate", {}, effect, key=None, wished=wished)

    async def authorize(self, request: Request) -> Response:
        key, values = _idempotency_key(request), await read_object(request)
        fields = Fields(values)
        reference = fields.text("reference", IDENTIFIER)
        token = fields.text("payment_method")
        amount = fields.integer("amount", 1, AMOUNT_AT_MOST)
        currency = fields.text("currency", r"[A-Z]{3}")
        fields.end()

        def effect(trouble: Trouble) -> Answer:
            if payments.find(self.journal, reference=reference):
                raise ApiError(409, "reference_already_used", "there is a payment of this reference", param="reference")
            failure = DECLINES.get(trouble)
            payment = payments.new(
                reference=reference,
                payment_method=token,
                amount=_amount(amount, trouble),
                currency=WRONG_CURRENCY if trouble is Trouble.WRONG_CURRENCY else currency,
                failure_code=failure,
            )
            told = self._save(payment, Kind.FAILED if failure else Kind.AUTHORIZED, payment.amount, key)
            return _declined(failure, told.events) if failure else told

        wished = _wish(token, "authorize")
        return await self.desk.perform(request, "authorize", values, effect, key=key, wished=wished)

    async def capture(self, request: Request) -> Response:
        def change(payment: Payment, amount: int | None) -> tuple[Payment, int]:
            amount = payment.amount if amount is None else amount
            return payments.capture(payment, amount), amount

        return await self._change(request, "capture", Kind.CAPTURED, change)

    async def void(self, request: Request) -> Response:
        def change(payment: Payment, amount: int | None) -> tuple[Payment, int]:
            if amount is not None:
                raise ApiError(400, "unknown_field", "a void is of the whole payment", param="amount")
            return payments.void(payment), payment.amount

        return await self._change(request, "void", Kind.VOIDED, change)

    async def refund(self, request: Request) -> Response:
        def change(payment: Payment, amount: int | None) -> tuple[Payment, int]:
            amount = payment.amount_captured - payment.amount_refunded if amount is None else amount
            return payments.refund(payment, amount), amount

        return await self._change(request, "refund", Kind.REFUNDED, change)

    async def get_payment(self, request: Request) -> Response:
        return json_response(payments.as_json(self.journal, self._get(request)))

    async def list_payments(self, request: Request) -> Response:
        query = Fields(request.query_params)
        payment = payments.find(self.journal, reference=query.text("reference", IDENTIFIER))
        query.end()
        return json_response({"data": [payments.as_json(self.journal, payment)] if payment else []})

    async def ledger(self, request: Request) -> Response:
        return self.desk.page(request, payments.LEDGER)

    async def _change(
        self,
        request: Request,
        operation: str,
        kind: Kind,
        change: Callable[[Payment, int | None], tuple[Payment, int]],
    ) -> Response:
        """A change of a payment that is there: read, decide, save, tell."""
        key, values = _idempotency_key(request), await read_object(request)
        fields = Fields(values)
        asked = fields.integer("amount", 1, AMOUNT_AT_MOST) if fields.has("amount") else None
        fields.end()

        def effect(trouble: Trouble) -> Answer:
            if code := DECLINES.get(trouble):
                return _declined(code)
            amount = asked and _amount(asked, trouble)
            payment, changed = change(self._get(request), amount)
            return self._save(payment, kind, changed, key)

        wished = _wish(self._get(request).payment_method, operation)
        return await self.desk.perform(request, operation, values, effect, key=key, wished=wished)

    def _get(self, request: Request) -> Payment:
        payment = payments.find(self.journal, payment_id=request.path_params["id"])
        if payment is None:
            raise ApiError(404, "payment_not_found", "there is no such payment", param="id")
        return payment

    def _save(self, payment: Payment, kind: Kind, amount: int, key: str) -> Answer:
        payments.save(self.journal, payment, kind, amount, key)
        told = payments.as_json(self.journal, payment)
        return Answer(201 if payment.version == 1 else 200, told, (Event(f"payment.{kind}", payment.id, told),))


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if not re.fullmatch(IDENTIFIER, key):
        raise ApiError(400, "idempotency_key_required", "1 to 100 letters, digits or _.:-", param="Idempotency-Key")
    return key


def _wish(token: str, operation: str) -> Plan:
    """What a token asks this operation to meet: a word without an operation is about authorising."""
    prefix, _, word = token.partition("_")
    read = VOCABULARY.read(word) if prefix == "tok" else None
    if read is None:
        raise ApiError(400, "payment_method_unknown", "there is no such payment method", param="payment_method")
    meant_for, plan = read
    return plan if (meant_for or "authorize") == operation else UNTROUBLED


def _declined(code: str, events: Sequence[Event] = ()) -> Answer:
    error = ApiError(402, code, "the payment method was declined", param="payment_method")
    return Answer(402, error.body(), events)


def _amount(asked: int, trouble: Trouble) -> int:
    """One minor unit too little is wrong enough, and never more than was asked."""
    return max(asked - 1, 1) if trouble is Trouble.WRONG_AMOUNT else asked


def make_app(settings: Settings) -> Starlette:
    provider = PaymentProvider(settings)
    return serving.application(provider.routes(), settings.api_key, provider.desk.open)


if __name__ == "__main__":
    serving.run(make_app)
