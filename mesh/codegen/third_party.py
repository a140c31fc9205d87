"""Fills .cache/protos with third-party protos from the installed packages, not from a schema registry."""

import fcntl
import shutil
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from mesh.codegen.proto_text import to_proto
from mesh.codegen.tools import run

_PACKAGES = ("googleapis-common-protos", "grpcio-tools", "protovalidate")
_FORM = "1"  # increment when the layout of the folder changes


def materialise(root: Path) -> None:
    """Write the protos of the installed packages to .cache/protos; a second run changes nothing."""
    folder = root / ".cache" / "protos"
    stamp = folder.with_suffix(".stamp")
    content = "\n".join((_FORM, *(f"{name} {version(name)}" for name in _PACKAGES)))
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if stamp.exists() and stamp.read_text("utf-8") == content:
            return
        shutil.rmtree(folder, ignore_errors=True)
        _copy(folder)
        run(root, "buf", "format", "-w", folder)  # so that `buf format` reports nothing
        stamp.write_text(content, "utf-8")


def _copy(folder: Path) -> None:
    for package in ("google.api", "google.rpc", "google.type"):
        _copy_protos(files(package), folder.joinpath(*package.split(".")))
    _copy_protos(files("grpc_tools") / "_proto" / "google" / "protobuf", folder / "google" / "protobuf")
    target = folder / "buf" / "validate" / "validate.proto"
    target.parent.mkdir(parents=True)
    target.write_text(_validate_proto(), "utf-8")


def _copy_protos(source: Traversable, target: Path) -> None:
    target.mkdir(parents=True)
    for proto in source.iterdir():
        if proto.name.endswith(".proto"):
            (target / proto.name).write_bytes(proto.read_bytes())


def _validate_proto() -> str:
    """Return buf/validate/validate.proto; the wheel ships only its descriptor."""
    from buf.validate import validate_pb2  # noqa: PLC0415 -- gen/ need not be importable for anything else here

    return to_proto(FileDescriptorProto.FromString(validate_pb2.DESCRIPTOR.serialized_pb))
