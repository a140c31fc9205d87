"""Prices of orders, and their states."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.order.v1.order_errors import (
    CurrencyMismatch,
    OrderNotShippable,
    QuantityTooLarge,
    SkuNotFound,
    TotalOutOfRange,
)
from svc_order import domain, domain_pricing
from svc_order.domain import Fulfillment, Order, Payment, State
from svc_order.domain_pricing import CatalogPrice

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)


def a_price(sku="a", **changes):
    fields = {
        "sku": sku,
        "product_id": f"product-{sku}",
        "name": sku.upper(),
        "unit_price": 1070,
        "currency": "THB",
        "tax_rate_basis_points": 700,
        "weight_grams": 100,
    }
    return CatalogPrice(**{**fields, **changes})


def an_order(**changes):
    lines = domain_pricing.price_lines([("a", 1)], {"a": a_price()}, "THB")
    fields = {
        "id": "order-1",
        "user_id": "user-1",
        "totals": domain_pricing.quote(lines, "THB", 0, 0),
        "shipping_address": b"",
        "slot_id": "",
        "reservation_id": "reservation-1",
        "payment_id": "payment-1",
        "create_time": NOW,
        "update_time": NOW,
    }
    return Order(**{**fields, **changes})


def test_lines_of_one_sku_are_added_up_and_taxed_once():
    (line,) = domain_pricing.price_lines([("a", 1), ("a", 2)], {"a": a_price()}, "THB")
    assert (line.quantity, line.total, line.tax) == (3, 3210, 210)


def test_a_sku_that_is_not_on_sale_is_not_found():
    with pytest.raises(SkuNotFound):
        domain_pricing.price_lines([("b", 1)], {"a": a_price()}, "THB")


def test_a_price_in_another_currency_is_a_mismatch():
    with pytest.raises(CurrencyMismatch):
        domain_pricing.price_lines([("a", 1)], {"a": a_price(currency="JPY")}, "THB")


def test_a_quantity_above_the_limit_is_too_large_even_in_two_lines():
    with pytest.raises(QuantityTooLarge):
        domain_pricing.price_lines([("a", 999), ("a", 1)], {"a": a_price()}, "THB")


def test_the_largest_total_is_a_million_millions():
    lines = domain_pricing.price_lines([("a", 1)], {"a": a_price(unit_price=10**12)}, "THB")
    assert domain_pricing.quote(lines, "THB", 0, 0).total == 10**12
    with pytest.raises(TotalOutOfRange):
        domain_pricing.quote(lines, "THB", 1, 0)


def test_the_largest_quantity_is_sold():
    (line,) = domain_pricing.price_lines([("a", 999)], {"a": a_price()}, "THB")
    assert line.quantity == 999


def test_a_total_of_zero_is_out_of_range():
    with pytest.raises(TotalOutOfRange):
        domain_pricing.quote(domain_pricing.price_lines([("a", 1)], {"a": a_price(unit_price=0)}, "THB"), "THB", 0, 0)


@pytest.mark.parametrize(("gross", "rate", "tax"), [(1, 10_000, 1), (3, 10_000, 2), (4, 6_000, 2), (12, 6_000, 5)])
def test_included_tax_of_exactly_half_a_unit_is_rounded_up(gross, rate, tax):
    assert domain_pricing.included_tax(gross, rate) == tax


@given(gross=st.integers(0, 10**12), rate=st.integers(0, 10_000))
def test_included_tax_is_the_nearest_whole_unit_and_never_more_than_the_price(gross, rate):
    tax = domain_pricing.included_tax(gross, rate)
    assert 0 <= tax <= gross
    assert abs(tax * (10_000 + rate) - gross * rate) * 2 <= 10_000 + rate


@given(
    cart=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 300)), min_size=1, max_size=3),
    prices=st.tuples(*[st.integers(1, 10**6)] * 3),
    fee=st.integers(0, 10**6),
)
def test_a_total_is_the_sum_of_its_lines_and_the_fee(cart, prices, fee):
    prices = {sku: a_price(sku, unit_price=price) for sku, price in zip("abc", prices, strict=True)}
    totals = domain_pricing.quote(domain_pricing.price_lines(cart, prices, "THB"), "THB", fee, 700)
    assert totals.total == sum(prices[sku].unit_price * quantity for sku, quantity in cart) + fee
    assert totals.tax_total == sum(line.tax for line in totals.lines) + domain_pricing.included_tax(fee, 700)


@pytest.mark.parametrize("to", State)
@pytest.mark.parametrize("state", State)
def test_only_transitions_of_the_table_change_an_order(state, to):
    order = an_order(state=state)
    moved = order.transition_to(to, LATER, "why")
    if domain.TRANSITIONS.allows(state, to):
        assert (moved.state, moved.state_reason, moved.update_time) == (to, "why", LATER)
    else:
        assert moved is order


@pytest.mark.parametrize("to", Payment)
@pytest.mark.parametrize("state", Payment)
def test_a_payment_only_progresses_except_that_authorizations_are_voided_and_disputes_closed(state, to):
    order = an_order(payment_state=state)
    paid = order.with_payment(to, LATER)
    after = paid.payment_state
    assert paid is order if after is state else paid.update_time == LATER
    ranks = list(Payment)
    back = {
        Payment.PENDING: {Payment.UNPAID},
        Payment.AUTHORIZED: {Payment.UNPAID},
        Payment.DISPUTED: {Payment.PAID, Payment.PARTIALLY_REFUNDED, Payment.REFUNDED},
    }
    if to in back.get(state, ()):
        assert after is to
    elif state is Payment.REFUNDED:
        assert after is state
    else:
        assert ranks.index(after) == max(ranks.index(state), ranks.index(to))


@pytest.mark.parametrize("to", Fulfillment)
@pytest.mark.parametrize("state", Fulfillment)
def test_a_fulfillment_only_progresses_except_that_an_allocation_can_be_released(state, to):
    order = an_order(fulfillment_state=state)
    fulfilled = order.with_fulfillment(to, LATER)
    after = fulfilled.fulfillment_state
    assert fulfilled is order if after is state else fulfilled.update_time == LATER
    ranks = list(Fulfillment)
    if to is Fulfillment.UNFULFILLED and state is Fulfillment.ALLOCATED:
        assert after is Fulfillment.UNFULFILLED
    else:
        assert ranks.index(after) == max(ranks.index(state), ranks.index(to))


def test_an_order_has_one_shipment_whose_id_it_keeps():
    order = an_order(state=State.CONFIRMED)
    shipped = order.with_shipment(LATER, is_shippable=True)
    assert (shipped.shipment_id, shipped.update_time) == ("shipment-1", LATER)
    assert shipped.with_shipment(LATER, is_shippable=True) is shipped
    assigned_before = an_order(state=State.CONFIRMED, shipment_id="shipment-of-before")
    assert assigned_before.with_shipment(LATER, is_shippable=True) is assigned_before


@pytest.mark.parametrize("shipment_id", ["", "shipment-1"])
def test_an_order_whose_saga_compensates_is_not_shippable_even_if_it_was_shipped(shipment_id):
    for state, named in ((State.CONFIRMED, "being cancelled"), (State.CANCELLED, "CANCELLED")):
        order = an_order(state=state, shipment_id=shipment_id)
        with pytest.raises(OrderNotShippable) as error:
            order.with_shipment(LATER, is_shippable=False)
        assert error.value.metadata["state"] == named


def test_a_shipped_order_whose_parcel_has_arrived_is_delivered():
    order = an_order(state=State.SHIPPED, fulfillment_state=Fulfillment.DELIVERED)
    assert domain.deliver_if_arrived(order, LATER).state is State.DELIVERED
    assert domain.deliver_if_arrived(an_order(state=State.SHIPPED), LATER).state is State.SHIPPED


def test_the_weight_of_a_parcel_is_that_of_its_lines():
    lines = domain_pricing.price_lines(
        [("a", 2), ("b", 1)], {"a": a_price(), "b": a_price("b", weight_grams=50)}, "THB"
    )
    assert domain_pricing.weight_grams(lines) == 250


def test_an_order_gets_a_payment_of_another_id_for_each_try():
    order = an_order(payment_state=Payment.PENDING, payment_due_time=LATER, state_reason="PAYMENT_DECLINED")
    second = order.with_next_payment(LATER)
    assert (second.payment_id, second.with_next_payment(LATER).payment_id) == ("payment-1-2", "payment-1-3")
    assert (second.payment_state, second.payment_due_time, second.state_reason) == (Payment.UNPAID, None, "")


def test_an_order_that_waits_for_its_payment_says_until_when_and_why():
    waiting = an_order().awaiting_payment(LATER, "PAYMENT_DECLINED", NOW)
    assert (waiting.payment_state, waiting.payment_due_time, waiting.state_reason) == (
        Payment.PENDING,
        LATER,
        "PAYMENT_DECLINED",
    )
    assert waiting.awaiting_payment(LATER, "PAYMENT_DECLINED", NOW) is waiting
    assert waiting.with_payment(Payment.AUTHORIZED, NOW).payment_due_time is None
