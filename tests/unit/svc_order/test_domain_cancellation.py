"""Cancelled lines: amounts add up to the minor unit, and only an order that waits for its shipment changes."""

from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import pytest

from shop.order.v1.order_errors import CancelQuantityTooLarge, LinesNotCancellable, OrderWouldBeEmpty
from svc_order.domain import Line, Order, OrderTotals, State
from svc_order.domain_cancellation import LineCancellation, cancel_lines, refund_due, without_units
from svc_order.domain_pricing import included_tax
from svc_order.domain_returns import refund_for

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_line(sku, quantity, price):
    return Line(
        sku=sku,
        product_id="p",
        name="n",
        quantity=quantity,
        unit_price=price,
        tax_rate_basis_points=700,
        tax=included_tax(price * quantity, 700),
        total=quantity * price,
        weight_grams=1,
    )


def some_totals(fee, *lines):
    lines = tuple(a_line(*line) for line in lines)
    tax = sum(line.tax for line in lines) + included_tax(fee, 700)
    return OrderTotals(currency="THB", lines=lines, shipping_fee=fee, tax_total=tax)


def an_order(totals, **changes):
    fields = {
        "shipping_address": b"",
        "slot_id": "",
        "reservation_id": "r",
        "payment_id": "p",
        "state": State.CONFIRMED,
    }
    return Order(id="order-1", user_id="u", totals=totals, create_time=NOW, update_time=NOW, **{**fields, **changes})


@pytest.mark.parametrize("seed", range(50))
def test_amounts_of_any_portions_add_up_and_equal_the_refund_of_the_same_units(seed):
    random = Random(seed)
    lines = [(f"s-{number}", random.randint(1, 5), random.randint(0, 999)) for number in range(random.randint(1, 4))]
    before = totals = some_totals(random.randint(0, 999), *lines)
    amounts = []
    while totals.lines:
        units = {line.sku: random.randint(0, line.quantity) for line in totals.lines}
        after = without_units(totals, units)
        amounts.append(totals.total - after.total)
        assert amounts[-1] == refund_for(totals, {}, units)
        assert 0 <= after.tax_total <= after.total
        assert all(line.tax == included_tax(line.total, 700) for line in after.lines)
        totals = after
    assert sum(amounts) == before.total
    assert (totals.total, totals.tax_total, totals.shipping_fee) == (0, 0, 0)


def test_a_cancelled_line_takes_its_share_of_the_fee_and_the_payment_keeps_its_amount():
    order = an_order(some_totals(100, ("a", 2, 500), ("b", 1, 1000)))
    after = cancel_lines(order, {"a": 1}, NOW, is_awaiting_shipment=True)
    assert [(line.sku, line.quantity, line.total) for line in after.totals.lines] == [("a", 1, 500), ("b", 1, 1000)]
    assert (after.totals.shipping_fee, after.totals.total, after.payment_amount) == (75, 1575, 2100)
    again = cancel_lines(after, {"b": 1}, NOW, is_awaiting_shipment=True)
    assert [line.sku for line in again.totals.lines] == ["a"]
    assert (again.totals.total, again.cancelled_amount, again.payment_amount) == (525, 1575, 2100)


def test_only_units_of_an_order_that_waits_for_its_shipment_are_cancelled_and_some_are_left():
    order = an_order(some_totals(0, ("a", 2, 500), ("free", 1, 0)))
    with pytest.raises(LinesNotCancellable):
        cancel_lines(order, {"a": 1}, NOW, is_awaiting_shipment=False)
    for units in ({"a": 3}, {"b": 1}):
        with pytest.raises(CancelQuantityTooLarge):
            cancel_lines(order, units, NOW, is_awaiting_shipment=True)
    for units in ({"a": 2, "free": 1}, {"a": 2}):  # what is left of the second costs nothing
        with pytest.raises(OrderWouldBeEmpty):
            cancel_lines(order, units, NOW, is_awaiting_shipment=True)
    assert cancel_lines(order, {"free": 1}, NOW, is_awaiting_shipment=True).cancelled_amount == 0


def test_a_refund_is_due_only_for_what_was_captured_in_full():
    order = cancel_lines(an_order(some_totals(0, ("a", 2, 500))), {"a": 1}, NOW, is_awaiting_shipment=True)
    times = {"next_attempt_time": NOW, "create_time": NOW, "update_time": NOW}
    one = LineCancellation(id="c", order_id=order.id, lines=(), amount=500, message="", **times)
    assert [refund_due(order, one, captured) for captured in (0, 500, 1000)] == [0, 0, 500]
    assert refund_due(replace(order, state=State.CANCELLED), one, 1000) == 0
