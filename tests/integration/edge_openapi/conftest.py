"""An edge in front of the test library: its built-in routes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge import processes
from tests.edge.compile import PROTOS, descriptor_set, python_modules


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("edge_openapi")
    python_modules(PROTOS, found)
    descriptor_set(PROTOS, found)
    return found


@pytest.fixture(scope="session")
def back_end(folder: Path) -> Iterator[int]:
    with processes.library(folder, folder / "library.log") as port:
        yield port


@pytest.fixture(scope="session")
def options(folder: Path, back_end: int) -> tuple[str, ...]:
    return ("--descriptor-set", str(folder / "test.binpb"), "--upstream", f"*=127.0.0.1:{back_end}")


@pytest.fixture(scope="session")
def port(folder: Path, options: tuple[str, ...]) -> Iterator[int]:
    with processes.edge(folder / "edge.log", *options, "--cors-origin", "https://shop.example") as (_, found):
        yield found
