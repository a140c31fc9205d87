"""Refunds of returns: shares of the shipping fee, and that portions add up."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc_order.domain import Line, OrderTotals
from svc_order.domain_returns import largest_remainder, refund_for


@given(st.integers(0, 10**9), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_shares_add_up_and_differ_from_the_exact_ones_by_less_than_one(total, weights):
    shares = largest_remainder(total, weights)
    assert sum(shares) == total
    whole = sum(weights) or len(weights)
    for share, weight in zip(shares, weights if sum(weights) else [1] * len(weights), strict=True):
        assert abs(share * whole - total * weight) < whole


def a_line(number, quantity, price):
    return Line(
        sku=f"s-{number}",
        product_id="p",
        name="n",
        quantity=quantity,
        unit_price=price,
        tax_rate_basis_points=700,
        tax=0,
        total=quantity * price,
        weight_grams=1,
    )


@pytest.mark.parametrize("seed", range(50))
def test_refunds_of_any_portions_add_up_to_the_total_of_the_order(seed):
    random = Random(seed)
    bought = [(random.randint(1, 5), random.randint(0, 999)) for _ in range(random.randint(1, 4))]
    fee = random.randint(0, 999)
    lines = tuple(a_line(number, *line) for number, line in enumerate(bought))
    totals = OrderTotals(currency="THB", lines=lines, shipping_fee=fee, tax_total=0)
    left = {line.sku: line.quantity for line in lines}
    returned = dict.fromkeys(left, 0)
    refunds = []
    while any(left.values()):
        units = {sku: random.randint(0, count) for sku, count in left.items()}
        refunds.append(refund_for(totals, returned, units))
        for sku, count in units.items():
            left[sku] -= count
            returned[sku] += count
    assert sum(refunds) == totals.total
    assert all(refund >= 0 for refund in refunds)
