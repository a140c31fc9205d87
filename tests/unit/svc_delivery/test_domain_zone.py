"""Zones: fees by weight, and postal codes in one spelling."""

import pytest

from svc_delivery.domain_zone import Tariff, normalized_postal_code


@pytest.mark.parametrize(
    ("grams", "fee"), [(0, 500), (1, 620), (999, 620), (1000, 620), (1001, 740), (2000, 740), (100_000_000, 12_000_500)]
)
def test_a_fee_is_the_base_fee_and_the_fee_of_each_begun_kilogram(grams, fee):
    tariff = Tariff(currency_code="USD", base_fee=500, fee_per_kg=120, tax_rate_basis_points=700)
    assert tariff.fee(grams) == fee


@pytest.mark.parametrize("spelling", ["SW1A1AA", "sw1a 1aa", "SW-1A 1-AA"])
def test_a_postal_code_is_normalized_to_one_spelling(spelling):
    assert normalized_postal_code(spelling) == "SW1A1AA"
