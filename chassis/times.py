"""Moments between the database, which gives aware datetimes, and messages."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(moment: datetime) -> Timestamp:
    """Return an aware datetime as a message."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message
