"""Invokes gRPC methods for HTTP requests: metadata, deadline, and the mapping of failures to errors."""

from protobuf import Message

from edge_gateway.errors import EdgeError, invalid_argument
from edge_gateway.grpc_client.field_paths import convert_field_paths
from edge_gateway.grpc_client.metadata import HeadersOut, MetadataIn, parse_timeout
from edge_gateway.grpc_client.status import StatusReader
from edge_gateway.grpc_client.trace_context import TraceContext
from edge_gateway.grpc_client.upstreams import GrpcCall, RawMetadata, Reply, UpstreamError, Upstreams
from edge_gateway.http.exchange import Request
from edge_gateway.http.headers import Header
from edge_gateway.routing.rules import Rule
from edge_gateway.settings import Settings


class GrpcInvoker:
    """Invokes methods with the metadata and deadline of an HTTP request."""

    def __init__(self, upstreams: Upstreams, status: StatusReader, settings: Settings) -> None:
        self._upstreams = upstreams
        self._status = status
        self._settings = settings
        self._traces = TraceContext(settings.trace_share)
        self._metadata_in = MetadataIn(forwarded=settings.forwarded_headers, fixed=settings.fixed_metadata)
        self._headers_out = HeadersOut(settings.exposed_headers)

    async def unary(self, request: Request, rule: Rule, message: Message) -> Reply:
        """Make a unary call, or raise EdgeError."""
        metadata, deadline = self._metadata(request), self._deadline(request, rule)
        try:
            return await self._upstreams.unary(rule.rpc.path, to_binary(message), metadata, deadline)
        except UpstreamError as failure:
            raise self.failure(request, rule, failure) from None

    async def open(self, request: Request, rule: Rule) -> GrpcCall:
        """Open a streaming call, or raise EdgeError."""
        metadata, deadline = self._metadata(request), self._deadline(request, rule)
        try:
            return await self._upstreams.stream(rule.rpc.path, metadata, deadline)
        except UpstreamError as failure:
            raise self.failure(request, rule, failure) from None

    def failure(self, request: Request, rule: Rule, failure: UpstreamError) -> EdgeError:
        """Return the error response of a failed call."""
        error = self._status.read(failure)
        convert_field_paths(error, rule.rpc.input)
        error.headers += self.headers(request, failure.initial, failure.trailing)
        return error

    def headers(self, request: Request, initial: RawMetadata, trailing: RawMetadata) -> list[Header]:
        """Return the reply metadata that clients may see, as headers."""
        headers = self._headers_out.initial(initial)
        if trailing and b"trailers" in request.header(b"te"):
            headers += self._headers_out.trailing(trailing)
        return headers

    def _metadata(self, request: Request) -> RawMetadata:
        client = request.client(self._settings.trusted_hops)
        context = self._traces.metadata(request.headers)
        request.trace = context[0][1]
        return [*self._metadata_in.build(request.raw_headers, request.id, client), *context]

    def _deadline(self, request: Request, rule: Rule) -> float | None:
        """Return the shorter of the client's timeout and the method's, in seconds; None for no deadline."""
        policy = rule.rpc.policy
        limit = policy.timeout if policy is not None else None
        if limit is None and rule.rpc.is_unary:
            limit = self._settings.default_timeout
        asked = request.headers.get(b"grpc-timeout")
        if asked is None:
            return limit
        seconds = parse_timeout(asked)
        return seconds if limit is None else min(seconds, limit)


def to_binary(message: Message) -> bytes:
    """Encode a request, or raise EdgeError 400."""
    try:
        return message.to_binary()
    except (ValueError, TypeError, RecursionError) as error:
        raise invalid_argument("the request cannot be encoded") from error
