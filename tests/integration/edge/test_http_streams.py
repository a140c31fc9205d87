"""Running streams: delivery at once, heartbeats, and disconnects of either side."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge import processes
from tests.edge.live import SOON, Live, begun, cancelled, eventually_sync, sent

_SSE = "Accept: text/event-stream"


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex[:8]


@pytest.fixture(scope="session")
def lively_port(edge_folder: Path, descriptors: str, back_end: int) -> Iterator[int]:
    """Start an edge with frequent heartbeats."""
    options = ("--descriptor-set", descriptors, "--upstream", f"*=127.0.0.1:{back_end}", "--heartbeat", "0.1")
    with processes.edge(edge_folder / "lively.log", *options) as (_, port):
        yield port


@pytest.mark.parametrize("accept", ["Accept: application/x-ndjson", _SSE, "Accept: application/json"])
def test_a_message_arrives_while_the_stream_is_running(accept: str, edge_port: int, name: str) -> None:
    with Live(edge_port, f"/v1/watch/{name}?count=1&hold=true", accept) as live:
        assert b"200 OK" in live.until(b'"resumeToken":"1"}')


@pytest.mark.parametrize(
    "path",
    ["/v1/watch/{}?count=1&hold=true", "/v1/sleep/{}?seconds=60", "/v1/watch/{}?hold=true"],
    ids=["C58-stream", "C58-unary", "C58-silent-stream"],
)
def test_a_client_that_disconnects_cancels_its_call(path: str, edge_port: int, name: str) -> None:
    with Live(edge_port, path.format(name)):
        eventually_sync(lambda: begun(edge_port), lambda names: name in names)
    eventually_sync(lambda: cancelled(edge_port), lambda names: name in names, within=SOON)


def test_c24_excess_body_does_not_keep_the_call_alive(edge_port: int, name: str) -> None:
    with Live(edge_port, f"/v1/sleep/{name}?seconds=60", "Content-Length: 1000000") as live:
        live.send(b"x" * 1000)
        eventually_sync(lambda: begun(edge_port), lambda names: name in names)
    eventually_sync(lambda: cancelled(edge_port), lambda names: name in names, within=SOON)


def test_an_idle_event_stream_sends_heartbeats(lively_port: int, name: str) -> None:
    with Live(lively_port, f"/v1/watch/{name}?count=1&hold=true", _SSE) as live:
        for _ in range(3):
            live.until(b": still here\n\n")
            live.seen = b""


def test_the_response_to_an_idle_event_stream_starts_without_a_message(edge_port: int, name: str) -> None:
    with Live(edge_port, f"/v1/watch/{name}?hold=true", _SSE) as live:
        assert b"200 OK" in live.until(b"retry: 2000")


def test_an_idle_ndjson_stream_sends_nothing(lively_port: int, name: str) -> None:
    with (
        Live(lively_port, f"/v1/watch/{name}?count=1&hold=true") as idle,
        Live(lively_port, f"/v1/watch/{name}?hold=true", _SSE) as other,
    ):
        other.until(b": still here")
        body = idle.until(b'"resumeToken":"1"}}\n\r\n').partition(b"\r\n\r\n")[2]
    assert body.count(b"\n\r\n") == 1


def test_a_slow_reader_applies_backpressure_to_the_back_end(edge_port: int, name: str) -> None:
    long = name + "x" * 2000
    with Live(edge_port, f"/v1/watch/{long}?count=100000", receive_buffer=4096) as live:
        live.until(b"result")
        previous = -1

        def settled(now: int) -> bool:
            nonlocal previous
            before, previous = previous, now
            return 0 < now == before

        stuck = eventually_sync(lambda: sent(edge_port, long), settled)
    assert stuck < 20_000, "200 MB were waiting to be sent, and most of it must still wait"


def test_requests_and_replies_of_a_bidirectional_stream_alternate(edge_port: int) -> None:
    chunked = ("Transfer-Encoding: chunked", "Content-Type: application/x-ndjson")
    with Live(edge_port, "/v1/chat", *chunked, method="POST") as live:
        for number in range(3):
            line = b'{"text":"hi","n":%d}\n' % number
            live.send(b"%x\r\n%s\r\n" % (len(line), line))
            live.until(b'{"result":{"text":"re: hi","n":%d}}' % (number + 1))
        live.send(b"0\r\n\r\n")
        live.until(b"0\r\n\r\n")


@pytest.mark.parametrize("path", ["/v1/parts/x?count=2&fail_code=13", "/v1/watch/x?count=2&fail_code=13"])
def test_c61_an_aborted_stream_has_no_clean_end(path: str, edge_port: int) -> None:
    with Live(edge_port, path, "Accept: application/json") as live:
        seen = live.rest()
    assert b"200 OK" in seen
    assert not seen.endswith(b"0\r\n\r\n")
