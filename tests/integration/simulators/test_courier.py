"""The courier through svc_delivery's adapter, with and without faults."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import pytest_asyncio

from chassis.external.api import Ok, Unknown
from chassis.external.webhooks import verify
from svc_delivery.courier import Courier, CourierAddress, Status, consignment_from_json

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADDRESS = CourierAddress(
    recipient="Ada Lovelace", line1="12 St James's Square", city="London", postal_code="SW1Y 4JH", country="GB"
)
ROAD = [Status.LABELLED, Status.PICKED_UP, Status.IN_TRANSIT, Status.OUT_FOR_DELIVERY, Status.DELIVERED]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def couriers(courier, courier_process):
    """The courier's adapter with a long timeout, and one with a short timeout."""
    impatient = Courier(url=courier_process.url, key=courier_process.key, timeout=1.5)
    yield SimpleNamespace(patient=courier, impatient=impatient)
    await impatient.aclose()


def create(courier, reference, address=ADDRESS):
    return courier.create(reference=reference, address=address, weight_grams=1500)


def advance(api, consignment, to=None):
    return api.post(f"/v1/consignments/{consignment.id}/advance", json={"to": to} if to else {})


async def test_a_consignment_passes_every_status_with_an_event_for_each(
    courier, courier_api, receiver, secret, reference
):
    consignment = (await create(courier, reference)).value
    assert consignment.status is Status.LABELLED
    assert consignment.tracking_number
    assert consignment.label_id
    for status in ROAD[1:]:
        assert (await advance(courier_api, consignment)).json()["status"] == status
    deliveries = await receiver.until(reference, len(ROAD))
    now = datetime.now(UTC)
    webhooks = [verify(item.headers, item.body, [secret], now, read=consignment_from_json) for item in deliveries]
    assert {webhook.type for webhook in webhooks} == {"consignment.status_changed"}
    told = {webhook.data.version: webhook.data.status for webhook in webhooks}
    assert [told[version] for version in sorted(told)] == ROAD
    arrived = (await courier.get(consignment.id)).value
    assert [movement.status for movement in arrived.movements] == ROAD
    assert await courier.find_by_reference(reference) == Ok(arrived)


async def test_an_advance_to_a_later_status_passes_every_status_between(courier, courier_api, receiver, reference):
    consignment = (await create(courier, reference)).value
    answer = await advance(courier_api, consignment, "DELIVERED")
    assert [movement["status"] for movement in answer.json()["movements"]] == ROAD
    await receiver.until(reference, len(ROAD))


async def test_a_failed_delivery_is_repeated_or_returned(courier, courier_api, reference):
    consignment = (await create(courier, reference)).value
    road = ["OUT_FOR_DELIVERY", "FAILED", "IN_TRANSIT", "FAILED", "RETURNED"]
    for status in road:
        assert (await advance(courier_api, consignment, status)).json()["status"] == status


@pytest.mark.parametrize(
    ("at", "to"),
    [
        ("PICKED_UP", "LABELLED"),
        ("LABELLED", "RETURNED"),
        ("FAILED", "DELIVERED"),
        ("FAILED", None),
        ("DELIVERED", "FAILED"),
        ("DELIVERED", None),
        ("RETURNED", "IN_TRANSIT"),
        ("CANCELLED", "PICKED_UP"),
        ("PICKED_UP", "CANCELLED"),
    ],
)
async def test_other_transitions_are_rejected(courier, courier_api, reference, at, to):
    consignment = (await create(courier, reference)).value
    for status in ("FAILED", "RETURNED") if at == "RETURNED" else (at,):
        await advance(courier_api, consignment, status)
    answer = await advance(courier_api, consignment, to)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "move_not_possible")
    assert (await courier.get(consignment.id)).value.status == at


async def test_a_consignment_is_cancelled_before_it_is_picked_up_and_not_after(courier, courier_api, reference):
    consignment = (await create(courier, reference)).value
    cancelled = await courier.cancel(consignment.id)
    assert cancelled.value.status is Status.CANCELLED
    assert await courier.cancel(consignment.id) == cancelled, "once more is fine"
    gone = (await create(courier, f"{reference}-2")).value
    await advance(courier_api, gone)
    assert (await courier.cancel(gone.id)).code == "move_not_possible"


async def test_a_repeated_reference_has_one_consignment(courier, courier_api, reference):
    outcomes = await asyncio.gather(*(create(courier, reference) for _ in range(20)))
    assert len({outcome.value.id for outcome in outcomes}) == 1
    other = await courier.create(reference=reference, address=ADDRESS, weight_grams=1)
    assert other.code == "idempotency_key_reused"
    movements = (await courier_api.get("/v1/ledger")).json()["data"]
    assert [movement["status"] for movement in movements if movement["reference"] == reference] == ["LABELLED"]


async def test_an_address_outside_of_the_service_area_is_rejected(courier, reference):
    nowhere = CourierAddress(recipient="A", line1="B", line2="C", city="D", postal_code="00000", country="US")
    refusal = await create(courier, reference, nowhere)
    assert (refusal.code, refusal.param) == ("address_not_served", "address.postal_code")
    assert await courier.find_by_reference(reference) == Ok(None)


async def test_an_address_is_validated_and_not_stored(courier, courier_process, courier_api, receiver, reference):
    nobody = CourierAddress(recipient="", line1="B", city="C", postal_code="1000", country="SE")
    refusal = await create(courier, reference, nobody)
    assert (refusal.code, refusal.param) == ("invalid_field", "address.recipient")
    await create(courier, reference)
    (delivery,) = await receiver.until(reference, 1)
    assert b"Lovelace" not in delivery.body
    assert "Lovelace" not in courier_process.log.read_text()
    assert "Lovelace" not in (await courier_api.get("/v1/ledger")).text


@pytest.mark.parametrize("word", ["500", "500_then_done", "timeout_then_done"])
async def test_a_lost_reply_is_unknown_and_the_consignment_is_found(
    couriers, courier_faults, receiver, reference, word
):
    await courier_faults(next=[word])
    if word.startswith("timeout"):
        assert await create(couriers.impatient, reference) == Unknown("timeout")
    else:
        assert await create(couriers.patient, reference) == Unknown("http_500")
    if not word.endswith("then_done"):
        assert await couriers.patient.find_by_reference(reference) == Ok(None)
        return
    await receiver.until(reference, 1)
    found = await couriers.patient.find_by_reference(reference)
    assert found.value.status is Status.LABELLED
    assert await create(couriers.patient, reference) == found


async def test_a_courier_declines_and_delays_by_configuration(courier, courier_faults, reference):
    await courier_faults(decline_rate=1, delay_ms=50)
    assert (await create(courier, reference)).code == "consignment_refused"


async def test_consignments_advance_automatically_when_configured(courier, courier_faults, receiver, reference):
    consignment = (await create(courier, reference)).value
    await courier_faults(auto_advance_ms=40)
    await receiver.until(reference, len(ROAD))
    assert (await courier.get(consignment.id)).value.status is Status.DELIVERED


async def test_faults_can_be_set_in_the_environment(launch_telling, receiver, reference):
    process = launch_telling("courier", FAULTS='{"auto_advance_ms": 40}')
    courier = Courier(url=process.url, key=process.key)
    await create(courier, reference)
    await courier.aclose()
    await receiver.until(reference, len(ROAD))


async def test_words_of_the_payment_provider_are_unknown_to_the_courier(courier_api):
    answer = await courier_api.put("/v1/faults", json={"next": ["insufficient_funds"]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "next")
