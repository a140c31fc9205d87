"""Payments without I/O: what may be requested, what the provider's state changes, and what always holds."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.payment.v1.payment_errors import (
    CaptureExceedsAuthorization,
    CurrencyMismatch,
    PaymentIdTaken,
    PaymentStateConflict,
    RefundExceedsCapture,
)
from svc_payment.domain import EntryStatus, OperationKind, Payment, State
from svc_payment.domain_provider import (
    Operation,
    ProviderMismatch,
    ProviderPayment,
    Status,
    apply_provider_state,
    expire_authorization,
    fail_operation,
    is_known,
)
from svc_payment.domain_requests import (
    begin_attempt,
    check_currency,
    check_same,
    release_funds,
    request_capture,
    request_reauthorization,
    request_refund,
    request_void,
    start_payment,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
AMOUNT = 1200


def started(**changes):
    values = {"payment_id": "p-1", "order_id": "o-1", "user_id": "u-1", "currency": "USD", "token": "tok_ok"}
    return start_payment(**{**values, "amount": AMOUNT, **changes})


def provider_state(*operations, **changes):
    """The provider's state of the payment, with operations as (id, kind, amount, key)."""
    values = {
        "id": "pay_1",
        "reference": "p-1",
        "status": Status.AUTHORIZED,
        "currency": "USD",
        "amount": AMOUNT,
        "amount_captured": 0,
        "amount_refunded": 0,
        "failure_code": None,
        "version": len(operations),
    }
    done = tuple(Operation(id=name, kind=kind, amount=amount, key=key) for name, kind, amount, key in operations)
    return ProviderPayment(**{**values, "operations": done, **changes})


AUTHORIZED = ("op_1", "authorized", AMOUNT, "p-1")
CAPTURED = ("op_2", "captured", AMOUNT, "k-charge")
DECLINED = ("op_1", "failed", AMOUNT, "p-1")


def authorized():
    return apply_provider_state(started(), provider_state(AUTHORIZED))


def captured():
    return apply_provider_state(request_capture(authorized(), None, "k-charge"), provider_state(AUTHORIZED, CAPTURED))


def refunded(amount):
    requested = request_refund(captured(), amount, "", "k-refund")
    return apply_provider_state(
        requested, provider_state(AUTHORIZED, CAPTURED, ("op_3", "refunded", amount, "k-refund"))
    )


def voided():
    requested = release_funds(request_void(authorized(), NOW, ""), "k-cancel")
    return apply_provider_state(requested, provider_state(AUTHORIZED, ("op_3", "voided", AMOUNT, "k-cancel")))


def failed():
    return apply_provider_state(started(), provider_state(DECLINED, failure_code="card_declined"))


ACTION = ("op_a", "requires_action", AMOUNT, "p-1")
EXPIRED = ("op_e", "expired", AMOUNT, "k-clock")
DISPUTED = ("op_d", "disputed", AMOUNT, "dp_1")
CHARGED_BACK = ("op_b", "charged_back", AMOUNT, "dp_1")


def requires_action():
    return apply_provider_state(started(), provider_state(ACTION, status=Status.REQUIRES_ACTION))


def expired():
    return apply_provider_state(authorized(), provider_state(AUTHORIZED, EXPIRED, status=Status.EXPIRED))


def disputed():
    return apply_provider_state(captured(), provider_state(AUTHORIZED, CAPTURED, DISPUTED))


def charged_back():
    return apply_provider_state(disputed(), provider_state(AUTHORIZED, CAPTURED, DISPUTED, CHARGED_BACK))


