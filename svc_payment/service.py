"""The payments' RPCs: each writes down what is wanted in one transaction, then has it settled with the provider."""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from chassis import Context, Database, OutcomeUnknown, Transaction, current_user, idempotent, outbox
from chassis.external.api import Ok, Refused, Unknown
from chassis.external.webhooks import Webhook, WebhookRejected
from chassis.types.money import minor_units
from shop.chassis.v1 import chassis_errors
from shop.payment.v1 import payment_service_pb2 as pb
from shop.payment.v1.payment_errors import (
    PaymentDeclined,
    PaymentIdTaken,
    PaymentMethodInvalid,
    PaymentNotFound,
    PaymentStateConflict,
)
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceServicer
from svc_payment import domain, messages, store
from svc_payment.domain import EntryStatus, Kind, Payment, State
from svc_payment.domain_provider import ProviderPayment, knows
from svc_payment.provider import PaymentProvider, verify_webhook
from svc_payment.settlement import Settlement, new_operation_id

log = logging.getLogger(__name__)

_STAFF = frozenset({"staff", "admin"})
#: Where nothing leads on from.
_LAST = frozenset({State.REFUNDED, State.VOIDED, State.FAILED})


class PaymentService(PaymentServiceServicer):
    """Moves the money of orders, each amount at most once."""

    def __init__(self, db: Database, provider: PaymentProvider, settlement: Settlement, secrets: Sequence[str]) -> None:
        """`secrets` are those that the provider may sign its webhooks with."""
        self.db = db
        self.provider = provider
        self.settlement = settlement
        self.secrets = secrets

    async def ValidatePaymentMethod(
        self, request: pb.ValidatePaymentMethodRequest, context: Context
    ) -> pb.PaymentMethod:
        if request.HasField("amount"):
            minor_units(request.amount, "amount")
        match await self.provider.validate_method(request.payment_method_token):
            case Ok(told):
                method = messages.method_from_provider(told)
                async with self.db.transaction() as tx:
                    await store.write_method(tx, request.payment_method_token, method)
                return messages.method_to_proto(method)
            case Refused(code):
                raise PaymentMethodInvalid(problem=code)
            case Unknown(cause):
                raise _unknown(cause)

    async def AuthorizePayment(self, request: pb.AuthorizePaymentRequest, context: Context) -> pb.Payment:
        wanted = messages.new_payment(request)
        taken: Payment | None = None

        async def change(tx: Transaction) -> pb.Payment:
            nonlocal taken
            taken = await self._begin(tx, wanted)
            return pb.Payment(payment_id=wanted.id)

        await idempotent(self.db, request, pb.Payment, change)
        payment = await self._settled(wanted.id, taken)
        if payment.state is State.FAILED:
            raise PaymentDeclined(decline_code=payment.decline_code)
        if payment.state is State.PROCESSING:
            raise _unknown("the authorization")
        return messages.payment_to_proto(payment)

    async def CapturePayment(self, request: pb.CapturePaymentRequest, context: Context) -> pb.Payment:
        def ask(payment: Payment, operation_id: str) -> Payment:
            return domain.charge(payment, messages.amount_of(payment, request), operation_id)

        return await self._operate(request, Kind.CHARGE, ask)

    async def RefundPayment(self, request: pb.RefundPaymentRequest, context: Context) -> pb.Payment:
        def ask(payment: Payment, operation_id: str) -> Payment:
            return domain.refund(payment, messages.amount_of(payment, request), request.reason, operation_id)

        return await self._operate(request, Kind.REFUND, ask)

    async def VoidPayment(self, request: pb.VoidPaymentRequest, context: Context) -> pb.Payment:
        taken: Payment | None = None

        async def change(tx: Transaction) -> pb.Payment:
            nonlocal taken
            await store.lock_name(tx, request.payment_id)
            try:
                before = await store.lock_payment(tx, request.payment_id)
            except PaymentNotFound:
                await store.insert_given_up(tx, request.payment_id, request.reason)
                return pb.Payment()
            given_up = domain.give_up(before, await store.read_now(tx), request.reason)
            taken = await self._save(tx, before, given_up)
            return pb.Payment(payment_id=given_up.id)

        if not (await idempotent(self.db, request, pb.Payment, change)).payment_id:
            raise PaymentNotFound(payment_id=request.payment_id)
        return messages.payment_to_proto(await self._settled(request.payment_id, taken))

    async def GetPayment(self, request: pb.GetPaymentRequest, context: Context) -> pb.Payment:
        return messages.payment_to_proto(await self._visible(request.payment_id))

    async def GetPaymentByOrder(self, request: pb.GetPaymentByOrderRequest, context: Context) -> pb.Payment:
        async with self.db.connection() as tx:
            payment_id = await store.find_payment(tx, request.order_id)
            payment = await store.read_payment(tx, payment_id)
        if payment.state is State.PROCESSING:
            payment = await self._settled(payment_id)
        return messages.payment_to_proto(payment)

    async def WatchPayment(
        self, request: pb.WatchPaymentRequest, context: Context
    ) -> AsyncIterator[pb.WatchPaymentResponse]:
        seen = request.resume_token
        async for _ in self.db.change_feed.subscribe([request.payment_id]):
            payment = await self._visible(request.payment_id)
            message = messages.payment_to_proto(payment)
            if message.etag != seen:
                seen = message.etag
                yield pb.WatchPaymentResponse(payment=message, resume_token=seen)
            if payment.state in _LAST:
                return

    async def ReceiveProviderEvent(self, request: HttpBody, context: Context) -> Empty:
        headers = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        try:
            event = verify_webhook(headers, request.data, self.secrets, datetime.now(UTC))
        except WebhookRejected as rejected:
            log.warning("webhook rejected", extra={"cause": rejected.reason})
            malformed = rejected.reason == "body_malformed"
            raise (chassis_errors.WebhookMalformed() if malformed else chassis_errors.WebhookRejected()) from None
        await self._take(event)
        return Empty()

    async def _begin(self, tx: Transaction, wanted: Payment) -> Payment | None:
        """Write a new payment down and take it up, unless it is there already."""
        await store.lock_name(tx, wanted.id)
        taken = domain.take_up(wanted, new_operation_id())
        if await store.insert_payment(tx, taken, self.settlement.lease):
            await outbox.add(tx, messages.payment_started(wanted))
            return taken
        if await store.is_given_up(tx, wanted.id):
            raise PaymentStateConflict(payment_id=wanted.id, state="GIVEN_UP", wanted=State.AUTHORIZED.name)
        try:
            domain.check_same(await store.read_payment(tx, wanted.id), wanted)
        except PaymentNotFound:  # then it is the order that has another payment
            raise PaymentIdTaken(payment_id=wanted.id) from None
        return None

    async def _save(self, tx: Transaction, before: Payment, after: Payment) -> Payment:
        """Write what is wanted of a payment, and take it up for that."""
        taken = domain.take_up(after, new_operation_id())
        await store.update_payment(tx, before, taken, self.settlement.lease)
        return taken

    async def _operate(
        self,
        request: pb.CapturePaymentRequest | pb.RefundPaymentRequest,
        kind: Kind,
        ask: Callable[[Payment, str], Payment],
    ) -> pb.Payment:
        """Write an operation down, once for each request_id, have it done, and tell how it ended."""
        taken: Payment | None = None

        async def change(tx: Transaction) -> pb.PaymentTransaction:
            nonlocal taken
            before = await store.lock_payment(tx, request.payment_id)
            taken = await self._save(tx, before, ask(before, new_operation_id()))
            asked = next((one.operation_id for one in reversed(taken.pending) if one.kind is kind), "")
            return pb.PaymentTransaction(transaction_id=asked)

        operation_id = (await idempotent(self.db, request, pb.PaymentTransaction, change)).transaction_id
        payment = await self._settled(request.payment_id, taken)
        if operation_id:
            end = payment.end(operation_id)
            if end is None:
                raise _unknown(f"the {kind.name.lower()}")
            if end.outcome is EntryStatus.FAILURE:
                raise PaymentDeclined(decline_code=end.reason)
        return messages.payment_to_proto(payment)

    async def _settled(self, payment_id: str, taken: Payment | None = None) -> Payment:
        """Return a payment after everything was tried to settle it."""
        await self.settlement.settle(payment_id, taken)
        async with self.db.connection() as tx:
            return await store.read_payment(tx, payment_id)

    async def _visible(self, payment_id: str) -> Payment:
        """Return a payment that the user may see; raises PaymentNotFound for any other."""
        async with self.db.connection() as tx:
            payment = await store.read_payment(tx, payment_id)
        user = current_user()
        if payment.user_id != user.id and not user.roles & _STAFF:
            raise PaymentNotFound(payment_id=payment_id)
        return payment

    async def _take(self, event: Webhook[ProviderPayment]) -> None:
        """Have the provider asked when its event tells something new: what an event says is a hint, never the truth."""
        told = event.data
        async with self.db.transaction() as tx:
            if not await store.insert_provider_event(tx, event.id, event.type, told.reference):
                return
            try:
                payment = await store.lock_payment(tx, told.reference)
            except PaymentNotFound:
                log.error("webhook of a payment that is not ours", extra={"provider_id": told.id})  # noqa: TRY400
                return
            if knows(payment, told):
                return
            await store.make_due(tx, payment.id)
        self.settlement.wake()


def _unknown(what: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"payment provider: {what}", grpc.StatusCode.UNAVAILABLE)
