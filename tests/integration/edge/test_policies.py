"""What the house's own options mean at the edge: callers, deadlines, rate limits, caching and statuses."""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.edge import processes
from tests.edge.client import Answer, ask
from tests.edge.compile import HOUSE_PROTOS, descriptor_set, python_modules
from tests.edge.live import eventually_sync

House = Callable[..., contextlib.AbstractContextManager[int]]
JSON = ("content-type", "application/json")


@pytest.fixture(scope="session")
def house_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    python_modules(HOUSE_PROTOS, folder)
    descriptor_set(HOUSE_PROTOS, folder)
    return folder


@pytest.fixture(scope="session")
def house_port(house_folder: Path) -> Iterator[int]:
    command = ("tests.edge.house", str(house_folder), "127.0.0.1:0")
    with processes.process(*command, ready=r"(?m)^(\d+)$", log=house_folder / "house.log") as (_, port):
        yield int(port)


@pytest.fixture(scope="session")
def house(house_folder: Path, house_port: int) -> House:
    """Starts an edge of its own for each test that counts calls."""
    count = itertools.count()

    @contextlib.contextmanager
    def start(*options: str) -> Iterator[int]:
        common = ("--descriptor-set", str(house_folder / "test.binpb"), "--upstream", f"*=127.0.0.1:{house_port}")
        with processes.edge(house_folder / f"edge{next(count)}.log", *common, *options) as (_, port):
            yield port

    return start


@pytest.fixture(scope="module")
def port(house: House) -> Iterator[int]:
    with house("--trusted-hops", "1", "--public-max-age", "9") as port:
        yield port


def browse(port: int, client: str = "", path: str = "/v1/browse") -> Answer:
    return ask(port, "GET", path, headers=[("X-Forwarded-For", client)] if client else [])


def test_a_method_that_does_not_name_the_edge_is_not_routed(port: int) -> None:
    assert ask(port, "GET", "/v1/internal").status == 404


def test_another_caller_has_other_routes(house: House) -> None:
    with house("--caller", "svc_order") as port:
        answer = ask(port, "GET", "/v1/internal")
        assert answer.json["metadata"]["x-shop-caller"] == "svc_order"
        assert ask(port, "GET", "/v1/browse").status == 404
        assert ask(port, "GET", "/v1/public").status == 200


def test_the_edge_says_who_it_is_and_no_client_can_say_otherwise(port: int) -> None:
    spoofed = [("x-shop-caller", "svc_order"), ("Grpc-Metadata-X-Shop-GrpcInvoker", "svc_order")]
    answer = ask(port, "GET", "/v1/account", headers=spoofed)
    assert answer.json["metadata"]["x-shop-caller"] == "edge"


def test_the_contract_sets_the_deadline(port: int) -> None:
    assert 0 < browse(port, "9.9.9.1").json["timeRemaining"] <= 3.1
    assert ask(port, "GET", "/v1/hang").status == 504
    assert ask(port, "GET", "/v1/hang", headers=[("Grpc-Timeout", "60S")]).status == 504


@pytest.mark.parametrize(("reason", "status"), [("KEY_REUSED", 422), ("PLAIN", 400), ("OTHER", 400)])
def test_a_reason_may_have_a_status_of_its_own(reason: str, status: int, port: int) -> None:
    answer = ask(port, "GET", f"/v1/refuse?text={reason}")
    assert (answer.status, answer.json["code"]) == (status, 3)


def test_a_public_read_may_be_kept_and_asked_for_again(port: int) -> None:
    answer = ask(port, "GET", "/v1/public?text=a")
    assert answer.headers["cache-control"] == "public, max-age=9"
    assert answer.headers["vary"] == "accept, accept-encoding, accept-language, origin"
    again = ask(port, "GET", "/v1/public?text=a", headers=[("If-None-Match", answer.headers["etag"])])
    assert (again.status, again.body) == (304, b"")
    assert ask(port, "GET", "/v1/public?text=b", headers=[("If-None-Match", answer.headers["etag"])]).status == 200