IN_STATE = {
    State.PROCESSING: started,
    State.REQUIRES_ACTION: requires_action,
    State.EXPIRED: expired,
    State.DISPUTED: disputed,
    State.CHARGED_BACK: charged_back,
    State.AUTHORIZED: authorized,
    State.CAPTURED: captured,
    State.PARTIALLY_REFUNDED: lambda: refunded(500),
    State.REFUNDED: lambda: refunded(AMOUNT),
    State.VOIDED: voided,
    State.FAILED: failed,
}


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_reached_and_all_but_the_first_are_settled(state):
    payment = IN_STATE[state]()
    assert payment.state is state
    assert payment.settled == (state is not State.PROCESSING)
    assert payment.transitions == () or payment.transitions[-1].version == payment.version


CONFLICT = PaymentStateConflict
ACTIONS = {
    "charge": lambda payment: request_capture(payment, None, "k-new"),
    "refund": lambda payment: request_refund(payment, None, "", "k-new"),
    "reauthorize": lambda payment: request_reauthorization(payment, "k-new"),
    "void": lambda payment: release_funds(request_void(payment, NOW, "why"), "k-new"),
}


@pytest.mark.parametrize(
    ("state", "action", "outcome"),
    [
        (State.PROCESSING, "charge", CONFLICT),
        (State.AUTHORIZED, "charge", OperationKind.CHARGE),
        (State.CAPTURED, "charge", None),
        (State.PARTIALLY_REFUNDED, "charge", None),
        (State.REFUNDED, "charge", None),
        (State.VOIDED, "charge", CONFLICT),
        (State.FAILED, "charge", CONFLICT),
        (State.REQUIRES_ACTION, "charge", CONFLICT),
        (State.EXPIRED, "charge", CONFLICT),
        (State.DISPUTED, "charge", None),
        (State.CHARGED_BACK, "charge", None),
        (State.PROCESSING, "refund", CONFLICT),
        (State.AUTHORIZED, "refund", CONFLICT),
        (State.CAPTURED, "refund", OperationKind.REFUND),
        (State.PARTIALLY_REFUNDED, "refund", OperationKind.REFUND),
        (State.REFUNDED, "refund", RefundExceedsCapture),
        (State.VOIDED, "refund", CONFLICT),
        (State.FAILED, "refund", CONFLICT),
        (State.REQUIRES_ACTION, "refund", CONFLICT),
        (State.EXPIRED, "refund", CONFLICT),
        (State.DISPUTED, "refund", CONFLICT),
        (State.CHARGED_BACK, "refund", CONFLICT),
        (State.PROCESSING, "reauthorize", CONFLICT),
        (State.REQUIRES_ACTION, "reauthorize", CONFLICT),
        (State.AUTHORIZED, "reauthorize", None),
        (State.EXPIRED, "reauthorize", OperationKind.AUTHORIZATION),
        (State.VOIDED, "reauthorize", CONFLICT),
        (State.CHARGED_BACK, "reauthorize", CONFLICT),
        (State.REQUIRES_ACTION, "void", OperationKind.AUTHORIZATION),
        (State.EXPIRED, "void", None),
        (State.DISPUTED, "void", None),
        (State.CHARGED_BACK, "void", None),
        (State.PROCESSING, "void", OperationKind.AUTHORIZATION),
        (State.AUTHORIZED, "void", OperationKind.CANCEL),
        (State.CAPTURED, "void", OperationKind.REFUND),
        (State.PARTIALLY_REFUNDED, "void", OperationKind.REFUND),
        (State.REFUNDED, "void", None),
        (State.VOIDED, "void", None),
        (State.FAILED, "void", None),
    ],
)
def test_each_action_in_each_state_is_an_error_a_request_or_nothing(state, action, outcome):
    """The outcome is an error, the kind of the pending operation, or None where nothing is to be done."""
    payment = IN_STATE[state]()
    if isinstance(outcome, type):
        with pytest.raises(outcome):
            ACTIONS[action](payment)
        return
    requested = ACTIONS[action](payment)
    assert requested.state is state, "only the provider's state changes that of a payment"
    assert [entry.kind for entry in requested.pending] == ([outcome] if outcome else [])


