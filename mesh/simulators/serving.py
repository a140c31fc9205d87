"""Serves a simulator's API: environment, API key, limits, errors, and shutdown on SIGTERM."""

import hmac
import logging
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mesh.simulators.errors import ApiError
from mesh.simulators.faults import FaultConfig

BODY_LIMIT = 64 * 1024
STOP_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The environment of a simulator."""

    host: str
    port: int
    api_key: str = field(repr=False)
    webhook_url: str | None = None
    # Two, separated by a comma, during a rotation.
    webhook_secrets: tuple[str, ...] = field(default=(), repr=False)
    state_file: Path | None = None
    faults: FaultConfig = field(default_factory=FaultConfig)

    @classmethod
    def from_env(cls) -> "Settings":
        """Read the environment. Raises ValueError or ApiError."""
        host, _, port = _required("LISTEN").rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError("LISTEN is not host:port")
        url = os.environ.get("WEBHOOK_URL") or None
        state_file = os.environ.get("STATE_FILE")
        return cls(
            host=host,
            port=int(port),
            api_key=_required("API_KEY"),
            webhook_url=url,
            webhook_secrets=tuple(_required("WEBHOOK_SECRET").split(",")) if url else (),
            state_file=Path(state_file) if state_file else None,
            faults=FaultConfig.from_json(parse_object(os.environ.get("FAULTS", "").encode())),
        )


class ApiKey:
    """Middleware that requires the API key, except for /healthz and pages of customers, whose URLs are secret."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 without the key."""
        is_open = scope["type"] != "http" or scope["path"] == "/healthz" or scope["path"].startswith("/customer/")
        if not is_open and not self._has_key(scope):
            error = ApiError(401, "unauthorized", "a valid API key is required: authorization: Bearer <key>")
            await json_response(error.body(), 401)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _has_key(self, scope: Scope) -> bool:
        given: bytes = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self._expected)


def application(
    routes: list[Route], api_key: str, while_open: Callable[[], AbstractAsyncContextManager[None]]
) -> Starlette:
    """Return an application with these routes behind the API key."""

    async def healthz(_: Request) -> Response:
        return json_response({"status": "ok"})

    return Starlette(
        routes=[Route("/healthz", healthz), *routes],
        middleware=[Middleware(ApiKey, key=api_key)],
        exception_handlers={ApiError: _api_error, HTTPException: _http_error, Exception: _unexpected},
        lifespan=lambda _: while_open(),
    )


def json_response(content: Any, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(orjson.dumps(content), status, media_type="application/json")


async def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object of the body; an empty body is an empty object. Raises ApiError."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise ApiError(413, "body_too_large", f"a body has at most {BODY_LIMIT} bytes")
    return parse_object(body)


def parse_object(body: bytes | bytearray) -> dict[str, Any]:
    """Return the JSON object; empty text is an empty object. Raises ApiError."""
    try:
        content = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise ApiError(400, "invalid_json", "this is not JSON") from error
    if not isinstance(content, dict):
        raise ApiError(400, "invalid_json", "this is not a JSON object")
    return content


def run(make_app: Callable[[Settings], Starlette]) -> None:
    """Serve until SIGTERM or SIGINT; print the address on stdout, since the port may be 0."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: sys.exit(0))  # uvicorn raises the signal again after a clean shutdown
    app, listener = _open(make_app)
    host, port = listener.getsockname()[:2]
    sys.stdout.write(f"listening on {host}:{port}\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _required(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise ValueError(f"{name} is not set")


def _open(make_app: Callable[[Settings], Starlette]) -> tuple[Starlette, socket.socket]:
    """Return the application and its listener; end the process with a one-line message when one cannot be created."""
    try:
        settings = Settings.from_env()
        listener = socket.create_server((settings.host, settings.port), backlog=1024)
        return make_app(settings), listener
    except ApiError as error:
        sys.exit(f"FAULTS: {error.message} ({error.param or 'the whole value'})")
    except ValueError as error:
        sys.exit(f"the environment is not valid: {error}")
    except sqlite3.Error as error:
        sys.exit(f"STATE_FILE cannot be used: {error}")
    except OSError as error:
        sys.exit(f"LISTEN={os.environ['LISTEN']} cannot be used: {error.strerror}")


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return json_response(error.body(), error.status)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    return json_response(ApiError(error.status_code, code, error.detail).body(), error.status_code)


async def _unexpected(_: Request, __: Exception) -> Response:
    return json_response(ApiError(500, "internal", "something went wrong here").body(), 500)
