"""Streams over plain HTTP: replies as NDJSON, server-sent events or an array, requests as a sequence of objects."""

from protobuf import Message

from edge_gateway.errors import EdgeError, unsupported_media_type
from edge_gateway.grpc_client.invoker import to_binary
from edge_gateway.grpc_client.upstreams import Call, UpstreamError
from edge_gateway.handlers.context import Parts
from edge_gateway.handlers.relay import Event, Relay
from edge_gateway.http.exchange import Disconnected, Exchange
from edge_gateway.http.headers import Header
from edge_gateway.json.json_stream_splitter import ObjectSplitter
from edge_gateway.json.stream_framing import Framing, Raw, choose_framing
from edge_gateway.json.transcoder import View, is_json
from edge_gateway.routing.router import Match
from edge_gateway.routing.rules import Rule

#: How long a stream may stay silent before its answer begins: time enough for a refusal to become a real status.
_FIRST = 1.0
_NDJSON = b"application/x-ndjson"


class HttpStreams:
    """Serves methods that stream in either direction."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def serve(self, exchange: Exchange, match: Match[Rule]) -> None:
        """Serves one call from its first byte to its last."""
        rule, request = match.target, exchange.request
        if request.method == "HEAD":
            media_type = choose_framing(request.header(b"accept")).media_type
            await exchange.answer(200, _common(media_type), b"")
            return
        if rule.rpc.client_streaming:
            self._check_media_type(rule, request.header(b"content-type"))
            message = None
            system = rule.query.bind(rule.rpc.input.type(), request.query)
        else:
            message, system = await self._single(exchange, match)
        view = self._parts.transcoder.view(rule, system, request.header(b"accept"))
        call = await self._parts.caller.open(request, rule)
        up = self._upload(exchange, match, call) if message is None else _send(exchange, call, message)
        relay = self._parts.relays.open(call, up)
        try:
            if rule.rpc.server_streaming:
                await self._many(exchange, rule, view, relay, call)
            else:
                await self._one(exchange, rule, view, relay, call)
        except UpstreamError as failure:
            raise self._parts.caller.failure(request, rule, failure) from None
        finally:
            await relay.close()

    def _check_media_type(self, rule: Rule, content_type: bytes) -> None:
        if content_type and not (rule.raw_request or is_json(content_type) or content_type.startswith(_NDJSON)):
            raise unsupported_media_type("the body must be application/json or application/x-ndjson in UTF-8")

    async def _single(self, exchange: Exchange, match: Match[Rule]) -> tuple[Message, dict[str, str]]:
        rule, request = match.target, exchange.request
        body = (
            await exchange.body(self._parts.settings.max_body, self._parts.settings.body_timeout)
            if rule.has_body
            else b""
        )
        message, system = self._parts.transcoder.request(match, body, request.header(b"content-type"), request.query)
        self._parts.conditions.to_request(rule, request.headers, message)
        return message, system

    async def _upload(self, exchange: Exchange, match: Match[Rule], call: Call) -> None:
        """Sends what the client sends, as long as the call takes it; then waits for the client to leave."""
        request = exchange.request
        content_type = request.header(b"content-type")
        splitter = None if match.target.raw_request else ObjectSplitter(self._parts.settings.max_body)
        async for part in exchange.parts():
            for piece in [part] if splitter is None else splitter.feed(part):
                message, _ = self._parts.transcoder.request(match, piece, content_type, request.query, of_stream=True)
                if not await call.write(to_binary(message)):
                    await exchange.gone()
                    raise Disconnected
        if splitter is not None:
            splitter.finish()
        await call.done_writing()
        await exchange.gone()
        raise Disconnected

    async def _one(self, exchange: Exchange, rule: Rule, view: View, relay: Relay, call: Call) -> None:
        reply = await relay.next(None)
        assert isinstance(reply, bytes)  # a good end always follows a reply here
        await relay.next(None)
        media_type, body = self._parts.transcoder.reply(rule, self._parts.transcoder.parse(rule, reply), view)
        metadata = self._parts.caller.headers(exchange.request, call.initial_metadata, call.trailing_metadata)
        headers = [*_common(media_type), *metadata]
        await exchange.answer(200, headers, body)

    async def _many(self, exchange: Exchange, rule: Rule, view: View, relay: Relay, call: Call) -> None:
        item = await relay.next(min(_FIRST, self._parts.settings.heartbeat))
        framing: Framing = choose_framing(exchange.request.header(b"accept"))
        headers = []
        if isinstance(item, bytes):
            headers = self._parts.caller.headers(exchange.request, call.initial_metadata, ())
            if rule.raw_response:
                framing = Raw(self._parts.transcoder.reply(rule, self._parts.transcoder.parse(rule, item), view)[0])
        await exchange.start(200, [*_common(framing.media_type), *headers])
        try:
            if start := framing.start():
                await exchange.send(start)
            while item is not Event.END:
                if part := self._part(rule, view, framing, item):
                    await exchange.send(part)
                item = await relay.next(self._parts.settings.heartbeat)
            await exchange.send(framing.end())
        except UpstreamError as failure:
            error = self._parts.caller.failure(exchange.request, rule, failure)
            await exchange.send(framing.error(error.as_json()))
        except EdgeError as error:
            await exchange.send(framing.error(error.as_json()))
        else:
            await exchange.end()
            return
        if framing.ends_after_error:
            await exchange.end()

    def _part(self, rule: Rule, view: View, framing: Framing, item: bytes | Event) -> bytes:
        if isinstance(item, Event):
            return framing.heartbeat
        message = self._parts.transcoder.parse(rule, item)
        token = message[rule.resume_token_out] if rule.resume_token_out is not None else ""
        return framing.message(self._parts.transcoder.reply(rule, message, view)[1], token)


async def _send(exchange: Exchange, call: Call, message: Message) -> None:
    await call.write(to_binary(message))
    await call.done_writing()
    await exchange.gone()
    raise Disconnected


def _common(media_type: bytes) -> list[Header]:
    return [
        (b"content-type", media_type),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
        (b"vary", b"accept, origin"),
    ]
