"""The proxy's own replies as google.rpc.Status in JSON, so that every error has one format."""

from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Struct

#: The lowest HTTP status, the google.rpc.Code, and a message without internals.
_REPLIES = (
    (504, 4, "the answer did not come in time"),
    (500, 14, "the service is not available; try again"),
    (429, 8, "too many requests"),
    (404, 5, "there is nothing at this path"),
    (400, 3, "the request is malformed"),
)


def json_replies() -> hcm.LocalReplyConfig:
    """Return the mappers for calls that are not gRPC; Envoy answers those with a gRPC status itself."""
    return hcm.LocalReplyConfig(mappers=[_mapper(*reply) for reply in _REPLIES])


def _mapper(status: int, code: int, message: str) -> hcm.ResponseMapper:
    body = {"code": code, "message": message, "details": []}
    at_least = accesslog.AccessLogFilter(
        status_code_filter=accesslog.StatusCodeFilter(
            comparison=accesslog.ComparisonFilter(
                op=accesslog.ComparisonFilterOp.GE,
                value=core.RuntimeUInt32(default_value=status, runtime_key=f"local_reply.{status}"),
            )
        )
    )
    not_grpc = accesslog.AccessLogFilter(
        header_filter=accesslog.HeaderFilter(
            header=route.HeaderMatcher(
                name="content-type",
                string_match=matcher.StringMatcher(prefix="application/grpc"),
                invert_match=True,
                treat_missing_header_as_empty=True,
            )
        )
    )
    return hcm.ResponseMapper(
        filter=accesslog.AccessLogFilter(and_filter=accesslog.AndFilter(filters=[at_least, not_grpc])),
        body_format_override=core.SubstitutionFormatString(json_format=Struct.from_dict(body)),
    )
