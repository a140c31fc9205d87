"""The payment provider's API as svc_payment uses it, and its webhooks.

Amounts are whole minor units with an ISO 4217 code. Every call ends Ok, Refused or Unknown (chassis.external.api);
after Unknown, `find_by_reference` tells what became of it, and so does the same call under the same key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from chassis.external import webhooks
from chassis.external.api import CallResult, ExternalApi, Ok, Unknown, field
from chassis.external.webhooks import Webhook
from svc_payment.domain_provider import Operation, ProviderPayment, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentMethod:
    token: str
    kind: str
    brand: str
    last4: str
    expires: str


class PaymentProvider:
    def __init__(self, *, url: str, key: str, timeout: float = 10.0) -> None:
        self._api = ExternalApi(url=url, key=key, timeout=timeout)

    async def validate_method(self, token: str) -> CallResult[PaymentMethod]:
        return await self._api.call("POST", f"/v1/payment_methods/{_escaped(token)}/validate", read=_method)

    async def authorize(self, *, reference: str, token: str, amount: int, currency: str) -> CallResult[ProviderPayment]:
        """Holds an amount. The reference is the key: a provider has one payment of it, however often asked."""
        body = {"reference": reference, "payment_method": token, "amount": amount, "currency": currency}
        outcome = await self._api.call("POST", "/v1/payments", read=_payment, body=body, key=reference)
        match outcome:
            case Ok(payment) if not payment.matches(reference=reference, amount=amount, currency=currency):
                return Unknown("answer_mismatch")
            case _:
                return outcome

    async def capture(self, payment_id: str, *, amount: int, key: str) -> CallResult[ProviderPayment]:
        """Takes an authorised amount or a part of it, once."""
        return await self._change(payment_id, "capture", {"amount": amount}, key)

    async def void(self, payment_id: str, *, key: str) -> CallResult[ProviderPayment]:
        """Lets an authorised amount go."""
        return await self._change(payment_id, "void", {}, key)

    async def refund(self, payment_id: str, *, amount: int, key: str) -> CallResult[ProviderPayment]:
        """Gives back a captured amount or a part of it; a further part needs a key of its own."""
        return await self._change(payment_id, "refunds", {"amount": amount}, key)

    async def get(self, payment_id: str) -> CallResult[ProviderPayment]:
        return await self._api.call("GET", f"/v1/payments/{_escaped(payment_id)}", read=_payment)

    async def find_by_reference(self, reference: str) -> CallResult[ProviderPayment | None]:
        """The payment of this reference; None when no request for one has arrived (yet)."""
        return await self._api.call("GET", "/v1/payments", read=_first_payment, params={"reference": reference})

    async def aclose(self) -> None:
        await self._api.aclose()

    async def _change(
        self, payment_id: str, action: str, body: Mapping[str, Any], key: str
    ) -> CallResult[ProviderPayment]:
        path = f"/v1/payments/{_escaped(payment_id)}/{action}"
        return await self._api.call("POST", path, read=_payment, body=body, key=key)


def verify_webhook(
    headers: Mapping[str, str], raw_body: bytes, secrets: Sequence[str], now: datetime
) -> Webhook[ProviderPayment]:
    """A webhook that is signed and of these minutes; else raises chassis.external.webhooks.WebhookRejected."""
    return webhooks.verify(headers, raw_body, secrets, now, read=_payment)


def _payment(answer: Any) -> ProviderPayment:
    failure_code = answer["failure_code"]
    return ProviderPayment(
        id=field(answer, "id", str),
        reference=field(answer, "reference", str),
        status=Status(field(answer, "status", str)),
        currency=field(answer, "currency", str),
        amount=field(answer, "amount", int),
        amount_captured=field(answer, "amount_captured", int),
        amount_refunded=field(answer, "amount_refunded", int),
        failure_code=None if failure_code is None else field(answer, "failure_code", str),
        version=field(answer, "version", int),
        operations=tuple(_operation(operation) for operation in field(answer, "operations", list)),
    )


def _operation(answer: Any) -> Operation:
    return Operation(
        id=field(answer, "id", str),
        kind=field(answer, "kind", str),
        amount=field(answer, "amount", int),
        key=field(answer, "idempotency_key", str),
    )


def _first_payment(answer: Any) -> ProviderPayment | None:
    return next((_payment(payment) for payment in field(answer, "data", list)), None)


def _method(answer: Any) -> PaymentMethod:
    return PaymentMethod(
        token=field(answer, "token", str),
        kind=field(answer, "kind", str),
        brand=field(answer, "brand", str),
        last4=field(answer, "last4", str),
        expires=field(answer, "expires", str),
    )


def _escaped(part: str) -> str:
    return quote(part, safe="")
