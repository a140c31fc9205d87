"""Cross-origin requests of browsers, without credentials: callers send bearer tokens, never cookies."""

import re
from collections.abc import Iterable

from edge_gateway.http.headers import FORWARDED, Header

_ALLOWED = {
    *(name.encode() for name in FORWARDED), b"accept", b"content-type", b"grpc-timeout", b"if-match", b"if-none-match",
    b"last-event-id", b"x-request-id",
}  # fmt: skip
_PREFIX = b"grpc-metadata-"
_EXPOSED = ("etag", "location", "ratelimit", "ratelimit-policy", "retry-after", "www-authenticate", "x-request-id")


class Cors:
    """Builds the headers of preflights and responses for allowed origins."""

    def __init__(self, origins: Iterable[str], *, exposed: Iterable[str] = (), max_age: int = 7200) -> None:
        self._exact = {origin.encode() for origin in origins}
        self._any = b"*" in self._exact
        self._patterns = [_pattern(origin) for origin in self._exact if b"*" in origin and origin != b"*"]
        self._exposed: Header = (b"access-control-expose-headers", ", ".join((*_EXPOSED, *exposed)).encode())
        self._max_age: Header = (b"access-control-max-age", b"%d" % max_age)

    def allows(self, origin: bytes) -> bool:
        """Return whether an origin is allowed."""
        return self._any or origin in self._exact or any(pattern.fullmatch(origin) for pattern in self._patterns)

    def headers(self, origin: bytes) -> list[Header]:
        """Return the headers of a response to an origin; none if it is not allowed."""
        return [(b"access-control-allow-origin", origin), self._exposed] if self.allows(origin) else []

    def preflight(self, origin: bytes, methods: bytes, wanted: bytes) -> list[Header]:
        """Return the headers of a preflight's response for a path with these methods."""
        if not self.allows(origin):
            return []
        names = [name for part in wanted.lower().split(b",") if _is_allowed(name := part.strip())]
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", b", ".join(names)),
            self._max_age,
            (b"vary", b"origin, access-control-request-method, access-control-request-headers"),
        ]


def _is_allowed(name: bytes) -> bool:
    return name in _ALLOWED or name.startswith(_PREFIX)


def _pattern(origin: bytes) -> re.Pattern[bytes]:
    """Compile `https://*.example.com`, any host below example.com, or `http://localhost:*`, any port."""
    return re.compile(re.escape(origin).replace(rb"\*\.", rb"(?:[a-z0-9-]+\.)+").replace(rb":\*", rb":[0-9]+"))
