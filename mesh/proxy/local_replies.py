"""The proxy's own replies as google.rpc.Status in JSON, so that every error has one format."""

from dataclasses import dataclass

from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Struct

_Comparison = accesslog.ComparisonFilterOp


@dataclass(frozen=True)
class _Reply:
    """One HTTP status with its google.rpc.Code, reason, and a message without internals."""

    status: int
    code: int
    reason: str
    message: str
    #: Whether it holds for all statuses from this one on.
    onwards: bool = False
    #: Whether a client may repeat the request a second later.
    retry: bool = False


#: The first that fits counts.
_REPLIES = (
    _Reply(400, 3, "MALFORMED_REQUEST", "the request is malformed"),
    _Reply(404, 5, "NOT_FOUND", "there is nothing at this path"),
    _Reply(408, 4, "REQUEST_TIMEOUT", "the request was not complete in time"),
    _Reply(413, 8, "BODY_TOO_LARGE", "the request is too large"),
    _Reply(414, 3, "URL_TOO_LARGE", "the URL is too large"),
    _Reply(429, 8, "TOO_MANY_REQUESTS", "too many requests", retry=True),
    _Reply(431, 3, "HEADERS_TOO_LARGE", "the headers are too large"),
    _Reply(504, 4, "TIMEOUT", "the answer did not come in time"),
    _Reply(500, 14, "UNAVAILABLE", "the service is not available; try again", onwards=True, retry=True),
    _Reply(400, 3, "MALFORMED_REQUEST", "the request is malformed", onwards=True),
)

#: For gRPC, Envoy translates an HTTP status to a code by itself; these it would report as UNKNOWN.
_UNKNOWN_IN_GRPC = frozenset({413})


def local_replies() -> hcm.LocalReplyConfig:
    """Return the mappers: JSON for calls that are not gRPC, and the statuses of gRPC that Envoy has no code for."""
    coded = [reply for reply in _REPLIES if reply.status in _UNKNOWN_IN_GRPC]
    return hcm.LocalReplyConfig(mappers=[*map(_grpc_mapper, coded), *map(_mapper, _REPLIES)])


def _grpc_mapper(reply: _Reply) -> hcm.ResponseMapper:
    status = core.HeaderValue(key="grpc-status", value=str(reply.code))
    return hcm.ResponseMapper(
        filter=accesslog.AccessLogFilter(
            and_filter=accesslog.AndFilter(filters=[_has_status(reply), _is_grpc(invert=False)])
        ),
        headers_to_add=[core.HeaderValueOption(header=status)],
    )


def _mapper(reply: _Reply) -> hcm.ResponseMapper:
    return hcm.ResponseMapper(
        filter=accesslog.AccessLogFilter(
            and_filter=accesslog.AndFilter(filters=[_has_status(reply), _is_grpc(invert=True)])
        ),
        body_format_override=core.SubstitutionFormatString(json_format=Struct.from_dict(_body(reply))),
        headers_to_add=_retry_after() if reply.retry else [],
    )


def _body(reply: _Reply) -> dict[str, object]:
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reply.reason,
        "domain": "ingress",
        "metadata": {},
    }
    return {"code": reply.code, "message": reply.message, "details": [info]}


def _retry_after() -> list[core.HeaderValueOption]:
    return [core.HeaderValueOption(header=core.HeaderValue(key="retry-after", value="1"))]


def _has_status(reply: _Reply) -> accesslog.AccessLogFilter:
    operator = _Comparison.GE if reply.onwards else _Comparison.EQ
    key = f"local_reply.{reply.status}{'.onwards' if reply.onwards else ''}"
    return accesslog.AccessLogFilter(
        status_code_filter=accesslog.StatusCodeFilter(
            comparison=accesslog.ComparisonFilter(
                op=operator, value=core.RuntimeUInt32(default_value=reply.status, runtime_key=key)
            )
        )
    )


def _is_grpc(*, invert: bool) -> accesslog.AccessLogFilter:
    return accesslog.AccessLogFilter(
        header_filter=accesslog.HeaderFilter(
            header=route.HeaderMatcher(
                name="content-type",
                string_match=matcher.StringMatcher(prefix="application/grpc"),
                invert_match=invert,
                treat_missing_header_as_empty=True,
            )
        )
    )
