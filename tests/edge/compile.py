"""Compiles the edge's test protos on demand, into a given folder."""

import sys
import sysconfig
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTOS = Path(__file__).parent / "protos"
POLICY_PROTOS = Path(__file__).parent / "policy_protos"
_INCLUDES = (
    Path(__file__).parent.parent.parent / "protos",
    Path(sysconfig.get_path("purelib")),
    Path(grpc_tools.__file__).parent / "_proto",
)


def descriptor_set(protos: Path, into: Path) -> Path:
    """Compile every proto under a folder to a FileDescriptorSet with its imports."""
    out = into / "test.binpb"
    generate(protos, f"--descriptor_set_out={out}", "--include_imports", "--include_source_info")
    return out


def python_modules(protos: Path, into: Path) -> None:
    """Compile to Python modules, and make them importable."""
    generate(protos, f"--python_out={into}", f"--grpc_python_out={into}")
    if str(into) not in sys.path:
        sys.path.insert(0, str(into))


def generate(protos: Path, *arguments: str) -> None:
    """Run protoc over every proto under a folder."""
    files = sorted(str(path.relative_to(protos)) for path in protos.rglob("*.proto"))
    includes = [f"-I{path}" for path in (protos, *_INCLUDES)]
    if protoc.main(["protoc", *includes, *arguments, *files]) != 0:
        raise RuntimeError(f"protoc failed for {protos}")
