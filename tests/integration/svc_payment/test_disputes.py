"""Responses of the shop to disputes: each reaches the provider once, and the bank's decision is recorded."""

from dataclasses import replace

import pytest

from chassis.testing import as_user, client_for, serving
from shop.chassis.v1.chassis_errors import RoleMissing
from shop.payment.v1 import dispute_service_pb2 as pb
from shop.payment.v1 import payment_service_pb2 as payment_pb
from shop.payment.v1.dispute_service_pb2_grpc import DisputeServiceStub
from shop.payment.v1.payment_errors import DisputeResponseRejected, PaymentStateConflict
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from svc_payment.__main__ import compose
from tests.integration.svc_payment.requests import authorize, capture, eventually, of_order
from tests.integration.svc_payment.test_provider_changes import act, reach


@pytest.fixture
async def stubs(settings, issuer, webhook_endpoint):
    """The payments as svc_order calls them, and the disputes as staff does; webhooks report every change."""
    async with (
        serving("svc_payment", replace(settings, payment_poll_seconds=3600), compose, issuer) as app,
        client_for(app.address, PaymentServiceStub, caller="svc_order") as payments,
        client_for(app.address, DisputeServiceStub) as disputes,
    ):
        webhook_endpoint.address, webhook_endpoint.forwarding = app.address, True
        yield payments, disputes


def evidence(payment_id, request_id="e-1"):
    return pb.SubmitDisputeEvidenceRequest(
        payment_id=payment_id, evidence="signed by A. Customer\nat the door", request_id=request_id
    )


def staff(issuer):
    return as_user(f"Bearer {issuer.token('staff-1', 'staff')}")


async def captured(payments, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id))
    await reach(books, payment_id, "AUTHORIZED")  # on a busy machine the reply may come first
    await payments.CapturePayment(capture(payment_id))
    await reach(books, payment_id, "CAPTURED")


async def dispute(payments, books, payment_id):
    await captured(payments, books, payment_id)
    await act(books, payment_id, "dispute")
    await reach(books, payment_id, "DISPUTED")


async def test_evidence_reaches_the_provider_once_and_wins_the_dispute(stubs, provider, books, payment_id, issuer):
    payments, disputes = stubs
    await dispute(payments, books, payment_id)
    await provider.set_faults(next=["evidence_500_then_charged"])
    with staff(issuer):
        for _ in range(2):
            await disputes.SubmitDisputeEvidence(evidence(payment_id))
    await reach(books, payment_id, "CAPTURED")
    kinds = [kind for kind, _ in await books.ledger(payment_id)]
    assert kinds == ["authorized", "captured", "disputed", "evidence_submitted", "dispute_won"]
    assert await books.events(payment_id) == ["Started", "Authorized", "Captured", "Disputed", "DisputeClosed"]
    shown = (await payments.GetPaymentByOrder(of_order(payment_id))).transactions
    ours = [one for one in shown if one.kind == payment_pb.TRANSACTION_KIND_EVIDENCE]
    assert [one.outcome for one in ours] == [
        payment_pb.TRANSACTION_OUTCOME_REQUEST,
        payment_pb.TRANSACTION_OUTCOME_SUCCESS,
    ]
    assert {one.reason for one in ours} == {""}, "the customer reads the payment"
    await books.check(payment_id)


async def test_an_accepted_dispute_is_charged_back_once(stubs, books, payment_id, issuer):
    payments, disputes = stubs
    await dispute(payments, books, payment_id)
    with staff(issuer):
        for _ in range(2):
            await disputes.AcceptDispute(pb.AcceptDisputeRequest(payment_id=payment_id, request_id="a-1"))
    await reach(books, payment_id, "CHARGED_BACK")
    kinds = [kind for kind, _ in await books.ledger(payment_id)]
    assert kinds == ["authorized", "captured", "disputed", "dispute_accepted", "charged_back"]
    with staff(issuer), pytest.raises(PaymentStateConflict):
        await disputes.AcceptDispute(pb.AcceptDisputeRequest(payment_id=payment_id, request_id="a-2"))
    await books.check(payment_id)


async def test_only_staff_responds_and_only_to_an_open_dispute(stubs, webhook_endpoint, books, payment_id, issuer):
    payments, disputes = stubs
    await captured(payments, books, payment_id)
    with staff(issuer), pytest.raises(PaymentStateConflict):
        await disputes.SubmitDisputeEvidence(evidence(payment_id))
    await act(books, payment_id, "dispute")
    await reach(books, payment_id, "DISPUTED")
    with as_user(f"Bearer {issuer.token('user-1', 'customer')}"), pytest.raises(RoleMissing):
        await disputes.SubmitDisputeEvidence(evidence(payment_id, "e-2"))
    webhook_endpoint.forwarding = False
    await act(books, payment_id, "lose")  # as the service will learn from the rejection

    async def rejection():
        try:
            await disputes.SubmitDisputeEvidence(evidence(payment_id, "e-3"))
        except DisputeResponseRejected as error:
            return error.metadata

    with staff(issuer):
        assert await eventually(rejection) == {"code": "dispute_closed"}
    await reach(books, payment_id, "CHARGED_BACK")
