"""`POST /v1:batchGet` over HTTP."""

import gzip
import json
import time
from typing import Any

import pytest

from tests.edge import processes
from tests.edge.client import Response, fetch

JSON = [("content-type", "application/json")]


def batch(port: int, *paths: str, headers: list[tuple[str, str]] | None = None) -> Response:
    body = json.dumps({"requests": [{"path": path} for path in paths]}).encode()
    return fetch(port, "POST", "/v1:batchGet", body, JSON + (headers or []))


def test_reads_are_answered_in_their_order_each_with_its_own_status(port: int) -> None:
    answer = batch(port, "/v1/shelves/tagged", "/v1/nope", "/v1/echo?i32=x", "/v1/shelves?name=1")

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json["responses"]
    assert [it["status"] for it in found] == [200, 404, 400, 200]
    assert found[0]["etag"] == '"v7"'
    assert found[0]["body"]["name"] == "shelves/tagged"
    assert found[1]["body"]["details"][0]["reason"] == "ROUTE_NOT_FOUND"
    assert found[2]["body"]["details"][0]["fieldViolations"][0]["field"] == "i32"
    assert len(found[3]["body"]["shelves"]) == 1
    assert "etag" not in found[3]


def test_each_read_has_the_same_reply_as_alone(port: int) -> None:
    paths = ["/v1/shelves/1?fields=name", "/v1/num/7?alt=json;enum-encoding=int", "/v1/fail?code=9&message=no"]

    for path, reply in zip(paths, batch(port, *paths).json["responses"], strict=True):
        alone = fetch(port, "GET", path)
        assert (reply["status"], reply["body"]) == (alone.status, alone.json)


def test_all_reads_share_one_trace(port: int) -> None:
    trace = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    for headers in ([], [trace], [("traceparent", "nonsense")]):
        reads = batch(port, "/v1/inspect", "/v1/inspect?name=b", headers=headers).json["responses"]
        (seen,) = {read["body"]["metadata"]["traceparent"] for read in reads}
        assert (seen == trace[1]) is (headers == [trace])


def test_reads_have_the_headers_of_the_batch_except_those_of_its_body(port: int) -> None:
    sent = [
        ("authorization", "Bearer t"), ("accept-language", "vi"), ("grpc-metadata-foo", "bar"),
        ("if-none-match", "*"), ("idempotency-key", "k"), ("x-request-id", "one-id"),
    ]  # fmt: skip

    answer = batch(port, "/v1/inspect", "/v1/shelves/tagged", headers=sent)

    seen, tagged = answer.json["responses"]
    assert seen["body"]["metadata"]["authorization"] == "Bearer t"
    assert seen["body"]["metadata"]["accept-language"] == "vi"
    assert seen["body"]["metadata"]["foo"] == "bar"
    assert seen["body"]["metadata"]["x-request-id"] == answer.headers["x-request-id"] == "one-id"
    assert "idempotency-key" not in seen["body"]["metadata"]
    assert tagged["status"] == 200, "a batch is not conditional"


def test_reads_are_served_concurrently(port: int) -> None:
    begin = time.monotonic()

    answer = batch(port, *(f"/v1/sleep/{n}?seconds=1" for n in range(20)))

    assert {it["status"] for it in answer.json["responses"]} == {200}
    assert time.monotonic() - begin < 15


def test_a_deadline_applies_to_each_read(port: int) -> None:
    answer = batch(port, "/v1/sleep/x?seconds=20", "/v1/shelves/1", headers=[("grpc-timeout", "3S")])

    assert [it["status"] for it in answer.json["responses"]] == [504, 200]


@pytest.mark.parametrize("path", ["/v1/watch/x?count=1", "/v1/files/x", "/v1/parts/x"])
def test_streams_and_files_cannot_be_batched(port: int, path: str) -> None:
    (reply,) = batch(port, path).json["responses"]

    assert reply["status"] == 400
    assert reply["body"]["details"][0]["reason"] == "NOT_BATCHABLE"


