"""The gateway as a bare ASGI application: a request goes to a built-in route, or through the pipeline to a handler."""

import logging
from collections.abc import Collection

from protobuf import Registry

from edge_gateway.errors import EdgeError, allow_header, internal, method_not_allowed, render
from edge_gateway.grpc_client.upstreams import Upstreams
from edge_gateway.handlers.batch import BatchHandler
from edge_gateway.handlers.builtin_routes import builtin_routes
from edge_gateway.handlers.health import Health
from edge_gateway.handlers.http_streams import HttpStreamHandler
from edge_gateway.handlers.pipeline import Pipeline
from edge_gateway.handlers.unary import UnaryHandler
from edge_gateway.handlers.websocket import WebSocketHandler
from edge_gateway.http.exchange import Disconnected, Exchange, Receive, Scope, Send
from edge_gateway.http.headers import Header
from edge_gateway.policies.cors import Cors
from edge_gateway.routing.rules import Routes
from edge_gateway.settings import Settings

log = logging.getLogger("edge_gateway")


class Gateway:
    """Serves the routes of a registry over HTTP."""

    def __init__(self, registry: Registry, routes: Routes, upstreams: Upstreams, settings: Settings) -> None:
        self._settings = settings
        self._router = routes.router
        self._upstreams = upstreams
        self._cors = Cors(settings.cors_origins, exposed=settings.exposed_headers, max_age=settings.cors_max_age)
        self._pipeline = Pipeline(registry, routes, upstreams, settings)
        self._unary = UnaryHandler(self._pipeline, settings)
        self._streams = HttpStreamHandler(self._pipeline, settings)
        self._sockets = WebSocketHandler(self._pipeline, self._cors, settings)
        self._health = Health(upstreams, {rule.rpc.service for rule in routes.rules})
        batches = BatchHandler(self, routes.router, settings)
        self._builtin = builtin_routes(registry, routes, settings, self._health, batches)

    def begin_drain(self) -> None:
        """Make /healthz report NOT_SERVING."""
        self._health.draining = True

    async def end_streams(self) -> None:
        """End the running streams with an error that makes their clients connect again, elsewhere."""
        await self._pipeline.relays.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection: HTTP, WebSocket or lifespan."""
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
            await self._reject(exchange, error)
        except Disconnected:
            pass
        except Exception:
            # The only place that catches every exception: the client receives an id, the log the rest.
            log.exception("request %s failed", exchange.request.id)
            if exchange.started:
                raise
            await self._reject(exchange, internal(f"internal error {exchange.request.id}"))
        finally:
            exchange.served.record()

    async def _serve(self, exchange: Exchange) -> None:
        request = exchange.request
        request.index_headers()
        origin = request.headers.get(b"origin")
        if origin is not None:
            exchange.common_headers = self._cors.headers(origin)
        if len(request.path) + len(request.query) > self._settings.max_url:
            raise EdgeError(3, f"the URL is longer than {self._settings.max_url} bytes", (), 414)
        builtin = self._builtin.get(request.path)
        if request.method == "OPTIONS":
            await self._options(exchange, builtin.methods if builtin is not None else ())
        elif builtin is not None:
            exchange.served.method = request.path
            if not builtin.accepts(request.method):
                raise method_not_allowed(builtin.methods)
            await builtin.serve(exchange)
        else:
            call = self._pipeline.route(request)
            rpc = call.rule.rpc
            exchange.served.method, exchange.served.is_stream = rpc.path, not rpc.is_unary
            handler = self._unary if rpc.is_unary else self._streams
            await handler.serve(exchange, call)

    async def _options(self, exchange: Exchange, known: Collection[str]) -> None:
        """Respond with the methods of a path, and to a preflight also with the headers that a browser may send."""
        request = exchange.request
        methods = allow_header(known or self._router.methods(request.path)).encode()
        headers: list[Header] = [(b"allow", methods)]
        if b"access-control-request-method" in request.headers:
            requested = request.header(b"access-control-request-headers")
            headers += self._cors.preflight(request.header(b"origin"), methods, requested)
            exchange.common_headers = []  # the preflight's own headers replace them
        await exchange.respond(204, headers, b"")

    async def _reject(self, exchange: Exchange, error: EdgeError) -> None:
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
        await exchange.respond(rendered.status, headers, rendered.body)
