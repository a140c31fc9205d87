"""Headers, metadata, deadlines and health: C54 to C58, C67, C68 and C72."""

import re
from typing import Any

from tests.edge.client import Response
from tests.integration.edge.cases.case import JSON, Case, Check, get, header, metadata, post, send, text

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def inspect(id: str, headers: tuple[tuple[str, str], ...] = (), check: Check | None = None, **more: Any) -> Case:  # noqa: A002
    return get(id, "/v1/inspect", headers=headers, check=check, **more)


def begins_a_trace(answer: Response) -> None:
    seen = answer.json["metadata"]
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", seen["traceparent"])
    assert "tracestate" not in seen


CASES = [
    inspect("C54-authorization", (("Authorization", "Bearer x"),), metadata({"authorization": "Bearer x"})),
    inspect("C54-prefixed", (("Grpc-Metadata-Foo", "bar"),), metadata({"foo": "bar"})),
    inspect("C54-prefixed-tenant", (("Grpc-Metadata-Tenant", "t"),), metadata({"tenant": "t"})),
    inspect("C54-binary", (("Grpc-Metadata-Foo-Bin", "AQI"),), metadata({"foo-bin": "0102"})),
    inspect("C54-bad-binary", (("Grpc-Metadata-Foo-Bin", "!"),), status=400),
    inspect(
        "C54-hop-by-hop",
        (("Connection", "grpc-metadata-foo"), ("Grpc-Metadata-Foo", "x")),
        metadata(absent=("foo", "connection")),
    ),
    inspect("C54-not-ascii", (("Grpc-Metadata-Foo", "caf\xe9"),), metadata(absent=("foo",))),
    inspect("C54-bad-key", (("Grpc-Metadata-Foo!", "x"),), metadata(absent=("foo!", "foo"))),
    inspect(
        "C54-listed",
        (
            ("traceparent", TRACE),
            ("tracestate", "a=b"),
            ("baggage", "c=d"),
            ("Accept-Language", "vi"),
            ("webhook-id", "w"),
            ("webhook-timestamp", "1"),
            ("webhook-signature", "v1,x"),
            ("Idempotency-Key", "k"),
            ("x-passed", "p"),
        ),
        metadata(
            {
                "traceparent": TRACE,
                "tracestate": "a=b",
                "baggage": "c=d",
                "accept-language": "vi",
                "webhook-id": "w",
                "webhook-timestamp": "1",
                "webhook-signature": "v1,x",
                "idempotency-key": "k",
                "x-passed": "p",
            }
        ),
    ),
    inspect("C54-a-trace-is-begun", check=begins_a_trace),
    inspect("C54-what-is-no-trace-is-replaced", (("traceparent", "00-1-2-01"), ("tracestate", "a=b")), begins_a_trace),
    inspect("C54-not-listed", (("x-other", "y"), ("Cookie", "a=b")), metadata(absent=("x-other", "cookie"))),
    inspect(
        "C54-request-id-is-passed-on",
        (("x-request-id", "abc-1"),),
        lambda a: (metadata({"x-request-id": "abc-1"})(a), header("x-request-id", "abc-1")(a)),
    ),
    inspect("C54-request-id-is-made", check=lambda a: metadata({"x-request-id": a.headers["x-request-id"]})(a)),
    inspect(
        "S29-request-id-of-strange-text", (("x-request-id", "a b\tc"),), lambda a: a.headers["x-request-id"] != "a b\tc"
    ),
    inspect(
        "C55-forwarded-for",
        (("X-Forwarded-For", "1.2.3.4"), ("Grpc-Metadata-X-Forwarded-For", "1.2.3.4")),
        metadata({"x-forwarded-for": "127.0.0.1"}),
    ),
    *(
        inspect(
            f"C55-{name}",
            ((f"Grpc-Metadata-{name}", "x"), *(((name, "x"),) if name != "host" else ())),  # of which there is one
            metadata(absent=(name.lower(), name.lower().replace("-", "_"))),
        )
        for name in (
            "X-Shop-Caller",
            "X-User-Id",
            "X-Envoy-Peer-Metadata",
            "X_Shop_Caller",
            "grpc-timeoutx",
            "x-forwarded-client-cert",
            "host",
        )
    ),
    inspect(
        "C55-authorization-cannot-be-prefixed",
        (("Grpc-Metadata-Authorization", "x"),),
        metadata(absent=("authorization",)),
    ),
    inspect("S21-two-authorizations", (("Authorization", "Bearer a"), ("Authorization", "Bearer b")), status=400),
    inspect("S21-two-hosts", (("Host", "evil"),), status=400),
    inspect("S10-more-headers-than-anyone-needs", tuple((f"X-{n}", "x") for n in range(100)), status=431),
    inspect("S21-too-much-metadata", (("Authorization", "B" * 8000),), status=431),
    inspect(
        "C56-exposed",
        check=lambda a: (
            header("etag", '"from-md"')(a),
            header("x-shown", "yes")(a),
            header("x-shown-bin", "AQI=")(a),
            header("x-secret", None)(a),
            header("grpc-trailer-x-shown", None)(a),
        ),
    ),
    inspect(
        "C56-trailers-on-demand",
        (("TE", "trailers"),),
        lambda a: (header("grpc-trailer-x-shown", "trailer")(a), header("grpc-trailer-x-secret", None)(a)),
    ),
    get("C57-timeout", "/v1/sleep/c57?seconds=5", {"code": 4}, status=504, headers=(("Grpc-Timeout", "10m"),)),
    get(
        "C57-invalid-timeout",
        "/v1/sleep/c57?seconds=0",
        {"code": 3},
        status=400,
        headers=(("Grpc-Timeout", "INVALID"),),
    ),
    get("C57-too-many-digits", "/v1/sleep/c57?seconds=0", status=400, headers=(("Grpc-Timeout", "123456789S"),)),
    inspect("C57-remaining-time", (("Grpc-Timeout", "20S"),), lambda a: 5 < a.json["timeRemaining"] < 20.2),
    inspect("C57-default", check=lambda a: 21 < a.json["timeRemaining"] < 30.5),
    inspect("C57-no-more-than-the-default", (("Grpc-Timeout", "5H"),), lambda a: 21 < a.json["timeRemaining"] < 30.5),
    Case(
        id="C67-HEAD",
        method="HEAD",
        path="/v1/shelves/1",
        check=lambda a: (text(b"")(a), header("content-length", "71")(a)),
    ),
    Case(id="C67-HEAD-not-found", method="HEAD", path="/nothing", status=404, check=text(b"")),
    Case(id="C67-HEAD-of-a-stream", method="HEAD", path="/v1/watch/x?count=1", check=text(b"")),
    Case(
        id="C67-OPTIONS",
        method="OPTIONS",
        path="/v1/shelves",
        status=204,
        check=header("allow", "GET, HEAD, OPTIONS, POST"),
    ),
    Case(id="C67-OPTIONS-unknown", method="OPTIONS", path="/nothing", status=404),
    post("C68-unbound-is-off", "/edgetest.v1.Library/Unbound", {}, status=404),
    post("C68-unbound-by-option", "/edgetest.v1.Library/Unbound", {"name": "u"}, {"name": "u"}, other=True),
    post("C68-bound-methods-have-no-second-path", "/edgetest.v1.Library/Echo", {}, status=404, other=True),
    get("C72-serving", "/healthz", {"status": "SERVING"}),
    get("C72-service", "/healthz?service=edgetest.v1.Library", {"status": "SERVING"}),
    get("C72-unknown-service", "/healthz?service=nope.Nope", {"status": "SERVICE_UNKNOWN"}, status=404),
    post("C72-method", "/healthz", b"", status=405),
    get("ETAG-of-the-reply", "/v1/single/tagged", {"etag": "v7"}, check=header("etag", '"v7"')),
    get(
        "ETAG-if-none-match",
        "/v1/single/tagged",
        status=304,
        headers=(("If-None-Match", 'W/"v6", "v7"'),),
        check=text(b""),
    ),
    get("ETAG-if-none-match-of-another", "/v1/single/tagged", {"etag": "v7"}, headers=(("If-None-Match", '"v6"'),)),
    send(
        "ETAG-if-match",
        "PATCH",
        "/v1/shelves/1",
        {"n": 1},
        headers=(JSON, ("If-Match", '"v7"')),
        check=lambda a: a.json["shelf"]["etag"] == "v7",
    ),
    send(
        "ETAG-if-match-against-the-body",
        "PATCH",
        "/v1/shelves/1",
        {"etag": "v6"},
        status=400,
        headers=(JSON, ("If-Match", '"v7"')),
    ),
    send("ETAG-if-match-weak", "PATCH", "/v1/shelves/1", {"n": 1}, status=400, headers=(JSON, ("If-Match", 'W/"v7"'))),
    post(
        "KEY-becomes-the-request-id",
        "/v1/shelves",
        {"s": "a"},
        {"requestId": "k-1"},
        headers=(JSON, ("Idempotency-Key", '"k-1"')),
    ),
    post(
        "KEY-agrees-with-the-body",
        "/v1/shelves?request_id=k-1",
        {"s": "a"},
        {"requestId": "k-1"},
        headers=(JSON, ("Idempotency-Key", "k-1")),
    ),
    post(
        "KEY-differs-from-the-body",
        "/v1/shelves?request_id=k-2",
        {"s": "a"},
        status=400,
        field="requestId",
        headers=(JSON, ("Idempotency-Key", "k-1")),
    ),
    post("KEY-too-long", "/v1/shelves", {"s": "a"}, status=400, headers=(JSON, ("Idempotency-Key", "k" * 300))),
    post(
        "KEY-twice",
        "/v1/shelves",
        {"s": "a"},
        status=400,
        headers=(JSON, ("Idempotency-Key", "a"), ("Idempotency-Key", "b")),
    ),
    post("KEY-without-a-request-id", "/v1/echo", {}, {}, headers=(JSON, ("Idempotency-Key", "k-1"))),
    get(
        "VARY", "/v1/shelves/1", check=header("vary", "accept, accept-encoding, accept-language, authorization, origin")
    ),
    post("CACHE-writes-are-not-stored", "/v1/echo", {}, {}, check=header("cache-control", "no-store")),
    get("CACHE-errors-are-not-stored", "/nothing", status=404, check=header("cache-control", "no-store")),
]
