"""ProtoJSON of replies: C40, C46 to C48 and C70."""

from urllib.parse import quote

from tests.integration.edge.cases.case import bad, echo, get, lacks, text

CASES = [
    get(
        "C40-out",
        "/v1/echo?i64=5&u64=6&si64=-7&fx32=8&i32=9",
        {"i64": "5", "u64": "6", "si64": "-7", "fx32": 8, "i32": 9},
    ),
    *(
        echo(f"C46-timestamp-{value}", {"ts": value}, {"ts": expected})
        for value, expected in (
            ("2020-01-02T03:04:05Z", "2020-01-02T03:04:05Z"),
            ("2020-01-02T03:04:05.1Z", "2020-01-02T03:04:05.100Z"),
            ("2020-01-02T03:04:05.000001Z", "2020-01-02T03:04:05.000001Z"),
            ("2020-01-02T03:04:05.000000001Z", "2020-01-02T03:04:05.000000001Z"),
        )
    ),
    *(
        echo(f"C46-duration-{value}", {"du": value}, {"du": expected})
        for value, expected in (("3s", "3s"), ("-1.5s", "-1.500s"), ("0.000000001s", "0.000000001s"))
    ),
    get("C47-unknown-any-in-a-reply", "/v1/unreadable", {"code": 13}, status=500),
    get(
        "C48-defaults-are-written",
        "/v1/echo",
        {"name": "", "i32": 0, "i64": "0", "flag": False, "rs": [], "ms": {}, "color": "COLOR_UNSPECIFIED"},
        check=lacks("opt", "optText", "sub", "w64", "oa", "ts"),
    ),
    get("C48-defaults-are-left-out-on-demand", "/v1/echo?$alt=json;defaults=omit", check=text(b"{}")),
    get(
        "C48-defaults-are-left-out-by-accept",
        "/v1/echo",
        headers=(("accept", "application/json; defaults=omit"),),
        check=text(b"{}"),
    ),
    get("C48-omitted-by-option", "/v1/echo", check=text(b"{}"), other=True),
    get("C48-written-on-demand", "/v1/shelves/1?$alt=json;defaults=emit", {"tags": []}, other=True),
    get("C48-empty-message", "/v1/deep/nothing", {"name": "", "n": 0}),
    get("C70-proto-names-by-option", "/v1/echo?snakeCaseName=x", {"snake_case_name": "x"}, other=True),
    get(
        "C70-proto-names-on-demand",
        "/v1/echo?snakeCaseName=x&$alt=json;names=proto;defaults=omit",
        check=text(b'{"snake_case_name":"x"}'),
    ),
    get(
        "C70-json-names-on-demand", "/v1/echo?snakeCaseName=x&$alt=json;names=json", {"snakeCaseName": "x"}, other=True
    ),
    get("C70-enum-numbers-by-option", "/v1/echo?color=1", {"color": 1}, other=True),
    get("C70-enum-numbers-on-demand", "/v1/echo?color=1&$alt=json;enum-encoding=int", {"color": 1}),
    get("C70-pretty", "/v1/shelf-token?prettyPrint=true", check=text(b'"next"')),
    get(
        "C70-fields",
        "/v1/shelves?fields=shelves(name,labels.k)",
        {"shelves": [{"name": f"shelves/{n}", "labels": {"k": "v"}} for n in (1, 2)]},
    ),
    get("C70-fields-by-paths", "/v1/shelves?fields=shelves.name,nextPageToken", {"nextPageToken": "next"}),
    bad("C70-unknown-fields", "/v1/shelves?fields=shelves.bogus", "fields"),
    *(
        bad(f"C70-malformed-fields-{quote(value, safe='')}", f"/v1/shelves?fields={quote(value)}", "fields")
        for value in ("a(", "a)", "a,,b", "(a)", "a..b", "a(b", ",")
    ),
    bad("C70-fields-without-end", "/v1/shelves?fields=" + "shelves(" * 1000, "fields"),
]
