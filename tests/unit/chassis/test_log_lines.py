"""The writing of lines: those of calls wait a moment, are written together in order, and none is lost at the end."""

import asyncio
import io
import json
import logging

import pytest

from chassis.telemetry import CallRecord, JsonFormatter, LineWriter
from chassis.testing import eventually

TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


class Writer:
    """A LineWriter, and what it has written."""

    def __init__(self):
        self.stream = io.StringIO()
        self.handler = LineWriter(self.stream)
        self.handler.setFormatter(JsonFormatter("svc_test"))

    def call(self, number, level=logging.INFO):
        self.handler.handle(CallRecord("chassis.rpc", level, {"method": "/x", "user": f"user-{number}"}, TRACE))

    def say(self, message):
        self.handler.handle(logging.makeLogRecord({"levelno": logging.INFO, "msg": message}))

    def lines(self):
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def names(self):
        return [line.get("user") or line["message"] for line in self.lines()]


@pytest.fixture
def writer():
    return Writer()


async def test_lines_of_calls_are_written_together_in_order_after_a_moment(writer):
    for number in range(3):
        writer.call(number)
    assert writer.names() == []
    await eventually(writer.names)
    assert writer.names() == ["user-0", "user-1", "user-2"]


async def test_a_line_of_a_call_has_its_trace_and_its_fields(writer):
    writer.call(7)
    writer.handler.flush()
    (line,) = writer.lines()
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "service": "svc_test",
        "message": "rpc",
        "trace_id": "a" * 32,
        "method": "/x",
        "user": "user-7",
    }


async def test_another_line_is_written_at_once_after_those_that_wait(writer):
    writer.call(1)
    writer.say("serving")
    assert writer.names() == ["user-1", "serving"]


async def test_the_line_of_a_failed_call_is_written_at_once(writer):
    writer.call(1)
    writer.call(2, logging.WARNING)
    assert writer.names() == ["user-1", "user-2"]


async def test_each_line_is_written_once(writer):
    writer.call(1)
    writer.handler.flush()
    await asyncio.sleep(0)
    writer.handler.flush()
    writer.call(2)
    await eventually(lambda: len(writer.names()) == 2)
    assert writer.names() == ["user-1", "user-2"]


async def test_lines_that_wait_at_the_end_of_the_process_are_written(writer):
    writer.call(1)
    writer.handler.flush()  # as logging.shutdown does at exit
    assert writer.names() == ["user-1"]


async def test_a_value_of_a_call_forges_no_second_line(writer):
    writer.handler.handle(CallRecord("chassis.rpc", logging.INFO, {"user": 'a\n{"user": "b"}'}, TRACE))
    writer.handler.flush()
    assert writer.names() == ['a\n{"user": "b"}']
