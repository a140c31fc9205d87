"""Reconciles payments with the provider: executes what is pending, and records the results.

The pending work of a payment is in its ledger. An attempt claims the payment, calls the provider with no transaction
open, and records what it found, so after a crash any process can continue. Every operation has an idempotency key, and
an attempt after the first fetches the provider's state before it sends anything, so attempts may even overlap.
"""

import logging
import random
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial

from chassis import Database, Transaction, current_time, outbox
from chassis.domain.backoff import backoff
from chassis.external.api import CallResult, Ok, Refused, Unknown
from svc_payment import converters, domain_provider, domain_requests, store
from svc_payment.attempts import Attempt, Finding, Unclear
from svc_payment.domain import Entry, OperationKind, Payment, State
from svc_payment.domain_provider import ProviderMismatch, ProviderPayment, Status
from svc_payment.provider import PaymentProvider

log = logging.getLogger(__name__)

_FIRST_PAUSE = timedelta(seconds=1)
#: Payments are settled at most this long after the provider has returned.
_LONGEST_PAUSE = timedelta(seconds=30)
#: A payment that waits for a customer or a bank is polled in pauses of this share of the time that it waits.
_POLLS = 10
_MISMATCH = "answer_mismatch"
_NOT_ARRIVED = "not_arrived"
#: The provider has something under our reference already: this does not decline the customer's card.
_NOT_ABOUT_THE_CARD = frozenset({"reference_already_used", "idempotency_key_reused"})


def new_operation_id() -> str:
    """Return a new id of an operation, which is also its idempotency key at the provider."""
    return uuid.uuid4().hex


