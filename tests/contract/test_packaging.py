"""The wheel holds every file that the commands and the services read at run time, without a list of the services."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mesh.services import SERVICES

ROOT = Path(__file__).parents[2]
PACKAGES = ("chassis", "edge_gateway", "mesh", *SERVICES)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The paths in the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def files(folder: Path, root: Path) -> set[str]:
    """The files below a folder, by their paths from `root`."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(root).as_posix() for path in paths}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_a_package_is_in_the_wheel(packaged: set[str], package: str) -> None:
    assert files(ROOT / package, ROOT) - packaged == set()


@pytest.mark.parametrize("package", ["shop", "buf"])
def test_generated_code_is_in_the_wheel_as_a_package_of_its_own(packaged: set[str], package: str) -> None:
    assert files(ROOT / "gen" / package, ROOT / "gen") - packaged == set()


@pytest.mark.parametrize("service", SERVICES)
def test_the_data_of_a_service_is_in_the_wheel(packaged: set[str], service: str) -> None:
    assert {f"{service}/{name}" for name in ("README.md", "queries.sql")} <= packaged
    assert any(name.startswith(f"{service}/migrations/") for name in packaged)


def test_nothing_else_is_in_the_wheel(packaged: set[str]) -> None:
    assert {name.partition("/")[0] for name in packaged if ".dist-info/" not in name} == {*PACKAGES, "buf", "shop"}
