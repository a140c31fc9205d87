"""Conversion of times."""

from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.types.times import timestamp, to_datetime
from shop.chassis.v1.chassis_errors import InvalidRequest


def test_a_time_survives_the_round_trip():
    now = datetime(2026, 11, 20, 12, 30, 15, 123456, tzinfo=UTC)
    assert to_datetime(timestamp(now), "start_time") == now


@pytest.mark.parametrize(
    "message", [Timestamp(seconds=2**62), Timestamp(seconds=-(2**62)), Timestamp(nanos=-1), Timestamp(nanos=2**30)]
)
def test_an_invalid_time_is_rejected_with_its_field(message):
    with pytest.raises(InvalidRequest) as refusal:
        to_datetime(message, "start_time")
    assert refusal.value.metadata["field"] == "start_time"
