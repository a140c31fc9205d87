"""Payments without a provider: what may be asked, what its word changes, and what always holds."""

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
from svc_payment.domain import (
    EntryStatus,
    Kind,
    Payment,
    State,
    begin,
    charge,
    check_currency,
    check_same,
    give_up,
    let_go,
    refund,
)
from svc_payment.domain_provider import (
    Disagreement,
    Operation,
    ProviderPayment,
    Status,
    knows,
    learn,
    lose,
    refuse,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
AMOUNT = 1200


def begun(**changes):
    values = {"payment_id": "p-1", "order_id": "o-1", "user_id": "u-1", "currency": "USD", "token": "tok_ok"}
    return begin(**{**values, "amount": AMOUNT, **changes})


def told(*operations, **changes):
    """What the provider tells: operations as (id, kind, amount, key)."""
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
    return learn(begun(), told(AUTHORIZED))


def captured():
    return learn(charge(authorized(), None, "k-charge"), told(AUTHORIZED, CAPTURED))


def refunded(amount):
    asked = refund(captured(), amount, "", "k-refund")
    return learn(asked, told(AUTHORIZED, CAPTURED, ("op_3", "refunded", amount, "k-refund")))


def voided():
    asked = let_go(give_up(authorized(), NOW, ""), "k-cancel")
    return learn(asked, told(AUTHORIZED, ("op_3", "voided", AMOUNT, "k-cancel")))


def failed():
    return learn(begun(), told(DECLINED, failure_code="card_declined"))


IN_STATE = {
    State.PROCESSING: begun,
    State.AUTHORIZED: authorized,
    State.CAPTURED: captured,
    State.PARTIALLY_REFUNDED: lambda: refunded(500),
    State.REFUNDED: lambda: refunded(AMOUNT),
    State.VOIDED: voided,
    State.FAILED: failed,
}


@pytest.mark.parametrize("state", State)
def test_every_state_is_reached_and_settled_but_the_first(state):
    payment = IN_STATE[state]()
    assert payment.state is state
    assert payment.settled == (state is not State.PROCESSING)
    assert payment.moves == () or payment.moves[-1].version == payment.version


CONFLICT = PaymentStateConflict
ACTIONS = {
    "charge": lambda payment: charge(payment, None, "k-new"),
    "refund": lambda payment: refund(payment, None, "", "k-new"),
    "give up": lambda payment: let_go(give_up(payment, NOW, "why"), "k-new"),
}


@pytest.mark.parametrize(
    ("state", "action", "outcome"),
    [
        (State.PROCESSING, "charge", CONFLICT),
        (State.AUTHORIZED, "charge", Kind.CHARGE),
        (State.CAPTURED, "charge", None),
        (State.PARTIALLY_REFUNDED, "charge", None),
        (State.REFUNDED, "charge", None),
        (State.VOIDED, "charge", CONFLICT),
        (State.FAILED, "charge", CONFLICT),
        (State.PROCESSING, "refund", CONFLICT),
        (State.AUTHORIZED, "refund", CONFLICT),
        (State.CAPTURED, "refund", Kind.REFUND),
        (State.PARTIALLY_REFUNDED, "refund", Kind.REFUND),
        (State.REFUNDED, "refund", RefundExceedsCapture),
        (State.VOIDED, "refund", CONFLICT),
        (State.FAILED, "refund", CONFLICT),
        (State.PROCESSING, "give up", Kind.AUTHORIZATION),
        (State.AUTHORIZED, "give up", Kind.CANCEL),
        (State.CAPTURED, "give up", Kind.REFUND),
        (State.PARTIALLY_REFUNDED, "give up", Kind.REFUND),
        (State.REFUNDED, "give up", None),
        (State.VOIDED, "give up", None),
        (State.FAILED, "give up", None),
    ],
)
def test_what_may_be_asked_in_which_state(state, action, outcome):
    """The outcome is a refusal, the kind of what is pending then, or None where nothing has to be done."""
    payment = IN_STATE[state]()
    if isinstance(outcome, type):
        with pytest.raises(outcome):
            ACTIONS[action](payment)
        return
    asked = ACTIONS[action](payment)
    assert asked.state is state, "only the provider's word moves a payment"
    assert [entry.kind for entry in asked.pending] == ([outcome] if outcome else [])


def test_the_refusal_of_what_was_given_up_says_so():
    with pytest.raises(PaymentStateConflict) as refusal:
        charge(give_up(authorized(), NOW, ""), None, "k")
    assert refusal.value.metadata["state"] == "GIVEN_UP"


def test_a_part_can_be_charged_and_no_more_than_was_promised():
    with pytest.raises(CaptureExceedsAuthorization) as refusal:
        charge(authorized(), AMOUNT + 1, "k")
    assert refusal.value.metadata == {"authorized": "1200 minor units of USD"}
    payment = learn(charge(authorized(), 1000, "k"), told(AUTHORIZED, ("op_2", "captured", 1000, "k")))
    assert (payment.state, payment.captured, payment.refundable) == (State.CAPTURED, 1000, 1000)


def test_a_charge_that_is_under_way_or_done_is_not_asked_for_again_and_not_of_another_amount():
    under_way = charge(authorized(), 1000, "k-1")
    for payment in (under_way, learn(under_way, told(AUTHORIZED, ("op_2", "captured", 1000, "k-1")))):
        assert charge(payment, None, "k-2") is payment
        assert charge(payment, 1000, "k-2") is payment
        with pytest.raises(PaymentStateConflict):
            charge(payment, 999, "k-2")


def test_refunds_that_are_pending_count_against_what_is_left():
    payment = refund(captured(), 700, "", "k-1")
    with pytest.raises(RefundExceedsCapture) as refusal:
        refund(payment, 501, "", "k-2")
    assert refusal.value.metadata == {"refundable": "500 minor units of USD", "refunded": "0 minor units of USD"}
    both = refund(payment, 500, "", "k-2")
    assert both.refundable == 0
    with pytest.raises(RefundExceedsCapture):
        refund(both, None, "", "k-3")


def test_a_refund_that_was_refused_counts_no_more():
    payment = refuse(refund(captured(), 700, "", "k-1"), "k-1", "no")
    assert (payment.state, payment.refundable) == (State.CAPTURED, AMOUNT)


def test_a_payment_that_exists_is_the_same_only_with_the_same_contents():
    check_same(replace(begun(), state=State.FAILED, version=9), begun())
    for change in ({"amount": 1}, {"order_id": "o-2"}, {"user_id": "u-2"}, {"currency": "EUR"}, {"token": "tok_x"}):
        with pytest.raises(PaymentIdTaken):
            check_same(begun(), begun(**change))


def test_an_amount_is_in_the_currency_of_the_payment():
    check_currency(begun(), "USD")
    with pytest.raises(CurrencyMismatch):
        check_currency(begun(), "EUR")


def test_a_decline_keeps_the_providers_word():
    assert (failed().decline_code, begun().decline_code) == ("card_declined", "")


@pytest.mark.parametrize(
    "seen",
    [
        told(AUTHORIZED, amount=AMOUNT - 1),
        told(AUTHORIZED, currency="EUR"),
        told(AUTHORIZED, reference="p-2"),
        told(("op_1", "authorized", AMOUNT - 1, "p-1")),
        told(("op_1", "blessed", AMOUNT, "p-1")),
    ],
)
def test_what_is_not_what_was_asked_for_is_not_believed(seen):
    assert not knows(begun(), seen)
    with pytest.raises(Disagreement):
        learn(begun(), seen)


def test_one_operation_cannot_come_with_two_amounts_nor_one_payment_under_two_ids():
    with pytest.raises(Disagreement):
        learn(authorized(), told(("op_1", "authorized", AMOUNT - 1, "p-1")))
    with pytest.raises(Disagreement):
        learn(authorized(), told(AUTHORIZED, id="pay_2"))


def test_a_charge_of_another_amount_than_was_asked_is_not_believed():
    asked = charge(authorized(), None, "k-charge")
    with pytest.raises(Disagreement):
        learn(asked, told(AUTHORIZED, ("op_2", "captured", AMOUNT - 1, "k-charge")))


def test_what_the_providers_own_staff_did_is_learned_too():
    payment = learn(captured(), told(AUTHORIZED, CAPTURED, ("op_9", "refunded", 200, "by-hand")))
    assert (payment.state, payment.refunded, payment.settled) == (State.PARTIALLY_REFUNDED, 200, True)


def test_every_move_on_the_way_is_told_with_a_version_of_its_own():
    payment = learn(begun(), told(AUTHORIZED, CAPTURED, ("op_3", "refunded", AMOUNT, "k")))
    assert [(move.version, move.state) for move in payment.moves] == [
        (2, State.AUTHORIZED),
        (3, State.CAPTURED),
        (4, State.REFUNDED),
    ]


def test_a_payment_given_up_before_its_answer_is_never_authorized_but_voided():
    payment = learn(give_up(begun(), NOW, "too late"), told(AUTHORIZED))
    assert (payment.state, payment.held, payment.settled) == (State.PROCESSING, AMOUNT, False)
    payment = let_go(payment, "k-cancel")
    assert payment.pending[0].reason == "too late"
    payment = learn(payment, told(AUTHORIZED, ("op_2", "voided", AMOUNT, "k-cancel")))
    assert (payment.state, payment.held, payment.settled) == (State.VOIDED, 0, True)
    assert [move.state for move in payment.moves] == [State.VOIDED]


def test_a_charge_that_turns_up_after_the_payment_was_given_up_is_given_back():
    payment = give_up(charge(authorized(), None, "k-charge"), NOW, "")
    assert let_go(payment, "k") is payment, "what was asked before ends first"
    payment = let_go(learn(payment, told(AUTHORIZED, CAPTURED)), "k-refund")
    payment = learn(payment, told(AUTHORIZED, CAPTURED, ("op_3", "refunded", AMOUNT, "k-refund")))
    assert (payment.state, payment.held, payment.settled) == (State.REFUNDED, 0, True)


@pytest.mark.parametrize(
    "closed",
    [lambda: lose(give_up(begun(), NOW, "")), lambda: refuse(begun(), "p-1", "invalid_field")],
    ids=["lost", "refused"],
)
def test_a_late_success_of_a_closed_payment_is_let_go_and_moves_nothing(closed):
    before = closed()
    late = learn(before, told(AUTHORIZED))
    assert (late.state, late.version, late.held, late.settled) == (before.state, before.version, AMOUNT, False)
    asked = let_go(late, "k-cancel")
    ended = learn(asked, told(AUTHORIZED, ("op_2", "voided", AMOUNT, "k-cancel")))
    assert (ended.state, ended.version, ended.held, ended.settled) == (before.state, before.version, 0, True)
    ends = [entry.operation_id for entry in ended.entries if entry.outcome is not EntryStatus.REQUEST]
    assert len(set(ends)) == len(ends), "an operation ends once"


def test_what_is_given_up_again_was_given_up_the_first_time():
    once = give_up(begun(), NOW, "first")
    assert give_up(once, NOW.replace(year=2031), "second") is once
    for closed in (voided(), failed(), refunded(AMOUNT)):
        assert give_up(closed, NOW.replace(year=2031), "second") is closed


def test_only_what_is_pending_can_be_lost_or_refused():
    assert lose(authorized()) == authorized()
    assert refuse(authorized(), "p-1", "no") == authorized()
    assert lose(give_up(begun(), NOW, "")).state is State.VOIDED


LIFE = (
    AUTHORIZED,
    CAPTURED,
    ("op_3", "refunded", 300, "by-hand-1"),
    ("op_4", "refunded", 400, "by-hand-2"),
    ("op_5", "refunded", 500, "by-hand-3"),
)
RANK = [State.PROCESSING, State.AUTHORIZED, State.CAPTURED, State.PARTIALLY_REFUNDED, State.REFUNDED]


@given(st.lists(st.integers(0, len(LIFE)), max_size=12), st.booleans())
def test_the_providers_word_in_any_order_and_number_never_moves_a_payment_back(order, wanted):
    payment = begun() if wanted else give_up(begun(), NOW, "")
    rank = 0
    for seen in order:
        payment = learn(payment, told(*LIFE[:seen]))
        assert RANK.index(payment.state) >= rank
        rank = RANK.index(payment.state)
        assert knows(payment, told(*LIFE[:seen]))
    latest = max(order, default=0)
    whole = learn(begun(), told(*LIFE[:latest])) if order else begun()
    sums = (payment.authorized, payment.captured, payment.refunded)
    assert sums == (whole.authorized, whole.captured, whole.refunded)
    assert [move.version for move in payment.moves] == list(range(2, payment.version + 1))


COMMANDS = st.sampled_from(["charge", "refund", "give up", "let go", "do", "refuse", "tell again"])


@given(st.lists(st.tuples(COMMANDS, st.integers(1, AMOUNT)), max_size=25))
def test_whatever_is_asked_and_however_it_ends_the_money_adds_up(commands):
    """A provider that does what it is asked for, or refuses, in step with everything that can be asked of a payment."""
    payment, done, names = begun(), [], count(1)
    for command, amount in commands:
        try:
            payment = command_on(payment, command, amount, done, names)
        except (PaymentStateConflict, RefundExceedsCapture, CaptureExceedsAuthorization):
            continue
        assert 0 <= payment.refunded <= payment.captured <= payment.authorized <= AMOUNT
        assert payment.refundable >= 0
        assert len({entry.operation_id for entry in payment.entries if entry.outcome is EntryStatus.REQUEST}) == len(
            [entry for entry in payment.entries if entry.outcome is EntryStatus.REQUEST]
        )
    payment = give_up(payment, NOW, "")
    for _ in range(20):
        payment = let_go(payment, f"k-{next(names)}")
        if payment.settled:
            break
        payment = command_on(payment, "do", 0, done, names)
    assert payment.settled
    assert payment.held == 0, "given up, it ends without money"


def command_on(payment: Payment, command: str, amount: int, done: list, names) -> Payment:
    key = f"k-{next(names)}"
    commands = {
        "charge": lambda: charge(payment, amount, key),
        "refund": lambda: refund(payment, amount, "", key),
        "give up": lambda: give_up(payment, NOW, ""),
        "let go": lambda: let_go(payment, key),
        "tell again": lambda: learn(payment, told(*done)) if done else payment,
        "refuse": lambda: refuse(payment, payment.pending[0].operation_id, "no") if payment.pending else payment,
        "do": lambda: do(payment, done, key) if payment.pending else payment,
    }
    return commands[command]()


def do(payment: Payment, done: list, key: str) -> Payment:
    """The provider does what is pending, and tells."""
    asked = payment.pending[0]
    kinds = {"AUTHORIZATION": "authorized", "CHARGE": "captured", "REFUND": "refunded", "CANCEL": "voided"}
    done.append((f"op_{key}", kinds[asked.kind.name], asked.amount, asked.operation_id))
    return learn(payment, told(*done))