def test_capture_after_a_requested_void_names_the_state_given_up():
    with pytest.raises(PaymentStateConflict) as error:
        request_capture(request_void(authorized(), NOW, ""), None, "k")
    assert error.value.metadata["state"] == "GIVEN_UP"


def test_a_capture_is_of_the_authorized_amount_or_less():
    with pytest.raises(CaptureExceedsAuthorization) as error:
        request_capture(authorized(), AMOUNT + 1, "k")
    assert error.value.metadata == {"authorized": "1200 minor units of USD"}
    payment = apply_provider_state(
        request_capture(authorized(), 1000, "k"), provider_state(AUTHORIZED, ("op_2", "captured", 1000, "k"))
    )
    assert (payment.state, payment.captured, payment.refundable) == (State.CAPTURED, 1000, 1000)


def test_a_repeated_capture_changes_nothing_and_conflicts_with_another_amount():
    requested = request_capture(authorized(), 1000, "k-1")
    for payment in (
        requested,
        apply_provider_state(requested, provider_state(AUTHORIZED, ("op_2", "captured", 1000, "k-1"))),
    ):
        assert request_capture(payment, None, "k-2") is payment
        assert request_capture(payment, 1000, "k-2") is payment
        with pytest.raises(PaymentStateConflict):
            request_capture(payment, 999, "k-2")


def test_pending_refunds_reduce_the_refundable_amount():
    payment = request_refund(captured(), 700, "", "k-1")
    with pytest.raises(RefundExceedsCapture) as error:
        request_refund(payment, 501, "", "k-2")
    assert error.value.metadata == {"refundable": "500 minor units of USD", "refunded": "0 minor units of USD"}
    both = request_refund(payment, 500, "", "k-2")
    assert both.refundable == 0
    with pytest.raises(RefundExceedsCapture):
        request_refund(both, None, "", "k-3")


def test_a_declined_refund_does_not_reduce_the_refundable_amount():
    payment = fail_operation(request_refund(captured(), 700, "", "k-1"), "k-1", "no")
    assert (payment.state, payment.refundable) == (State.CAPTURED, AMOUNT)


def test_an_existing_payment_with_other_contents_makes_its_id_taken():
    check_same(replace(started(), state=State.FAILED, version=9), started())
    for change in ({"amount": 1}, {"order_id": "o-2"}, {"user_id": "u-2"}, {"currency": "EUR"}, {"token": "tok_x"}):
        with pytest.raises(PaymentIdTaken):
            check_same(started(), started(**change))


def test_an_amount_in_another_currency_is_an_error():
    check_currency(started(), "USD")
    with pytest.raises(CurrencyMismatch):
        check_currency(started(), "EUR")


def test_a_declined_payment_has_the_providers_decline_code():
    assert (failed().decline_code, started().decline_code) == ("card_declined", "")


@pytest.mark.parametrize(
    "fetched",
    [
        provider_state(AUTHORIZED, amount=AMOUNT - 1),
        provider_state(AUTHORIZED, currency="EUR"),
        provider_state(AUTHORIZED, reference="p-2"),
        provider_state(("op_1", "authorized", AMOUNT - 1, "p-1")),
        provider_state(("op_1", "blessed", AMOUNT, "p-1")),
    ],
)
def test_a_state_that_does_not_match_the_payment_is_not_applied(fetched):
    assert not is_known(started(), fetched)
    with pytest.raises(ProviderMismatch):
        apply_provider_state(started(), fetched)


def test_a_recorded_operation_with_another_amount_or_payment_id_does_not_match():
    with pytest.raises(ProviderMismatch):
        apply_provider_state(authorized(), provider_state(("op_1", "authorized", AMOUNT - 1, "p-1")))
    with pytest.raises(ProviderMismatch):
        apply_provider_state(authorized(), provider_state(AUTHORIZED, id="pay_2"))


