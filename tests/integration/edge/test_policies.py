"""The effect of `shop.options.v1` at the edge: callers, deadlines, client addresses, caching and statuses."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.edge import processes
from tests.edge.client import Response, fetch
from tests.edge.compile import POLICY_PROTOS, descriptor_set, python_modules

StartEdge = Callable[..., contextlib.AbstractContextManager[int]]
JSON = ("content-type", "application/json")


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start_edge")
    python_modules(POLICY_PROTOS, folder)
    descriptor_set(POLICY_PROTOS, folder)
    return folder


@pytest.fixture(scope="session")
def service_port(policy_folder: Path) -> Iterator[int]:
    command = ("tests.edge.policy_service", str(policy_folder), "127.0.0.1:0")
    with processes.process(*command, ready=r"(?m)^(\d+)$", log=policy_folder / "start_edge.log") as (_, port):
        yield int(port)


@pytest.fixture(scope="session")
def start_edge(policy_folder: Path, service_port: int) -> StartEdge:
    """Return a function that starts a separate edge with options of its own."""
    count = itertools.count()

    @contextlib.contextmanager
    def start(*options: str) -> Iterator[int]:
        common = ("--descriptor-set", str(policy_folder / "test.binpb"), "--upstream", f"*=127.0.0.1:{service_port}")
        with processes.edge(policy_folder / f"edge{next(count)}.log", *common, *options) as (_, port):
            yield port

    return start


@pytest.fixture(scope="module")
def port(start_edge: StartEdge) -> Iterator[int]:
    with start_edge("--trusted-hops", "1", "--public-max-age", "9") as port:
        yield port


def browse(port: int, client: str = "", path: str = "/v1/browse") -> Response:
    return fetch(port, "GET", path, headers=[("X-Forwarded-For", client)] if client else [])


def test_a_method_that_does_not_name_the_edge_is_not_routed(port: int) -> None:
    assert fetch(port, "GET", "/v1/internal").status == 404


def test_the_routes_depend_on_the_caller(start_edge: StartEdge) -> None:
    with start_edge("--caller", "svc_order") as port:
        answer = fetch(port, "GET", "/v1/internal")
        assert answer.json["metadata"]["x-shop-caller"] == "svc_order"
        assert fetch(port, "GET", "/v1/browse").status == 404
        assert fetch(port, "GET", "/v1/public").status == 200


def test_the_edge_sets_the_caller_and_clients_cannot(port: int) -> None:
    spoofed = [("x-shop-caller", "svc_order"), ("Grpc-Metadata-X-Shop-Caller", "svc_order")]
    answer = fetch(port, "GET", "/v1/account", headers=spoofed)
    assert answer.json["metadata"]["x-shop-caller"] == "edge"


def test_the_contract_sets_the_deadline(port: int) -> None:
    assert 0 < browse(port, "9.9.9.1").json["timeRemaining"] <= 3.1
    assert fetch(port, "GET", "/v1/hang").status == 504
    assert fetch(port, "GET", "/v1/hang", headers=[("Grpc-Timeout", "60S")]).status == 504


@pytest.mark.parametrize(("reason", "status"), [("KEY_REUSED", 422), ("PLAIN", 400), ("OTHER", 400)])
def test_a_reason_may_override_the_http_status(reason: str, status: int, port: int) -> None:
    answer = fetch(port, "GET", f"/v1/refuse?text={reason}")
    assert (answer.status, answer.json["code"]) == (status, 3)


def test_a_public_read_may_be_cached_and_revalidated(port: int) -> None:
    answer = fetch(port, "GET", "/v1/public?text=a")
    assert answer.headers["cache-control"] == "public, max-age=9"
    assert answer.headers["vary"] == "accept, accept-encoding, accept-language, authorization, origin"
    again = fetch(port, "GET", "/v1/public?text=a", headers=[("If-None-Match", answer.headers["etag"])])
    assert (again.status, again.body) == (304, b"")
    assert fetch(port, "GET", "/v1/public?text=b", headers=[("If-None-Match", answer.headers["etag"])]).status == 200


def test_a_public_read_with_a_token_may_be_kept_by_its_client_alone(port: int) -> None:
    answer = fetch(port, "GET", "/v1/public?text=a", headers=[("Authorization", "Bearer kept")])
    assert answer.headers["cache-control"] == "private, max-age=9"
    assert "authorization" in answer.headers["vary"]


def test_the_back_ends_cache_control_wins(port: int) -> None:
    assert fetch(port, "GET", "/v1/public?text=kept").headers["cache-control"] == "public, max-age=77"


def test_a_users_own_reads_are_not_cached(port: int) -> None:
    answer = fetch(port, "GET", "/v1/account", headers=[("Authorization", "Bearer kept")])
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers


def test_the_service_is_told_the_address_that_the_trusted_proxy_saw(port: int) -> None:
    """It counts rate limits by it."""
    headers = [("Grpc-Metadata-X-Forwarded-For", "10.0.0.1")]
    answer = fetch(port, "GET", "/v1/browse", headers=[("X-Forwarded-For", "10.0.0.2, 2.2.2.2"), *headers])
    assert answer.json["metadata"]["x-forwarded-for"] == "2.2.2.2"


def test_without_a_trusted_proxy_the_address_is_the_peers(start_edge: StartEdge) -> None:
    with start_edge() as port:
        assert browse(port, "3.3.3.3").json["metadata"]["x-forwarded-for"] == "127.0.0.1"


def test_the_rate_limit_that_the_service_reports_reaches_the_client(port: int) -> None:
    served, rejected = (fetch(port, "GET", f"/v1/tick?text={text}") for text in ("", "RATE_LIMITED"))
    assert (served.status, served.headers["ratelimit"]) == (200, '"rpc";r=1;t=2')
    assert (rejected.status, rejected.json["details"][0]["reason"]) == (429, "RATE_LIMITED")
    assert (rejected.headers["ratelimit"], rejected.headers["retry-after"]) == ('"rpc";r=1;t=2', "3")
    assert served.headers["ratelimit-policy"] == rejected.headers["ratelimit-policy"] == '"rpc";q=3;w=60'


def test_a_repeated_public_read_has_its_own_reply_format_and_coding(port: int) -> None:
    """The edge keeps rendered replies: by their bytes, so that another reply is never taken for one that is kept."""

    def text(path: str) -> str:
        return fetch(port, "GET", path).body.decode().replace(" ", "")

    for _ in range(2):
        assert text("/v1/public?text=one") == '{"text":"one","metadata":{},"timeRemaining":0.0}'
        assert text("/v1/public?text=two") == '{"text":"two","metadata":{},"timeRemaining":0.0}'
        assert text("/v1/public?text=one&alt=json;names=proto") == '{"text":"one","metadata":{},"time_remaining":0.0}'
        assert text("/v1/public?text=one&fields=text") == '{"text":"one"}'
    seen = {fetch(port, "GET", f"/v1/public?text={one}").headers["etag"] for one in ("one", "two", "one")}
    assert len(seen) == 2


def test_a_repeated_public_read_shows_what_has_changed(port: int) -> None:
    """It says how long the service has: another time for each call."""
    first, second = (browse(port, client="7.7.7.7").json for _ in range(2))
    assert first["timeRemaining"] != second["timeRemaining"]


def test_a_repeated_public_read_is_compressed_as_each_client_accepts_it(port: int) -> None:
    path = f"/v1/public?text={'long ' * 400}".replace(" ", "%20")
    for coding in ("gzip", "br", "identity", "gzip"):
        answer = fetch(port, "GET", path, headers=[("accept-encoding", coding)])
        assert answer.headers.get("content-encoding", "identity") == coding
