"""OpenAPI documents of three descriptor sets: the shop's, the edge's test library, and one with every rule."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

from edge_gateway.openapi import document
from edge_gateway.routing.descriptors import load_registry
from edge_gateway.routing.rules import Routes, compile_routes
from edge_gateway.settings import Settings
from mesh.codegen import third_party
from tests.edge import compile as library

ROOT = Path(__file__).parents[3]


def routes_of(image: bytes, settings: Settings) -> tuple[Any, Routes]:
    registry = load_registry(image)
    routes = compile_routes(registry, prefix=settings.prefix)
    assert routes.problems == []
    return registry, routes


def document_of(image: bytes, **settings: Any) -> dict[str, Any]:
    chosen = Settings(**settings)
    registry, routes = routes_of(image, chosen)
    return document(registry, routes, chosen)


@pytest.fixture(scope="session")
def shop_image() -> bytes:
    return (ROOT / "gen" / "shop" / "shop.binpb").read_bytes()


@pytest.fixture(scope="session")
def shop(shop_image: bytes) -> dict[str, Any]:
    return document_of(shop_image)


@pytest.fixture(scope="session")
def library_image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return library.descriptor_set(library.PROTOS, tmp_path_factory.mktemp("library")).read_bytes()


@pytest.fixture(scope="session")
def rules_image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    third_party.materialise(ROOT)
    image = tmp_path_factory.mktemp("rules") / "rules.binpb"
    protos = Path(__file__).parent / "protos"
    flags = ["--include_imports", "--include_source_info", f"--descriptor_set_out={image}"]
    includes = [f"-I{protos}", f"-I{ROOT / '.cache' / 'protos'}"]
    assert protoc.main(["protoc", *includes, *flags, "rules/v1/rules.proto"]) == 0
    assert FileDescriptorSet.FromString(image.read_bytes()).file
    return image.read_bytes()


@pytest.fixture(scope="session")
def rules(rules_image: bytes) -> dict[str, Any]:
    return document_of(rules_image)
