"""Several reads in one request: `POST /v1:batchGet`, each read served as a request of its own.

Every read passes the whole gateway with the headers of the request, so limits, access and errors are those of
the read itself. Only unary methods that reply in JSON can be batched: no streams, no files, no batches.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from edge_gateway.errors import EdgeError, error_info, invalid_argument, invalid_field, unsupported_media_type
from edge_gateway.grpc_client.trace_context import TraceContext
from edge_gateway.http.compression import choose_coding, compress
from edge_gateway.http.exchange import DisconnectWatch, Exchange, Receive, Request, Scope, Send
from edge_gateway.http.headers import Header
from edge_gateway.json.json_parsing import check_depth
from edge_gateway.json.transcoder import is_json, write_json
from edge_gateway.routing.router import Router
from edge_gateway.routing.rules import Rule
from edge_gateway.settings import MAX_BATCH_READS, Settings

#: Headers of the batch alone: a read has no body and no 304, and is compressed with the whole response.
_OWN_HEADERS = {
    b"accept", b"accept-encoding", b"connection", b"content-encoding", b"content-length", b"content-type", b"expect",
    b"idempotency-key", b"if-match", b"if-none-match", b"last-event-id", b"origin", b"te", b"traceparent",
    b"tracestate", b"transfer-encoding", b"x-request-id",
}  # fmt: skip

_App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes
    etag: bytes = b""

    def written(self) -> bytes:
        etag = b'"etag":%s,' % json.dumps(self.etag.decode("latin-1")).encode() if self.etag else b""
        return b'{"status":%d,%s"body":%s}' % (self.status, etag, self.body or b"null")


class BatchHandler:
    """Serves batches through the gateway that received them."""

    def __init__(self, app: _App, router: Router[Rule], settings: Settings) -> None:
        self._app = app
        self._router = router
        self._settings = settings
        self._traces = TraceContext(settings.trace_share)

    async def serve(self, exchange: Exchange) -> None:
        """Serve all reads concurrently, and respond when all are done."""
        request = exchange.request
        if not is_json(request.header(b"content-type") or b"application/json"):
            raise unsupported_media_type("the body must be application/json in UTF-8")
        paths = _paths(await exchange.body(self._settings.max_body, self._settings.body_timeout))
        headers = _headers(request, self._traces.metadata(request.headers))
        watch = DisconnectWatch(exchange)
        try:
            async with asyncio.TaskGroup() as group:
                reads = [group.create_task(self._read(request, headers, path)) for path in paths]
        except asyncio.CancelledError:
            if watch.disconnected:
                return
            raise
        finally:
            watch.stop()
        await self._answer(exchange, [read.result() for read in reads])

    async def _answer(self, exchange: Exchange, replies: list[_Reply]) -> None:
        room = self._settings.max_reply
        parts: list[bytes] = []
        for reply in replies:
            room -= len(reply.body)
            parts.append(reply.written() if room >= 0 else _failure(_too_large()).written())
        body = b'{"responses":[%s]}' % b",".join(parts)
        headers: list[Header] = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        headers.append((b"vary", b"accept-encoding, accept-language, origin"))
        coding = choose_coding(exchange.request.header(b"accept-encoding")) if self._settings.compress else ""
        if coding and len(body) >= self._settings.compress_from:
            headers.append((b"content-encoding", coding.encode()))
            body = compress(body, coding)
        await exchange.respond(200, headers, body)

    async def _read(self, request: Request, headers: list[Header], path: str) -> _Reply:
        raw_path, _, query = path.partition("?")
        try:
            rule = self._router.match("GET", raw_path).target
        except EdgeError as error:
            return _failure(error)
        if not rule.rpc.is_unary or rule.raw_response:
            return _failure(EdgeError(9, "this path does not reply once and in JSON", (error_info("NOT_BATCHABLE"),)))
        scope = {
            **request.scope,
            "method": "GET",
            "path": raw_path,
            "raw_path": raw_path.encode("ascii"),
            "query_string": query.encode("ascii"),
            "headers": headers,
        }
        collected = _Collected()
        await self._app(scope, _no_body(), collected)
        return collected.reply()


class _Collected:
    """An ASGI `send` that collects the response."""

    def __init__(self) -> None:
        self._status = 500
        self._etag = b""
        self._parts: list[bytes] = []

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._etag = dict(message["headers"]).get(b"etag", b"")
        else:
            self._parts.append(message.get("body", b""))

    def reply(self) -> _Reply:
        return _Reply(self._status, b"".join(self._parts), self._etag)


def _no_body() -> Receive:
    """Return an ASGI `receive` of an empty body, after which the client stays connected."""
    sent = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal sent
        if sent:
            await asyncio.get_running_loop().create_future()
        sent = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


def _headers(request: Request, trace: list[tuple[str, str]]) -> list[Header]:
    """Return the headers of every read: all share one trace and one request id."""
    kept = [(name, value) for name, value in request.raw_headers if name not in _OWN_HEADERS]
    context = [(name.encode(), value.encode()) for name, value in trace]
    return [*kept, *context, (b"accept", b"application/json"), (b"x-request-id", request.id.encode())]


def _paths(body: bytes) -> list[str]:
    check_depth(body)
    try:
        value = json.loads(body.decode(), object_pairs_hook=_once)
    except ValueError:
        raise invalid_argument("the body is not JSON") from None
    if not isinstance(value, dict) or value.keys() != {"requests"}:
        raise invalid_argument('the body must be {"requests": [...]} and nothing else')
    requests = value["requests"]
    if not isinstance(requests, list) or not 1 <= len(requests) <= MAX_BATCH_READS:
        raise invalid_field("requests", f"must be a list of 1 to {MAX_BATCH_READS} entries")
    return [_path(entry, f"requests[{at}]") for at, entry in enumerate(requests)]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _path(entry: Any, place: str) -> str:
    if not isinstance(entry, dict) or entry.keys() != {"path"}:
        raise invalid_field(place, 'must be {"path": "..."} and nothing else')
    path = entry["path"]
    if not isinstance(path, str) or not path.startswith("/") or not path.isascii() or not path.isprintable():
        raise invalid_field(f"{place}.path", "must be a path in ASCII, percent-encoded, that begins with /")
    if " " in path or "#" in path:
        raise invalid_field(f"{place}.path", "must be percent-encoded, and without a fragment")
    return path


def _failure(error: EdgeError) -> _Reply:
    return _Reply(error.http_status, write_json(error.as_json()))


def _too_large() -> EdgeError:
    return EdgeError(8, "the replies together are larger than one may be", (error_info("BATCH_TOO_LARGE"),), 413)
