"""Every documented fault of the provider has its documented outcome."""

import asyncio
import time
from types import SimpleNamespace

import pytest
import pytest_asyncio

from chassis.external.api import Ok, Refused, Unknown
from svc_payment.provider import PaymentProvider, Status

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: A timer counts whole milliseconds, and may begin within one.
TICK = 0.01
OUTCOMES = {
    "declined": Refused("card_declined", "the payment method was declined", "payment_method"),
    "500": Unknown("http_500"),
    "500_then_charged": Unknown("http_500"),
    "timeout_then_charged": Unknown("timeout"),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def providers(provider, provider_process):
    """The provider's adapter with a long timeout, and one with a short timeout."""
    impatient = PaymentProvider(url=provider_process.url, key=provider_process.key, timeout=1.5)
    yield SimpleNamespace(patient=provider, impatient=impatient)
    await impatient.aclose()


def authorize(provider, reference, token="tok_ok"):
    return provider.authorize(reference=reference, token=token, amount=1200, currency="USD")


async def found(provider, reference):
    outcome = await provider.find_by_reference(reference)
    assert isinstance(outcome, Ok), outcome
    return outcome.value


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("tok_declined", "card_declined"),
        ("tok_insufficient_funds", "insufficient_funds"),
        ("tok_expired_card", "expired_card"),
    ],
)
async def test_a_decline_is_final_and_recorded(provider, receiver, reference, token, code):
    refusal = await authorize(provider, reference, token)
    assert (refusal.code, refusal.param) == (code, "payment_method")
    assert await authorize(provider, reference, token) == refusal
    payment = await found(provider, reference)
    assert (payment.status, payment.failure_code) == (Status.FAILED, code)
    (delivery,) = await receiver.until(payment.id, 1)
    assert b'"type":"payment.failed"' in delivery.body
    assert (await provider.capture(payment.id, amount=1200, key="capture")).code == "payment_not_capturable"


async def test_a_reply_lost_in_a_timeout_is_unknown_and_the_payment_is_found(providers, receiver, reference):
    token = "tok_timeout_then_charged"
    assert await authorize(providers.impatient, reference, token) == Unknown("timeout")
    await receiver.until(reference, 1)
    payment = await found(providers.patient, reference)
    assert payment.status is Status.AUTHORIZED
    assert payment.matches(reference=reference, amount=1200, currency="USD")
    assert await authorize(providers.patient, reference, token) == Ok(payment), "repeated by its key"


async def test_a_reply_lost_in_an_error_is_unknown_and_the_payment_is_found(provider, reference):
    assert await authorize(provider, reference, "tok_500_then_charged") == Unknown("http_500")
    payment = await found(provider, reference)
    assert payment.status is Status.AUTHORIZED
    assert await authorize(provider, reference, "tok_500_then_charged") == Ok(payment)


async def test_an_error_without_effect_is_unknown_and_no_payment_is_found(provider, reference):
    assert await authorize(provider, reference, "tok_500") == Unknown("http_500")
    assert await found(provider, reference) is None


async def test_a_slow_reply_within_the_timeout_is_ok(provider, reference):
    started = time.monotonic()
    assert isinstance(await authorize(provider, reference, "tok_slow_300"), Ok)
    assert time.monotonic() - started > 0.3 - TICK


async def test_a_payment_slower_than_the_timeout_is_found_later(providers, receiver, reference):
    assert await authorize(providers.impatient, reference, "tok_slow_6000") == Unknown("timeout")
    assert await found(providers.patient, reference) is None, "asked too early, it is not there yet"
    await receiver.until(reference, 1)
    assert (await found(providers.patient, reference)).status is Status.AUTHORIZED


async def test_the_webhook_can_arrive_before_the_reply(provider, receiver, reference):
    receiver.gate.clear()
    answer = asyncio.create_task(authorize(provider, reference, "tok_webhook_first"))
    try:
        (delivery,) = await receiver.until(reference, 1)
        assert not answer.done()
    finally:
        receiver.gate.set()
    assert (await answer).value.id.encode() in delivery.body


