"""The standalone edge in front of a foreign service, written in Go with its own protos."""

import json
import shutil
from collections.abc import Iterator

import pytest

from tests.edge import golang, processes
from tests.edge.client import fetch
from tests.edge.compile import descriptor_set

pytestmark = [
    pytest.mark.foreign,
    pytest.mark.skipif(shutil.which("go") is None, reason="no Go toolchain, so no foreign service"),
    pytest.mark.timeout(600),
]
JSON = [("content-type", "application/json")]


@pytest.fixture(scope="session")
def foreign_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("foreign")
    program = golang.build(golang.FOREIGN, golang.PROTOS, folder)
    with processes.program(str(program), ready=r"(?m)^(\d+)$", log=folder / "go.log") as (_, port):
        yield int(port)


@pytest.fixture(scope="session", params=["descriptors", "reflection"])
def port(request: pytest.FixtureRequest, foreign_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Start an edge with descriptors from a descriptor set or from the service's reflection."""
    folder = tmp_path_factory.mktemp("edge")
    target = f"127.0.0.1:{foreign_port}"
    options = ("--reflect", target)
    if request.param == "descriptors":
        options = ("--descriptor-set", str(descriptor_set(golang.PROTOS, folder)), "--upstream", f"*={target}")
    with processes.edge(folder / "edge.log", *options) as (_, port):
        yield port


def test_a_reply_is_transcoded(port: int) -> None:
    answer = fetch(port, "GET", "/v1/parcels/7", headers=[("Authorization", "Bearer x")])
    parcel = answer.json
    assert parcel.pop("createTime").endswith("Z")
    assert parcel == {"name": "parcels/7", "weightGrams": "9007199254740993", "stamps": ["Bearer x"], "locker": 7}


def test_a_patch_request_carries_its_mask(port: int) -> None:
    answer = fetch(port, "PATCH", "/v1/parcels/7", b'{"street":"Main","stamps":["a"]}', JSON)
    assert answer.json["parcel"]["street"] == "Main"
    assert answer.json["updateMask"] == "street,stamps"


def test_an_error_keeps_its_details(port: int) -> None:
    answer = fetch(port, "GET", "/v1/parcels/none")
    assert (answer.status, answer.json["message"]) == (404, "no such parcel")
    assert answer.json["details"][0]["reason"] == "LOST"


def test_streams_are_relayed(port: int) -> None:
    answer = fetch(port, "GET", "/v1/parcels/7:track?count=500")
    assert [json.loads(line)["result"]["step"] for line in answer.body.splitlines()] == list(range(1, 501))
    broken = fetch(port, "GET", "/v1/parcels/lost:track?count=1").body.splitlines()
    assert json.loads(broken[-1])["error"]["code"] == 15
    weighed = fetch(port, "POST", "/v1/parcels:weigh", b'{"weightGrams":1}{"weightGrams":"2"}', JSON)
    assert weighed.json["weightGrams"] == "3"


def test_health_is_that_of_the_service(port: int) -> None:
    assert fetch(port, "GET", "/healthz").json == {"status": "SERVING"}
    assert fetch(port, "GET", "/healthz?service=nope").status == 404
