"""Attempts one at a time, without a worker: claims, leases, and results that arrive after their claim was lost."""

from dataclasses import replace
from datetime import timedelta

import pytest

from chassis import Database, outbox
from chassis.external.breaker import FAILURES, Breaker
from svc_payment import store
from svc_payment.attempts import Finding
from svc_payment.converters import payment_started_event
from svc_payment.domain import State
from svc_payment.domain_requests import start_payment
from svc_payment.provider import PaymentProvider
from svc_payment.reconciler import PaymentReconciler
from tests.integration.svc_payment.conftest import KEY

IS_DUE = "SELECT next_attempt_time <= now() FROM payment"
DUE_IN = "SELECT next_attempt_time - now() FROM payment"
MAKE_DUE = "UPDATE payment SET next_attempt_time = now()"


@pytest.fixture
async def db(database):
    async with Database.open(database, 5) as db:
        yield db


@pytest.fixture
async def api(provider_url):
    """The client of the provider."""
    api = PaymentProvider(url=provider_url, key=KEY, timeout=2.0)
    yield api
    await api.aclose()


@pytest.fixture
def reconciler(db, api):
    seconds = timedelta(seconds=30)
    limits = store.DeclineLimits(methods_per_user=5, payments_per_method=10, span=seconds)
    return PaymentReconciler(db, api, timeout=2.0, arrival=seconds, poll=seconds, limits=limits)


@pytest.fixture
def new_payment(payment_id):
    def new_payment(token="tok_ok"):
        return start_payment(
            payment_id=payment_id, order_id="order-1", user_id="user-1", amount=1200, currency="USD", token=token
        )

    return new_payment


async def insert(db, reconciler, payment):
    async with db.transaction() as tx:
        await outbox.add(tx, payment_started_event(payment))
        return await reconciler.insert_and_claim(tx, payment)


async def claim(db, reconciler, payment_id):
    async with db.transaction() as tx:
        return await reconciler.claim(tx, payment_id)


async def settle(db, reconciler, attempt, finding):
    async with db.transaction() as tx:
        return await reconciler.settle(tx, attempt, finding)


async def make_due(db, payment_id):
    async with db.transaction() as tx:
        await store.make_due(tx, payment_id)


async def test_a_change_reported_during_an_attempt_is_fetched_by_the_next(
    db, reconciler, books, payment_id, new_payment
):
    attempt = await insert(db, reconciler, new_payment())
    finding = await reconciler.execute(attempt)
    await books.provider.execute(payment_id, "void")
    await make_due(db, payment_id)  # as the webhook of the void does
    assert await settle(db, reconciler, attempt, finding) is None
    assert await books.state(payment_id) == "AUTHORIZED", "the provider's answer is recorded"
    assert await db.pool.fetchval(IS_DUE)
    following = await claim(db, reconciler, payment_id)
    assert await settle(db, reconciler, following, await reconciler.execute(following)) is None
    await books.until_settled(payment_id, "VOIDED")
    await books.check(payment_id)


async def test_an_unclear_result_under_a_lost_claim_does_not_postpone_the_attempt_of_the_new_one(
    db, reconciler, books, payment_id, new_payment
):
    lost = await insert(db, reconciler, new_payment("tok_500"))
    finding = await reconciler.execute(lost)
    assert finding.error == "http_500"
    await make_due(db, payment_id)
    assert await settle(db, reconciler, lost, finding) is None
    assert await db.pool.fetchval(IS_DUE)
    assert await claim(db, reconciler, payment_id)


async def test_a_payment_is_claimed_only_when_due_and_not_locked(db, reconciler, payment_id, new_payment):
    await insert(db, reconciler, new_payment())
    assert await claim(db, reconciler, payment_id) is None, "its first attempt has a lease"
    await db.pool.execute(MAKE_DUE)
    async with db.transaction() as tx:
        await store.lock_payment(tx, payment_id)
        assert await claim(db, reconciler, payment_id) is None
        assert await reconciler.list_due(tx, 10) == [payment_id]
        async with db.connection() as other:
            assert await reconciler.list_due(other, 10) == []
    attempt = await claim(db, reconciler, payment_id)
    assert (attempt.payment.attempts, attempt.payment.claims) == (2, 2)


async def test_a_claim_is_renewed_until_it_is_lost(db, reconciler, payment_id, new_payment):
    attempt = await insert(db, reconciler, new_payment())
    await db.pool.execute(MAKE_DUE)
    await reconciler.renew(db.pool, attempt)
    assert await db.pool.fetchval(DUE_IN) > reconciler.lease / 2
    await make_due(db, payment_id)
    await reconciler.renew(db.pool, attempt)
    assert await db.pool.fetchval(IS_DUE)


async def test_a_due_payment_without_pending_work_is_not_claimed_and_no_longer_due(
    db, reconciler, books, payment_id, new_payment
):
    attempt = await insert(db, reconciler, new_payment())
    assert await settle(db, reconciler, attempt, await reconciler.execute(attempt)) is None
    await db.pool.execute("UPDATE payment SET next_attempt_time = now(), expire_time = NULL")
    assert await claim(db, reconciler, payment_id) is None
    await books.until_settled(payment_id, State.AUTHORIZED.name)


async def test_due_payments_wait_while_the_provider_does_not_answer_but_for_one_that_probes_it(
    db, api, reconciler, payment_id, new_payment
):
    now = 0.0
    api._api.breaker = breaker = Breaker("provider", clock=lambda: now)
    for number in range(3):
        name = {"id": f"{payment_id}-{number}", "order_id": f"order-{number}"}
        await insert(db, reconciler, replace(new_payment(), **name))
    await db.pool.execute(MAKE_DUE)
    assert len(await reconciler.list_due(db.pool, 10)) == 3
    for _ in range(FAILURES):
        breaker.failed()
    assert len(await reconciler.list_due(db.pool, 10)) == 0
    now += 60
    assert len(await reconciler.list_due(db.pool, 10)) == 1
    breaker.succeeded()
    assert len(await reconciler.list_due(db.pool, 10)) == 3


async def test_the_pause_before_the_next_attempt_is_at_most_half_a_minute(db, reconciler, payment_id, new_payment):
    await insert(db, reconciler, new_payment())
    await db.pool.execute("UPDATE payment SET next_attempt_time = now(), attempts = 40")
    attempt = await claim(db, reconciler, payment_id)
    await settle(db, reconciler, attempt, Finding(error="http_500"))
    assert timedelta(seconds=10) < await db.pool.fetchval(DUE_IN) <= timedelta(seconds=30)


async def test_a_void_is_attempted_again_once_the_authorization_can_no_longer_arrive(
    db, reconciler, books, payment_id, new_payment
):
    await insert(db, reconciler, new_payment("tok_500"))
    void = "UPDATE payment SET next_attempt_time = now(), attempts = 40, void_request_time = now() - interval '25 s'"
    await db.pool.execute(void)
    attempt = await claim(db, reconciler, payment_id)
    assert await settle(db, reconciler, attempt, await reconciler.execute(attempt)) is None
    assert timedelta() < await db.pool.fetchval(DUE_IN) <= timedelta(seconds=5), "of 30 seconds, 5 are left"
    await db.pool.execute("UPDATE payment SET next_attempt_time = now(), void_request_time = now() - interval '30 s'")
    attempt = await claim(db, reconciler, payment_id)
    assert await settle(db, reconciler, attempt, await reconciler.execute(attempt)) is None
    await books.until_settled(payment_id, "VOIDED")
