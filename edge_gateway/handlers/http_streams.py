"""Streams over plain HTTP: replies as NDJSON, server-sent events or an array, requests as a sequence of objects."""

from protobuf import Message

from edge_gateway.errors import EdgeError, unsupported_media_type
from edge_gateway.grpc_client.upstreams import GrpcCall, UpstreamError
from edge_gateway.handlers.pipeline import EdgeCall, Pipeline, send_one
from edge_gateway.handlers.relay import Event, Relay
from edge_gateway.http.exchange import Exchange
from edge_gateway.http.headers import Header
from edge_gateway.json.json_stream_splitter import JsonStreamSplitter
from edge_gateway.json.stream_framing import Framing, Raw, choose_framing
from edge_gateway.json.transcoder import is_json
from edge_gateway.routing.rules import Rule
from edge_gateway.settings import Settings

#: Seconds that the response waits for a first reply, so that an early error becomes its status.
_FIRST_REPLY_TIMEOUT = 1.0
_NDJSON = b"application/x-ndjson"


class HttpStreamHandler:
    """Serves methods that stream in either direction."""

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self._pipeline = pipeline
        self._settings = settings

    async def serve(self, exchange: Exchange, call: EdgeCall) -> None:
        """Serve one call from its first byte to its last."""
        rule, request = call.rule, call.request
        if request.method == "HEAD":
            media_type = choose_framing(request.header(b"accept")).media_type
            await exchange.respond(200, _stream_headers(media_type), b"")
            return
        if rule.rpc.client_streaming:
            _check_media_type(rule, request.header(b"content-type"))
            self._pipeline.bind(call)
        else:
            await self._pipeline.bind_body(call, exchange)
        grpc_call = await self._pipeline.open(call)
        if rule.rpc.client_streaming:
            inbound = self._upload(exchange, call, grpc_call)
        else:
            inbound = _send(exchange, grpc_call, call.message)
        async with self._pipeline.relay(call, grpc_call, inbound) as relay:
            if rule.rpc.server_streaming:
                await self._many(exchange, call, relay, grpc_call)
            else:
                await self._one(exchange, call, relay, grpc_call)

    async def _upload(self, exchange: Exchange, call: EdgeCall, grpc_call: GrpcCall) -> None:
        """Send the client's messages as long as the method accepts them; then wait until the client disconnects."""
        splitter = None if call.rule.raw_request else JsonStreamSplitter(self._settings.max_body)
        async for part in exchange.parts():
            for piece in [part] if splitter is None else splitter.feed(part):
                if not await grpc_call.write(self._pipeline.bind_part(call, piece)):
                    await exchange.wait_for_disconnect()
        if splitter is not None:
            splitter.finish()
        await grpc_call.done_writing()
        await exchange.wait_for_disconnect()

    async def _one(self, exchange: Exchange, call: EdgeCall, relay: Relay, grpc_call: GrpcCall) -> None:
        """Respond with the only reply."""
        reply = await relay.next(None)
        assert isinstance(reply, bytes)  # a unary reply precedes every good end
        await relay.next(None)
        rendered = self._pipeline.render(call, reply)
        metadata = self._pipeline.metadata_headers(call, grpc_call.initial, grpc_call.trailing)
        headers = [*_stream_headers(rendered.media_type), *metadata]
        await exchange.respond(200, headers, rendered.body)

    async def _many(self, exchange: Exchange, call: EdgeCall, relay: Relay, grpc_call: GrpcCall) -> None:
        """Respond with each reply as it comes, and with the error that ends them."""
        item = await relay.next(min(_FIRST_REPLY_TIMEOUT, self._settings.heartbeat))
        framing: Framing = choose_framing(call.request.header(b"accept"))
        headers: list[Header] = []
        if isinstance(item, bytes):
            headers = self._pipeline.metadata_headers(call, grpc_call.initial)
            if call.rule.raw_response:
                framing = Raw(self._pipeline.render(call, item).media_type)
        await exchange.start_response(200, [*_stream_headers(framing.media_type), *headers])
        try:
            await self._write(exchange, call, relay, framing, item)
        except UpstreamError as failure:
            error = self._pipeline.failure(call, failure)
        except EdgeError as raised:
            error = raised
        else:
            await exchange.end()
            return
        await exchange.send(framing.error(error.as_json()))
        if framing.ends_after_error:
            await exchange.end()

    async def _write(
        self, exchange: Exchange, call: EdgeCall, relay: Relay, framing: Framing, item: bytes | Event
    ) -> None:
        if start := framing.start():
            await exchange.send(start)
        while item is not Event.END:
            if part := framing.heartbeat if isinstance(item, Event) else self._framed(call, framing, item):
                await exchange.send(part)
            item = await relay.next(self._settings.heartbeat)
        await exchange.send(framing.end())

    def _framed(self, call: EdgeCall, framing: Framing, reply: bytes) -> bytes:
        rendered = self._pipeline.render(call, reply)
        token_field = call.rule.resume_token_out
        return framing.message(rendered.body, rendered.message[token_field] if token_field is not None else "")


async def _send(exchange: Exchange, grpc_call: GrpcCall, message: Message) -> None:
    await send_one(grpc_call, message)
    await exchange.wait_for_disconnect()


def _check_media_type(rule: Rule, content_type: bytes) -> None:
    if content_type and not (rule.raw_request or is_json(content_type) or content_type.startswith(_NDJSON)):
        raise unsupported_media_type("the body must be application/json or application/x-ndjson in UTF-8")


def _stream_headers(media_type: bytes) -> list[Header]:
    return [
        (b"content-type", media_type),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
        (b"vary", b"accept, origin"),
    ]
