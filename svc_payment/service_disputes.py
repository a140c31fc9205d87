"""The RPCs of disputes: a response of the shop is an operation at the provider, repeated like the others."""

from chassis import Context, Transaction, transactional
from shop.payment.v1 import dispute_service_pb2 as pb
from shop.payment.v1 import payment_service_pb2 as payment_pb
from shop.payment.v1.dispute_service_pb2_grpc import DisputeServiceServicer
from shop.payment.v1.payment_errors import DisputeResponseRejected, PaymentDeclined
from svc_payment import domain_disputes, store
from svc_payment.domain import OperationKind
from svc_payment.reconciler import new_operation_id
from svc_payment.service import PaymentService


class DisputeService(DisputeServiceServicer):
    """Submits evidence against disputes, or accepts them."""

    def __init__(self, payments: PaymentService) -> None:
        """`payments` saves and executes what is requested."""
        self.db = payments.db
        self.payments = payments

    async def SubmitDisputeEvidence(
        self, request: pb.SubmitDisputeEvidenceRequest, context: Context
    ) -> payment_pb.Payment:
        return await self._result(request.payment_id, await self._request_evidence(request, context))

    async def AcceptDispute(self, request: pb.AcceptDisputeRequest, context: Context) -> payment_pb.Payment:
        return await self._result(request.payment_id, await self._request_acceptance(request, context))

    @transactional
    async def _request_evidence(
        self, request: pb.SubmitDisputeEvidenceRequest, tx: Transaction
    ) -> payment_pb.PaymentTransaction:
        before = await store.lock_payment(tx, request.payment_id)
        after = domain_disputes.request_evidence(before, request.evidence, new_operation_id())
        return await self.payments.save_request(tx, before, after, OperationKind.EVIDENCE)

    @transactional
    async def _request_acceptance(
        self, request: pb.AcceptDisputeRequest, tx: Transaction
    ) -> payment_pb.PaymentTransaction:
        before = await store.lock_payment(tx, request.payment_id)
        after = domain_disputes.request_acceptance(before, new_operation_id())
        return await self.payments.save_request(tx, before, after, OperationKind.ACCEPTANCE)

    async def _result(self, payment_id: str, operation: payment_pb.PaymentTransaction) -> payment_pb.Payment:
        try:
            return await self.payments.operation_result(payment_id, operation)
        except PaymentDeclined as declined:
            raise DisputeResponseRejected(code=declined.metadata["decline_code"]) from None
