"""Deeply nested JSON at every entrance of the edge is an error; the process survives."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.edge import processes
from tests.edge.client import fetch

JSON = [("content-type", "application/json")]
LIMIT = "nested deeper than 99 levels"
SIZES = (16_000, 1_000_000)
#: What stands before the brackets: the top of the body, a known field, an unknown field, a list, an Any, a string.
BEGINNINGS = {
    "top": b"",
    "known-field": b'{"name":',
    "unknown-field": b'{"bogus":',
    "object": b'{"sub":{"s":',
    "list": b'{"rs":["a",',
    "value": b'{"value":',
    "any": b'{"any":{"@type":"type.googleapis.com/edgetest.v1.Kinds","name":',
    "string": b'{"name":"[]{}\\\\\\"[","i32":',
}


@pytest.fixture(scope="module", params=[(), ("--ignore-unknown-fields",)], ids=["strict", "lenient"])
def edge(
    request: pytest.FixtureRequest, edge_folder: Path, descriptors: str, back_end: int
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """An edge of its own: a crash must fail the tests of this file alone."""
    options = ("--descriptor-set", descriptors, "--upstream", f"*=127.0.0.1:{back_end}", *request.param)
    with processes.edge(edge_folder / "deep.log", *options) as started:
        yield started


def assert_rejected(edge: tuple[subprocess.Popen[bytes], int], method: str, path: str, body: bytes) -> None:
    running, port = edge
    answer = fetch(port, method, path, body, JSON)
    assert answer.status == 400
    assert LIMIT in answer.json["message"]
    assert running.poll() is None


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_brackets_in_a_body_are_an_error(edge: tuple[subprocess.Popen[bytes], int], beginning: str, size: int) -> None:
    assert_rejected(edge, "POST", "/v1/echo", BEGINNINGS[beginning] + b"[" * size)


@pytest.mark.parametrize("piece", [b"[", b'{"deep":', b'[{"a":', b'["[",'])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/echo"),
        ("POST", "/v1/echo/a"),
        ("PATCH", "/v1/shelves/1"),
        ("POST", "/v1/value/a"),
        ("POST", "/v1/values/a"),
        ("POST", "/v1/watch"),
        ("POST", "/v1:batchGet"),
    ],
    ids=["whole-body", "field", "derived-mask", "value", "values", "stream-of-replies", "batch"],
)
def test_nesting_at_an_entrance_is_an_error(
    edge: tuple[subprocess.Popen[bytes], int], method: str, path: str, size: int, piece: bytes
) -> None:
    assert_rejected(edge, method, path, piece * (size // len(piece)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", ["/v1/collect", "/v1/chat"])
def test_nesting_in_a_streamed_request_is_an_error(
    edge: tuple[subprocess.Popen[bytes], int], path: str, size: int
) -> None:
    running, port = edge
    nested = b'{"text":' + b"[" * (size // 2) + b"]" * (size // 2) + b"}"
    answer = fetch(port, "POST", path, b'{"text":"a"}' + nested, JSON)
    assert LIMIT.encode() in answer.body
    assert running.poll() is None


@pytest.mark.parametrize("size", SIZES)
def test_nesting_in_a_frame_is_an_error(edge: tuple[subprocess.Popen[bytes], int], size: int) -> None:
    running, port = edge
    with connect(f"ws://127.0.0.1:{port}/v1/chat", open_timeout=60, close_timeout=2) as socket:
        socket.send('{"text":' + "[" * size)
        assert LIMIT in json.loads(socket.recv(timeout=60))["error"]["message"]
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=60)
    assert running.poll() is None


@pytest.mark.parametrize("name", ["struct", "value", "any", "sub", "ts", "du", "mask", "rs", "ms[a]", "fields", "i32"])
def test_nesting_in_a_query_value_is_data_or_an_error(edge: tuple[subprocess.Popen[bytes], int], name: str) -> None:
    running, port = edge
    answer = fetch(port, "GET", f"/v1/echo?{name}=" + "[" * 15_000)
    assert answer.status == (200 if name in ("rs", "ms[a]") else 400)
    assert running.poll() is None


def test_many_brackets_that_do_not_nest_are_accepted(edge: tuple[subprocess.Popen[bytes], int]) -> None:
    texts = ["[[[[{{{{", 'a"[[[', "\\", '\\"{'] * 200
    body = {"rs": texts, "subs": [{"s": "["}] * 300, "value": [[]] * 300}
    answer = fetch(edge[1], "POST", "/v1/echo", json.dumps(body).encode(), JSON)
    assert answer.status == 200
    assert (answer.json["rs"], len(answer.json["subs"])) == (texts, 300)


def test_the_deepest_body_that_is_accepted(edge: tuple[subprocess.Popen[bytes], int]) -> None:
    def body(depth: int) -> bytes:
        return b'{"deep":' * (depth - 1) + b"{}" + b"}" * (depth - 1)

    assert fetch(edge[1], "POST", "/v1/echo", body(99), JSON).status == 200
    assert_rejected(edge, "POST", "/v1/echo", body(100))
