"""The stages of a request: route, bind, invoke, render. Unary calls, HTTP streams and WebSockets run the same.

Each stage takes the `EdgeCall` of the request and fills what the next ones read. Errors are EdgeErrors at every stage.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Hashable
from contextlib import asynccontextmanager
from typing import Any

from protobuf import Message, Registry

from edge_gateway.errors import EdgeError, not_found
from edge_gateway.grpc_client.invoker import GrpcInvoker, to_binary
from edge_gateway.grpc_client.status import StatusReader
from edge_gateway.grpc_client.upstreams import GrpcCall, RawMetadata, Reply, UpstreamError, Upstreams
from edge_gateway.handlers.relay import Relay, Relays
from edge_gateway.http.exchange import Exchange, Request
from edge_gateway.http.headers import Header
from edge_gateway.json.protojson import JsonCodec, JsonFormat
from edge_gateway.json.transcoder import Rendered, ResponseFormat, Transcoder
from edge_gateway.policies.conditional_requests import ConditionalRequests
from edge_gateway.routing.descriptors import reason_statuses
from edge_gateway.routing.router import Match, Router
from edge_gateway.routing.rules import Routes, Rule
from edge_gateway.settings import Settings

#: Replies that are kept in rendered form, and the bytes of the largest of them: both sizes of one are of this order.
_KEPT_REPLIES = 256
_LARGEST_KEPT = 32_768


class RenderedReplies:
    """Rendered replies, by everything that they are made from: the rule, the JSON format and the bytes of the reply."""

    def __init__(self) -> None:
        self._replies: OrderedDict[Hashable, Rendered] = OrderedDict()

    def get(self, key: Hashable) -> Rendered | None:
        """Return a rendered reply, None when it is not kept."""
        rendered = self._replies.get(key)
        if rendered is not None:
            self._replies.move_to_end(key)
        return rendered

    def put(self, key: Hashable, rendered: Rendered) -> None:
        """Keep a rendered reply, unless it is large, and drop the one that was not read for the longest time."""
        if len(rendered.body) <= _LARGEST_KEPT:
            self._replies[key] = rendered
            if len(self._replies) > _KEPT_REPLIES:
                self._replies.popitem(last=False)


class EdgeCall:
    """One request on its way through the stages."""

    __slots__ = ("format", "match", "message", "request", "rule")

    def __init__(self, request: Request, match: Match[Rule]) -> None:
        self.request = request
        self.match = match
        self.rule = match.target
        #: The gRPC request, or of a client's stream what path and query say of each message. Set by `bind`.
        self.message: Message
        #: How replies are written. Set by `bind`.
        self.format: ResponseFormat


class Pipeline:
    """The stages, in their order."""

    def __init__(self, registry: Registry, routes: Routes, upstreams: Upstreams, settings: Settings) -> None:
        fmt = JsonFormat(
            emit_defaults=settings.emit_defaults, proto_names=settings.proto_names, enum_numbers=settings.enum_numbers
        )
        self._settings = settings
        self._router: Router[Rule] = routes.router
        self._transcoder = Transcoder(JsonCodec(registry, ignore_unknown=settings.ignore_unknown), fmt)
        self._conditions = ConditionalRequests(settings.public_max_age)
        self._invoker = GrpcInvoker(upstreams, StatusReader(registry, reason_statuses(registry)), settings)
        self._rendered = RenderedReplies()
        self.relays = Relays()

    def route(self, request: Request) -> EdgeCall:
        """Find the rule of a request; 400, 404 or 405 if there is none."""
        return EdgeCall(request, self._router.match(request.method, request.path))

    def route_socket(self, request: Request) -> EdgeCall:
        """Find the streaming rule at the path of a WebSocket handshake, which is always a GET; 404 if there is none."""
        for method in self._router.methods(request.path):
            match = self._router.match(method, request.path)
            if not match.target.rpc.is_unary and not match.target.raw_response:
                return EdgeCall(request, match)
        raise not_found(request.path)

    async def bind_body(self, call: EdgeCall, exchange: Exchange) -> None:
        """Read the request's body, if its rule has one, and bind it."""
        settings = self._settings
        body = await exchange.body(settings.max_body, settings.body_timeout) if call.rule.has_body else b""
        self.bind(call, body)

    def bind(self, call: EdgeCall, body: bytes = b"") -> None:
        """Fill the call's message from path, query, body and headers, and choose the format of replies; 400 or 415."""
        request = call.request
        message, system = self._transcoder.decode_request(
            call.match, body, request.header(b"content-type"), request.query
        )
        self._conditions.to_request(call.rule, request.headers, message)
        call.message = message
        call.format = self._transcoder.response_format(call.rule, system, request.header(b"accept"))

    def bind_part(self, call: EdgeCall, part: bytes) -> bytes:
        """Return the binary form of one message of a client's stream; 400."""
        request = call.request
        message, _ = self._transcoder.decode_request(
            call.match, part, request.header(b"content-type"), request.query, of_stream=True
        )
        return to_binary(message)

    async def invoke(self, call: EdgeCall) -> Reply:
        """Call the unary method."""
        return await self._invoker.unary(call.request, call.rule, call.message)

    async def open(self, call: EdgeCall) -> GrpcCall:
        """Open the streaming method."""
        return await self._invoker.open(call.request, call.rule)

    @asynccontextmanager
    async def relay(
        self, call: EdgeCall, grpc_call: GrpcCall, inbound: Coroutine[Any, Any, None]
    ) -> AsyncIterator[Relay]:
        """Relay an open call's stream; `inbound` sends the requests and then waits until the client disconnects."""
        relay = self.relays.open(grpc_call, inbound)
        try:
            yield relay
        except UpstreamError as failure:
            raise self.failure(call, failure) from None
        finally:
            await relay.close()

    def render(self, call: EdgeCall, reply: bytes) -> Rendered:
        """Write a reply as the client wants it."""
        rule = call.rule
        if not _is_public_read(rule) or call.format.selection:
            return self._transcoder.encode_reply(rule, self._transcoder.decode_reply(rule, reply), call.format)
        key = (id(rule), call.format.json, reply)
        rendered = self._rendered.get(key)
        if rendered is None:
            message = self._transcoder.decode_reply(rule, reply)
            rendered = self._transcoder.encode_reply(rule, message, call.format)
            self._rendered.put(key, rendered)
        return rendered

    def add_reply_headers(self, call: EdgeCall, rendered: Rendered, headers: list[Header]) -> int:
        """Add the caching headers of a unary reply; return its status: 200, or 304 if the client has this reply."""
        return self._conditions.to_reply(call.rule, call.request, rendered.message, rendered.body, headers)

    def metadata_headers(self, call: EdgeCall, initial: RawMetadata, trailing: RawMetadata = ()) -> list[Header]:
        """Return the metadata of a reply that clients may see, as headers."""
        return self._invoker.headers(call.request, initial, trailing)

    def failure(self, call: EdgeCall, failure: UpstreamError) -> EdgeError:
        """Return the EdgeError of a failed call."""
        return self._invoker.failure(call.request, call.rule, failure)


def _is_public_read(rule: Rule) -> bool:
    """Return whether the rule's replies are worth keeping: everyone may see them, and they come again and again."""
    rpc = rule.rpc
    return rule.method == "GET" and rpc.is_unary and rpc.policy is not None and rpc.policy.access == "PUBLIC"


async def send_one(grpc_call: GrpcCall, message: Message) -> None:
    """Send the only request of a stream of replies."""
    await grpc_call.write(to_binary(message))
    await grpc_call.done_writing()
