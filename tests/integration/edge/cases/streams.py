"""Streams over plain HTTP: C59 to C64."""

import json

from tests.integration.edge.cases.case import JSON, bad, get, header, post, text

NDJSON, SSE = (("accept", "application/x-ndjson"),), (("accept", "text/event-stream"),)
ARRAY = (("accept", "application/json"),)
CASES = [
    get(
        "C59-ndjson",
        "/v1/watch/w?count=2",
        headers=NDJSON,
        check=text(
            b'{"result":{"name":"w","n":1,"resumeToken":"1"}}\n{"result":{"name":"w","n":2,"resumeToken":"2"}}\n',
            "application/x-ndjson",
        ),
    ),
    get("C59-default-is-ndjson", "/v1/watch/w?count=1", check=header("content-type", "application/x-ndjson")),
    get(
        "C59-sse",
        "/v1/watch/w?count=1",
        headers=SSE,
        check=text(
            b'retry: 2000\n\nid: 1\ndata: {"name":"w","n":1,"resumeToken":"1"}\n\nevent: end\ndata: {}\n\n',
            "text/event-stream",
        ),
    ),
    get(
        "C59-sse-resumes",
        "/v1/watch/w?count=1",
        headers=(*SSE, ("Last-Event-ID", "7")),
        check=text(b'retry: 2000\n\nid: 8\ndata: {"name":"w","n":8,"resumeToken":"8"}\n\nevent: end\ndata: {}\n\n'),
    ),
    get(
        "C59-array", "/v1/watch/w?count=2&fields=n", headers=ARRAY, check=text(b'[{"n":1},{"n":2}]', "application/json")
    ),
    get(
        "C59-options-apply-to-each-message",
        "/v1/watch/w?count=1&$alt=json;names=proto",
        check=text(b'{"result":{"name":"w","n":1,"resume_token":"1"}}\n'),
    ),
    get(
        "C59-a-line-stays-a-line",
        "/v1/watch/w?count=1&prettyPrint=true",
        check=text(b'{"result":{"name":"w","n":1,"resumeToken":"1"}}\n'),
    ),
    get(
        "C61-names-fields-as-json-does",
        "/v1/watch/w?fail_code=3",
        status=400,
        field="resumeToken",
    ),
    *(
        get(
            f"C60-error-before-the-first-message-{kind}",
            "/v1/watch/w?fail_code=5",
            {"code": 5},
            status=404,
            headers=accept,
        )
        for kind, accept in (("ndjson", NDJSON), ("sse", SSE), ("array", ARRAY))
    ),
    bad("C60-bad-request", "/v1/watch/w?count=x", "count"),
    get(
        "C61-ndjson",
        "/v1/watch/w?count=1&fail_code=5&fields=n",
        check=lambda a: (
            json.loads(a.body.splitlines()[-1])["error"]["details"][0]["reason"] == "STREAM_BROKEN"
            and a.body.endswith(b"\n")
        ),
    ),
    get(
        "C61-sse",
        "/v1/watch/w?count=1&fail_code=5&fields=n",
        headers=SSE,
        check=lambda a: b"\n\nevent: error\ndata: {" in a.body and b"event: end" not in a.body,
    ),
    get("C62-ndjson", "/v1/watch/w", check=text(b"")),
    get("C62-array", "/v1/watch/w", headers=ARRAY, check=text(b"[]")),
    get("C62-sse", "/v1/watch/w", headers=SSE, check=text(b"retry: 2000\n\nevent: end\ndata: {}\n\n")),
    get("C63-raw-stream", "/v1/parts/x?count=3", check=text(b"part0;part1;part2;", "text/csv")),
    get("C63-empty-raw-stream", "/v1/parts/x", check=text(b"")),
    post(
        "C59-posted-request",
        "/v1/watch",
        {"name": "p", "count": 1},
        check=text(b'{"result":{"name":"p","n":1,"resumeToken":"1"}}\n'),
    ),
    *(
        post(f"C59-client-stream-{name}", "/v1/collect", body, {"text": "a,b", "n": 3}, headers=headers)
        for name, body, headers in (
            ("array", b'[{"text":"a","n":1}, {"text":"b","n":2}]', (JSON,)),
            ("lines", b'{"text":"a","n":1}\n{"text":"b","n":2}\n', (("content-type", "application/x-ndjson"),)),
            ("concatenated", b'{"text":"a","n":1}{"text":"b","n":2}', ()),
        )
    ),
    post("C59-empty-client-stream", "/v1/collect", b"", {"text": "", "n": 0}),
    *(
        post(f"C59-malformed-client-stream-{name}", "/v1/collect", body, status=400)
        for name, body in (
            ("trailing-comma", b'[{"text":"a"},]'),
            ("missing-comma", b'[{"text":"a"}{"text":"b"}]'),
            ("cut", b'[{"text":"a"}'),
            ("text", b"hello"),
            ("numbers", b"[1,2]"),
            ("after-the-array", b'[{"text":"a"}]{"text":"b"}'),
        )
    ),
    post("C59-bad-message-in-a-client-stream", "/v1/collect", b'{"text":"a"}{"n":"x"}', status=400, field="n"),
    post(
        "C59-media-type-of-a-client-stream",
        "/v1/collect",
        b"text=a",
        status=415,
        headers=(("content-type", "text/plain"),),
    ),
    post(
        "C59-bidi",
        "/v1/chat",
        b'{"text":"a","n":1}{"text":"b","n":2}',
        check=text(b'{"result":{"text":"re: a","n":2}}\n{"result":{"text":"re: b","n":3}}\n'),
    ),
    post(
        "C61-bidi",
        "/v1/chat",
        b'{"text":"a","n":1}{"text":"fail","n":2}',
        check=lambda a: json.loads(a.body.splitlines()[-1])["error"]["code"] == 9,
    ),
]
