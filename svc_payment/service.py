"""The RPCs of svc_payment: each writes its request in one transaction; the worker then reconciles the payment."""

import logging
from collections.abc import AsyncIterator, Collection, Sequence
from functools import partial

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from chassis import (
    Context,
    Database,
    Transaction,
    Watch,
    current_time,
    is_replay,
    outbox,
    require_owner,
    transactional,
)
from chassis.external import webhooks
from chassis.external.api import Ok, Refused, Unknown
from chassis.external.webhooks import Webhook
from chassis.types.money import minor_units
from chassis.work.worker import Worker
from shop.payment.v1 import payment_service_pb2 as pb
from shop.payment.v1.payment_errors import (
    PaymentAttemptsExceeded,
    PaymentDeclined,
    PaymentIdTaken,
    PaymentMethodInvalid,
    PaymentNotFound,
    PaymentStateConflict,
)
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceServicer
from svc_payment import converters, domain_provider, domain_requests, store
from svc_payment.attempts import Attempt, Finding
from svc_payment.domain import TRANSITIONS, EntryStatus, OperationKind, Payment, State
from svc_payment.domain_provider import ProviderPayment
from svc_payment.provider import PaymentProvider, payment_from_json
from svc_payment.reconciler import PaymentReconciler, new_operation_id

log = logging.getLogger(__name__)

_WEBHOOK_SENDER = "payment_provider"