class PaymentReconciler:
    """The jobs of the worker: payments whose next attempt is due."""

    def __init__(
        self,
        db: Database,
        provider: PaymentProvider,
        *,
        timeout: float,
        arrival: timedelta,
        poll: timedelta,
        limits: store.DeclineLimits,
    ) -> None:
        """`timeout` is that of a request in seconds; `arrival` is how long one may still reach the provider.

        `poll` is the shortest pause between two fetches of a payment that the provider may change by itself.
        """
        self.limits = limits
        self._db = db
        self._provider = provider
        self._arrival = arrival
        self._poll = poll
        #: Longer than one request, so that a process which is slow to renew loses its claim only rarely.
        self.lease = timedelta(seconds=timeout + 1)

    async def list_due(self, tx: Transaction, limit: int) -> Sequence[str]:
        """Return the ids of payments whose next attempt is due, the most overdue first.

        While the provider does not answer they stay due, all but one that probes it.
        """
        breaker = self._provider.breaker
        if not breaker.admits:
            return ()
        return await store.list_due(tx, limit if breaker.is_closed else 1)

    async def claim(self, tx: Transaction, job_id: str) -> Attempt | None:
        """Claim a payment for an attempt; return None when it is not due or another transaction has it."""
        payment = await store.lock_due_payment(tx, job_id)
        if payment is None:
            return None
        is_poll = payment.settled and payment.awaits_provider
        wanted = replace(payment, attempts=max(payment.attempts, 1)) if is_poll else payment
        attempt = await self.save_and_claim(tx, payment, wanted, is_retry=True)
        if attempt is None:
            await store.update_payment(tx, payment, payment, store.Schedule(None))
        return attempt

    async def claim_if_due(self, tx: Transaction, payment: Payment) -> Attempt | None:
        """Claim a locked payment whose next attempt is due: no number of calls makes attempts more frequent.

        While the provider does not answer it stays due, and so is among the first when it does.
        """
        if not payment.is_due or not self._provider.breaker.admits:
            return None
        return await self.save_and_claim(tx, payment, payment, is_retry=True)

    async def save_and_claim(
        self, tx: Transaction, before: Payment, after: Payment, *, is_retry: bool = False
    ) -> Attempt | None:
        """Write a locked payment, and claim it, due or not, if anything is left to do at the provider."""
        claimed = domain_requests.begin_attempt(after, new_operation_id(), is_retry=is_retry)
        if claimed is not before:
            await store.update_payment(tx, before, claimed, store.Schedule(self.lease if claimed.attempts else None))
        return Attempt.of(claimed) if claimed.attempts else None

    async def insert_and_claim(self, tx: Transaction, payment: Payment) -> Attempt | None:
        """Insert and claim a new payment; return None where `store.insert_payment` does not insert it."""
        claimed = domain_requests.begin_attempt(payment, new_operation_id(), is_retry=False)
        return Attempt.of(claimed) if await store.insert_payment(tx, claimed, self.lease, self.limits) else None

    async def renew(self, tx: Transaction, job: Attempt) -> None:
        """Extend the claim by another lease, unless it was lost."""
        await store.renew_claim(tx, job.payment, self.lease)

    async def execute(self, job: Attempt) -> Finding:
        """Execute the first pending operation at the provider, after a fetch where an earlier attempt was made."""
        payment = job.payment
        try:
            if payment.attempts > 1 or (payment.is_voiding and payment.provider_id is None):
                fetched = await self._fetch(payment)
                if fetched.apply(payment).next_request is None:
                    return fetched
                payment = await self._record(payment.id, fetched)
            return await self._execute(payment, payment.next_request) if payment.next_request else Finding()
        except (Unclear, ProviderMismatch) as unclear:
            return Finding(error=str(unclear) or _MISMATCH)

    async def settle(self, tx: Transaction, job: Attempt, result: Finding) -> Attempt | None:
        """Record what was found. Then claim what else is to be done, or schedule another attempt at what is unclear."""
        before = replace(job.payment, transitions=()) if tx.optimistic else await store.lock_payment(tx, job.id)
        try:
            after, error = result.apply(before), result.error
        except ProviderMismatch:
            after, error = before, _MISMATCH
        if before.claims != job.payment.claims:
            await self._save(tx, before, after)  # what the provider did counts; the schedule belongs to the new claim
            return None
        if error and not (after.settled and error == _MISMATCH):
            await self._save(tx, before, after, await self._retry(tx, after, error))
            return None
        if after.settled:
            await self._save(tx, before, replace(after, attempts=0), await self._next_poll(tx, after))
            return None
        claimed = domain_requests.begin_attempt(after, new_operation_id(), is_retry=False)
        await self._save(tx, before, claimed, store.Schedule(self.lease))
        return replace(job, payment=claimed)

    async def _fetch(self, payment: Payment) -> Finding:
        """Fetch the provider's state of a payment."""
        match await self._provider.find_by_reference(payment.id):
            case Ok(fetched):
                return await self._apply_provider_state(payment, fetched) if fetched else Finding()
            case Refused(code=cause) | Unknown(cause=cause):
                raise Unclear(cause)

    async def _execute(self, payment: Payment, request: Entry) -> Finding:
        """Send a pending operation to the provider."""
        if request.kind is OperationKind.AUTHORIZATION and payment.is_voiding:
            return await self._end_authorization(payment, request)
        match await self._call(payment, request):
            case Ok(fetched):
                finding = await self._apply_provider_state(payment, fetched)
                following = finding.apply(payment).next_request
                is_same = following is not None and following.operation_id == request.operation_id
                return replace(finding, error=_MISMATCH) if is_same else finding
            case Refused(code):
                return await self._decline(payment, request, code)
            case Unknown(cause):
                raise Unclear(cause)

    async def _call(  # noqa: PLR0911  a table
        self, payment: Payment, request: Entry
    ) -> CallResult[ProviderPayment]:
        if request.operation_id == payment.id:
            return await self._provider.authorize(
                reference=payment.id, token=payment.token, amount=payment.amount, currency=payment.currency
            )
        assert payment.provider_id is not None, "operations follow a successful authorization"
        key = request.operation_id
        match request.kind:
            case OperationKind.AUTHORIZATION:
                return await self._provider.reauthorize(payment.provider_id, key=key)
            case OperationKind.CHARGE:
                return await self._provider.capture(payment.provider_id, amount=request.amount, key=key)
            case OperationKind.REFUND:
                return await self._provider.refund(payment.provider_id, amount=request.amount, key=key)
            case OperationKind.CANCEL:
                return await self._provider.void(payment.provider_id, key=key)
            case OperationKind.EVIDENCE:
                return await self._provider.submit_evidence(payment.provider_id, text=request.reason, key=key)
            case OperationKind.ACCEPTANCE:
                return await self._provider.accept_dispute(payment.provider_id, key=key)
            case OperationKind.CHARGEBACK | OperationKind.EXPIRY:
                raise AssertionError("never requested by us")

    async def _decline(self, payment: Payment, request: Entry, code: str) -> Finding:
        """Record that the provider declined a request, after a fetch: the reason may be a change made there."""
        fetched = await self._fetch(payment)
        if code in _NOT_ABOUT_THE_CARD and fetched.apply(payment).result_of(request.operation_id) is None:
            return replace(fetched, error=code)
        fail = partial(domain_provider.fail_operation, operation_id=request.operation_id, code=code)
        finding = Finding((*fetched.changes, fail))
        declined = finding.apply(payment)
        # Funds that the provider did not release are not requested back again at once.
        return replace(finding, error=code) if declined.is_voiding and declined.funds_held else finding

    async def _end_authorization(self, payment: Payment, request: Entry) -> Finding:
        """End a pending authorization of a voiding payment: at the provider, if that waits for the customer."""
        if payment.provider_id is None or request.operation_id != payment.id:
            return await self._expire(payment)
        match await self._provider.void(payment.provider_id, key=f"{payment.id}-void"):
            case Ok(fetched):
                return await self._apply_provider_state(payment, fetched)
            case Refused(code):  # the customer may have acted at the same time
                finding = await self._fetch(payment)
                return finding if finding.apply(payment) != payment else replace(finding, error=code)
            case Unknown(cause):
                raise Unclear(cause)

    async def _expire(self, payment: Payment) -> Finding:
        """Void a payment that the provider does not know, once no request for it can be under way any more."""
        async with self._db.connection() as connection:
            now = await current_time(connection)
        if payment.void_request_time is None or now < payment.void_request_time + self._arrival:
            raise Unclear(_NOT_ARRIVED)
        return Finding((domain_provider.expire_authorization,))

    async def _apply_provider_state(self, payment: Payment, fetched: ProviderPayment) -> Finding:
        change = partial(domain_provider.apply_provider_state, fetched=fetched)
        try:
            change(payment)
        except ProviderMismatch:
            log.error("payment does not match", extra={"payment_id": payment.id, "provider_id": fetched.id})  # noqa: TRY400
            return await self._reject(payment, fetched)
        return Finding((change,))

    async def _reject(self, payment: Payment, fetched: ProviderPayment) -> Finding:
        """Void an authorization that is not the requested one; anything else needs an operator."""
        if payment.provider_id is not None or fetched.reference != payment.id:
            raise Unclear(_MISMATCH)
        if fetched.status in (Status.AUTHORIZED, Status.REQUIRES_ACTION):
            match await self._provider.void(fetched.id, key=f"{payment.id}-mismatch"):
                case Refused() | Unknown():
                    raise Unclear(_MISMATCH)
        elif fetched.status not in (Status.VOIDED, Status.FAILED, Status.EXPIRED):
            raise Unclear(_MISMATCH)
        return Finding((partial(domain_provider.fail_operation, operation_id=payment.id, code=_MISMATCH),))

    async def _record(self, payment_id: str, finding: Finding) -> Payment:
        """Record what was found before the attempt goes on, and return the payment as it is now."""
        if not finding.changes:
            async with self._db.connection() as connection:
                return await store.read_payment(connection, payment_id)
        async with self._db.transaction() as tx:
            before = await store.lock_payment(tx, payment_id)
            after = finding.apply(before)
            await self._save(tx, before, after)
        return after

    async def _save(
        self, tx: Transaction, before: Payment, after: Payment, schedule: store.Schedule | None = None
    ) -> None:
        await store.update_payment(tx, before, after, schedule)
        await outbox.add(tx, *map(converters.payment_event, after.transitions))

    async def _next_poll(self, tx: Transaction, payment: Payment) -> store.Schedule:
        """Return when the provider's state is fetched next: its webhook about a change of its own may be lost."""
        if not payment.awaits_provider:
            return store.Schedule(None)
        if payment.state is State.AUTHORIZED:
            return store.Schedule(self._poll, not_before=payment.expire_time)
        now = await current_time(tx)
        deadline = payment.dispute_due_time if payment.state is State.DISPUTED else payment.expire_time
        pause = (now - (payment.update_time or now)) / _POLLS
        return store.Schedule(max(self._poll, min(pause, deadline - now) if deadline else pause))

    async def _retry(self, tx: Transaction, payment: Payment, error: str) -> store.Schedule:
        """Return when an unclear payment is attempted again: once no request can arrive any more, if that is sooner."""
        pause = backoff(payment.attempts, _FIRST_PAUSE, _LONGEST_PAUSE, random.random())  # noqa: S311  spreads attempts
        if error == _NOT_ARRIVED and payment.void_request_time is not None:
            left = payment.void_request_time + self._arrival - await current_time(tx)
            pause = min(pause, max(left, timedelta()))
        extra = {"payment_id": payment.id, "error": error, "seconds": pause.total_seconds()}
        log.warning("payment not settled yet", extra=extra)
        return store.Schedule(pause, error=error)
