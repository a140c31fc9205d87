"""Built-in routes, and static files that never change while the edge runs."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from edge_gateway.http.compression import choose_coding, compress
from edge_gateway.http.exchange import Exchange
from edge_gateway.http.headers import Header


@dataclass(frozen=True, slots=True)
class BuiltinRoute:
    """Serves one path that is not an RPC's."""

    serve: Callable[[Exchange], Awaitable[None]]
    methods: tuple[str, ...] = ("GET",)

    def accepts(self, method: str) -> bool:
        """Return whether the route supports a method; GET includes HEAD."""
        return method in self.methods or (method == "HEAD" and "GET" in self.methods)


class StaticFile:
    """A body that is made on the first request, and compressed once for each coding."""

    def __init__(self, media_type: str, make: Callable[[], bytes], *headers: Header) -> None:
        self._make = make
        self._made: asyncio.Task[bytes] | None = None
        self._headers = [(b"content-type", media_type.encode()), (b"cache-control", b"no-cache"), *headers]
        self._coded: dict[str, bytes] = {}

    async def _body(self) -> bytes:
        """Make the body in a thread, since the OpenAPI document takes a good part of a second."""
        if self._made is None:
            self._made = asyncio.create_task(asyncio.to_thread(self._make))
        return await asyncio.shield(self._made)

    async def serve(self, exchange: Exchange) -> None:
        """Respond with the body, or with 304 if the client has it."""
        request, body = exchange.request, await self._body()
        tag = b'"%s"' % hashlib.blake2b(body, digest_size=12).hexdigest().encode()
        headers = [*self._headers, (b"etag", tag), (b"vary", b"accept-encoding")]
        if tag in request.header(b"if-none-match"):
            await exchange.respond(304, headers, b"")
            return
        coding = choose_coding(request.header(b"accept-encoding"))
        if not coding:
            await exchange.respond(200, headers, body)
            return
        if coding not in self._coded:
            self._coded[coding] = compress(body, coding)
        await exchange.respond(200, [*headers, (b"content-encoding", coding.encode())], self._coded[coding])
