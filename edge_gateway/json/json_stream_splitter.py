"""Splits a request body into the JSON objects of a client's stream: NDJSON, concatenated objects, or one array."""

import re

from edge_gateway.errors import invalid_argument, payload_too_large

_TOKEN = re.compile(rb'["{}]')
#: The received part of a string; a trailing backslash waits for the character that it escapes.
_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_SPACE = re.compile(rb"[ \t\r\n]*")


class JsonStreamSplitter:
    """Splits the parts of a body into whole objects, which it does not validate."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        #: The start of the current object, and the position up to which it has been read.
        self._start = self._at = 0
        self._depth = 0
        self._quoted = False
        self._count = 0
        #: None until the first byte, then whether the body is one array.
        self._array: bool | None = None
        self._closed = False
        self._comma = False

    def feed(self, part: bytes) -> list[bytes]:
        """Return the objects that this part completes, or raise EdgeError 400 or 413."""
        self._buffer += part
        objects = []
        while (found := self._next()) is not None:
            objects.append(found)
        del self._buffer[: self._start]
        self._at, self._start = self._at - self._start, 0
        if len(self._buffer) > self._limit:
            raise payload_too_large(self._limit)
        return objects

    def finish(self) -> None:
        """Raise EdgeError 400 if the body ends inside an object or array."""
        if self._depth or self._comma or (self._array and not self._closed):
            raise invalid_argument("the body ends in the middle of a message")

    def _next(self) -> bytes | None:
        if self._depth == 0 and not self._between():
            return None
        # Continue at the position already read: a body may arrive byte by byte.
        while not self._quoted or self._ends_string():
            token = _TOKEN.search(self._buffer, self._at)
            if token is None:
                self._at = len(self._buffer)
                return None
            sign, self._at = token.group(), token.end()
            if sign == b'"':
                self._quoted = True
                continue
            self._depth += 1 if sign == b"{" else -1
            if self._depth == 0:
                return self._take()
        return None

    def _ends_string(self) -> bool:
        """Read on in a string; return whether it ended."""
        inside = _STRING.match(self._buffer, self._at)
        assert inside is not None  # the match may be empty
        self._at = inside.end()
        self._quoted = self._buffer[self._at : self._at + 1] != b'"'
        self._at += not self._quoted
        return not self._quoted

    def _take(self) -> bytes:
        found, self._start = bytes(self._buffer[self._start : self._at]), self._at
        self._count += 1
        self._comma = False
        return found

    def _between(self) -> bool:
        """Skip what separates objects; return whether an object begins."""
        while True:
            space = _SPACE.match(self._buffer, self._at)
            self._start = self._at = space.end() if space else self._at
            sign = bytes(self._buffer[self._at : self._at + 1])
            if sign == b"{" and not self._closed and (not self._array or self._comma or not self._count):
                self._array = bool(self._array)
                return True
            if not sign:
                return False
            self._punctuation(sign)
            self._at += 1

    def _punctuation(self, sign: bytes) -> None:
        if sign == b"[" and self._array is None:
            self._array = True
        elif sign == b"," and self._array and self._count and not self._comma and not self._closed:
            self._comma = True
        elif sign == b"]" and self._array and not self._comma and not self._closed:
            self._closed = True
        else:
            raise invalid_argument(f"the body is not a sequence of JSON objects after message {self._count}")
