"""The effect of `shop.options.v1` at the edge: callers, deadlines, rate limits, caching and statuses."""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.edge import processes
from tests.edge.client import Response, fetch
from tests.edge.compile import POLICY_PROTOS, descriptor_set, python_modules
from tests.edge.live import eventually_sync

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
    """Return a function that starts a separate edge, for tests that count calls."""
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
    assert answer.headers["vary"] == "accept, accept-encoding, accept-language, origin"
    again = fetch(port, "GET", "/v1/public?text=a", headers=[("If-None-Match", answer.headers["etag"])])
    assert (again.status, again.body) == (304, b"")
    assert fetch(port, "GET", "/v1/public?text=b", headers=[("If-None-Match", answer.headers["etag"])]).status == 200


def test_the_back_ends_cache_control_wins(port: int) -> None:
    assert fetch(port, "GET", "/v1/public?text=kept").headers["cache-control"] == "public, max-age=77"


def test_a_users_own_reads_are_not_cached(port: int) -> None:
    answer = fetch(port, "GET", "/v1/account", headers=[("Authorization", "Bearer kept")])
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers


def test_the_rate_limit_of_a_client_is_enforced_and_reported(port: int) -> None:
    seen = [browse(port, "1.1.1.1") for _ in range(4)]
    assert [answer.status for answer in seen] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit-policy"] for answer in seen] == ['"rpc";q=3;w=60'] * 4
    assert [re.sub("t=.*", "", answer.headers["ratelimit"]) for answer in seen] == [
        f'"rpc";r={left};' for left in (2, 1, 0, 0)
    ]
    rejected = seen[-1]
    assert rejected.json["code"] == 8
    assert rejected.json["details"][0]["reason"] == "RATE_LIMITED"
    assert 50 < int(rejected.headers["retry-after"]) <= 60
    assert browse(port, "1.1.1.2").status == 200, "another client has calls of its own"
    assert fetch(port, "GET", "/v1/public", headers=[("X-Forwarded-For", "1.1.1.1")]).status == 200, (
        "so has another method"
    )


def test_the_client_address_is_that_of_the_trusted_proxy(port: int) -> None:
    spoofed = [browse(port, f"10.0.0.{number}, 2.2.2.2").status for number in range(4)]
    assert spoofed == [200, 200, 200, 429]


def test_without_a_trusted_proxy_the_client_address_is_the_peers(start_edge: StartEdge) -> None:
    with start_edge() as port:
        assert [browse(port, f"3.3.3.{number}").status for number in range(4)] == [200, 200, 200, 429]


def test_calls_are_counted_by_token_or_else_by_address(port: int) -> None:
    def account(*headers: tuple[str, str]) -> int:
        return fetch(port, "GET", "/v1/account", headers=[("X-Forwarded-For", "4.4.4.4"), *headers]).status

    assert [account(("Authorization", "Bearer a")) for _ in range(3)] == [200, 200, 429]
    assert [account(("Authorization", "Bearer b")) for _ in range(3)] == [200, 200, 429]
    assert [account() for _ in range(3)] == [200, 200, 429]


def test_public_calls_are_counted_by_address_even_with_a_token(port: int) -> None:
    def login(token: str) -> int:
        headers = [JSON, ("X-Forwarded-For", "5.5.5.5"), ("Authorization", token)]
        return fetch(port, "POST", "/v1/login", b"{}", headers).status

    assert [login(f"Bearer {number}") for number in range(3)] == [200, 200, 429]


def test_calls_are_allowed_again_after_the_window(port: int) -> None:
    assert browse(port, "6.6.6.6", "/v1/tick").status == 200
    assert browse(port, "6.6.6.6", "/v1/tick").status == 429
    eventually_sync(lambda: browse(port, "6.6.6.6", "/v1/tick").status, lambda status: status == 200)


def test_workers_count_together_in_redis(start_edge: StartEdge, redis_url: str) -> None:
    with start_edge("--redis", redis_url) as one, start_edge("--redis", redis_url) as other:
        seen = [browse(port) for port in (one, other, one, other)]
    assert [answer.status for answer in seen] == [200, 200, 200, 429]
    assert [re.sub("t=.*", "", answer.headers["ratelimit"]) for answer in seen] == [
        f'"rpc";r={left};' for left in (2, 1, 0, 0)
    ]
    assert 50 < int(seen[-1].headers["retry-after"]) <= 60


def test_without_redis_fail_open_limits_allow_and_fail_closed_limits_reject(
    start_edge: StartEdge, tmp_path: Path
) -> None:
    with start_edge("--redis", f"unix://{tmp_path}/absent.sock") as port:
        assert [browse(port).status for _ in range(5)] == [200] * 5
        rejected = fetch(port, "POST", "/v1/login", b"{}", [JSON])
        assert (rejected.status, rejected.json["code"]) == (503, 14)
        assert rejected.headers["retry-after"] == "1"
        assert str(tmp_path) not in rejected.body.decode()