def test_the_back_end_knows_better_how_long_a_reply_keeps(port: int) -> None:
    assert ask(port, "GET", "/v1/public?text=kept").headers["cache-control"] == "public, max-age=77"


def test_what_is_for_one_user_is_never_kept(port: int) -> None:
    answer = ask(port, "GET", "/v1/account", headers=[("Authorization", "Bearer kept")])
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers


def test_a_client_gets_so_many_calls_and_is_told(port: int) -> None:
    seen = [browse(port, "1.1.1.1") for _ in range(4)]
    assert [answer.status for answer in seen] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit-policy"] for answer in seen] == ['"rpc";q=3;w=60'] * 4
    assert [re.sub("t=.*", "", answer.headers["ratelimit"]) for answer in seen] == [
        f'"rpc";r={left};' for left in (2, 1, 0, 0)
    ]
    refused = seen[-1]
    assert refused.json["code"] == 8
    assert refused.json["details"][0]["reason"] == "RATE_LIMITED"
    assert 50 < int(refused.headers["retry-after"]) <= 60
    assert browse(port, "1.1.1.2").status == 200, "another client has calls of its own"
    assert ask(port, "GET", "/v1/public", headers=[("X-Forwarded-For", "1.1.1.1")]).status == 200, (
        "so has another method"
    )


def test_only_the_trusted_proxys_word_counts(port: int) -> None:
    spoofed = [browse(port, f"10.0.0.{number}, 2.2.2.2").status for number in range(4)]
    assert spoofed == [200, 200, 200, 429]


def test_without_a_trusted_proxy_the_connection_counts(house: House) -> None:
    with house() as port:
        assert [browse(port, f"3.3.3.{number}").status for number in range(4)] == [200, 200, 200, 429]


def test_a_signed_in_user_is_counted_by_token_and_anyone_else_by_address(port: int) -> None:
    def account(*headers: tuple[str, str]) -> int:
        return ask(port, "GET", "/v1/account", headers=[("X-Forwarded-For", "4.4.4.4"), *headers]).status

    assert [account(("Authorization", "Bearer a")) for _ in range(3)] == [200, 200, 429]
    assert [account(("Authorization", "Bearer b")) for _ in range(3)] == [200, 200, 429]
    assert [account() for _ in range(3)] == [200, 200, 429]


def test_a_token_buys_no_more_public_calls(port: int) -> None:
    def login(token: str) -> int:
        headers = [JSON, ("X-Forwarded-For", "5.5.5.5"), ("Authorization", token)]
        return ask(port, "POST", "/v1/login", b"{}", headers).status

    assert [login(f"Bearer {number}") for number in range(3)] == [200, 200, 429]


def test_calls_come_back_when_the_window_has_passed(port: int) -> None:
    assert browse(port, "6.6.6.6", "/v1/tick").status == 200
    assert browse(port, "6.6.6.6", "/v1/tick").status == 429
    eventually_sync(lambda: browse(port, "6.6.6.6", "/v1/tick").status, lambda status: status == 200)


def test_workers_count_together_in_redis(house: House, redis_url: str) -> None:
    with house("--redis", redis_url) as one, house("--redis", redis_url) as other:
        seen = [browse(port) for port in (one, other, one, other)]
    assert [answer.status for answer in seen] == [200, 200, 200, 429]
    assert [re.sub("t=.*", "", answer.headers["ratelimit"]) for answer in seen] == [
        f'"rpc";r={left};' for left in (2, 1, 0, 0)
    ]
    assert 50 < int(seen[-1].headers["retry-after"]) <= 60


def test_without_redis_browsing_goes_on_and_login_does_not(house: House, tmp_path: Path) -> None:
    with house("--redis", f"unix://{tmp_path}/nobody.sock") as port:
        assert [browse(port).status for _ in range(5)] == [200] * 5
        refused = ask(port, "POST", "/v1/login", b"{}", [JSON])
        assert (refused.status, refused.json["code"]) == (503, 14)
        assert refused.headers["retry-after"] == "1"
        assert str(tmp_path) not in refused.body.decode()
