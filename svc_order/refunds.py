"""Requests refunds for returns and cancelled lines, and reads what the outcome of an attempt means."""

from collections.abc import Awaitable
from dataclasses import dataclass

from chassis import OutcomeUnknown
from chassis.types.money import money
from shop.chassis.v1.chassis_errors import InvalidRequest
from shop.errors import ShopError
from shop.payment.v1 import payment_service_pb2 as pb
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from svc_order.domain import Order


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of an attempt at a step: without a problem, it took effect."""

    problem: str = ""
    #: Whether the step did not take effect, and a repeat will not change that.
    is_final: bool = False
    #: The minor units whose refund was requested.
    refund: int = 0


async def attempt(step: Awaitable[int]) -> Attempt:
    """Execute a step, which returns the minor units that it refunds, and return its result."""
    try:
        return Attempt(refund=await step)
    except OutcomeUnknown as error:
        return Attempt(error.code.name)
    except ShopError as error:
        # An error of the pipeline says nothing about the step: an earlier attempt may have taken effect.
        return Attempt(error.reason, is_final=error.domain != InvalidRequest.domain)


def refund_key(job_id: str, retries: int) -> str:
    """Return the idempotency key of a refund: a new one for each decision to retry it."""
    return f"{job_id}-refund-{retries}" if retries else f"{job_id}-refund"


async def request_refund(stub: PaymentServiceStub, order: Order, amount: int, *, reason: str, key: str) -> None:
    """Request the refund of a part of an order's payment, once for each key; nothing for an amount of zero."""
    if amount:
        request = pb.RefundOrderPaymentRequest(
            payment_id=order.payment_id,
            amount=money(amount, order.totals.currency),
            reason=reason,
            request_id=key,
        )
        await stub.RefundOrderPayment(request)
