"""Brings payments to where they are meant to be: asks the provider, and records what came of it.

What a payment still needs at the provider is a request in its record. An attempt takes it up in one transaction, asks
while none is open, and records the answer in another: a process may die anywhere, and any other goes on from there.
"""

import asyncio
import logging
import random
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from chassis import Database, outbox
from chassis.external.api import CallResult, Ok, Refused, Unknown
from chassis.postgres.database import UNAVAILABLE_ERRORS
from svc_payment import domain, domain_provider, messages, store
from svc_payment.domain import Entry, Kind, Payment
from svc_payment.domain_provider import Disagreement, ProviderPayment, Status
from svc_payment.provider import PaymentProvider

log = logging.getLogger(__name__)

_AT_ONCE = 8
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0
_MISMATCH = "answer_mismatch"
#: The provider has something under our reference already: no word against the customer's card.
_NOT_ABOUT_THE_CARD = frozenset({"reference_already_used", "idempotency_key_reused"})


class _Unclear(Exception):
    """The provider did not say what became of something; the text is its cause in one word."""


def new_operation_id() -> str:
    """Return a name for an operation, also its key at the provider."""
    return uuid.uuid4().hex


class Settlement:
    """Settles payments: on behalf of a call at once, and in the background for as long as it takes."""

    def __init__(self, db: Database, provider: PaymentProvider, *, timeout: float, arrival: timedelta) -> None:
        """`timeout` is the seconds of one request; `arrival` is how long one may yet turn up at the provider."""
        self._db = db
        self._provider = provider
        self._arrival = arrival
        self._woken = asyncio.Event()
        #: How long an attempt may take before others think that its process has died: it asks at most twice.
        self.lease = timedelta(seconds=2 * timeout + 1)

    async def settle(self, payment_id: str, taken: Payment | None = None) -> None:
        """Do all that is left to do for a payment, until the provider is not clear; then it is put off.

        `taken` is the payment when the transaction that changed it has taken it up already.
        """
        payment = taken or await self._take_up(payment_id)
        while payment.attempts:
            try:
                if payment.attempts > 1 or (payment.unwanted and payment.provider_id is None):
                    payment = await self._look(payment)
                if payment.pending:
                    payment = await self._send(payment, payment.pending[0])
            except _Unclear as unclear:
                await self._postpone(payment, str(unclear))
                return
            if payment.attempts:
                payment = await self._take_up(payment_id)

    async def keep_settling(self, pause: float) -> None:
        """Settle payments that are due, looking every `pause` seconds and when woken, until cancelled."""
        while True:
            self._woken.clear()
            try:
                taken = await self._settle_due()
            except UNAVAILABLE_ERRORS as error:
                log.warning("payments wait for the database", extra={"error": type(error).__name__})
                taken = 0
            if taken < _AT_ONCE:
                await self._rest(pause)

    def wake(self) -> None:
        """Have the background look for payments that are due."""
        self._woken.set()

    async def _settle_due(self) -> int:
        """Settle some payments that are due, side by side; return how many."""
        async with self._db.transaction() as tx:
            due = await store.claim_due(tx, _AT_ONCE, self.lease)
        results = await asyncio.gather(*map(self.settle, due), return_exceptions=True)
        for payment_id, result in zip(due, results, strict=True):
            if isinstance(result, Exception):
                log.error("not settled", exc_info=result, extra={"payment_id": payment_id})
        return len(due)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _take_up(self, payment_id: str) -> Payment:
        """Begin an attempt at what the payment needs, if it needs anything."""
        async with self._db.transaction() as tx:
            before = await store.lock_payment(tx, payment_id)
            payment = domain.take_up(before, new_operation_id())
            if payment.attempts:
                await store.update_payment(tx, before, payment, self.lease)
        return payment

    async def _look(self, payment: Payment) -> Payment:
        """Learn what the provider has."""
        match await self._provider.find_by_reference(payment.id):
            case Ok(seen):
                return await (self._learn(payment, seen) if seen else self._record(payment.id, lambda same: same))
            case Refused(code=trouble) | Unknown(cause=trouble):
                raise _Unclear(trouble)

    async def _send(self, payment: Payment, request: Entry) -> Payment:
        """Ask the provider for what the payment needs first."""
        if request.kind is Kind.AUTHORIZATION and payment.unwanted:
            return await self._lose(payment)
        match await self._call(payment, request):
            case Ok(seen):
                payment = await self._learn(payment, seen)
                if payment.end(request.operation_id) is None:
                    raise _Unclear(_MISMATCH)
                return payment
            case Refused(code):
                return await self._refuse(payment, request, code)
            case Unknown(cause):
                raise _Unclear(cause)

    async def _call(self, payment: Payment, request: Entry) -> CallResult[ProviderPayment]:
        if request.kind is Kind.AUTHORIZATION:
            return await self._provider.authorize(
                reference=payment.id, token=payment.token, amount=payment.amount, currency=payment.currency
            )
        assert payment.provider_id is not None, "only what was authorized is asked to change"
        key = request.operation_id
        match request.kind:
            case Kind.CHARGE:
                return await self._provider.capture(payment.provider_id, amount=request.amount, key=key)
            case Kind.REFUND:
                return await self._provider.refund(payment.provider_id, amount=request.amount, key=key)
            case Kind.CANCEL:
                return await self._provider.void(payment.provider_id, key=key)

    async def _refuse(self, payment: Payment, request: Entry, code: str) -> Payment:
        """Record a refusal, after a look whether the payment has become another one meanwhile."""
        payment = await self._look(payment)
        if code in _NOT_ABOUT_THE_CARD and payment.end(request.operation_id) is None:
            raise _Unclear(code)
        payment = await self._record(
            payment.id, lambda payment: domain_provider.refuse(payment, request.operation_id, code)
        )
        if payment.unwanted and payment.held:
            raise _Unclear(code)  # it is not let go of yet, and not at once again
        return payment

    async def _lose(self, payment: Payment) -> Payment:
        """Close a payment that was given up and not found, once no request for it can be under way any more."""
        async with self._db.connection() as connection:
            now = await store.read_now(connection)
        if payment.give_up_time is None or now < payment.give_up_time + self._arrival:
            raise _Unclear("not_found")
        return await self._record(payment.id, domain_provider.lose)

    async def _learn(self, payment: Payment, seen: ProviderPayment) -> Payment:
        try:
            return await self._record(payment.id, lambda payment: domain_provider.learn(payment, seen))
        except Disagreement:
            log.error("the provider disagrees", extra={"payment_id": payment.id, "provider_id": seen.id})  # noqa: TRY400
        return await self._reject(payment, seen)

    async def _reject(self, payment: Payment, seen: ProviderPayment) -> Payment:
        """Let go of an authorization that is not the one we asked for; anything else is for people to look at."""
        if payment.provider_id is not None or seen.reference != payment.id:
            raise _Unclear(_MISMATCH)
        if seen.status is Status.AUTHORIZED:
            match await self._provider.void(seen.id, key=f"{payment.id}-mismatch"):
                case Refused() | Unknown():
                    raise _Unclear(_MISMATCH)
        elif seen.status not in (Status.VOIDED, Status.FAILED):
            raise _Unclear(_MISMATCH)
        return await self._record(payment.id, lambda payment: domain_provider.refuse(payment, payment.id, _MISMATCH))

    async def _record(self, payment_id: str, change: Callable[[Payment], Payment]) -> Payment:
        """Lock, decide, save, tell."""
        async with self._db.transaction() as tx:
            before = await store.lock_payment(tx, payment_id)
            after = change(before)
            if after.settled:
                after = replace(after, attempts=0)
            await store.update_payment(tx, before, after, self.lease)
            if after.moves:
                await outbox.add(tx, *map(messages.payment_moved, after.moves))
        return after

    async def _postpone(self, payment: Payment, trouble: str) -> None:
        pause = min(_FIRST_PAUSE * 2.0 ** min(payment.attempts - 1, 20), _LONGEST_PAUSE)
        log.warning("not settled yet", extra={"payment_id": payment.id, "trouble": trouble, "seconds": pause})
        async with self._db.transaction() as tx:
            jittered = timedelta(seconds=pause * random.uniform(0.5, 1.0))  # noqa: S311  spreads attempts, guards nothing
            await store.postpone(tx, payment.id, jittered, trouble)
