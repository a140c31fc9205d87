"""The edge under test: its own process, in front of a real gRPC server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge import processes
from tests.edge.compile import PROTOS, descriptor_set, python_modules


@pytest.fixture(scope="session")
def edge_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the compiled test protos."""
    folder = tmp_path_factory.mktemp("edge")
    python_modules(PROTOS, folder)
    descriptor_set(PROTOS, folder)
    return folder


@pytest.fixture(scope="session")
def descriptors(edge_folder: Path) -> str:
    return str(edge_folder / "test.binpb")


@pytest.fixture(scope="session")
def back_end(edge_folder: Path) -> Iterator[int]:
    with processes.library(edge_folder, edge_folder / "library.log") as port:
        yield port


@pytest.fixture(scope="session")
def edge_port(edge_folder: Path, descriptors: str, back_end: int) -> Iterator[int]:
    """Start an edge with default settings and a few more headers."""
    options = ("--expose-header", "x-shown", "--expose-header", "x-shown-bin", "--forward-header", "x-passed")
    with processes.edge(
        edge_folder / "edge.log", "--descriptor-set", descriptors, "--upstream", f"*=127.0.0.1:{back_end}", *options
    ) as (_, port):
        yield port


@pytest.fixture(scope="session")
def other_edge_port(edge_folder: Path, descriptors: str, back_end: int) -> Iterator[int]:
    """Start an edge with every JSON setting inverted."""
    options = ("--ignore-unknown-fields", "--omit-defaults", "--proto-names", "--enum-numbers", "--unbound")
    upstream = f"edgetest.v1.Library=127.0.0.1:{back_end}"
    with processes.edge(
        edge_folder / "other.log", "--descriptor-set", descriptors, "--upstream", upstream, *options
    ) as (_, port):
        yield port
