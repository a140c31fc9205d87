"""A service is one folder: without it, everything else runs."""

import shutil

import httpx
import pytest

from mesh.services import SERVICES
from tests.e2e.stacks import CheckedOut, cleaned, get

GONE = "svc_delivery"


@pytest.fixture(scope="module")
def stack(tmp_path_factory, repository):
    checkout = tmp_path_factory.mktemp("checkout")
    services = {path.name for path in repository.glob("svc_*")}
    for part in ("chassis", "edge_gateway", "gen", "mesh", *services - {GONE}):
        shutil.copytree(repository / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
    with cleaned(CheckedOut(tmp_path_factory.mktemp("stack"), checkout)) as cli:
        cli.info = cli.json("up", "--detach", "--port-base", "0")
        yield cli


def test_all_other_services_run(stack):
    assert set(stack.info["services"]) == set(SERVICES) - {GONE}
    assert {one["state"] for one in stack.info["processes"]} == {"ready"}


def test_operations_without_the_service_work(stack):
    with httpx.Client(base_url=stack.info["edge"], trust_env=False, timeout=30) as client:
        account = {"email": "ann@example.com", "password": "a long enough password"}
        assert client.post("/v1/auth/register", json=account | {"requestId": "ann"}).status_code == 200
        token = client.post("/v1/auth/login", json=account).json()["accessToken"]
        assert client.get("/v1/products").json()["products"] == []
        mine = client.get("/v1/orders", headers={"authorization": f"Bearer {token}"})
        assert (mine.status_code, mine.json()["orders"]) == (200, [])


def test_operations_of_the_service_are_unavailable(stack):
    answer = get(f"{stack.info['edge']}/v1/delivery/zones")
    assert answer.status_code == 503
    assert answer.json()["code"] == 14


def test_the_invariants_of_the_other_services_are_verified(stack):
    done = stack.run("verify")
    assert done.returncode == 0, done.stdout
    assert f"which need {GONE}" in done.stdout


def test_sample_data_need_the_service(stack):
    done = stack.run("sample-data")
    assert done.returncode == 1
    assert f"the sample data needs {GONE}" in done.stderr
