"""How a stream of messages is written on HTTP: NDJSON, server-sent events, or one JSON array."""

import json
from typing import Any, Protocol

Status = dict[str, Any]


class Framing(Protocol):
    """Writes the parts of a stream. Each part is sent as soon as it is there."""

    media_type: bytes
    #: What keeps an idle connection open, if anything may.
    heartbeat: bytes
    #: Whether what `error` writes says it all; otherwise the connection is broken off.
    ends_after_error: bool

    def start(self) -> bytes: ...

    def message(self, written: bytes, token: str) -> bytes: ...

    def error(self, status: Status) -> bytes: ...

    def end(self) -> bytes: ...


class Ndjson:
    """One `{"result": ...}` a line; a stream that fails ends with `{"error": ...}`."""

    media_type = b"application/x-ndjson"
    heartbeat = b""
    ends_after_error = True

    def start(self) -> bytes:
        return b""

    def message(self, written: bytes, token: str) -> bytes:  # noqa: ARG002 - a line has no place for a token
        return b'{"result":%s}\n' % written

    def error(self, status: Status) -> bytes:
        return b'{"error":%s}\n' % _write(status)

    def end(self) -> bytes:
        return b""


class ServerSentEvents:
    """Events with the resume token as their id; a good end is told, since an EventSource would reconnect."""

    media_type = b"text/event-stream"
    heartbeat = b": still here\n\n"
    ends_after_error = True

    def start(self) -> bytes:
        return b"retry: 2000\n\n"

    def message(self, written: bytes, token: str) -> bytes:
        if token and token.isprintable():
            return b"id: %s\ndata: %s\n\n" % (token.encode(), written)
        return b"data: %s\n\n" % written

    def error(self, status: Status) -> bytes:
        return b"event: error\ndata: %s\n\n" % _write(status)

    def end(self) -> bytes:
        return b"event: end\ndata: {}\n\n"


class JsonArray:
    """All messages in one array; one that fails is left open, so that it cannot pass for whole."""

    media_type = b"application/json"
    heartbeat = b""
    ends_after_error = False

    def __init__(self) -> None:
        self._opening = b"["

    def start(self) -> bytes:
        return b""

    def message(self, written: bytes, token: str) -> bytes:  # noqa: ARG002 - as above
        opening, self._opening = self._opening, b","
        return opening + written

    def error(self, status: Status) -> bytes:
        return b'%s{"error":%s}\n' % (self._opening, _write(status))

    def end(self) -> bytes:
        return (b"" if self._opening == b"," else b"[") + b"]"


class Raw:
    """The data of google.api.HttpBody messages, one after the other."""

    heartbeat = b""
    ends_after_error = False

    def __init__(self, media_type: bytes) -> None:
        self.media_type = media_type

    def start(self) -> bytes:
        return b""

    def message(self, written: bytes, token: str) -> bytes:  # noqa: ARG002 - as above
        return written

    def error(self, status: Status) -> bytes:  # noqa: ARG002 - the broken connection has to say it
        return b""

    def end(self) -> bytes:
        return b""


def choose_framing(accept: bytes) -> Framing:
    """Picks by the Accept header; NDJSON when it names no preference."""
    if b"text/event-stream" in accept:
        return ServerSentEvents()
    if b"application/json" in accept and b"application/x-ndjson" not in accept:
        return JsonArray()
    return Ndjson()


def _write(status: Status) -> bytes:
    return json.dumps(status, ensure_ascii=False, separators=(",", ":")).encode()
