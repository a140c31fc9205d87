"""A small domain to generate from, with or without a mistake in it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

from mesh.codegen import third_party

ROOT = Path(__file__).parents[3]
TOY = Path(__file__).parent / "toy" / "shop" / "toy" / "v1"

Compile = Callable[..., CodeGeneratorRequest]


@pytest.fixture(scope="session")
def includes() -> list[str]:
    """Where the imports of the toy domain are found."""
    third_party.materialise(ROOT)
    return [f"-I{ROOT / 'protos'}", f"-I{ROOT / '.cache' / 'protos'}"]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A folder of protos with the toy domain, to be changed at will."""
    folder = tmp_path / "protos" / "shop" / "toy" / "v1"
    folder.mkdir(parents=True)
    for proto in TOY.iterdir():
        (folder / proto.name).write_text(proto.read_text("utf-8"), "utf-8")
    return folder


@pytest.fixture
def compiled(toy: Path, includes: list[str], tmp_path: Path) -> Compile:
    """Compiles the toy domain, with `old` replaced by `new`, into what a plugin is asked."""

    def compile_toy(old: str = "", new: str = "", parameter: str = "python") -> CodeGeneratorRequest:
        for proto in toy.iterdir() if old else ():
            proto.write_text(proto.read_text("utf-8").replace(old, new), "utf-8")
        names = sorted(f"shop/toy/v1/{proto.name}" for proto in toy.iterdir())
        image = tmp_path / "image.binpb"
        flags = ["--include_imports", "--include_source_info", f"--descriptor_set_out={image}"]
        assert protoc.main(["protoc", f"-I{tmp_path / 'protos'}", *includes, *flags, *names]) == 0
        files = FileDescriptorSet.FromString(image.read_bytes()).file
        return CodeGeneratorRequest(file_to_generate=names, proto_file=files, parameter=parameter)

    return compile_toy
