"""The framing of a stream of messages on HTTP: NDJSON, server-sent events, or one JSON array."""

import json
from typing import Any, Protocol

Status = dict[str, Any]


class Framing(Protocol):
    """Writes the parts of a stream, each of which is sent at once."""

    media_type: bytes
    #: Sent on an idle connection to keep it open, if the format allows it.
    heartbeat: bytes
    #: Whether a client recognizes the error in the body; otherwise the connection is aborted.
    ends_after_error: bool

    def start(self) -> bytes:
        """Return what precedes the first message."""
        ...

    def message(self, written: bytes, token: str) -> bytes:
        """Return a message in its frame; `token` resumes the stream after it."""
        ...

    def error(self, status: Status) -> bytes:
        """Return the error that ends the stream."""
        ...

    def end(self) -> bytes:
        """Return what follows the last message."""
        ...


class Ndjson:
    """One `{"result": ...}` a line; a stream that fails ends with `{"error": ...}`."""

    media_type = b"application/x-ndjson"
    heartbeat = b""
    ends_after_error = True

    def start(self) -> bytes:
        """Return what precedes the first message."""
        return b""

    def message(self, written: bytes, token: str) -> bytes:  # noqa: ARG002 - NDJSON carries no token
        """Return a message in its frame."""
        return b'{"result":%s}\n' % written

    def error(self, status: Status) -> bytes:
        """Return the error that ends the stream."""
        return b'{"error":%s}\n' % _write(status)

    def end(self) -> bytes:
        """Return what follows the last message."""
        return b""


class ServerSentEvents:
    """Events with the resume token as their id; a good end is an event, since an EventSource would reconnect."""

    media_type = b"text/event-stream"
    heartbeat = b": still here\n\n"
    ends_after_error = True

    def start(self) -> bytes:
        """Return what precedes the first message."""
        return b"retry: 2000\n\n"

    def message(self, written: bytes, token: str) -> bytes:
        """Return a message in its frame."""
        if token and token.isprintable():
            return b"id: %s\ndata: %s\n\n" % (token.encode(), written)
        return b"data: %s\n\n" % written

    def error(self, status: Status) -> bytes:
        """Return the error that ends the stream."""
        return b"event: error\ndata: %s\n\n" % _write(status)

    def end(self) -> bytes:
        """Return what follows the last message."""
        return b"event: end\ndata: {}\n\n"


class JsonArray:
    """All messages in one array; an error leaves it unclosed, so that it cannot be mistaken for complete."""

    media_type = b"application/json"
    heartbeat = b""
    ends_after_error = False

    def __init__(self) -> None:
        self._opening = b"["

    def start(self) -> bytes:
        """Return what precedes the first message."""
        return b""

    def message(self, written: bytes, token: str) -> bytes:  # noqa: ARG002 - as above
        """Return a message in its frame."""
        opening, self._opening = self._opening, b","
        return opening + written

    def error(self, status: Status) -> bytes:
        """Return the error that ends the stream."""
        return b'%s{"error":%s}\n' % (self._opening, _write(status))

    def end(self) -> bytes:
        """Return what follows the last message."""
        return (b"" if self._opening == b"," else b"[") + b"]"


class Raw:
    """The data of google.api.HttpBody messages, one after the other."""

    heartbeat = b""
    ends_after_error = False

    def __init__(self, media_type: bytes) -> None:
        self.media_type = media_type

    def start(self) -> bytes:
        """Return what precedes the first message."""
        return b""

    def message(self, written: bytes, token: str) -> bytes:  # noqa: ARG002 - as above
        """Return a message in its frame."""
        return written

    def error(self, status: Status) -> bytes:  # noqa: ARG002 - raw data carries no error; the aborted connection signals it
        """Return the error that ends the stream."""
        return b""

    def end(self) -> bytes:
        """Return what follows the last message."""
        return b""


def choose_framing(accept: bytes) -> Framing:
    """Return the framing that the Accept header prefers; NDJSON without a preference."""
    if b"text/event-stream" in accept:
        return ServerSentEvents()
    if b"application/json" in accept and b"application/x-ndjson" not in accept:
        return JsonArray()
    return Ndjson()


def _write(status: Status) -> bytes:
    return json.dumps(status, ensure_ascii=False, separators=(",", ":")).encode()
