"""`shopmesh new` in a copy of the repository: what it writes passes the checks, is served, verified, and removable."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import grpc
import httpx
import pytest

from mesh.codegen.tools import BIN
from tests.e2e.stacks import CheckedOut, cleaned

#: A name that no service has: one of this repository may well be called wishlist.
NEW = ("svc_keepsake/", "protos/shop/keepsake/", "gen/shop/keepsake/", "istio/svc-keepsake.yaml")
TESTS = (
    "tests/unit/svc_keepsake/",
    "tests/integration/svc_keepsake/",
    "tests/contract/reviewed_access/keepsake.txt",
    "tests/contract/retention/svc_keepsake.txt",
)
GENERATED = ("gen/shop/", "istio/", "docs/errors.md", "docs/events.md", "docs/openapi.json")
CACHES = {"__pycache__", ".cache", ".ruff_cache", ".pytest_cache", ".git"}
ANN = {"email": "ann@example.com", "password": "a long enough password"}


class Checkout:
    """A copy of the repository's files as they are now, committed or not."""

    def __init__(self, repository: Path, root: Path) -> None:
        self.root = root
        listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        names = subprocess.run(listed, cwd=repository, capture_output=True, text=True, check=True).stdout.split("\0")
        for name in filter(None, names):
            if (repository / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(repository / name, root / name)

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file() and not CACHES & set(path.relative_to(self.root).parts)
        }

    def run(self, *command: str) -> str:
        """Run a tool of the environment in the copy; return its output, which a failure shows."""
        python_path = f"{self.root}{os.pathsep}{self.root / 'gen'}"
        done = subprocess.run(
            [BIN / command[0], *command[1:]],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": python_path, "PYTHONSAFEPATH": "1"},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, repository):
    return Checkout(repository, tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def before(checkout):
    return checkout.files()


@pytest.fixture(scope="module")
def command(tmp_path_factory, checkout, before):
    """The command of the copy, after `shopmesh new keepsake`."""
    with cleaned(CheckedOut(tmp_path_factory.mktemp("stack"), checkout.root)) as cli:
        done = cli.run("new", "keepsake")
        assert done.returncode == 0, done.stdout + done.stderr
        yield cli


@pytest.mark.usefixtures("command")
def test_it_writes_its_folder_its_protos_its_tests_and_generated_files_alone(checkout, before):
    after = checkout.files()
    added = [name for name in after if name not in before]
    assert [name for name in added if not name.startswith((*NEW, *TESTS))] == []
    changed = [name for name, content in after.items() if before.get(name, content) != content]
    assert [name for name in changed if not name.startswith(GENERATED)] == []
    assert set(before) <= set(after)


@pytest.mark.usefixtures("command")
def test_what_it_writes_passes_the_checks(checkout):
    own = ("tests/unit/svc_keepsake", "tests/integration/svc_keepsake")
    checkout.run("ruff", "check", "--no-cache", "svc_keepsake", *own)
    checkout.run("ruff", "format", "--no-cache", "--check", "svc_keepsake", *own)
    checkout.run("mypy", "--cache-dir", str(checkout.root / ".cache" / "mypy"), "svc_keepsake")
    checkout.run("python", "-m", "mesh.codegen", "--check")
    options = ("-q", "-n", "0", "-p", "no:cacheprovider")
    passed = checkout.run(
        "python", "-m", "pytest", *options, "tests/contract", "-k", "keepsake or reviewed or istio", *own
    )
    assert " passed" in passed


def test_it_is_served_by_json_and_grpc_and_verified(command):
    info = command.up()
    with httpx.Client(base_url=info["edge"], trust_env=False, timeout=30) as client:
        client.post("/v1/auth/register", json=ANN | {"requestId": "ann"}).raise_for_status()
        token = client.post("/v1/auth/login", json=ANN).json()["accessToken"]
        client.headers["authorization"] = f"Bearer {token}"
        repeated = [
            client.post("/v1/keepsakes", json={"title": "Birthday"}, headers={"idempotency-key": "one"}).json()
            for _ in range(2)
        ]
        assert repeated[0] == repeated[1]
        keepsake_id = repeated[0]["keepsakeId"]
        assert client.post(f"/v1/keepsakes/{keepsake_id}/archive", json={"requestId": "two"}).status_code == 200
        assert [one["state"] for one in client.get("/v1/keepsakes").json()["keepsakes"]] == ["KEEPSAKE_STATE_ARCHIVED"]
    with grpc.insecure_channel(info["grpc"]) as channel:
        get = channel.unary_unary("/shop.keepsake.v1.KeepsakeService/GetKeepsake")
        request = b"\x0a" + bytes([len(keepsake_id)]) + keepsake_id.encode()
        assert b"Birthday" in get(request, metadata=[("authorization", f"Bearer {token}")], timeout=30)
    checks = command.json("verify")
    assert "keepsake_version" in str(checks)
    assert command.run("down").returncode == 0


def test_without_its_folder_its_protos_and_its_tests_the_repository_is_as_before(checkout, before, command):
    for name in (*NEW, *TESTS):
        path = checkout.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    checkout.run(Path(sys.executable).name, "-m", "mesh.codegen")
    checkout.run(Path(sys.executable).name, "-m", "mesh", "mesh", "render")
    assert checkout.files() == before
