"""Conversion of times between aware datetimes, which the database returns, and messages."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from shop.chassis.v1.chassis_errors import InvalidRequest


def timestamp(time: datetime) -> Timestamp:
    """Return an aware datetime as a message."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def to_datetime(message: Timestamp, field: str) -> datetime:
    """Return a message as an aware datetime; raises InvalidRequest naming `field` for one out of range."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except ValueError:
        raise InvalidRequest(field=field, problem="must be a time of the years 1 to 9999") from None
