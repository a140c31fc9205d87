"""The client of the payment provider's API.

Amounts are whole minor units with an ISO 4217 code. Every call returns Ok, Refused or Unknown (chassis.external.api);
after Unknown, `find_by_reference` returns what became of it, and so does the same call with the same key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from chassis.external.api import CallResult, ExternalApi, Ok, Unknown, field
from chassis.external.breaker import Breaker
from svc_payment.domain_provider import Operation, ProviderPayment, Status

_VALIDATION_SECONDS = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentMethod:
    """A payment method as the provider describes it."""

    token: str
    kind: str
    brand: str
    last4: str
    expires: str


class PaymentProvider:
    """The provider's API; `aclose` closes its connections."""

    def __init__(self, *, url: str, key: str, timeout: float = 10.0) -> None:
        """Call the API at `url`, authenticated by `key`; `timeout` is that of a call in seconds."""
        self._timeout = timeout
        self._api = ExternalApi(url=url, key=key, timeout=timeout)

    @property
    def breaker(self) -> Breaker:
        """Return the circuit breaker of the API."""
        return self._api.breaker

    async def validate_method(self, token: str) -> CallResult[PaymentMethod]:
        """Return the payment method of a token that can be used; a customer waits for it, so it has less time."""
        path = f"/v1/payment_methods/{_escaped(token)}/validate"
        return await self._api.call("POST", path, read=_method, timeout=min(self._timeout, _VALIDATION_SECONDS))

    async def authorize(self, *, reference: str, token: str, amount: int, currency: str) -> CallResult[ProviderPayment]:
        """Authorize an amount. The reference is the key: repeated calls return the one payment of it."""
        body = {"reference": reference, "payment_method": token, "amount": amount, "currency": currency}
        result = await self._api.call("POST", "/v1/payments", read=payment_from_json, body=body, key=reference)
        match result:
            case Ok(payment) if not payment.matches(reference=reference, amount=amount, currency=currency):
                return Unknown("answer_mismatch")
            case _:
                return result

    async def capture(self, payment_id: str, *, amount: int, key: str) -> CallResult[ProviderPayment]:
        """Capture an authorized amount or a part of it, once."""
        return await self._change(payment_id, "capture", {"amount": amount}, key)

    async def void(self, payment_id: str, *, key: str) -> CallResult[ProviderPayment]:
        """Release an authorized amount."""
        return await self._change(payment_id, "void", {}, key)

    async def reauthorize(self, payment_id: str, *, key: str) -> CallResult[ProviderPayment]:
        """Authorize the amount of an expired authorization anew, with the payment method that the provider stores."""
        return await self._change(payment_id, "reauthorize", {}, key)

    async def refund(self, payment_id: str, *, amount: int, key: str) -> CallResult[ProviderPayment]:
        """Refund a captured amount or a part of it; each part needs a key of its own."""
        return await self._change(payment_id, "refunds", {"amount": amount}, key)

    async def submit_evidence(self, payment_id: str, *, text: str, key: str) -> CallResult[ProviderPayment]:
        """Submit evidence against the open dispute of a payment."""
        return await self._change(payment_id, "evidence", {"text": text}, key)

    async def accept_dispute(self, payment_id: str, *, key: str) -> CallResult[ProviderPayment]:
        """Accept the open dispute of a payment, which is charged back."""
        return await self._change(payment_id, "accept", {}, key)

    async def get(self, payment_id: str) -> CallResult[ProviderPayment]:
        """Return the payment with the provider's id."""
        return await self._api.call("GET", f"/v1/payments/{_escaped(payment_id)}", read=payment_from_json)

    async def find_by_reference(self, reference: str) -> CallResult[ProviderPayment | None]:
        """Return the payment with this reference, None while no request for one has arrived."""
        return await self._api.call("GET", "/v1/payments", read=_first_payment, params={"reference": reference})

    async def list_open_disputes(self) -> CallResult[Sequence[str]]:
        """Return our ids of the payments whose disputes are open."""
        return await self._api.call("GET", "/v1/disputes", read=_references)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()

    async def _change(
        self, payment_id: str, action: str, body: Mapping[str, Any], key: str
    ) -> CallResult[ProviderPayment]:
        path = f"/v1/payments/{_escaped(payment_id)}/{action}"
        return await self._api.call("POST", path, read=payment_from_json, body=body, key=key)


def payment_from_json(answer: Any) -> ProviderPayment:
    """Return a payment of an answer or a webhook; raises KeyError, TypeError or ValueError for a malformed one."""
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
        expire_time=_time(answer.get("expires_at")),
        action_url=_text(answer.get("action_url")),
        dispute_due_time=_time(answer.get("dispute_due_at")),
    )


def _operation(answer: Any) -> Operation:
    return Operation(
        id=field(answer, "id", str),
        kind=field(answer, "kind", str),
        amount=field(answer, "amount", int),
        key=field(answer, "idempotency_key", str),
    )


def _time(value: Any) -> datetime | None:
    """Return an RFC 3339 time with its time zone, None for null."""
    if value is None:
        return None
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone")
    return moment


def _text(value: Any) -> str:
    if value is not None and type(value) is not str:
        raise TypeError("not a text")
    return value or ""


def _references(answer: Any) -> tuple[str, ...]:
    return tuple(field(dispute, "reference", str) for dispute in field(answer, "data", list))


def _first_payment(answer: Any) -> ProviderPayment | None:
    return next((payment_from_json(payment) for payment in field(answer, "data", list)), None)


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
