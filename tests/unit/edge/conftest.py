"""The test protos, as the edge loads them."""

import pytest
from protobuf import Registry

from edge_gateway.routing.descriptors import load_registry
from tests.edge.compile import PROTOS, descriptor_set, python_modules


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("edge")
    python_modules(PROTOS, folder)
    return load_registry(descriptor_set(PROTOS, folder).read_bytes())
