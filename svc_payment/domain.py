"""Payments and their ledgers. Pure: no I/O, no clock, no proto.

The amounts of a payment, in minor units, are sums over its ledger. A ledger entry requests an operation (REQUEST) under
an operation id, which is also the operation's idempotency key at the provider, or records its result.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from chassis.domain.transitions import Transitions


class State(Enum):
    """The states of a payment, as the contract describes them."""

    PROCESSING = "PROCESSING"
    REQUIRES_ACTION = "REQUIRES_ACTION"
    AUTHORIZED = "AUTHORIZED"
    CAPTURED = "CAPTURED"
    PARTIALLY_REFUNDED = "PARTIALLY_REFUNDED"
    REFUNDED = "REFUNDED"
    VOIDED = "VOIDED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    DISPUTED = "DISPUTED"
    CHARGED_BACK = "CHARGED_BACK"


TRANSITIONS = Transitions.between(
    {
        State.PROCESSING: (State.REQUIRES_ACTION, State.AUTHORIZED, State.CAPTURED, State.VOIDED, State.FAILED),
        State.REQUIRES_ACTION: (State.AUTHORIZED, State.CAPTURED, State.VOIDED, State.FAILED, State.EXPIRED),
        State.AUTHORIZED: (State.CAPTURED, State.VOIDED, State.EXPIRED),
        State.EXPIRED: (State.AUTHORIZED,),
        State.CAPTURED: (State.PARTIALLY_REFUNDED, State.REFUNDED, State.DISPUTED),
        State.PARTIALLY_REFUNDED: (State.PARTIALLY_REFUNDED, State.REFUNDED, State.DISPUTED),
        State.DISPUTED: (State.CAPTURED, State.PARTIALLY_REFUNDED, State.CHARGED_BACK),
    }
)


class OperationKind(Enum):
    """The kinds of operations at the provider."""

    AUTHORIZATION = "AUTHORIZATION"
    CHARGE = "CHARGE"
    REFUND = "REFUND"
    CANCEL = "CANCEL"
    #: Requested by the customer's bank, which is a dispute.
    CHARGEBACK = "CHARGEBACK"
    #: The end of an authorization that was not captured in time.
    EXPIRY = "EXPIRY"
    #: What the shop submits against a dispute.
    EVIDENCE = "EVIDENCE"
    #: The shop gives a dispute up.
    ACCEPTANCE = "ACCEPTANCE"


class EntryStatus(Enum):
    """What a ledger entry says of its operation."""

    REQUEST = "REQUEST"
    #: It waits for the customer: no result.
    ACTION_REQUIRED = "ACTION_REQUIRED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A payment method, as far as it may be shown."""

    kind: str = ""
    brand: str = ""
    last4: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a payment's append-only ledger."""

    operation_id: str
    kind: OperationKind
    status: EntryStatus
    amount: int
    #: The provider's id of the operation.
    reference: str | None = None
    reason: str = ""
    #: Set by the database, like the next.
    id: int = 0
    create_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """The payment of one order."""

    id: str
    order_id: str
    user_id: str
    amount: int
    currency: str
    #: What the provider calls the payment method; empty once the authorization needs it no more.
    token: str = field(repr=False)
    #: Identifies the payment method for good.
    fingerprint: str = field(repr=False)
    method: Method = Method()
    state: State = State.PROCESSING
    ledger_entries: tuple[Entry, ...]
    #: The provider's id of this payment, once it is known.
    provider_id: str | None = None
    #: Where the customer acts while REQUIRES_ACTION.
    action_url: str = field(default="", repr=False)
    #: When it expires unless the customer acts, or it is captured.
    expire_time: datetime | None = None
    #: When a dispute is lost unless the shop responds.
    dispute_due_time: datetime | None = None
    #: When a void was requested: from then on the payment's funds are released.
    void_request_time: datetime | None = None
    void_reason: str = ""
    #: The attempts at the pending work that were begun since the payment was last settled.
    attempts: int = 0
    #: Grows by one with every claim: an attempt owns the payment's schedule while the number is its own.
    claims: int = 0
    #: Grows by one with every event.
    version: int = 1
    create_time: datetime | None = None
    update_time: datetime | None = None
    #: Whether its next attempt was due when it was locked.
    is_due: bool = field(default=False, compare=False)
    #: The payment after each transition since it was read: each is to be published.
    transitions: "tuple[Payment, ...]" = field(default=(), compare=False, repr=False)

    @property
    def authorized(self) -> int:
        """Return the amount that the provider has authorized, without what has expired."""
        return self._sum(OperationKind.AUTHORIZATION) - self._sum(OperationKind.EXPIRY)

    @property
    def captured(self) -> int:
        """Return the captured amount."""
        return self._sum(OperationKind.CHARGE)

    @property
    def is_captured_at_once(self) -> bool:
        """Return whether the provider has captured the amount without our request, as it does with a paid slip."""
        charges = [entry.status for entry in self.ledger_entries if entry.kind is OperationKind.CHARGE]
        return EntryStatus.SUCCESS in charges and EntryStatus.REQUEST not in charges

    @property
    def refunded(self) -> int:
        """Return the refunded part of the captured amount."""
        return self._sum(OperationKind.REFUND)

    @property
    def refunds_requested(self) -> int:
        """Return the amount of the refunds without a result."""
        return sum(entry.amount for entry in self.pending if entry.kind is OperationKind.REFUND)

    @property
    def refundable(self) -> int:
        """Return the amount that can still be refunded if every pending refund succeeds."""
        return self.captured - self.refunded - self.refunds_requested

    @property
    def funds_held(self) -> int:
        """Return how much of the customer's money the provider holds for us."""
        if self.captured:
            return self.captured - self.refunded - self._sum(OperationKind.CHARGEBACK)
        return self.authorized - self._sum(OperationKind.CANCEL)

    @property
    def pending(self) -> tuple[Entry, ...]:
        """Return our requests without a result, oldest first."""
        requests = (entry for entry in self.ledger_entries if entry.status is EntryStatus.REQUEST)
        return tuple(
            request
            for request in requests
            if request.kind is not OperationKind.CHARGEBACK and self.result_of(request.operation_id) is None
        )

    @property
    def next_request(self) -> Entry | None:
        """Return the request to execute, None where none is left or the rest waits for the customer."""
        waiting = {entry.operation_id for entry in self.ledger_entries if entry.status is EntryStatus.ACTION_REQUIRED}
        return next((one for one in self.pending if self.is_voiding or one.operation_id not in waiting), None)

    @property
    def awaits_provider(self) -> bool:
        """Return whether the provider may change the payment by itself: then its state is fetched now and then."""
        if self.state is State.AUTHORIZED:
            return self.expire_time is not None
        return self.state in (State.REQUIRES_ACTION, State.DISPUTED)

    @property
    def needs_token(self) -> bool:
        """Return whether the authorization may have to be sent again."""
        return self.state is State.PROCESSING and self.provider_id is None

    @property
    def is_voiding(self) -> bool:
        """Return whether the payment must hold no funds in the end."""
        return self.void_request_time is not None or self.state in (State.FAILED, State.VOIDED)

    @property
    def settled(self) -> bool:
        """Return whether nothing is left to do at the provider, or nothing before a dispute or the customer ends."""
        funds_to_release = self.is_voiding and self.funds_held and self.state is not State.DISPUTED
        return self.next_request is None and not funds_to_release

    @property
    def decline_code(self) -> str:
        """Return why the provider declined the authorization, empty if it did not."""
        result = self.result_of(self.id)
        return result.reason if result and result.status is EntryStatus.FAILURE and self.state is State.FAILED else ""

    def result_of(self, operation_id: str) -> Entry | None:
        """Return the entry with the operation's result, None while it has none."""
        results = (one for one in self.ledger_entries if one.status in (EntryStatus.SUCCESS, EntryStatus.FAILURE))
        return next((entry for entry in results if entry.operation_id == operation_id), None)

    def with_entry(self, entry: Entry) -> "Payment":
        """Return the payment with one more ledger entry."""
        return replace(self, ledger_entries=(*self.ledger_entries, entry))

    def transition_to(self, state: State) -> "Payment":
        """Return the payment in `state`, unchanged where the transition is not legal: it never goes back."""
        if not TRANSITIONS.allows(self.state, state):
            return self
        after = replace(self, state=state, version=self.version + 1)
        return replace(after, transitions=(*self.transitions, after))

    def _sum(self, kind: OperationKind) -> int:
        succeeded = (entry for entry in self.ledger_entries if entry.status is EntryStatus.SUCCESS)
        return sum(entry.amount for entry in succeeded if entry.kind is kind)
