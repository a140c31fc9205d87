"""The frames of HTTP/2 (RFC 9113) and the header blocks of a gRPC client.

The dynamic tables are always empty, in both directions: equal blocks then have equal meanings,
so those that come with every reply are decoded once.
"""

import base64
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

import hpack

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20

NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, REFUSED_STREAM, CANCEL = 0, 1, 3, 7, 8

SETTING_HEADER_TABLE_SIZE, SETTING_ENABLE_PUSH, SETTING_MAX_STREAMS = 1, 2, 3
SETTING_WINDOW, SETTING_MAX_FRAME, SETTING_MAX_HEADERS = 4, 5, 6

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME = 16_384
MAX_WINDOW = 2**31 - 1
MAX_HEADER_LIST = 64 * 1024

_HEAD = struct.Struct(">HBBBL")
_LONG = struct.Struct(">L")
_SETTING = struct.Struct(">HL")

_ALLOWED = {SETTING_WINDOW: (0, MAX_WINDOW), SETTING_MAX_FRAME: (DEFAULT_FRAME, 2**24 - 1)}

#: Limits of the cache of decoded header blocks: bytes of a block, and number of blocks.
_MAX_BLOCK, _MAX_BLOCKS = 256, 256


class ProtocolError(Exception):
    """The peer violates HTTP/2."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Encode a frame."""
    length = len(payload)
    return _HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def head(buffer: bytes, at: int) -> tuple[int, int, int, int]:
    """Return a frame's length, type, flags and stream."""
    high, low, kind, flags, stream = _HEAD.unpack_from(buffer, at)
    return high << 8 | low, kind, flags, stream & 0x7FFFFFFF


def long(value: int) -> bytes:
    """Encode an unsigned integer of 32 bits."""
    return _LONG.pack(value)


def read_long(payload: bytes, at: int = 0) -> int:
    """Decode an unsigned integer of 32 bits, or raise ProtocolError."""
    if len(payload) < at + 4:
        raise ProtocolError("a frame is too short")
    found: int = _LONG.unpack_from(payload, at)[0]
    return found


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """Encode a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Decode the payload of a SETTINGS frame, or raise ProtocolError."""
    if len(payload) % 6:
        raise ProtocolError("a SETTINGS frame has a strange length")
    values: list[tuple[int, int]] = list(_SETTING.iter_unpack(payload))
    for name, value in values:
        low, high = _ALLOWED.get(name, (0, 2**32 - 1))
        if not low <= value <= high:
            raise ProtocolError("a setting is out of its range")
    return values


def unpadded(payload: bytes, flags: int) -> bytes:
    """Strip padding and priority from a HEADERS or DATA payload."""
    if flags & PADDED:
        if not payload or payload[0] >= len(payload):
            raise ProtocolError("a frame is padded beyond its length")
        payload = payload[1 : len(payload) - payload[0]]
    return payload[5:] if flags & PRIORITY else payload


def _integer(value: int, prefix: int) -> bytes:
    """Encode an HPACK integer with a prefix of `prefix` bits."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes((value,))
    out = bytearray((most,))
    value -= most
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(value: bytes) -> bytes:
    return _integer(len(value), 7) + value


def literal(name: str) -> bytes:
    """Encode the name of a literal header field; `value` encodes the rest."""
    return b"\0" + _text(name.encode())


def value(text: str | bytes) -> bytes:
    """Encode the value of a header field; bytes in base64."""
    return _text(text.encode("latin-1") if isinstance(text, str) else base64.b64encode(text).rstrip(b"="))


def request_head(path: str, authority: str, *, secure: bool) -> bytes:
    """Encode the header fields that all calls of a method share, by their indexes in HPACK's static table."""
    return b"".join((
        b"\x83", b"\x87" if secure else b"\x86", b"\x04" + _text(path.encode()), b"\x01" + _text(authority.encode()),
        literal("te") + _text(b"trailers"), b"\x0f\x10" + _text(b"application/grpc"),
        b"\x0f\x2b" + _text(b"shopmesh-edge"),
    ))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Block:
    """A decoded header block: initial metadata or trailers."""

    http_status: int | None
    grpc_status: int | None
    message: str
    metadata: tuple[tuple[str, str | bytes], ...]


_CODES = {str(code) for code in range(17)}
_OWN = {"content-type", "grpc-encoding", "grpc-accept-encoding", "accept-encoding", "grpc-status", "grpc-message"}


class BlockReader:
    """Decodes header blocks."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=MAX_HEADER_LIST)
        self._decoder.max_allowed_table_size = 0
        self._decoder.header_table_size = 0
        self._known: dict[bytes, Block] = {}

    def read(self, raw: bytes) -> Block:
        """Decode a header block, or raise ProtocolError."""
        known = self._known.get(raw)
        if known is None:
            try:
                known = _block([(bytes(name), bytes(found)) for name, found in self._decoder.decode(raw, raw=True)])
            except (hpack.HPACKError, ValueError) as error:
                raise ProtocolError("a header block cannot be read") from error
            if len(raw) <= _MAX_BLOCK and len(self._known) < _MAX_BLOCKS:
                self._known[raw] = known
        return known


def _block(fields: list[tuple[bytes, bytes]]) -> Block:
    http_status = grpc_status = None
    message = ""
    metadata: list[tuple[str, str | bytes]] = []
    for raw_name, raw in fields:
        name, text = raw_name.decode("latin-1"), raw.decode("latin-1")
        if name == ":status":
            http_status = int(text)
        elif name == "grpc-status":
            grpc_status = int(text) if text in _CODES else 2
        elif name == "grpc-message":
            message = unquote(text, errors="replace")
        elif name.endswith("-bin"):
            metadata += ((name, base64.b64decode(part + "=" * (-len(part) % 4))) for part in text.split(","))
        elif name not in _OWN and not name.startswith(":"):
            metadata.append((name, text))
    return Block(http_status, grpc_status, message, tuple(metadata))