async def test_a_webhook_can_arrive_twice_with_one_id(provider, receiver, reference):
    assert isinstance(await authorize(provider, reference, "tok_duplicate_webhook"), Ok)
    first, second = await receiver.until(reference, 2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


@pytest.mark.parametrize(
    ("token", "held"), [("tok_wrong_amount", (1199, "USD")), ("tok_wrong_currency", (1200, "XTS"))]
)
async def test_a_payment_with_other_values_than_requested_is_not_accepted(provider, reference, token, held):
    assert await authorize(provider, reference, token) == Unknown("answer_mismatch")
    payment = await found(provider, reference)
    assert (payment.amount, payment.currency) == held
    assert not payment.matches(reference=reference, amount=1200, currency="USD")
    assert isinstance(await provider.void(payment.id, key="void"), Ok)


@pytest.mark.parametrize("operation", ["capture", "void", "refund"])
@pytest.mark.parametrize("trouble", ["declined", "500", "500_then_charged", "timeout_then_charged"])
async def test_a_token_that_names_a_later_operation_applies_its_fault_there(
    providers, receiver, reference, operation, trouble
):
    payment = (await authorize(providers.patient, reference, f"tok_{operation}_{trouble}")).value
    if operation == "refund":
        await providers.patient.capture(payment.id, amount=1200, key="capture")
    told_before = 2 if operation == "refund" else 1

    def operate(provider):
        if operation == "void":
            return provider.void(payment.id, key="void")
        return getattr(provider, operation)(payment.id, amount=700, key=operation)

    silent = trouble.startswith("timeout")
    assert await operate(providers.impatient if silent else providers.patient) == OUTCOMES[trouble]
    if not trouble.endswith("then_charged"):
        assert len((await found(providers.patient, reference)).operations) == told_before, "nothing happened"
        return
    await receiver.until(reference, told_before + 1)
    payment = await found(providers.patient, reference)
    assert len(payment.operations) == told_before + 1, "it happened"
    assert await operate(providers.patient) == Ok(payment), "repeated by its key, it gets the answer that was lost"


async def test_the_decline_rate_declines_authorizations_and_nothing_else(provider, provider_faults, reference):
    payment = (await authorize(provider, reference)).value
    await provider_faults(decline_rate=1)
    assert (await authorize(provider, f"{reference}-2")).code == "card_declined"
    assert isinstance(await provider.capture(payment.id, amount=1200, key="capture"), Ok)


async def test_the_same_seed_gives_the_same_faults(provider, provider_faults, reference):
    async def fortune(run):
        await provider_faults(decline_rate=0.3, error_rate=0.2, lost_answer_rate=0.2, seed=7)
        outcomes = [await authorize(provider, f"{reference}-{run}-{number}") for number in range(20)]
        return [type(outcome) for outcome in outcomes]

    first = await fortune(1)
    assert await fortune(2) == first
    assert {Ok, Refused, Unknown} == set(first)


async def test_the_list_next_sets_the_faults_of_the_next_operations(provider, provider_faults, provider_api, reference):
    faults = await provider_faults(error_rate=1, next=["capture_declined", "insufficient_funds", "ok"])
    assert faults["next"] == ["capture_declined", "insufficient_funds", "ok"]
    assert (await authorize(provider, f"{reference}-1")).code == "insufficient_funds"
    payment = (await authorize(provider, f"{reference}-2")).value
    assert (await provider.capture(payment.id, amount=1200, key="capture")).code == "card_declined"
    assert (await provider_api.get("/v1/faults")).json()["next"] == []
    assert await authorize(provider, f"{reference}-3") == Unknown("http_500")


async def test_a_configured_delay_applies_to_every_operation(provider, provider_faults, reference):
    await provider_faults(delay_ms=200)
    started = time.monotonic()
    assert isinstance(await authorize(provider, reference), Ok)
    assert time.monotonic() - started > 0.2 - TICK


async def test_webhooks_can_be_reordered(provider, provider_faults, receiver, reference):
    await provider_faults(reorder_webhooks=True)
    payment = (await authorize(provider, reference)).value
    await provider.capture(payment.id, amount=1200, key="capture")
    earlier, later = await receiver.until(reference, 2)
    assert b'"type":"payment.captured"' in earlier.body
    assert b'"type":"payment.authorized"' in later.body


async def test_all_webhooks_can_be_duplicated_and_delayed(provider, provider_faults, receiver, reference):
    await provider_faults(duplicate_webhooks=True, webhook_delay_ms=300)
    started = time.monotonic()
    await authorize(provider, reference)
    first, second = await receiver.until(reference, 2)
    assert time.monotonic() - started > 0.3 - TICK
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


@pytest.mark.parametrize(
    ("faults", "param"),
    [
        ({"decline_rate": 1.1}, "decline_rate"),
        ({"error_rate": True}, "error_rate"),
        ({"decline_rate": 0.6, "error_rate": 0.6}, "decline_rate"),
        ({"delay_ms": -1}, "delay_ms"),
        ({"duplicate_webhooks": 1}, "duplicate_webhooks"),
        ({"next": ["sing"]}, "next"),
        ({"next": "ok"}, "next"),
        ({"mood": "bad"}, "mood"),
    ],
)
async def test_invalid_faults_are_rejected_and_change_nothing(provider_api, faults, param):
    before = (await provider_api.get("/v1/faults")).json()
    answer = await provider_api.put("/v1/faults", json=faults)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert (await provider_api.get("/v1/faults")).json() == before