@pytest.mark.parametrize("path", ["/healthz", "/openapi.json", "/docs", "/v1:batchGet"])
def test_a_path_without_a_route_is_not_found(port: int, path: str) -> None:
    assert batch(port, path).json["responses"][0]["status"] == 404


def test_a_path_without_a_get_rule_is_rejected(port: int) -> None:
    assert batch(port, "/v1/raw").json["responses"][0]["status"] == 405


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None),
        (b"nonsense", None),
        (b"[]", None),
        (b"{}", None),
        (b'{"requests":[{"path":"/"}],"more":1}', None),
        (b'{"requests":[{"path":"/"}],"requests":[]}', None),
        (b"[" * 100_000, None),
        (b'{"requests":{}}', "requests"),
        (b'{"requests":[]}', "requests"),
        (json.dumps({"requests": [{"path": "/"}] * 21}).encode(), "requests"),
        (b'{"requests":["/v1/shelves"]}', "requests[0]"),
        (b'{"requests":[{"path":"/v1/shelves","method":"DELETE"}]}', "requests[0]"),
        (b'{"requests":[{"path":"/v1/shelves"},{"path":7}]}', "requests[1].path"),
        (b'{"requests":[{"path":"v1/shelves"}]}', "requests[0].path"),
        (b'{"requests":[{"path":"http://elsewhere/v1"}]}', "requests[0].path"),
        (b'{"requests":[{"path":"/v1/a b"}]}', "requests[0].path"),
        (b'{"requests":[{"path":"/v1/\\u00e9"}]}', "requests[0].path"),
        (b'{"requests":[{"path":"/v1/a\\r\\nx: y"}]}', "requests[0].path"),
    ],
)
def test_an_invalid_batch_is_rejected(port: int, body: bytes, field: str | None) -> None:
    answer = fetch(port, "POST", "/v1:batchGet", body, JSON)

    assert answer.status == 400
    if field is not None:
        assert answer.violations == [field]


def test_other_methods_and_media_types_are_rejected(port: int) -> None:
    assert fetch(port, "GET", "/v1:batchGet").status == 405
    assert fetch(port, "GET", "/v1:batchGet").headers["allow"] == "OPTIONS, POST"
    assert (
        fetch(port, "POST", "/v1:batchGet", b"x=y", [("content-type", "application/x-www-form-urlencoded")]).status
        == 415
    )


def test_a_batch_may_be_compressed_both_ways_and_sent_below_the_prefix(port: int) -> None:
    body = gzip.compress(json.dumps({"requests": [{"path": "/v1/shelves?name=50"}]}).encode())

    answer = fetch(
        port, "POST", "/api/v1:batchGet", body, [*JSON, ("content-encoding", "gzip"), ("accept-encoding", "gzip")]
    )

    assert answer.headers["content-encoding"] == "gzip"
    assert len(json.loads(gzip.decompress(answer.body))["responses"][0]["body"]["shelves"]) == 50


def test_browsers_of_an_allowed_origin_may_send_batches(port: int) -> None:
    origin = ("origin", "https://shop.example")
    headers = [origin, ("access-control-request-method", "POST"), ("access-control-request-headers", "content-type")]

    preflight = fetch(port, "OPTIONS", "/v1:batchGet", None, headers)

    assert preflight.status == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert batch(port, "/v1/shelves/1", headers=[origin]).headers["access-control-allow-origin"] == origin[1]


def test_replies_beyond_the_total_size_are_replaced_by_errors(folder: Any, options: tuple[str, ...]) -> None:
    with processes.edge(folder / "small.log", *options, "--max-reply", "20000") as (_, port):
        found = batch(port, *["/v1/shelves?name=30"] * 10).json["responses"]

    assert found[0]["status"] == 200
    assert found[-1]["status"] == 413
    assert found[-1]["body"]["details"][0]["reason"] == "BATCH_TOO_LARGE"
