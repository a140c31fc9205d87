"""Maps request headers to metadata, and reply metadata to response headers.

Only listed names pass, in either direction. A client sets other metadata by `Grpc-Metadata-<name>`, except
the names that the mesh and this edge reserve.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence

from edge_gateway.errors import EdgeError, invalid_argument
from edge_gateway.grpc_client.upstreams import RawMetadata
from edge_gateway.http.headers import FORWARDED, Header

#: Those that `trace_context` sets.
TRACE = {"traceparent", "tracestate"}
#: Reply metadata exposed as headers under their own names.
EXPOSED = (
    "cache-control", "content-disposition", "content-language", "deprecation", "etag", "last-modified", "link",
    "location", "ratelimit", "ratelimit-policy", "retry-after", "sunset", "warning",
)  # fmt: skip
_PREFIX = b"grpc-metadata-"
_KEY = re.compile(r"[a-z0-9._-]{1,100}")
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
#: Reserved for the mesh and HTTP itself: the prefix cannot set them.
_RESERVED = {
    "connection", "content-length", "content-type", "cookie", "forwarded", "host", "te", "trailer", "transfer-encoding",
    "upgrade", "user-agent", "x-real-ip", "x-request-id",
}  # fmt: skip
_RESERVED_PREFIXES = ("grpc-", "proxy-", "x-b3-", "x-envoy-", "x-forwarded-", "x-shop-", "x-user-")
#: gRPC servers reject metadata at random beyond 8 KiB.
MAX_METADATA = 7 * 1024


class MetadataIn:
    """Maps request headers to metadata."""

    def __init__(self, *, forwarded: Iterable[str] = (), fixed: Iterable[tuple[str, str]] = ()) -> None:
        names = {*FORWARDED, *(name.lower() for name in forwarded)}
        self._names = {name.encode(): name for name in names - TRACE}
        self._fixed = list(fixed)
        self._reserved = {*_RESERVED, *names, *(name for name, _ in self._fixed)}

    def build(self, headers: Sequence[Header], request_id: str, client: str) -> list[tuple[str, str | bytes]]:
        """Build a call's metadata, or raise EdgeError 400 or 431."""
        metadata: list[tuple[str, str | bytes]] = [*self._fixed, ("x-request-id", request_id)]
        if client:
            metadata.append(("x-forwarded-for", client))
        names = self._names
        size = 0
        for name, value in headers:
            passed = names.get(name)
            if passed is not None:
                if value.isascii():
                    metadata.append((passed, value.decode()))
                    size += len(value)
            elif name.startswith(_PREFIX):
                size += len(name) + len(value)
                self._add_prefixed(metadata, name[len(_PREFIX) :].decode("latin-1"), value, headers)
        if size > MAX_METADATA:
            raise EdgeError(3, f"the headers to pass on are larger than {MAX_METADATA} bytes", (), 431)
        return metadata

    def _add_prefixed(
        self, metadata: list[tuple[str, str | bytes]], name: str, value: bytes, headers: Sequence[Header]
    ) -> None:
        spoken = name.replace("_", "-")
        if not _KEY.fullmatch(name) or spoken in self._reserved or spoken.startswith(_RESERVED_PREFIXES):
            return
        if (_PREFIX + name.encode()) in _hop_by_hop(headers):
            return
        if name.endswith("-bin"):
            metadata.append((name, _decode_base64(name, value)))
        elif value.isascii():
            metadata.append((name, value.decode()))


def _hop_by_hop(headers: Sequence[Header]) -> set[bytes]:
    return {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}


def _decode_base64(name: str, value: bytes) -> bytes:
    standard = value.strip().replace(b"-", b"+").replace(b"_", b"/").rstrip(b"=")
    try:
        return base64.b64decode(standard + b"=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_argument(f"the header Grpc-Metadata-{name} is not base64") from None


def parse_timeout(value: bytes) -> float:
    """Parse Grpc-Timeout, such as `10m` for ten milliseconds."""
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        raise invalid_argument("the header Grpc-Timeout is not a number of at most 8 digits and one of H M S m u n")
    return int(found[1]) * _UNITS[found[2]]


class HeadersOut:
    """Maps reply metadata to response headers."""

    def __init__(self, exposed: Iterable[str] = ()) -> None:
        self._names = {name.lower(): name.lower().encode() for name in (*EXPOSED, *exposed)}

    def initial(self, metadata: RawMetadata) -> list[Header]:
        """Return the exposed names of initial metadata as headers."""
        return [
            (name, value) for key, raw in metadata if (name := self._names.get(key)) and (value := _value(key, raw))
        ]

    def trailing(self, metadata: RawMetadata) -> list[Header]:
        """Return the exposed names of trailing metadata as `Grpc-Trailer-` headers."""
        return [(b"grpc-trailer-" + name, value) for name, value in self.initial(metadata)]


def _value(key: str, raw: str | bytes) -> bytes:
    """Return the text of a header; empty if it contains more than printable ASCII."""
    if key.endswith("-bin"):
        return base64.b64encode(raw if isinstance(raw, bytes) else raw.encode())
    text = raw.decode("latin-1") if isinstance(raw, bytes) else raw
    return text.encode() if text.isascii() and text.isprintable() else b""
