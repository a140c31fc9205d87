"""The gateway as a bare ASGI application: one request's way through all the parts."""

import asyncio
import logging
from collections.abc import Collection

from protobuf import Message, Registry

from edge_gateway.errors import EdgeError, allow_header, internal, method_not_allowed, render
from edge_gateway.grpc_client.upstreams import Reply, Upstreams
from edge_gateway.handlers.batch import Batch
from edge_gateway.handlers.builtin_routes import own_pages
from edge_gateway.handlers.context import build_parts
from edge_gateway.handlers.health import Health
from edge_gateway.handlers.http_streams import HttpStreams
from edge_gateway.handlers.websocket import WebSockets
from edge_gateway.http.compression import choose_coding, compress, is_compressible
from edge_gateway.http.exchange import Disconnected, Exchange, Receive, Scope, Send, Watch
from edge_gateway.http.headers import Header
from edge_gateway.json.transcoder import View
from edge_gateway.routing.router import Match
from edge_gateway.routing.rules import Routes, Rule
from edge_gateway.settings import Settings

log = logging.getLogger("edge_gateway")


class Gateway:
    """Serves the routes of a registry over HTTP."""

    def __init__(self, registry: Registry, routes: Routes, upstreams: Upstreams, settings: Settings) -> None:
        self._upstreams = upstreams
        self._parts = parts = build_parts(registry, routes, upstreams, settings)
        self._streams = HttpStreams(parts)
        self._sockets = WebSockets(parts)
        self.health = Health(upstreams, {rule.rpc.service for rule in routes.rules})
        self._pages = own_pages(registry, routes, settings, self.health, Batch(self, parts.router, settings))

    def begin_drain(self) -> None:
        """Makes /healthz say so."""
        self.health.draining = True

    async def end_streams(self) -> None:
        """Tells the clients of running streams to connect elsewhere."""
        await self._parts.relays.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(Exchange(scope, receive, send))
        elif scope["type"] == "websocket":
            await self._sockets(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._upstreams.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, exchange: Exchange) -> None:
        try:
            await self._serve(exchange)
        except EdgeError as error:
            await self._refuse(exchange, error)
        except Disconnected:
            pass
        except Exception:
            # The one place that may see anything: the client learns an id, the log learns the rest.
            log.exception("request %s failed", exchange.request.id)
            if exchange.started:
                raise
            await self._refuse(exchange, internal(f"internal error {exchange.request.id}"))

    async def _serve(self, exchange: Exchange) -> None:
        request = exchange.request
        request.index()
        origin = request.headers.get(b"origin")
        if origin is not None:
            exchange.common = self._parts.cors.headers(origin)
        if len(request.path) + len(request.query) > self._parts.settings.max_url:
            raise EdgeError(3, f"the URL is longer than {self._parts.settings.max_url} bytes", (), 414)
        page = self._pages.get(request.path)
        if request.method == "OPTIONS":
            await self._options(exchange, page.methods if page is not None else ())
        elif page is not None:
            if not page.takes(request.method):
                raise method_not_allowed(page.methods)
            await page.serve(exchange)
        else:
            match = self._parts.router.match(request.method, request.path)
            if match.target.rpc.is_limited:
                exchange.common += await self._parts.limiter.check(request, match.target)
            if match.target.rpc.is_unary:
                await self._unary(exchange, match)
            else:
                await self._streams.serve(exchange, match)

    async def _options(self, exchange: Exchange, known: Collection[str]) -> None:
        """Says what a path knows, to anyone; to browsers also what they may send there."""
        request = exchange.request
        methods = allow_header(known or self._parts.router.methods(request.path)).encode()
        headers: list[Header] = [(b"allow", methods)]
        if b"access-control-request-method" in request.headers:
            wanted = request.header(b"access-control-request-headers")
            headers += self._parts.cors.preflight(request.header(b"origin"), methods, wanted)
            exchange.common = []  # the preflight has said it all
        await exchange.answer(204, headers, b"")

    async def _unary(self, exchange: Exchange, match: Match[Rule]) -> None:
        rule = match.target
        message, view = await self._message(exchange, match)
        watch = Watch(exchange)
        try:
            reply = await self._parts.caller.unary(exchange.request, rule, message)
        except asyncio.CancelledError:
            if watch.gone:
                return
            raise
        finally:
            watch.stop()
        await self._answer(exchange, rule, reply, view)

    async def _message(self, exchange: Exchange, match: Match[Rule]) -> tuple[Message, View]:
        rule, request = match.target, exchange.request
        body = (
            await exchange.body(self._parts.settings.max_body, self._parts.settings.body_timeout)
            if rule.has_body
            else b""
        )
        message, system = self._parts.transcoder.request(match, body, request.header(b"content-type"), request.query)
        self._parts.conditions.to_request(rule, request.headers, message)
        return message, self._parts.transcoder.view(rule, system, request.header(b"accept"))

    async def _answer(self, exchange: Exchange, rule: Rule, reply: Reply, view: View) -> None:
        message = self._parts.transcoder.parse(rule, reply.message)
        media_type, body = self._parts.transcoder.reply(rule, message, view)
        headers = [(b"content-type", media_type)]
        headers += self._parts.caller.headers(exchange.request, reply.initial, reply.trailing)
        status = self._parts.conditions.to_reply(rule, exchange.request, message, body, headers)
        if status == 304:
            body = b""
        elif (
            self._parts.settings.compress
            and len(body) >= self._parts.settings.compress_from
            and is_compressible(media_type)
        ):
            coding = choose_coding(exchange.request.header(b"accept-encoding"))
            if coding:
                headers.append((b"content-encoding", coding.encode()))
                body = compress(body, coding)
        await exchange.answer(status, headers, body)

    async def _refuse(self, exchange: Exchange, error: EdgeError) -> None:
        request = exchange.request
        rendered = render(error, request.header(b"accept"))
        if rendered.status >= 500:
            log.warning(
                "request %s trace=%s: %s %s -> %d code=%d reason=%s",
                request.id,
                request.trace,
                request.method,
                request.path[:200],
                rendered.status,
                error.code,
                error.reason,
            )
        headers = [*rendered.headers, (b"cache-control", b"no-store")]
        await exchange.answer(rendered.status, headers, rendered.body)
