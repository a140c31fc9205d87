"""Log lines: one JSON object a line for any value, and W3C trace context, in which no other text is accepted."""

import io
import json
import logging
import uuid

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.context import current_call
from chassis.telemetry import JsonFormatter, extract, inject, new_traceparent, trace_id, traced


@pytest.fixture
def log():
    return Log()


class Log:
    """A service's logger, with its lines in memory."""

    def __init__(self):
        self._stream = io.StringIO()
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(JsonFormatter("svc_test"))
        self.logger = logging.getLogger(uuid.uuid4().hex)
        self.logger.propagate = False
        self.logger.addHandler(handler)

    @property
    def text(self):
        return self._stream.getvalue()

    def line(self):
        (line,) = self.text.splitlines()
        return json.loads(line)


def test_a_line_has_time_service_level_and_message(log):
    log.logger.warning("cache %s", "cold", extra={"key": "k-1"})
    line = log.line()
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "WARNING", "service": "svc_test", "message": "cache cold", "key": "k-1"}


@given(st.text(), st.text())
def test_no_text_forges_a_second_line(message, value):
    log = Log()
    log.logger.error("%s", message, extra={"value": value})
    assert (log.text.count("\n"), len(log.text.splitlines())) == (1, 1)
    assert (log.line()["message"], log.line()["value"]) == (message, value)


@pytest.mark.parametrize("name", ["time", "level", "service", "trace_id"])
def test_a_logged_value_cannot_replace_a_standard_field(log, name):
    with traced("", "test"):
        log.logger.warning("message", extra={name: "forged"})
    assert log.line()[name] != "forged"


def test_values_without_a_json_form_are_written_as_text(log):
    log.logger.warning("message", extra={"value": {1, 2}, "nested": {"a": object}})
    assert log.line()["value"] == "{1, 2}"


def test_a_value_without_a_text_form_loses_only_itself(log, capsys):
    class Spiteful:
        def __repr__(self):
            raise RuntimeError

    loop = []
    loop.append(loop)
    log.logger.warning("message", extra={"value": Spiteful(), "loop": loop})
    assert log.line()["message"] == "message"
    assert capsys.readouterr().err == ""


def test_an_exception_is_one_field_of_the_line(log):
    log.logger.error("failed", exc_info=ValueError("first\nsecond"))
    assert "ValueError: first\nsecond" in log.line()["exception"]


def test_an_exception_of_the_database_is_logged_without_the_values_of_its_row(log):
    error = asyncpg.UniqueViolationError('duplicate key value violates unique constraint "account_email_key"')
    error.detail = "Key (email)=(canary@example.com) already exists."
    log.logger.error("failed", exc_info=error)
    assert "account_email_key" in log.line()["exception"]
    assert "canary" not in log.text


def test_lines_of_a_call_carry_its_trace(log):
    traceparent = new_traceparent()
    with traced(traceparent, "test"):
        log.logger.warning("message")
    assert log.line()["trace_id"] == traceparent.split("-")[1]


def test_a_new_trace_is_valid_and_unique():
    first, second = new_traceparent(), new_traceparent()
    assert extract({"traceparent": first}) == first
    assert trace_id(first) != trace_id(second)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00-abc-def-01",
        "x" * 5000,
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "0" * 16 + "-01",
        "ff-" + "1" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "A" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "1" * 16 + "-01\n",
        "00-" + "1" * 32 + "-" + "1" * 16 + "-01-more",
    ],
)
def test_an_invalid_trace_context_starts_a_new_trace(text):
    started = extract({"traceparent": text})
    assert started != text
    assert extract({"traceparent": started}) == started
    assert extract({}) not in ("", started)


def test_traced_ends_with_its_block():
    with traced(new_traceparent(), "outer"):
        outer = current_call()
        with traced("", "inner"):
            assert current_call().method == "inner"
        assert current_call() is outer
    assert current_call() is None


def test_inject_returns_the_current_trace_and_nothing_outside_of_one():
    traceparent = new_traceparent()
    with traced(traceparent, "test"):
        assert inject() == {"traceparent": traceparent}
    assert inject() == {}