def test_a_capture_of_another_amount_than_requested_does_not_match():
    requested = request_capture(authorized(), None, "k-charge")
    with pytest.raises(ProviderMismatch):
        apply_provider_state(requested, provider_state(AUTHORIZED, ("op_2", "captured", AMOUNT - 1, "k-charge")))


def test_an_operation_by_the_providers_staff_is_recorded():
    payment = apply_provider_state(
        captured(), provider_state(AUTHORIZED, CAPTURED, ("op_9", "refunded", 200, "by-hand"))
    )
    assert (payment.state, payment.refunded, payment.settled) == (State.PARTIALLY_REFUNDED, 200, True)


def test_each_of_several_transitions_has_a_version_of_its_own():
    payment = apply_provider_state(started(), provider_state(AUTHORIZED, CAPTURED, ("op_3", "refunded", AMOUNT, "k")))
    assert [(one.version, one.state) for one in payment.transitions] == [
        (2, State.AUTHORIZED),
        (3, State.CAPTURED),
        (4, State.REFUNDED),
    ]


def test_a_void_requested_before_the_authorization_skips_authorized():
    payment = apply_provider_state(request_void(started(), NOW, "too late"), provider_state(AUTHORIZED))
    assert (payment.state, payment.funds_held, payment.settled) == (State.PROCESSING, AMOUNT, False)
    payment = release_funds(payment, "k-cancel")
    assert payment.pending[0].reason == "too late"
    payment = apply_provider_state(payment, provider_state(AUTHORIZED, ("op_2", "voided", AMOUNT, "k-cancel")))
    assert (payment.state, payment.funds_held, payment.settled) == (State.VOIDED, 0, True)
    assert [one.state for one in payment.transitions] == [State.VOIDED]


def test_a_capture_that_succeeds_after_a_requested_void_is_refunded():
    payment = request_void(request_capture(authorized(), None, "k-charge"), NOW, "")
    assert release_funds(payment, "k") is payment, "the earlier request ends first"
    payment = release_funds(apply_provider_state(payment, provider_state(AUTHORIZED, CAPTURED)), "k-refund")
    payment = apply_provider_state(
        payment, provider_state(AUTHORIZED, CAPTURED, ("op_3", "refunded", AMOUNT, "k-refund"))
    )
    assert (payment.state, payment.funds_held, payment.settled) == (State.REFUNDED, 0, True)


@pytest.mark.parametrize(
    "closed",
    [
        lambda: expire_authorization(request_void(started(), NOW, "")),
        lambda: fail_operation(started(), "p-1", "invalid_field"),
    ],
    ids=["expired", "failed"],
)
def test_a_late_authorization_of_a_closed_payment_is_released_without_a_transition(closed):
    before = closed()
    late = apply_provider_state(before, provider_state(AUTHORIZED))
    assert (late.state, late.version, late.funds_held, late.settled) == (before.state, before.version, AMOUNT, False)
    requested = release_funds(late, "k-cancel")
    ended = apply_provider_state(requested, provider_state(AUTHORIZED, ("op_2", "voided", AMOUNT, "k-cancel")))
    assert (ended.state, ended.version, ended.funds_held, ended.settled) == (before.state, before.version, 0, True)
    ends = [entry.operation_id for entry in ended.ledger_entries if entry.status is not EntryStatus.REQUEST]
    assert len(set(ends)) == len(ends), "an operation has one result"


def test_a_repeated_void_request_changes_nothing():
    once = request_void(started(), NOW, "first")
    assert request_void(once, NOW.replace(year=2031), "second") is once
    for closed in (voided(), failed(), refunded(AMOUNT)):
        assert request_void(closed, NOW.replace(year=2031), "second") is closed


def test_only_a_pending_operation_can_expire_or_fail():
    assert expire_authorization(authorized()) == authorized()
    assert fail_operation(authorized(), "p-1", "no") == authorized()
    assert expire_authorization(request_void(started(), NOW, "")).state is State.VOIDED


