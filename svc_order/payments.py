"""Reads the payments of orders, and checks payment methods: svc_payment knows both."""

import logging
from contextlib import suppress

from chassis import OutcomeUnknown, current_user
from chassis.types.money import money
from shop.errors import ShopError
from shop.order.v1.order_errors import OrderNotShippable
from shop.payment.v1 import payment_service_pb2 as pb
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from svc_order.domain import OrderTotals
from svc_order.steps import is_of_pipeline

log = logging.getLogger(__name__)

#: A slip is captured at once, and refunded in part when lines are cancelled.
_SHIPPABLE = frozenset({pb.PAYMENT_STATE_AUTHORIZED, pb.PAYMENT_STATE_CAPTURED, pb.PAYMENT_STATE_PARTIALLY_REFUNDED})
#: How long a timeline waits for its payment.
_SHOW_SECONDS = 1.0


class Payments:
    """The payments of orders, read from svc_payment."""

    def __init__(self, stub: PaymentServiceStub) -> None:
        """Call svc_payment by `stub`."""
        self._stub = stub

    async def validate_method(self, token: str, totals: OrderTotals) -> None:
        """Check that the user's payment method can pay the totals.

        Raises PaymentMethodInvalid and PaymentAttemptsExceeded. Without a reply in time it passes: the check only
        rejects early what the authorization would decline, and the saga waits longer for svc_payment than a customer.
        """
        amount = money(totals.total, totals.currency)
        request = pb.ValidatePaymentMethodRequest(user_id=current_user().id, payment_method_token=token, amount=amount)
        try:
            await self._stub.ValidatePaymentMethod(request)
        except OutcomeUnknown as error:
            log.warning("payment method not checked", extra={"error": error.code.name})
        except ShopError as error:
            if not is_of_pipeline(error):
                raise
            log.warning("payment method not checked", extra={"error": error.reason})

    async def check_shippable(self, order_id: str) -> None:
        """Raise OrderNotShippable unless the payment of an order is authorized or captured now."""
        payment = await self._stub.GetPaymentByOrder(pb.GetPaymentByOrderRequest(order_id=order_id))
        if payment.state not in _SHIPPABLE:
            raise OrderNotShippable(order_id=order_id, state="not paid for")

    async def find(self, order_id: str) -> pb.Payment | None:
        """Return the payment of an order; None when there is none, or no reply in time."""
        request = pb.GetPaymentByOrderRequest(order_id=order_id)
        with suppress(ShopError, OutcomeUnknown):
            return await self._stub.GetPaymentByOrder(request, timeout=_SHOW_SECONDS)
        return None
