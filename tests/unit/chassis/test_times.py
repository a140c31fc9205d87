"""Moments in and out of messages."""

from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.types.times import timestamp, to_datetime
from shop.chassis.v1.chassis_errors import InvalidRequest


def test_a_moment_comes_back_as_it_went():
    now = datetime(2026, 11, 20, 12, 30, 15, 123456, tzinfo=UTC)
    assert to_datetime(timestamp(now), "start_time") == now


@pytest.mark.parametrize(
    "message", [Timestamp(seconds=2**62), Timestamp(seconds=-(2**62)), Timestamp(nanos=-1), Timestamp(nanos=2**30)]
)
def test_what_is_no_moment_is_refused_with_the_field_named(message):
    with pytest.raises(InvalidRequest) as refusal:
        to_datetime(message, "start_time")
    assert refusal.value.metadata["field"] == "start_time"