LIFE = (
    AUTHORIZED,
    CAPTURED,
    ("op_3", "refunded", 300, "by-hand-1"),
    ("op_4", "refunded", 400, "by-hand-2"),
    ("op_5", "refunded", 500, "by-hand-3"),
)
RANK = [State.PROCESSING, State.AUTHORIZED, State.CAPTURED, State.PARTIALLY_REFUNDED, State.REFUNDED]


@given(st.lists(st.integers(0, len(LIFE)), max_size=12), st.booleans())
def test_provider_states_in_any_order_and_number_never_return_to_an_earlier_state(order, wanted):
    payment = started() if wanted else request_void(started(), NOW, "")
    rank = 0
    for fetched in order:
        payment = apply_provider_state(payment, provider_state(*LIFE[:fetched]))
        assert RANK.index(payment.state) >= rank
        rank = RANK.index(payment.state)
        assert is_known(payment, provider_state(*LIFE[:fetched]))
    latest = max(order, default=0)
    whole = apply_provider_state(started(), provider_state(*LIFE[:latest])) if order else started()
    sums = (payment.authorized, payment.captured, payment.refunded)
    assert sums == (whole.authorized, whole.captured, whole.refunded)
    assert [one.version for one in payment.transitions] == list(range(2, payment.version + 1))


COMMANDS = st.sampled_from(["charge", "refund", "void", "release", "execute", "decline", "apply again"])


@given(st.lists(st.tuples(COMMANDS, st.integers(1, AMOUNT)), max_size=25))
def test_amounts_are_consistent_after_any_requests_and_results(commands):
    """A provider that executes or declines what is pending, interleaved with every request that a payment admits."""
    payment, done, names = started(), [], count(1)
    for command, amount in commands:
        try:
            payment = command_on(payment, command, amount, done, names)
        except (PaymentStateConflict, RefundExceedsCapture, CaptureExceedsAuthorization):
            continue
        assert 0 <= payment.refunded <= payment.captured <= payment.authorized <= AMOUNT
        assert payment.refundable >= 0
        assert len(
            {entry.operation_id for entry in payment.ledger_entries if entry.status is EntryStatus.REQUEST}
        ) == len([entry for entry in payment.ledger_entries if entry.status is EntryStatus.REQUEST])
    payment = request_void(payment, NOW, "")
    for _ in range(20):
        payment = release_funds(payment, f"k-{next(names)}")
        if payment.settled:
            break
        payment = command_on(payment, "execute", 0, done, names)
    assert payment.settled
    assert payment.funds_held == 0, "after a void it ends without funds"


def command_on(payment: Payment, command: str, amount: int, done: list, names) -> Payment:
    key = f"k-{next(names)}"
    commands = {
        "charge": lambda: request_capture(payment, amount, key),
        "refund": lambda: request_refund(payment, amount, "", key),
        "void": lambda: request_void(payment, NOW, ""),
        "release": lambda: release_funds(payment, key),
        "apply again": lambda: apply_provider_state(payment, provider_state(*done)) if done else payment,
        "decline": lambda: (
            fail_operation(payment, payment.pending[0].operation_id, "no") if payment.pending else payment
        ),
        "execute": lambda: execute(payment, done, key) if payment.pending else payment,
    }
    return commands[command]()


def execute(payment: Payment, done: list, key: str) -> Payment:
    """Execute the first pending operation at the provider, and apply its state."""
    requested = payment.pending[0]
    kinds = {"AUTHORIZATION": "authorized", "CHARGE": "captured", "REFUND": "refunded", "CANCEL": "voided"}
    done.append((f"op_{key}", kinds[requested.kind.name], requested.amount, requested.operation_id))
    return apply_provider_state(payment, provider_state(*done))


def test_an_attempt_claims_what_is_not_settled_and_nothing_else():
    first = begin_attempt(started(), "k-1", is_retry=True)
    assert (first.attempts, first.claims) == (1, 1)
    second = begin_attempt(first, "k-2", is_retry=True)
    assert (second.attempts, second.claims) == (2, 2)
    assert begin_attempt(authorized(), "k-3", is_retry=True) == authorized()


