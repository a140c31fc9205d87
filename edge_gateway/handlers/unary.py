"""Unary calls over HTTP: one request, one response."""

import asyncio

from edge_gateway.handlers.pipeline import EdgeCall, Pipeline
from edge_gateway.http.compression import choose_coding, compress, is_compressible
from edge_gateway.http.exchange import DisconnectWatch, Exchange
from edge_gateway.http.headers import Header
from edge_gateway.json.transcoder import Rendered
from edge_gateway.settings import Settings


class UnaryHandler:
    """Serves methods that neither receive nor send a stream."""

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self._pipeline = pipeline
        self._settings = settings

    async def serve(self, exchange: Exchange, call: EdgeCall) -> None:
        """Serve one call; cancel it if the client disconnects."""
        await self._pipeline.bind_body(call, exchange)
        watch = DisconnectWatch(exchange)
        try:
            reply = await self._pipeline.invoke(call)
        except asyncio.CancelledError:
            if watch.disconnected:
                return
            raise
        finally:
            watch.stop()
        rendered = self._pipeline.render(call, reply.message)
        headers: list[Header] = [(b"content-type", rendered.media_type)]
        headers += self._pipeline.metadata_headers(call, reply.initial, reply.trailing)
        status = self._pipeline.add_reply_headers(call, rendered, headers)
        body = b"" if status == 304 else self._compressed(call, rendered, headers)
        await exchange.respond(status, headers, body)

    def _compressed(self, call: EdgeCall, rendered: Rendered, headers: list[Header]) -> bytes:
        """Return the body, compressed where the client accepts it and it is worth it."""
        settings, body = self._settings, rendered.body
        if not settings.compress or len(body) < settings.compress_from or not is_compressible(rendered.media_type):
            return body
        coding = choose_coding(call.request.header(b"accept-encoding"))
        if not coding:
            return body
        headers.append((b"content-encoding", coding.encode()))
        if coding not in rendered.compressed:
            rendered.compressed[coding] = compress(body, coding)
        return rendered.compressed[coding]
