"""The limit of a request body counts inflated bytes, and a pattern of origins allows host names alone."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import brotli
import pytest
import zstandard

from tests.edge import processes
from tests.edge.client import fetch

LIMIT = 10_000
CODINGS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.fixture(scope="module")
def port(edge_folder: Path, descriptors: str, back_end: int) -> Iterator[int]:
    """An edge with a small limit and a pattern of origins."""
    options = ("--max-body", str(LIMIT), "--cors-origin", "https://*.shop.example")
    with processes.edge(
        edge_folder / "limits.log", "--descriptor-set", descriptors, "--upstream", f"*=127.0.0.1:{back_end}", *options
    ) as (_, found):
        yield found


def shelf(size: int) -> bytes:
    """A JSON body of so many bytes."""
    return b'{"s":"' + b"0" * (size - 8) + b'"}'


@pytest.mark.parametrize(("coding", "compress"), CODINGS.items(), ids=CODINGS)
@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413), (10 * LIMIT, 413)])
def test_a_compressed_body_is_limited_by_its_inflated_size(
    port: int, coding: str, compress: Callable[[bytes], bytes], size: int, status: int
) -> None:
    headers = [("content-type", "application/json"), ("content-encoding", coding)]
    body = shelf(size)
    assert (len(body), len(compress(body)) < LIMIT) == (size, True)
    assert fetch(port, "POST", "/v1/shelves", compress(body), headers).status == status


@pytest.mark.parametrize("origin", ["https://a.shop.example", "https://b-2.a.shop.example"])
def test_an_origin_below_the_host_of_a_pattern_is_allowed(port: int, origin: str) -> None:
    answer = fetch(port, "GET", "/v1/shelves/1", headers=[("origin", origin)])
    assert answer.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.com#.shop.example",
        "https://evil.com/.shop.example",
        "https://evil.com?.shop.example",
        "https://evil.com\\.shop.example",
        "https://evil.com:1.shop.example",
        "https://user@.shop.example",
        "https://.shop.example",
        "https://shop.example",
        "https://a.shop.example.evil.com",
        "https://evilshop.example",
        "http://a.shop.example",
        "https://a.shop.example:444",
    ],
)
def test_no_other_origin_is_allowed_by_a_pattern(port: int, origin: str) -> None:
    answer = fetch(port, "GET", "/v1/shelves/1", headers=[("origin", origin)])
    assert "access-control-allow-origin" not in answer.headers
