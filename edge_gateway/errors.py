"""Error responses: google.rpc.Status as JSON, or RFC 9457 if the client accepts it.

Every error is an EdgeError, whether the edge found it (the functions below) or the back end returned it
(`from_status`). Rendering is one function, so that both look alike.
"""

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

Detail = dict[str, Any]

_TYPE = "type.googleapis.com/google.rpc."

CODE_NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
#: HTTP statuses, indexed by gRPC code, as grpc-gateway, Envoy and Vanguard map them.
HTTP_STATUSES = (200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401)

_STANDARD_TITLES = {499: "Client Closed Request"}


def http_status(code: int) -> int:
    """Map a gRPC code to an HTTP status; map an unknown code to 500."""
    return HTTP_STATUSES[code] if 0 <= code < len(HTTP_STATUSES) else 500


@dataclass(slots=True, eq=False)
class EdgeError(Exception):
    """An error response."""

    code: int
    message: str
    details: tuple[Detail, ...] = ()
    #: Overrides what `code` maps to.
    status: int | None = None
    #: For a 405: the methods of the rules at this path.
    allowed: tuple[str, ...] = ()
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def __str__(self) -> str:
        return self.message

    @property
    def http_status(self) -> int:
        """Return the HTTP status: the override, or the status of the code."""
        return self.status if self.status is not None else http_status(self.code)

    @property
    def reason(self) -> str:
        """The reason of the ErrorInfo, or an empty string."""
        return next((str(detail.get("reason", "")) for detail in self.details if _is(detail, "ErrorInfo")), "")

    def as_json(self) -> dict[str, Any]:
        """Return the error as google.rpc.Status in JSON."""
        return {"code": self.code, "message": self.message, "details": list(self.details)}


def invalid_argument(message: str, violations: Iterable[tuple[str, str]] = ()) -> EdgeError:
    """Return the error of an invalid request; `violations` are pairs of a JSON field path and a description."""
    found = [{"field": path, "description": description} for path, description in violations]
    details = ({"@type": _TYPE + "BadRequest", "fieldViolations": found},) if found else ()
    return EdgeError(3, message, details)


def invalid_field(path: str, description: str) -> EdgeError:
    """Return a 400 for one field, named by its JSON path."""
    return invalid_argument(f"{path}: {description}" if path else description, [(path, description)])


def not_found(path: str) -> EdgeError:
    """Return a 404 for a path without a route."""
    return EdgeError(5, "no route matches this path", (error_info("ROUTE_NOT_FOUND", path=path[:200]),))


def method_not_allowed(allowed: Collection[str]) -> EdgeError:
    """Return a 405 with the methods that the path supports."""
    details = (error_info("METHOD_NOT_ALLOWED", allow=allow_header(allowed)),)
    return EdgeError(12, "the path does not support this method", details, 405, tuple(sorted(allowed)))


def allow_header(methods: Collection[str]) -> str:
    """Return the Allow header: the methods of the rules, and those that the edge serves itself."""
    return ", ".join(sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])}))


def payload_too_large(limit: int) -> EdgeError:
    """Return a 413 for a body larger than `limit` bytes."""
    return EdgeError(8, f"the request body is larger than {limit} bytes", (error_info("BODY_TOO_LARGE"),), 413)


def unsupported_media_type(message: str) -> EdgeError:
    """Return a 415."""
    return EdgeError(3, message, (error_info("UNSUPPORTED_MEDIA_TYPE"),), 415)


def internal(message: str = "internal error") -> EdgeError:
    """Return a 500."""
    return EdgeError(13, message)


def unavailable(message: str, *, retry_after: float | None = None) -> EdgeError:
    """Return a 503; tell the client to retry after `retry_after` seconds, if given."""
    return EdgeError(14, message, () if retry_after is None else (retry_info(retry_after),))


def error_info(reason: str, **metadata: str) -> Detail:
    """Return a google.rpc.ErrorInfo of the domain `edge`."""
    return {"@type": _TYPE + "ErrorInfo", "reason": reason, "domain": "edge", "metadata": metadata}


def retry_info(seconds: float) -> Detail:
    """Return a google.rpc.RetryInfo."""
    return {"@type": _TYPE + "RetryInfo", "retryDelay": f"{seconds:.3f}s".replace(".000s", "s")}


@dataclass(frozen=True, slots=True)
class Rendered:
    """An error as an HTTP response."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def render(error: EdgeError, accept: bytes = b"") -> Rendered:
    """Render an error, as problem+json if the Accept header names it."""
    status = error.http_status
    problem = b"application/problem+json" in accept
    document = _problem(error, status) if problem else error.as_json()
    headers = [(b"content-type", b"application/problem+json" if problem else b"application/json")]
    headers += error.headers
    if error.allowed:
        headers.append((b"allow", allow_header(error.allowed).encode()))
    if status == 401:
        headers.append((b"www-authenticate", _challenge(error)))
    if status in (429, 503) and (delay := _retry_delay(error.details)) is not None:
        headers.append((b"retry-after", str(delay).encode()))
    return Rendered(status, headers, json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())


def _problem(error: EdgeError, status: int) -> Mapping[str, Any]:
    info = next((detail for detail in error.details if _is(detail, "ErrorInfo")), None)
    kind = f"urn:error:{info.get('domain', '')}:{info.get('reason', '')}" if info else "about:blank"
    return {"type": kind, "title": _title(status), "status": status, "detail": error.message, **error.as_json()}


def _title(status: int) -> str:
    return _STANDARD_TITLES.get(status) or HTTPStatus(status).phrase


def _challenge(error: EdgeError) -> bytes:
    """Return the WWW-Authenticate challenge; RFC 6750 wants an error code only for a token that is invalid."""
    return b'Bearer error="invalid_token"' if "INVALID" in error.reason or "EXPIRED" in error.reason else b"Bearer"


def _retry_delay(details: Iterable[Detail]) -> int | None:
    for detail in details:
        if _is(detail, "RetryInfo"):
            try:
                return max(0, math.ceil(float(str(detail.get("retryDelay", "0s")).removesuffix("s"))))
            except ValueError:
                return None
    return None


def _is(detail: Detail, name: str) -> bool:
    return bool(detail.get("@type") == _TYPE + name)
