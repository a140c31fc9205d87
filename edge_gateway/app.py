"""The gateway as a bare ASGI application: one request's way through all the parts."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from protobuf import Message, Registry

from edge_gateway.conditional import Conditions
from edge_gateway.descriptors import reason_statuses
from edge_gateway.errors import EdgeError, Rendered, allow_header, internal, invalid_argument, render
from edge_gateway.exchange import Disconnected, Exchange, Receive, Scope, Send, Watch
from edge_gateway.headers import Header, HeadersOut, MetadataIn, accept_request_id, parse_timeout
from edge_gateway.health import Health
from edge_gateway.protojson import JsonCodec, Print
from edge_gateway.router import Match
from edge_gateway.rules import Routes, Rule
from edge_gateway.settings import Settings
from edge_gateway.status import StatusReader
from edge_gateway.transcoder import Transcoder, View
from edge_gateway.upstream import RawMetadata, Reply, UpstreamError, Upstreams

log = logging.getLogger("edge_gateway")

#: Serves one path that is no RPC, such as /healthz.
Page = Callable[[Exchange], Awaitable[None]]

_JSON: Header = (b"content-type", b"application/json")
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
        self._status = StatusReader(registry, reason_statuses(registry))
        self._metadata_in = MetadataIn(forwarded=settings.forwarded_headers, fixed=settings.fixed_metadata)
        self._headers_out = HeadersOut(settings.exposed_headers)
        self._conditions = Conditions(settings.public_max_age)
        self.health = Health(upstreams)
        self.pages: dict[str, Page] = {"/healthz": self.health.page}

    def begin_drain(self) -> None:
        """Makes /healthz say so, and ends the streams."""
        self.health.draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(Exchange(scope, receive, send))
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
            log.exception("request %s failed", exchange.request_id)
            await self._refuse(exchange, internal(f"internal error {exchange.request_id}"))

    async def _serve(self, exchange: Exchange) -> None:
        exchange.index_headers()
        exchange.request_id = accept_request_id(exchange.headers.get(b"x-request-id")) or os.urandom(16).hex()
        if len(exchange.path) + len(exchange.query) > self._settings.max_url:
            raise EdgeError(3, f"the URL is longer than {self._settings.max_url} bytes", (), 414)
        page = self.pages.get(exchange.path)
        if page is not None:
            await page(exchange)
        elif exchange.method == "OPTIONS":
            await self._options(exchange)
        else:
            match = self._router.match(exchange.method, exchange.path)
            await self._unary(exchange, match)

    async def _options(self, exchange: Exchange) -> None:
        allowed = self._router.allowed(exchange.path)
        if not allowed:
            self._router.match("GET", exchange.path)  # raises 404
        await exchange.answer(204, [(b"allow", ", ".join(allow_header(allowed)).encode())], b"")

    async def _unary(self, exchange: Exchange, match: Match[Rule]) -> None:
        rule = match.target
        message, view = await self._request(exchange, match)
        watch = Watch(exchange)
        try:
            reply = await self._call(exchange, rule, message)
        except asyncio.CancelledError:
            if watch.gone:
                return
            raise
        finally:
            watch.stop()
        await self._answer(exchange, rule, reply, view)

    async def _request(self, exchange: Exchange, match: Match[Rule]) -> tuple[Message, View]:
        rule = match.target
        body = b""
        if rule.has_body:
            body = await exchange.body(self._settings.max_body, self._settings.body_timeout)
        message = self._transcoder.request(rule, match.captured, body, exchange.header(b"content-type"))
        system = rule.query.bind(message, exchange.query) if exchange.query else {}
        self._transcoder.finish(rule, message, body)
        self._conditions.to_request(rule, exchange.headers, message)
        return message, self._transcoder.view(rule, system, exchange.header(b"accept"))

    async def _call(self, exchange: Exchange, rule: Rule, message: Message) -> Reply:
        try:
            return await self._upstreams.unary(
                rule.rpc.path, _to_binary(message), self._metadata(exchange), self._timeout(exchange, rule)
            )
        except UpstreamError as failure:
            error = self._status.read(failure)
            error.headers += self._metadata_headers(exchange, failure.initial, failure.trailing)
            raise error from None

    def _metadata(self, exchange: Exchange) -> RawMetadata:
        return self._metadata_in.build(exchange.raw_headers, exchange.request_id, self._client(exchange))

    def _client(self, exchange: Exchange) -> str:
        """The client's address: the peer, or what the last trusted proxy saw."""
        hops = self._settings.trusted_hops
        if hops:
            seen = exchange.header(b"x-forwarded-for").decode("latin-1").split(",")
            address = seen[-hops].strip() if len(seen) >= hops else ""
            if address and address.isascii() and address.isprintable():
                return address
        peer = exchange.scope.get("client")
        return peer[0] if peer else ""

    def _timeout(self, exchange: Exchange, rule: Rule) -> float | None:
        """The shorter of what the client asks for and what the method allows."""
        policy = rule.rpc.policy
        limit = policy.timeout if policy is not None else None
        if limit is None and rule.rpc.is_unary:
            limit = self._settings.default_timeout
        asked = exchange.headers.get(b"grpc-timeout")
        if asked is None:
            return limit
        seconds = parse_timeout(asked)
        return seconds if limit is None else min(seconds, limit)

    async def _answer(self, exchange: Exchange, rule: Rule, reply: Reply, view: View) -> None:
        message = rule.rpc.output.type.from_binary(reply.message)
        if rule.raw_response:
            kind, body = _raw_parts(rule, message)
        else:
            kind, body = _JSON, self._transcoder.reply(rule, message, view)
        headers = [kind, _NOSNIFF, (b"x-request-id", exchange.request_id.encode())]
        headers += self._metadata_headers(exchange, reply.initial, reply.trailing)
        status = self._conditions.to_reply(rule, exchange, message, body, headers)
        await exchange.answer(status, headers, b"" if status == 304 else body)

    def _metadata_headers(self, exchange: Exchange, initial: RawMetadata, trailing: RawMetadata) -> list[Header]:
        headers = self._headers_out.initial(initial)
        if trailing and b"trailers" in exchange.header(b"te"):
            headers += self._headers_out.trailing(trailing)
        return headers

    async def _refuse(self, exchange: Exchange, error: EdgeError) -> None:
        rendered: Rendered = render(error, exchange.header(b"accept"))
        if rendered.status >= 500:
            log.warning(
                "request %s: %s %s -> %d code=%d reason=%s",
                exchange.request_id, exchange.method, exchange.path[:200], rendered.status, error.code, error.reason,
            )  # fmt: skip
        if exchange.started:
            raise error
        headers = [*rendered.headers, _NOSNIFF, (b"cache-control", b"no-store")]
        headers.append((b"x-request-id", exchange.request_id.encode()))
        await exchange.answer(rendered.status, headers, rendered.body)


def _to_binary(message: Message) -> bytes:
    try:
        return message.to_binary()
    except (ValueError, TypeError) as error:
        raise invalid_argument("the request cannot be encoded") from error


def _raw_parts(rule: Rule, message: Message) -> tuple[Header, bytes]:
    held: Any = message if rule.response_field is None else message[rule.response_field]
    if held is None:
        return (b"content-type", b"application/octet-stream"), b""
    kind: str = held.content_type
    safe = kind.isascii() and kind.isprintable() and kind
    return (b"content-type", kind.encode() if safe else b"application/octet-stream"), held.data
