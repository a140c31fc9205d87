"""A TypeScript client made of docs/openapi.json by openapi-typescript: compiled strictly, and used to buy something."""

import json
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.e2e.browser.conftest import Shop

pytestmark = pytest.mark.foreign

SOURCES = Path(__file__).parent / "typescript"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The sources with their packages installed and the client generated."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("this machine has no Node.js: the TypeScript client is not tried")
    folder = tmp_path_factory.mktemp("typescript")
    shutil.copytree(SOURCES, folder, dirs_exist_ok=True)
    try:
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"],
            cwd=folder, capture_output=True, text=True, timeout=150, check=True,
        )  # fmt: skip
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm cannot install what the TypeScript client is made with: {error.stderr or error}")
    run(folder, "node_modules/.bin/openapi-typescript", str(repository / "docs" / "openapi.json"), "-o", "api.d.ts")
    return folder


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_client_compiles_strictly_and_refuses_mistakes(project: Path) -> None:
    run(project, "node_modules/.bin/tsc")

    assert (project / "out" / "order.js").exists()


def test_the_client_buys_something(project: Path, shop: Shop) -> None:
    run(project, "node_modules/.bin/tsc")

    info = json.loads(run(project, "node", "out/order.js", shop.url, f"{uuid.uuid4().hex}@example.com"))

    assert info["order"]["state"] in ("ORDER_STATE_PENDING", "ORDER_STATE_CONFIRMED")
    assert info["seen"]["orderId"] == info["order"]["orderId"]
    assert info["seen"]["lines"][0]["quantity"] == 2
    assert info["reason"] == "ORDER_NOT_FOUND"