def test_an_attempt_at_a_voiding_payment_requests_the_release_of_its_funds():
    attempt = begin_attempt(request_void(authorized(), NOW, "cancelled"), "k-cancel", is_retry=True)
    assert [(entry.kind, entry.operation_id) for entry in attempt.pending] == [(OperationKind.CANCEL, "k-cancel")]


def test_a_requested_void_is_attempted_without_the_backoff_of_earlier_attempts():
    requested = request_void(replace(authorized(), attempts=9), NOW, "")
    assert begin_attempt(requested, "k-cancel", is_retry=False).attempts == 2
    assert begin_attempt(requested, "k-cancel", is_retry=True).attempts == 10


def test_an_expired_authorization_is_authorized_anew_and_expires_again():
    requested = request_reauthorization(expired(), "k-again")
    assert (requested.authorized, requested.state) == (0, State.EXPIRED)
    again = ("op_r", "reauthorized", AMOUNT, "k-again")
    payment = apply_provider_state(requested, provider_state(AUTHORIZED, EXPIRED, again))
    assert (payment.authorized, payment.state, payment.settled) == (AMOUNT, State.AUTHORIZED, True)
    lapsed = ("op_f", "expired", AMOUNT, "k-clock-2")
    payment = apply_provider_state(payment, provider_state(AUTHORIZED, EXPIRED, again, lapsed))
    assert (payment.authorized, payment.state) == (0, State.EXPIRED)


def test_a_reauthorization_that_is_declined_leaves_the_payment_expired():
    payment = fail_operation(request_reauthorization(expired(), "k-again"), "k-again", "card_declined")
    assert (payment.state, payment.settled, payment.decline_code) == (State.EXPIRED, True, "")


def test_a_customer_who_does_not_act_in_time_lets_the_payment_expire_without_an_authorization():
    missed = ("op_m", "action_expired", AMOUNT, "p-1")
    payment = apply_provider_state(requires_action(), provider_state(ACTION, missed, status=Status.EXPIRED))
    assert (payment.state, payment.authorized, payment.settled) == (State.EXPIRED, 0, True)
    with pytest.raises(PaymentStateConflict):
        request_reauthorization(payment, "k-again")


def test_a_dispute_that_is_won_returns_to_the_state_before_it():
    won = ("op_w", "dispute_won", AMOUNT, "dp_1")
    payment = apply_provider_state(disputed(), provider_state(AUTHORIZED, CAPTURED, DISPUTED, won))
    assert (payment.state, payment.funds_held) == (State.CAPTURED, AMOUNT)
    refund = ("op_3", "refunded", 500, "k-refund")
    part = ("op_d", "disputed", 700, "dp_1"), ("op_w", "dispute_won", 700, "dp_1")
    payment = apply_provider_state(refunded(500), provider_state(AUTHORIZED, CAPTURED, refund, *part))
    assert (payment.state, payment.funds_held) == (State.PARTIALLY_REFUNDED, 700)


def test_a_void_during_a_dispute_waits_for_its_end():
    voiding = request_void(disputed(), NOW, "")
    assert voiding.settled
    won = ("op_w", "dispute_won", AMOUNT, "dp_1")
    payment = apply_provider_state(voiding, provider_state(AUTHORIZED, CAPTURED, DISPUTED, won))
    assert not payment.settled
    lost = apply_provider_state(voiding, provider_state(AUTHORIZED, CAPTURED, DISPUTED, CHARGED_BACK))
    assert (lost.settled, lost.funds_held) == (True, 0)


def test_the_token_is_needed_only_until_the_provider_knows_the_payment():
    assert started().needs_token
    for state in set(State) - {State.PROCESSING}:
        assert not IN_STATE[state]().needs_token, state
