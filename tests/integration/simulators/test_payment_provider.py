"""The provider through svc_payment's adapter: successful and rejected requests."""

import asyncio

import httpx
import pytest

from chassis.external.api import Ok, Refused, Unknown
from svc_payment.provider import PaymentMethod, PaymentProvider, ProviderPayment, Status

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def authorized(provider: PaymentProvider, reference: str, amount: int = 1200) -> ProviderPayment:
    outcome = await provider.authorize(reference=reference, token="tok_ok", amount=amount, currency="USD")
    assert isinstance(outcome, Ok), outcome
    return outcome.value


async def captured(provider: PaymentProvider, reference: str, amount: int = 1200) -> ProviderPayment:
    payment = await authorized(provider, reference, amount)
    outcome = await provider.capture(payment.id, amount=amount, key="capture")
    assert isinstance(outcome, Ok), outcome
    return outcome.value


async def ledger_of(api: httpx.AsyncClient, reference: str) -> list[tuple[str, int]]:
    entries, after = [], 0
    while True:
        page = (await api.get("/v1/ledger", params={"after": after})).json()
        entries += page["data"]
        if not page["has_more"]:
            return [(entry["kind"], entry["amount"]) for entry in entries if entry["reference"] == reference]
        after = entries[-1]["sequence"]


async def test_a_payment_is_authorized_captured_and_refunded_in_parts(provider, provider_api, reference):
    payment = await captured(provider, reference)
    assert (payment.status, payment.amount_captured) == (Status.CAPTURED, 1200)
    part = await provider.refund(payment.id, amount=500, key="refund-1")
    assert (part.value.status, part.value.amount_refunded) == (Status.PARTIALLY_REFUNDED, 500)
    rest = await provider.refund(payment.id, amount=700, key="refund-2")
    assert (rest.value.status, rest.value.amount_refunded) == (Status.REFUNDED, 1200)
    assert [(operation.kind, operation.amount, operation.key) for operation in rest.value.operations] == [
        ("authorized", 1200, reference),
        ("captured", 1200, "capture"),
        ("refunded", 500, "refund-1"),
        ("refunded", 700, "refund-2"),
    ]
    assert await provider.get(payment.id) == rest
    assert await provider.find_by_reference(reference) == rest
    assert await ledger_of(provider_api, reference) == [
        ("authorized", 1200),
        ("captured", 1200),
        ("refunded", 500),
        ("refunded", 700),
    ]


async def test_a_voided_payment_can_neither_be_captured_nor_voided_again(provider, reference):
    payment = await authorized(provider, reference)
    voided = await provider.void(payment.id, key="void")
    assert voided.value.status is Status.VOIDED
    assert await provider.void(payment.id, key="void") == voided, "the same key gets the first answer"
    assert (await provider.void(payment.id, key="another")).code == "payment_not_voidable"
    assert (await provider.capture(payment.id, amount=1200, key="capture")).code == "payment_not_capturable"


async def test_a_capture_above_the_authorized_amount_is_rejected(provider, reference):
    payment = await authorized(provider, reference)
    refusal = await provider.capture(payment.id, amount=1201, key="too-much")
    assert (refusal.code, refusal.param) == ("amount_exceeds_authorized", "amount")
    part = await provider.capture(payment.id, amount=1000, key="part")
    assert (part.value.status, part.value.amount_captured) == (Status.CAPTURED, 1000)
    assert (await provider.capture(payment.id, amount=200, key="rest")).code == "payment_not_capturable"


async def test_a_refund_above_the_captured_amount_is_rejected(provider, reference):
    payment = await captured(provider, reference)
    assert (await provider.refund(payment.id, amount=1201, key="too-much")).code == "amount_exceeds_captured"
    assert isinstance(await provider.refund(payment.id, amount=1200, key="all"), Ok)
    assert (await provider.refund(payment.id, amount=1, key="more")).code == "payment_not_refundable"


async def test_concurrent_refunds_do_not_exceed_the_captured_amount(provider, reference):
    payment = await captured(provider, reference, amount=1000)
    attempts = [provider.refund(payment.id, amount=100, key=f"refund-{number}") for number in range(30)]
    outcomes = await asyncio.gather(*attempts)
    assert sum(isinstance(outcome, Ok) for outcome in outcomes) == 10
    assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 20
    assert (await provider.get(payment.id)).value.amount_refunded == 1000


async def test_concurrent_authorizations_of_one_reference_create_one_payment(provider, provider_api, reference):
    payments = await asyncio.gather(*(authorized(provider, reference) for _ in range(30)))
    assert len({payment.id for payment in payments}) == 1
    assert await ledger_of(provider_api, reference) == [("authorized", 1200)]