class PaymentService(PaymentServiceServicer):
    """Moves the money of orders, each amount at most once."""

    def __init__(
        self,
        db: Database,
        provider: PaymentProvider,
        reconciler: PaymentReconciler,
        worker: Worker[Attempt, Finding],
        secrets: Sequence[str],
    ) -> None:
        """`worker` executes the attempts that `reconciler` claims; `secrets` are those of the provider's webhooks."""
        self.db = db
        self.provider = provider
        self.reconciler = reconciler
        self.worker = worker
        self.secrets = secrets
        self.payments: Watch[Payment] = Watch(db.change_feed, self._read_payments)

    async def ValidatePaymentMethod(
        self, request: pb.ValidatePaymentMethodRequest, context: Context
    ) -> pb.PaymentMethod:
        if request.HasField("amount"):
            minor_units(request.amount, "amount")
        fingerprint = domain_requests.fingerprint_of(request.payment_method_token)
        async with self.db.connection() as tx:
            known, is_exceeded = await store.read_method(tx, request.user_id, fingerprint, self.reconciler.limits)
        if is_exceeded:
            raise PaymentAttemptsExceeded
        match await self.provider.validate_method(request.payment_method_token):
            case Ok(described):
                method = converters.method_from_provider(described)
                if method != known:
                    async with self.db.transaction() as tx:
                        await store.write_method(tx, fingerprint, method)
                return converters.method_to_proto(method)
            case Refused(code):
                raise PaymentMethodInvalid(problem=code)
            case Unknown(cause):
                log.warning("payment method not checked", extra={"error": cause})
                return converters.method_to_proto(known)

    async def AuthorizePayment(self, request: pb.AuthorizePaymentRequest, context: Context) -> pb.Payment:
        await self._start_payment(request, context, converters.payment_from_request(request))
        payment = await self._reconciled(request.payment_id, retry=is_replay())
        if payment.state is State.FAILED:
            raise PaymentDeclined(decline_code=payment.decline_code)
        return converters.payment_to_proto(payment)

    async def CapturePayment(self, request: pb.CapturePaymentRequest, context: Context) -> pb.Payment:
        return await self.operation_result(request.payment_id, await self._request_capture(request, context))

    async def RefundPayment(self, request: pb.RefundPaymentRequest, context: Context) -> pb.Payment:
        return await self.operation_result(request.payment_id, await self._request_refund(request, context))

    async def RefundOrderPayment(self, request: pb.RefundOrderPaymentRequest, context: Context) -> pb.Payment:
        return await self.operation_result(request.payment_id, await self._request_order_refund(request, context))

    async def ReauthorizePayment(self, request: pb.ReauthorizePaymentRequest, context: Context) -> pb.Payment:
        operation = await self._request_reauthorization(request, context)
        return await self.operation_result(request.payment_id, operation)

    async def VoidPayment(self, request: pb.VoidPaymentRequest, context: Context) -> pb.Payment:
        if not (await self._request_void(request, context)).payment_id:
            raise PaymentNotFound(payment_id=request.payment_id)
        return converters.payment_to_proto(await self._reconciled(request.payment_id, retry=is_replay()))

    async def GetPayment(self, request: pb.GetPaymentRequest, context: Context) -> pb.Payment:
        async with self.db.connection() as tx:
            payment = await store.read_payment(tx, request.payment_id)
        require_owner(payment.user_id, PaymentNotFound(payment_id=request.payment_id))
        return converters.payment_to_proto(payment)

    async def GetPaymentByOrder(self, request: pb.GetPaymentByOrderRequest, context: Context) -> pb.Payment:
        async with self.db.connection() as tx:
            payment_id = await store.find_payment(tx, request.order_id)
            payment = await store.read_payment(tx, payment_id)
        if payment.state is State.PROCESSING:
            payment = await self._reconciled(payment_id, retry=True)
        return converters.payment_to_proto(payment)

    async def WatchPayment(
        self, request: pb.WatchPaymentRequest, context: Context
    ) -> AsyncIterator[pb.WatchPaymentResponse]:
        sent = request.resume_token
        async for payments in self.payments.values([request.payment_id]):
            not_found = PaymentNotFound(payment_id=request.payment_id)
            payment = payments.get(request.payment_id)
            if payment is None:
                raise not_found
            require_owner(payment.user_id, not_found)
            message = converters.payment_to_proto(payment)
            if message.etag != sent:
                sent = message.etag
                yield pb.WatchPaymentResponse(payment=message, resume_token=sent)
            if TRANSITIONS.is_final(payment.state):
                return

    async def ReceiveProviderEvent(self, request: HttpBody, context: Context) -> Empty:
        webhook = webhooks.receive(request, context, self.secrets, read=payment_from_json)
        return await self._apply_webhook(request, context, webhook)

    @transactional
    async def _start_payment(
        self, request: pb.AuthorizePaymentRequest, tx: Transaction, requested: Payment
    ) -> pb.Payment:
        if attempt := await self.reconciler.insert_and_claim(tx, requested):
            await outbox.add(tx, converters.payment_started_event(requested))
        elif await store.has_tombstone(tx, requested.id):
            raise PaymentStateConflict(payment_id=requested.id, state="GIVEN_UP", wanted=State.AUTHORIZED.name)
        else:
            attempt = await self._retry_existing(tx, requested)
        self._execute_on_commit(tx, attempt)
        return pb.Payment(payment_id=requested.id)

    @transactional
    async def _request_capture(self, request: pb.CapturePaymentRequest, tx: Transaction) -> pb.PaymentTransaction:
        before = await store.lock_payment(tx, request.payment_id)
        amount = converters.amount_from_request(before, request)
        after = domain_requests.request_capture(before, amount, new_operation_id())
        return await self.save_request(tx, before, after, OperationKind.CHARGE)

    @transactional
    async def _request_refund(self, request: pb.RefundPaymentRequest, tx: Transaction) -> pb.PaymentTransaction:
        return await self._add_refund(tx, request)

    @transactional
    async def _request_order_refund(
        self, request: pb.RefundOrderPaymentRequest, tx: Transaction
    ) -> pb.PaymentTransaction:
        return await self._add_refund(tx, request)

    async def _add_refund(
        self, tx: Transaction, request: pb.RefundPaymentRequest | pb.RefundOrderPaymentRequest
    ) -> pb.PaymentTransaction:
        before = await store.lock_payment(tx, request.payment_id)
        amount = converters.amount_from_request(before, request)
        after = domain_requests.request_refund(before, amount, request.reason, new_operation_id())
        return await self.save_request(tx, before, after, OperationKind.REFUND)

    @transactional
    async def _request_reauthorization(
        self, request: pb.ReauthorizePaymentRequest, tx: Transaction
    ) -> pb.PaymentTransaction:
        before = await store.lock_payment(tx, request.payment_id)
        after = domain_requests.request_reauthorization(before, new_operation_id())
        return await self.save_request(tx, before, after, OperationKind.AUTHORIZATION)

    @transactional
    async def _request_void(self, request: pb.VoidPaymentRequest, tx: Transaction) -> pb.Payment:
        """Return the payment's id, or none when it does not exist: it has a tombstone then, and cannot be started."""
        await store.lock_name(tx, request.payment_id)
        try:
            before = await store.lock_payment(tx, request.payment_id)
        except PaymentNotFound:
            await store.insert_tombstone(tx, request.payment_id, request.reason)
            return pb.Payment()
        after = domain_requests.request_void(before, await current_time(tx), request.reason)
        await self._save_and_execute(tx, before, after)
        return pb.Payment(payment_id=after.id)

    @transactional
    async def _apply_webhook(self, request: HttpBody, tx: Transaction, webhook: Webhook[ProviderPayment]) -> Empty:
        """Have the provider's state fetched if the webhook reports something new: it is a hint, never the truth."""
        reported = webhook.data
        if not await webhooks.claim(tx, _WEBHOOK_SENDER, webhook):
            return Empty()
        try:
            payment = await store.lock_payment(tx, reported.reference)
        except PaymentNotFound:
            log.error("webhook of an unknown payment", extra={"provider_id": reported.id})  # noqa: TRY400
            return Empty()
        if not domain_provider.is_known(payment, reported):
            await store.make_due(tx, payment.id)
            self.db.on_commit(tx, self.worker.wake)
        return Empty()

    async def _retry_existing(self, tx: Transaction, requested: Payment) -> Attempt | None:
        """Claim, if it is due, the payment that exists with the contents of the requested one.

        Raises PaymentIdTaken for other contents or another payment of the order, and PaymentAttemptsExceeded.
        """
        try:
            existing = await store.lock_payment(tx, requested.id)
        except PaymentNotFound:
            limits = self.reconciler.limits
            _, is_exceeded = await store.read_method(tx, requested.user_id, requested.fingerprint, limits)
            raise (PaymentAttemptsExceeded() if is_exceeded else PaymentIdTaken(payment_id=requested.id)) from None
        domain_requests.check_same(existing, requested)
        return await self.reconciler.claim_if_due(tx, existing)

    async def save_request(
        self, tx: Transaction, before: Payment, after: Payment, kind: OperationKind
    ) -> pb.PaymentTransaction:
        """Save a requested operation, and return its id, empty when it has been done before."""
        await self._save_and_execute(tx, before, after)
        operation_ids = [entry.operation_id for entry in after.pending if entry.kind is kind]
        return pb.PaymentTransaction(transaction_id=operation_ids[-1] if operation_ids else "")

    async def _save_and_execute(self, tx: Transaction, before: Payment, after: Payment) -> None:
        """Save what was requested, and attempt it after the commit; what was requested before only when it is due."""
        is_new = after is not before
        save = self.reconciler.save_and_claim(tx, before, after) if is_new else self.reconciler.claim_if_due(tx, before)
        self._execute_on_commit(tx, await save)

    def _execute_on_commit(self, tx: Transaction, attempt: Attempt | None) -> None:
        if attempt:
            self.db.on_commit(tx, partial(self.worker.start, attempt.id, attempt))

    async def operation_result(self, payment_id: str, operation: pb.PaymentTransaction) -> pb.Payment:
        """Return the payment after a requested operation, which may still be pending; raises PaymentDeclined."""
        payment = await self._reconciled(payment_id, retry=is_replay())
        result = payment.result_of(operation.transaction_id)
        if result and result.status is EntryStatus.FAILURE:
            raise PaymentDeclined(decline_code=result.reason)
        return converters.payment_to_proto(payment)

    async def _reconciled(self, payment_id: str, *, retry: bool) -> Payment:
        """Return a payment after the attempt that runs; where none does, `retry` makes one if it is due."""
        if not await self.worker.join(payment_id) and retry:
            await self._attempt_now(payment_id)
            await self.worker.join(payment_id)
        async with self.db.connection() as tx:
            return await store.read_payment(tx, payment_id)

    async def _attempt_now(self, payment_id: str) -> None:
        async with self.db.transaction() as tx:
            payment = await store.lock_payment(tx, payment_id)
            self._execute_on_commit(tx, await self.reconciler.claim_if_due(tx, payment))

    async def _read_payments(self, ids: Collection[str]) -> dict[str, Payment]:
        async with self.db.connection() as tx:
            return await store.read_payments(tx, ids)
