"""Content codings: compresses responses as clients accept it, and inflates request bodies within a limit."""

import functools
import zlib

import brotli
import zstandard

from edge_gateway.errors import EdgeError, invalid_argument, payload_too_large, unsupported_media_type

_PREFERRED = ("br", "zstd", "gzip")
_COMPRESSIBLE = (b"application/json", b"application/problem+json", b"text/", b"application/xml", b"image/svg+xml")
_ACCEPTED = b"br, zstd, gzip, deflate"


@functools.lru_cache(maxsize=256)
def choose_coding(accept: bytes) -> str:
    """Return the best coding of an Accept-Encoding header, or an empty string for none."""
    weights: dict[str, float] = {}
    for option in accept.decode("latin-1").lower().split(","):
        name, _, parameters = option.partition(";")
        weights[name.strip()] = _weight(parameters)
    default = weights.get("*", 0.0)
    best = max(_PREFERRED, key=lambda coding: weights.get(coding, default))
    return best if weights.get(best, default) > 0 else ""


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    try:
        return float(value) if name.strip() == "q" else 1.0
    except ValueError:
        return 0.0


def is_compressible(media_type: bytes) -> bool:
    """Return whether bodies of a media type are worth compressing."""
    return media_type.startswith(_COMPRESSIBLE)


def compress(body: bytes, coding: str) -> bytes:
    """Compress at levels whose CPU cost is worth the bytes they save."""
    if coding == "br":
        return bytes(brotli.compress(body, quality=4))
    if coding == "zstd":
        return zstandard.ZstdCompressor(level=3).compress(body)
    return zlib.compress(body, 5, wbits=31)


def inflate(body: bytes, coding: str, limit: int) -> bytes:
    """Inflate a request body to at most `limit` bytes, or raise EdgeError 400, 413 or 415."""
    codings = [name.strip() for name in coding.lower().split(",") if name.strip() not in ("", "identity")]
    if len(codings) > 1:
        raise _unknown(coding)
    for name in codings:
        try:
            body = _inflate(body, name, limit)
        except (zlib.error, brotli.error, zstandard.ZstdError):
            raise invalid_argument(f"the body is not valid {name}") from None
        if len(body) > limit:
            raise payload_too_large(limit)
    return body


def _inflate(body: bytes, coding: str, limit: int) -> bytes:
    """Inflate at most one byte more than the limit, so that the caller can detect the excess."""
    if coding in ("gzip", "x-gzip", "deflate"):
        decoder = zlib.decompressobj(wbits=47)  # gzip or zlib, detected by the header
        inflated = decoder.decompress(body, limit + 1)
        if not decoder.eof and len(inflated) <= limit:
            raise zlib.error
        return inflated
    if coding == "br":
        return _inflate_brotli(body, limit)
    if coding == "zstd":
        return _inflate_zstd(body, limit)
    raise _unknown(coding)


def _inflate_zstd(body: bytes, limit: int) -> bytes:
    decoder = zstandard.ZstdDecompressor(max_window_size=2**23)
    with decoder.stream_reader(body) as reader:
        inflated = reader.read(limit + 1)
    if len(inflated) <= limit:  # the reader does not report a truncated body, so decode again: it is small
        whole = decoder.decompressobj()
        whole.decompress(body)
        if not whole.eof:
            raise zstandard.ZstdError
    return inflated


def _inflate_brotli(body: bytes, limit: int) -> bytes:
    decoder = brotli.Decompressor()
    inflated: bytes = decoder.process(body, output_buffer_limit=limit + 1)
    while len(inflated) <= limit and not decoder.is_finished():
        more = decoder.process(b"", output_buffer_limit=limit + 1 - len(inflated))
        if not more:
            raise brotli.error
        inflated += more
    return inflated


def _unknown(coding: str) -> EdgeError:
    error = unsupported_media_type(f"content-encoding {coding[:50]!r} is not one of br, zstd, gzip and deflate")
    error.headers.append((b"accept-encoding", _ACCEPTED))
    return error
