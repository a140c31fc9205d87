"""Served requests leak neither memory nor file descriptors nor calls."""

import http.client
import os
import uuid
from pathlib import Path

from tests.edge import processes
from tests.edge.live import Live, eventually_sync

REQUESTS = [
    ("GET", "/v1/shelves/{}", b""),
    ("GET", "/v1/shelves?name=20", b""),
    ("GET", "/v1/echo?ms[{}]=x&deep.deep.name={}", b""),
    ("POST", "/v1/echo", b'{"ms":{"%s":"x"},"struct":{"%s":1}}'),
    ("POST", "/v1/echo", b'{"%s":1,"%s":2}'),
    ("GET", "/{}/{}", b""),
    ("GET", "/v1/fail?code=5&message={}&details=error_info", b""),
    ("GET", "/v1/watch/{}?count=5", b""),
]


def test_memory_and_descriptors_do_not_grow(edge_folder: Path, descriptors: str, back_end: int) -> None:
    options = ("--descriptor-set", descriptors, "--upstream", f"*=127.0.0.1:{back_end}")
    with processes.edge(edge_folder / "growing.log", *options) as (running, port):
        for _ in range(2):  # what is made once, and kept, is made here
            serve(port, 100)
        memory, files = resident(running.pid), descriptors_of(running.pid)
        for _ in range(4):
            serve(port, 100)
        assert resident(running.pid) - memory < 4.0
        eventually_sync(lambda: descriptors_of(running.pid), lambda count: count <= files)


def serve(port: int, rounds: int) -> None:
    """Send requests that all differ, and abandon streams midway."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(rounds):
        name = uuid.uuid4().hex
        for method, path, body in REQUESTS:
            sent = body.replace(b"%s", name.encode()) or None
            connection.request(method, path.format(name, name), sent, {"content-type": "application/json"})
            connection.getresponse().read()
    connection.close()
    for _ in range(rounds // 4):
        with Live(port, f"/v1/watch/{uuid.uuid4().hex}?count=1&hold=true", "Accept: text/event-stream") as live:
            live.until(b"resumeToken")


def resident(pid: int) -> float:
    """Memory in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
