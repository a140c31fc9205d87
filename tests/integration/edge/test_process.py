"""The edge as a process: its command line, workers, draining, health and reflection."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.edge import processes
from tests.edge.client import Response, fetch
from tests.edge.compile import descriptor_set
from tests.edge.live import Live, begun, eventually_sync


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "edge_gateway", *arguments],
        cwd=processes.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def proto(folder: Path, methods: str) -> str:
    """Compile a service of these methods; return the path of its descriptor set."""
    source = folder / "protos" / "bad" / "v1"
    source.mkdir(parents=True)
    (source / "bad.proto").write_text(
        'syntax = "proto3"; package bad.v1; import "google/api/annotations.proto";'
        "message M { string name = 1; repeated string list = 2; M inner = 3; map<string, string> map = 4; }"
        f"service S {{ {methods} }}"
    )
    return str(descriptor_set(folder / "protos", folder))


def rpc(name: str, rule: str) -> str:
    return f"rpc {name}(M) returns (M) {{ option (google.api.http) = {{ {rule} }}; }}"


def test_check_accepts_good_routes(descriptors: str) -> None:
    done = run("--descriptor-set", descriptors, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 problems" in done.stdout
    assert (
        "not routed: edgetest/v1/library.proto: edgetest.v1.Library.Unbound: has no google.api.http rule" in done.stdout
    )


@pytest.mark.parametrize(
    ("methods", "reason"),
    [
        (rpc("A", 'get: "/v1/{name}"') + rpc("B", 'get: "/v1/{list}"'), "path variable list is a repeated field"),
        (rpc("B", 'get: "/v1/{map}"'), "path variable map is a repeated field"),
        (rpc("B", 'get: "/v1/{inner}"'), "path variable inner is a message"),
        (rpc("B", 'get: "/v1/{nope}"'), "path variable nope: bad.v1.M has no such field"),
        (rpc("B", 'get: "/v1/{inner.nope}"'), "path variable inner.nope: bad.v1.M has no such field"),
        (rpc("B", 'get: "/v1/{list.name}"'), "path variable list.name: bad.v1.M has no such field"),
        pytest.param(
            rpc("B", 'get: "/v1//x"'),
            "path template '/v1//x': expected a literal at character 5",
            id="C19-bad-template",
        ),
        pytest.param(
            rpc("B", 'get: "/v1/{name=**}/*"'),
            "path template '/v1/{name=**}/*': a wildcard after `**` at character 16",
            id="C19-wildcard-after-rest",
        ),
        (rpc("B", 'post: "/v1/x" body: "nope"'), "body 'nope': bad.v1.M has no such field"),
        (rpc("B", 'post: "/v1/{name}" body: "name"'), "the field name is both a path variable and the body"),
        (rpc("B", 'get: "/v1/x" response_body: "nope"'), "response_body 'nope': bad.v1.M has no such field"),
        (rpc("B", 'body: "*"'), "a rule names neither a method nor a path"),
        pytest.param(
            rpc("A", 'get: "/v1/{name}"') + rpc("B", 'get: "/v1/*"'),
            "GET /v1/* matches the same paths as /v1/{name}",
            id="C18-duplicate",
        ),
        (
            rpc("B", 'get: "/a" additional_bindings { get: "/b" additional_bindings { get: "/c" } }'),
            "additional_bindings are nested",
        ),
    ],
)
def test_check_names_the_file_the_method_and_the_reason(methods: str, reason: str, tmp_path: Path) -> None:
    bad = proto(tmp_path, methods)
    done = run("--descriptor-set", bad, "--check")
    assert done.returncode == 1
    assert f"bad/v1/bad.proto: bad.v1.S.B: {reason}" in done.stderr
    started = run("--descriptor-set", bad, "--upstream", "*=127.0.0.1:1", "--listen", "127.0.0.1:0")
    assert started.returncode == 1, "what --check rejects does not start either"


def test_a_template_of_all_paths_matches_the_root(tmp_path: Path, back_end: int, edge_folder: Path) -> None:
    options = ("--descriptor-set", proto(tmp_path, rpc("A", 'get: "/**"')), "--upstream", f"*=127.0.0.1:{back_end}")
    with processes.edge(edge_folder / "root.log", *options) as (_, port):
        assert fetch(port, "GET", "/").status == 501, "the back end has no such method"
        assert fetch(port, "GET", "/a//b").status == 404


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    done = run("--descriptor-set", proto(tmp_path, rpc("A", 'get: "x"') + rpc("B", 'get: "y"')), "--check")
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == ["bad.v1.S.A", "bad.v1.S.B"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--descriptor-set", "/nonexistent.binpb"], "No such file"),
        (["--descriptor-set", __file__], "this is not a FileDescriptorSet"),
        (["--reflect", "127.0.0.1:1"], "reflection failed"),
        (["--descriptor-set", "{good}", "--upstream", "nonsense"], "is not of the form"),
        (["--descriptor-set", "{good}", "--upstream", "*=nowhere"], "is not of the form host:port"),
        (["--descriptor-set", "{good}"], "edgetest.v1.Library: no --upstream is named for it"),
        (["--descriptor-set", "{good}", "--upstream", "other.v1.S=127.0.0.1:1"], "edgetest.v1.Library: no --upstream"),
    ],
)
def test_invalid_options_are_reported_and_prevent_the_start(
    arguments: list[str], reason: str, descriptors: str
) -> None:
    done = run(*(argument.format(good=descriptors) for argument in arguments), "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_reported(descriptors: str) -> None:
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        listen = f"127.0.0.1:{occupied.getsockname()[1]}"
        done = run("--descriptor-set", descriptors, "--upstream", "*=127.0.0.1:1", "--listen", listen)
    assert done.returncode == 1
    assert listen in done.stderr
    assert "in use" in done.stderr


def test_descriptors_come_from_the_back_end_by_reflection(
    edge_folder: Path, descriptors: str, back_end: int, free_port: Callable[[], int]
) -> None:
    reflecting = f"127.0.0.1:{free_port()}"
    options = ("--descriptor-set", descriptors, "--reflection-listen", reflecting)
    with processes.edge(edge_folder / "reflecting.log", *options, "--upstream", f"*=127.0.0.1:{back_end}"):
        options = ("--reflect", reflecting, "--upstream", f"edgetest.v1.Library=127.0.0.1:{back_end}")
        with processes.edge(edge_folder / "reflected.log", *options) as (_, port):
            answer = fetch(port, "GET", "/v1/echo?snakeCaseName=x&$alt=json;defaults=omit")
            assert answer.json == {"snakeCaseName": "x"}
        with grpc.insecure_channel(reflecting) as channel:
            assert "edgetest.v1.Library" in ProtoReflectionDescriptorDatabase(channel).get_services()
            # The same question in the newer version's name.
            stream = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
            assert b"edgetest.v1.Library" in next(iter(stream(iter([b"\x3a\x00"]))))


def test_an_unavailable_back_end_is_503_until_it_returns(
    edge_folder: Path, descriptors: str, free_port: Callable[[], int]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    options = ("--descriptor-set", descriptors, "--upstream", f"*={address}")
    with processes.edge(edge_folder / "alone.log", *options) as (_, port):
        down = fetch(port, "GET", "/v1/shelves/1")
        assert (down.status, down.json["code"], down.headers["retry-after"]) == (503, 14, "1")
        assert address not in down.body.decode()
        assert fetch(port, "GET", "/v1/watch/x").status == 503
        assert fetch(port, "GET", "/healthz").status == 503
        command = ("tests.edge.library", str(edge_folder), address)
        with processes.process(*command, ready=r"(?m)^(\d+)$", log=edge_folder / "late.log"):
            eventually_sync(lambda: fetch(port, "GET", "/v1/shelves/1").status, lambda status: status == 200)
            eventually_sync(lambda: fetch(port, "GET", "/healthz").json, lambda found: found == {"status": "SERVING"})
        eventually_sync(lambda: fetch(port, "GET", "/v1/shelves/1").status, lambda status: status == 503)


def test_health_is_that_of_the_routed_services(edge_folder: Path, descriptors: str, back_end: int) -> None:
    options = ("--upstream", f"edgetest.v1.Library=127.0.0.1:{back_end}", "--upstream", "*=127.0.0.1:1")
    with processes.edge(edge_folder / "unused.log", "--descriptor-set", descriptors, *options) as (_, port):
        assert fetch(port, "GET", "/healthz").json == {"status": "SERVING"}
        assert fetch(port, "GET", "/healthz?service=other.v1.S").status == 503, "its target does not answer"


def test_a_drain_completes_calls_and_ends_streams_with_an_error(
    edge_folder: Path, descriptors: str, back_end: int
) -> None:
    options = ("--descriptor-set", descriptors, "--upstream", f"*=127.0.0.1:{back_end}")
    with processes.edge(edge_folder / "draining.log", *options) as (running, port):
        answers: list[Response] = []
        calling = threading.Thread(target=lambda: answers.append(fetch(port, "GET", "/v1/sleep/drain?seconds=1.5")))
        calling.start()
        with Live(port, "/v1/watch/drained?count=1&hold=true", "Accept: text/event-stream") as live:
            live.until(b"resumeToken")
            eventually_sync(lambda: begun(port), lambda names: "drain" in names)
            running.terminate()
            seen = live.rest()
        calling.join(60)
        assert b"event: error" in seen
        assert b'"code":14' in seen
        assert answers[0].status == 200, "a call that had begun is answered"
        assert running.wait(60) == 0
    with pytest.raises(OSError, match="refused"):
        fetch(port, "GET", "/healthz")


def test_workers_share_a_port_and_are_replaced(
    edge_folder: Path, descriptors: str, back_end: int, free_port: Callable[[], int]
) -> None:
    port = free_port()
    options = ("--descriptor-set", descriptors, "--upstream", f"*=127.0.0.1:{back_end}", "--workers", "2")
    with processes.edge(edge_folder / "workers.log", *options, "--listen", f"127.0.0.1:{port}") as (running, _):
        first = eventually_sync(lambda: children(running.pid), lambda pids: len(pids) == 2)
        eventually_sync(lambda: listeners(port), lambda count: count == 2)
        os.kill(first[0], signal.SIGKILL)
        second = eventually_sync(
            lambda: children(running.pid), lambda pids: len(pids) == 2 and first[0] not in pids, within=10
        )
        eventually_sync(lambda: listeners(port), lambda count: count == 2)
        assert {fetch(port, "GET", "/v1/shelves/1").status for _ in range(10)} == {200}
        running.terminate()
        assert running.wait(60) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in second)


def test_a_low_limit_of_open_files_does_not_limit_live_streams(
    edge_folder: Path, descriptors: str, back_end: int
) -> None:
    options = f"--descriptor-set {descriptors} --upstream *=127.0.0.1:{back_end} --listen 127.0.0.1:0"
    command = f"ulimit -Sn 64; set -f; exec {sys.executable} -m edge_gateway {options}"
    log = edge_folder / "files.log"
    with (
        processes.program("sh", "-c", command, ready=r"routes on http://127\.0\.0\.1:(\d+)", log=log) as (_, port),
        contextlib.ExitStack() as clients,
    ):
        for number in range(100):
            path = f"/v1/watch/file{number}?count=1&hold=true"
            clients.enter_context(Live(int(port), path, "Accept: text/event-stream")).until(b"resumeToken")


def test_workers_that_cannot_start_are_not_restarted(descriptors: str) -> None:
    done = run("--descriptor-set", descriptors, "--workers", "2", "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert "no --upstream is named for it" in done.stderr


def test_during_the_drain_delay_health_fails_and_calls_are_served(
    edge_folder: Path, descriptors: str, back_end: int
) -> None:
    options = ("--descriptor-set", descriptors, "--upstream", f"*=127.0.0.1:{back_end}", "--drain-delay", "30")
    with processes.edge(edge_folder / "delayed.log", *options) as (running, port):
        assert fetch(port, "GET", "/healthz").status == 200
        running.terminate()
        eventually_sync(lambda: fetch(port, "GET", "/healthz").json, lambda found: found == {"status": "NOT_SERVING"})
        assert fetch(port, "GET", "/v1/shelves/1").status == 200
        running.kill()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def listeners(port: int) -> int:
    """How many sockets listen on a port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)
