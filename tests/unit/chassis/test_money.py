"""Money is converted to minor units and back without loss; an amount with a fraction of one is rejected by name."""

from contextlib import suppress

import pytest
from google.type.money_pb2 import Money
from hypothesis import given
from hypothesis import strategies as st

from chassis.types.money import minor_units, money
from shop.chassis.v1.chassis_errors import InvalidRequest

#: One currency for each exponent that ISO 4217 knows.
CURRENCIES = {"JPY": 0, "THB": 2, "KWD": 3, "CLF": 4}
MOST = 2**53 - 1

minors = st.integers(-MOST, MOST)
currencies = st.sampled_from(sorted(CURRENCIES))


@given(minors, currencies)
def test_minor_units_survive_the_round_trip(minor, currency):
    assert minor_units(money(minor, currency), "price") == minor


@given(minors, currencies)
def test_units_and_nanos_agree_in_sign_and_nanos_stay_below_one_unit(minor, currency):
    amount = money(minor, currency)
    assert amount.units * amount.nanos >= 0
    assert abs(amount.nanos) < 10**9
    assert amount.units * 10**9 + amount.nanos == minor * 10 ** (9 - CURRENCIES[currency])


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1), currencies)
def test_any_amount_is_rejected_or_converted_exactly(units, nanos, currency):
    amount = Money(currency_code=currency, units=units, nanos=nanos)
    with suppress(InvalidRequest):
        assert money(minor_units(amount, "price"), currency) == amount


@pytest.mark.parametrize(
    ("units", "nanos", "currency", "problem"),
    [
        (1, -1, "THB", "agree in sign"),
        (-1, 1, "THB", "agree in sign"),
        (0, 1, "THB", "whole number of THB"),
        (0, 5_000_000, "THB", "whole number of THB"),
        (0, 500_000_000, "JPY", "whole number of JPY"),
        (0, 1_000_000_000, "THB", "nanos"),
        (0, -1_000_000_000, "THB", "nanos"),
        (2**63 - 1, 0, "THB", "larger than"),
        (-(2**63), 0, "THB", "larger than"),
        ((MOST + 1) // 100, 0, "KWD", "larger than"),
    ],
)
def test_an_invalid_amount_is_rejected(units, nanos, currency, problem):
    with pytest.raises(InvalidRequest, match=problem) as refusal:
        minor_units(Money(currency_code=currency, units=units, nanos=nanos), "price")
    assert refusal.value.metadata["field"] == "price"


def test_the_largest_amount_is_accepted_and_the_next_is_not():
    assert minor_units(money(MOST, "JPY"), "price") == MOST
    with pytest.raises(InvalidRequest):
        minor_units(money(MOST + 1, "JPY"), "price")
