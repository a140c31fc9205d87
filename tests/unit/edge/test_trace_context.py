"""Every request has one valid trace context."""

import re

import pytest

from edge_gateway.grpc_client.trace_context import TraceContext

IDS = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"
VALID = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[01]")


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (f"00-{IDS}-01", f"00-{IDS}-01"),
        (f"00-{IDS}-00", f"00-{IDS}-00"),
        (f"cc-{IDS}-01", f"00-{IDS}-01"),
        (f"cc-{IDS}-01-what-will-come", f"00-{IDS}-01"),
    ],
)
def test_a_clients_trace_is_continued_with_its_state(given: str, passed: str) -> None:
    context = TraceContext(0).metadata({b"traceparent": given.encode(), b"tracestate": b"a=b"})
    assert context == [("traceparent", passed), ("tracestate", "a=b")]


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "00-1-2-01",
        f"ff-{IDS}-01",
        f"00-{IDS}-01-more",
        f"00-{IDS}-01, 00-{IDS}-01",
        f"cc-{IDS}-01.more",
        f"00-{IDS.upper()}-01",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        f"00-{IDS}-01\n",
    ],
)
def test_an_invalid_trace_is_replaced_and_its_state_dropped(given: str | None) -> None:
    headers = {b"tracestate": b"a=b"} | ({b"traceparent": given.encode()} if given is not None else {})
    ((name, made),) = TraceContext(1).metadata(headers)
    assert name == "traceparent"
    assert VALID.fullmatch(made)
    assert made.endswith("-01")
    assert TraceContext(1).metadata(headers) != [(name, made)]


def test_a_tracestate_that_is_too_long_or_not_ascii_is_dropped() -> None:
    for state in (b"a=" + b"b" * 600, "a=é".encode(), b""):
        context = TraceContext(1).metadata({b"traceparent": f"00-{IDS}-01".encode(), b"tracestate": state})
        assert context == [("traceparent", f"00-{IDS}-01")]


def test_new_traces_are_sampled_by_the_share() -> None:
    def sampled(share: float) -> int:
        return sum(TraceContext(share).metadata({})[0][1].endswith("-01") for _ in range(2_000))

    assert (sampled(0), sampled(1)) == (0, 2_000)
    assert 100 < sampled(0.1) < 320