async def test_a_key_repeated_with_another_body_is_rejected(provider, reference):
    payment = await captured(provider, reference)
    await provider.refund(payment.id, amount=100, key="refund")
    assert (await provider.refund(payment.id, amount=200, key="refund")).code == "idempotency_key_reused"
    other_amount = await provider.authorize(reference=reference, token="tok_ok", amount=1, currency="USD")
    assert other_amount.code == "idempotency_key_reused"
    assert (await provider.get(payment.id)).value.amount_refunded == 100


async def test_a_reference_has_one_payment_even_under_another_key(provider, provider_api, reference):
    await authorized(provider, reference)
    body = {"reference": reference, "payment_method": "tok_ok", "amount": 1200, "currency": "USD"}
    answer = await provider_api.post("/v1/payments", json=body, headers={"idempotency-key": "another"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "reference_already_used")


async def test_a_replayed_reply_has_a_header_that_says_so(provider_api, reference):
    body = {"reference": reference, "payment_method": "tok_ok", "amount": 1200, "currency": "USD"}
    first = await provider_api.post("/v1/payments", json=body, headers={"idempotency-key": reference})
    again = await provider_api.post("/v1/payments", json=body, headers={"idempotency-key": reference})
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)


async def test_an_unknown_reference_is_not_found(provider, reference):
    assert await provider.find_by_reference(reference) == Ok(None)


async def test_an_unknown_payment_is_rejected(provider):
    assert (await provider.get("pay_no")).code == "payment_not_found"
    assert (await provider.capture("../payments", amount=1, key="capture")).code in {"not_found", "payment_not_found"}


async def test_a_payment_method_is_validated_without_charging_it(provider):
    method = await provider.validate_method("tok_ok")
    assert method == Ok(PaymentMethod(token="tok_ok", kind="card", brand="visa", last4="4242", expires="2035-12"))
    assert (await provider.validate_method("tok_expired_card")).code == "expired_card"
    assert (await provider.validate_method("tok_of_nobody")).code == "payment_method_unknown"
    assert isinstance(await provider.validate_method("tok_declined"), Ok), "that shows only when it is charged"


async def test_a_card_number_is_rejected_and_not_logged(provider, provider_process, reference):
    number = "4242424242424242"
    refusal = await provider.authorize(reference=reference, token=number, amount=1, currency="USD")
    assert refusal.code == "payment_method_unknown"
    assert number not in provider_process.log.read_text()
    assert number not in str(refusal)


async def test_without_the_api_key_only_health_is_answered(provider_process):
    async with httpx.AsyncClient(base_url=provider_process.url) as stranger:
        assert (await stranger.get("/healthz")).json() == {"status": "ok"}
        for method, path in (("GET", "/v1/ledger"), ("POST", "/v1/payments"), ("PUT", "/v1/faults"), ("GET", "/")):
            answer = await stranger.request(method, path, headers={"authorization": "Bearer wrong"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")


async def test_a_rejected_api_key_is_unknown_so_that_the_card_is_not_blamed(provider_process, reference):
    stranger = PaymentProvider(url=provider_process.url, key="old-key")
    outcome = await stranger.authorize(reference=reference, token="tok_ok", amount=1, currency="USD")
    await stranger.aclose()
    assert outcome == Unknown("http_401")


VALID = {"reference": "ref-of-bad-input", "payment_method": "tok_ok", "amount": 1200, "currency": "USD"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": 2**63}, "amount"),
        ({"amount": 1.5}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": "1200"}, "amount"),
        ({"amount": None}, "amount"),
        ({"currency": "usd"}, "currency"),
        ({"currency": "USDX"}, "currency"),
        ({"reference": ""}, "reference"),
        ({"reference": "nul\0"}, "reference"),
        ({"reference": "r" * 101}, "reference"),
        ({"reference": ["r"]}, "reference"),
        ({"payment_method": "tok_of_nobody"}, "payment_method"),
        ({"capture": True}, "capture"),
    ],
)
async def test_an_invalid_request_names_the_field(provider_api, change, param):
    answer = await provider_api.post("/v1/payments", json=VALID | change, headers={"idempotency-key": "bad-input"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert await ledger_of(provider_api, VALID["reference"]) == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b"NaN", 400, "invalid_json"),
        (b"[" * 60_000, 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b" " * 70_000, 413, "body_too_large"),
    ],
)
async def test_a_body_that_is_no_small_object_is_rejected(provider_api, body, status, code):
    answer = await provider_api.post("/v1/payments", content=body, headers={"idempotency-key": "bad-body"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("key", ["", "k" * 101, "a b", "a\tb"])
async def test_a_change_without_a_valid_key_is_rejected(provider_api, key):
    answer = await provider_api.post("/v1/payments", json=VALID, headers={"idempotency-key": key})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "idempotency_key_required")


async def test_unknown_paths_and_methods_are_answered_in_json(provider_api):
    assert (await provider_api.get("/v2")).json()["error"]["code"] == "not_found"
    assert (await provider_api.delete("/v1/payments")).json()["error"]["code"] == "method_not_allowed"
