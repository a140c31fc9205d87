"""Loading the sample data into a shop that is slow to answer."""

import grpc
import pytest

from chassis import OutcomeUnknown
from mesh.qa.sample_data import loader

UNKNOWN = OutcomeUnknown("/shop.Catalog/Create", grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_a_creation_with_an_unknown_outcome_is_repeated():
    outcomes = [UNKNOWN, None]

    async def create(_item):
        if outcome := outcomes.pop(0):
            raise outcome

    await loader._repeated(create, "item")
    assert outcomes == []


async def test_an_error_of_the_shop_is_not_repeated():
    async def create(_item):
        raise KeyError("taken")

    with pytest.raises(KeyError):
        await loader._repeated(create, "item")
