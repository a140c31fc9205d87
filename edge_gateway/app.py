"""The gateway as a bare ASGI application: one request's way through all the parts."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from protobuf import Message, Registry

from edge_gateway.calling import Caller
from edge_gateway.conditional import Conditions
from edge_gateway.descriptors import reason_statuses
from edge_gateway.errors import EdgeError, allow_header, internal, render
from edge_gateway.exchange import Disconnected, Exchange, Receive, Scope, Send, Watch
from edge_gateway.headers import Header
from edge_gateway.health import Health
from edge_gateway.protojson import JsonCodec, Print
from edge_gateway.relay import Relays
from edge_gateway.router import Match
from edge_gateway.rules import Routes, Rule
from edge_gateway.settings import Settings
from edge_gateway.status import StatusReader
from edge_gateway.streams import HttpStreams
from edge_gateway.transcoder import Transcoder, View
from edge_gateway.upstream import Reply, Upstreams
from edge_gateway.websocket import WebSockets

log = logging.getLogger("edge_gateway")

#: Serves one path that is no RPC, such as /healthz.
Page = Callable[[Exchange], Awaitable[None]]

_NOSNIFF: Header = (b"x-content-type-options", b"nosniff")


class Gateway:
    """Serves the routes of a registry over HTTP."""

    def __init__(self, registry: Registry, routes: Routes, upstreams: Upstreams, settings: Settings) -> None:
        self._router = routes.router
        self._upstreams = upstreams
        self._settings = settings
        codec = JsonCodec(registry, ignore_unknown=settings.ignore_unknown)
        how = Print(
            emit_defaults=settings.emit_defaults,
            proto_names=settings.proto_names,
            enum_numbers=settings.enum_numbers,
        )
        self._transcoder = Transcoder(codec, how)
        self._caller = Caller(upstreams, StatusReader(registry, reason_statuses(registry)), settings)
        self._conditions = Conditions(settings.public_max_age)
        self._relays = Relays()
        self._streams = HttpStreams(self._caller, self._transcoder, self._conditions, settings, self._relays)
        self._sockets = WebSockets(self._router, self._caller, self._transcoder, settings, self._relays)
        self.health = Health(upstreams)
        self.pages: dict[str, Page] = {"/healthz": self.health.page}

    def begin_drain(self) -> None:
        """Makes /healthz say so, and ends the streams."""
        self.health.draining = True
        self._relays.drain()

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
        if len(request.path) + len(request.query) > self._settings.max_url:
            raise EdgeError(3, f"the URL is longer than {self._settings.max_url} bytes", (), 414)
        page = self.pages.get(request.path)
        if page is not None:
            await page(exchange)
        elif request.method == "OPTIONS":
            await self._options(exchange)
        else:
            match = self._router.match(request.method, request.path)
            if match.target.rpc.is_unary:
                await self._unary(exchange, match)
            else:
                await self._streams.serve(exchange, match)

    async def _options(self, exchange: Exchange) -> None:
        allowed = allow_header(self._router.methods(exchange.request.path))
        await exchange.answer(204, [(b"allow", allowed.encode())], b"")

    async def _unary(self, exchange: Exchange, match: Match[Rule]) -> None:
        rule = match.target
        message, view = await self._message(exchange, match)
        watch = Watch(exchange)
        try:
            reply = await self._caller.unary(exchange.request, rule, message)
        except asyncio.CancelledError:
            if watch.gone:
                return
            raise
        finally:
            watch.stop()
        await self._answer(exchange, rule, reply, view)

    async def _message(self, exchange: Exchange, match: Match[Rule]) -> tuple[Message, View]:
        rule, request = match.target, exchange.request
        body = await exchange.body(self._settings.max_body, self._settings.body_timeout) if rule.has_body else b""
        message, system = self._transcoder.request(match, body, request.header(b"content-type"), request.query)
        self._conditions.to_request(rule, request.headers, message)
        return message, self._transcoder.view(rule, system, request.header(b"accept"))

    async def _answer(self, exchange: Exchange, rule: Rule, reply: Reply, view: View) -> None:
        message = self._transcoder.parse(rule, reply.message)
        media_type, body = self._transcoder.reply(rule, message, view)
        request = exchange.request
        headers = [(b"content-type", media_type), _NOSNIFF, (b"x-request-id", request.id.encode())]
        headers += self._caller.headers(request, reply.initial, reply.trailing)
        status = self._conditions.to_reply(rule, request, message, body, headers)
        await exchange.answer(status, headers, b"" if status == 304 else body)

    async def _refuse(self, exchange: Exchange, error: EdgeError) -> None:
        request = exchange.request
        rendered = render(error, request.header(b"accept"))
        if rendered.status >= 500:
            log.warning(
                "request %s: %s %s -> %d code=%d reason=%s",
                request.id,
                request.method,
                request.path[:200],
                rendered.status,
                error.code,
                error.reason,
            )
        headers = [*rendered.headers, _NOSNIFF, (b"cache-control", b"no-store"), (b"x-request-id", request.id.encode())]
        await exchange.answer(rendered.status, headers, rendered.body)
