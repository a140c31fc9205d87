"""The metrics of an edge: each request by its method and status; streams while they are open, and when they end."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.edge import processes
from tests.edge.client import fetch
from tests.edge.live import Live, eventually_sync

Edge = tuple[int, Callable[[str], float]]


@pytest.fixture(scope="module")
def edge(edge_folder: Path, descriptors: str, back_end: int, free_port: Callable[[], int]) -> Iterator[Edge]:
    """Start an edge with metrics; return its port, and a function that reads a sample by its name and labels."""
    listen = free_port()
    options = ("--descriptor-set", descriptors, "--upstream", f"*=127.0.0.1:{back_end}")

    def sample(name: str) -> float:
        text = fetch(listen, "GET", "/metrics").body.decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    with processes.edge(edge_folder / "metrics.log", *options, "--metrics-listen", f"127.0.0.1:{listen}") as (_, port):
        yield port, sample


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/v1/echo/a", "/edgetest.v1.Library/Echo", 200),
        ("/v1/num/nan", "/edgetest.v1.Library/Echo", 400),
        ("/v1/no/such/route", "", 404),
        ("/healthz", "/healthz", 200),
    ],
)
def test_a_request_is_counted_by_its_method_and_status(edge: Edge, path: str, method: str, status: int) -> None:
    port, sample = edge
    name = f'http_server_duration_seconds_count{{method="{method}",status="{status}"}}'
    before = sample(name)
    assert fetch(port, "GET", path).status == status
    eventually_sync(lambda: sample(name), lambda count: count == before + 1)


UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@pytest.mark.parametrize(("headers", "status"), [((), 200), (UPGRADE, 101)], ids=["http", "websocket"])
def test_a_stream_is_counted_while_it_is_open_and_when_it_has_ended(
    edge: Edge, headers: tuple[str, ...], status: int
) -> None:
    port, sample = edge
    name = f'http_server_streams_total{{method="/edgetest.v1.Library/Watch",status="{status}"}}'
    before = sample(name)
    with Live(port, "/v1/watch/metrics?count=1&hold=true", *headers) as live:
        live.until(b"resumeToken")
        assert sample("http_server_streams_open") == 1
        assert sample(name) == before
    eventually_sync(lambda: (sample("http_server_streams_open"), sample(name)), lambda found: found == (0, before + 1))
