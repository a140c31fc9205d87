"""Content codings, both ways."""

import gzip
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_gateway.errors import EdgeError
from edge_gateway.http.compression import choose_coding, compress, inflate
from tests.edge.attempts import attempt

LIMIT = 10_000
CODINGS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (b"", ""),
        (b"gzip", "gzip"),
        (b"gzip, deflate, br", "br"),
        (b"gzip, deflate, br, zstd", "br"),
        (b"br;q=0.5, gzip;q=0.9", "gzip"),
        (b"br;q=0, *", "zstd"),
        (b"*;q=0", ""),
        (b"identity", ""),
        (b"gzip;q=0", ""),
        (b"gzip;q=x", ""),
        (b"GZIP", "gzip"),
    ],
)
def test_the_best_accepted_coding_is_chosen(accept: bytes, coding: str) -> None:
    assert choose_coding(accept) == coding


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip"])
def test_inflating_reverses_compressing(coding: str) -> None:
    body = b"a body that repeats itself " * 40
    compressed = compress(body, coding)
    assert len(compressed) < len(body)
    assert inflate(compressed, coding, LIMIT) == body


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(("size", "status"), [(LIMIT, None), (LIMIT + 1, 413), (5_000_000, 413)])
def test_the_limit_counts_inflated_bytes(coding: str, size: int, status: int | None) -> None:
    inflated = attempt(lambda: inflate(CODINGS[coding](b"0" * size), coding, LIMIT))
    assert (inflated.http_status if isinstance(inflated, EdgeError) else len(inflated)) == (status or size)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_truncated_body_is_rejected(coding: str) -> None:
    whole = CODINGS[coding](bytes(range(256)) * 4)
    with pytest.raises(EdgeError) as caught:
        inflate(whole[: len(whole) // 2], coding, LIMIT)
    assert caught.value.http_status == 400


@settings(derandomize=True, max_examples=100, deadline=None)
@given(body=st.binary(max_size=60), coding=st.sampled_from([*CODINGS, "gzip, br", "x", "identity"]))
def test_arbitrary_bytes_are_inflated_or_rejected(body: bytes, coding: str) -> None:
    inflated = attempt(lambda: inflate(body, coding, LIMIT))
    assert isinstance(inflated, bytes) or inflated.http_status in (400, 413, 415)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(accept=st.text("gzipbrstd*;q=0.1, ", max_size=30))
def test_an_arbitrary_accept_header_is_parsed(accept: str) -> None:
    assert choose_coding(accept.encode()) in ("", "br", "zstd", "gzip")
