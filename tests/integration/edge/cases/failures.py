"""Error responses: C50 to C53."""

import base64

from tests.integration.edge.cases.case import TYPE, Case, detail_types, get, header


def _code(code: int, status: int) -> Case:
    return get(
        f"C50-code-{code}",
        f"/v1/fail?code={code}&message=boom%20%C3%A9",
        {"code": code, "message": "boom é", "details": []} if code != 14 else {"code": 14},
        status=status,
    )


STATUSES = (499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401)
CASES = [
    *(_code(code, status) for code, status in enumerate(STATUSES, 1)),
    get(
        "C51-json-from-the-edge-itself",
        "/nothing",
        {"code": 5},
        status=404,
        check=header("content-type", "application/json"),
    ),
    get(
        "C51-problem",
        "/v1/fail?code=5&message=gone&details=error_info",
        {"status": 404, "title": "Not Found", "detail": "gone", "type": "urn:error:test:TEST", "code": 5},
        status=404,
        headers=(("accept", "application/problem+json"),),
        check=header("content-type", "application/problem+json"),
    ),
    get(
        "C51-problem-from-the-edge-itself",
        "/v1/echo?bogus=1",
        {"status": 400, "type": "about:blank"},
        status=400,
        headers=(("accept", "application/problem+json, application/json"),),
    ),
    get(
        "C52-details",
        "/v1/fail?code=3&message=m&details=bad_request&details=error_info",
        status=400,
        field="item.s",
        check=detail_types("google.rpc.BadRequest", "google.rpc.ErrorInfo"),
    ),
    get(
        "C52-unknown-detail",
        "/v1/fail?code=3&message=m&details=unknown&details=error_info",
        {
            "code": 3,
            "message": "m",
            "details": [
                {"@type": TYPE + "nope.Nope", "value": base64.b64encode(b"\x08\x01").decode()},
                {"@type": TYPE + "google.rpc.ErrorInfo", "reason": "TEST", "domain": "test", "metadata": {"a": "b"}},
            ],
        },
        status=400,
    ),
    get(
        "C52-localized",
        "/v1/fail?code=3&message=m&details=localized",
        status=400,
        check=detail_types("google.rpc.LocalizedMessage"),
    ),
    get("C53-challenge", "/v1/fail?code=16&message=m", status=401, check=header("www-authenticate", "Bearer")),
    get(
        "C53-challenge-for-a-bad-token",
        "/v1/fail?code=16&message=m&details=error_info&reason=TOKEN_INVALID",
        status=401,
        check=header("www-authenticate", 'Bearer error="invalid_token"'),
    ),
    get(
        "C53-retry-after-429",
        "/v1/fail?code=8&message=m&details=retry_info",
        status=429,
        check=header("retry-after", "3"),
    ),
    get(
        "C53-retry-after-503",
        "/v1/fail?code=14&message=m&details=retry_info",
        status=503,
        check=header("retry-after", "3"),
    ),
    get("C53-no-retry-after", "/v1/fail?code=8&message=m", status=429, check=header("retry-after", None)),
    get(
        "S16-addresses-stay-inside",
        "/v1/fail?code=14&message=failed%20to%20connect%20to%20all%20addresses;%20ipv4:127.0.0.1:99",
        {"message": "the service cannot be reached"},
        status=503,
    ),
    get(
        "S16-exceptions-stay-inside",
        "/v1/fail?code=2&message=Unexpected%20%3Cclass%20'ValueError'%3E:%20hunter2",
        {"message": "the service failed"},
        status=500,
    ),
    get("S16-reflection-is-no-path", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", status=404),
    get("S16-docs-of-others", "/metrics", status=404),
]
