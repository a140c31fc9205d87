"""One generation: buf and its plugins write to a scratch folder, which is compared with gen/ or copied there."""

import subprocess
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool

from mesh.codegen.tools import run

IMAGE = Path("gen", "shop", "shop.binpb")
_OPENAPI = Path("docs", "openapi.json")
_DOCS = (Path("docs", "errors.md"), Path("docs", "events.md"), _OPENAPI)


def into(scratch: Path, root: Path) -> None:
    """Generate everything below `scratch` from the protos of `root`."""
    run(root, "buf", "generate", "protos", "--output", scratch)
    _drop_empty_stubs(scratch)
    ours = [path for path in scratch.rglob("*.py") if not path.stem.endswith(("_pb2", "_pb2_grpc"))]
    run(root, "ruff", "format", "--isolated", "--quiet", "--line-length=110", *ours)
    image = scratch / IMAGE
    run(root, "buf", "build", "protos", "--as-file-descriptor-set", "--output", f"{image}#format=binpb")
    image.write_bytes(_with_public_comments_only(image.read_bytes()))
    (scratch / _OPENAPI).parent.mkdir(exist_ok=True)
    run(root, "python", "-m", "edge_gateway.openapi", "--descriptor-set", image, "--output", scratch / _OPENAPI)


def differences(scratch: Path, root: Path) -> list[Path]:
    """Return the generated files that are new, changed or removed, relative to `root`."""
    wanted = {path.relative_to(scratch) for path in scratch.rglob("*") if path.is_file()}
    present = {
        path.relative_to(root)
        for path in (root / "gen" / "shop").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    present |= {path for path in _DOCS if (root / path).exists()}
    changed = {path for path in wanted & present if _bytes(scratch / path) != _bytes(root / path)}
    return sorted((wanted ^ present) | changed)


def install(scratch: Path, root: Path, changes: list[Path]) -> None:
    """Copy the changed files into the checkout, and delete the removed ones."""
    for path in changes:
        if (scratch / path).exists():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(_bytes(scratch / path))
        else:
            (root / path).unlink()


def breaking(root: Path, ref: str) -> int:
    """Compare protos/ with the image committed at `ref`; a revision without an image has nothing to break."""
    image = root / ".cache" / "against.binpb"
    shown = subprocess.run(  # noqa: S603
        ["git", "show", f"{ref}:{IMAGE.as_posix()}"],  # noqa: S607 -- git is the user's own
        cwd=root,
        capture_output=True,
        check=False,
    )
    if shown.returncode:
        print(f"{ref} has no {IMAGE.as_posix()}: nothing to compare with")  # noqa: T201
        return 0
    image.write_bytes(shown.stdout)
    run(root, "buf", "breaking", "protos", "--against", f"{image}#format=binpb", "--exclude-imports")
    return 0


def _drop_empty_stubs(scratch: Path) -> None:
    """Delete the empty stub files: the stub plugin writes one for each proto, also without a service."""
    for stub in scratch.rglob("*_pb2_grpc.pyi"):
        if not stub.with_suffix(".py").exists():
            stub.unlink()


def _with_public_comments_only(image: bytes) -> bytes:
    """Return the image with the comments that clients read; the rest of the source info is most of its size."""
    files = _plain_file_set().FromString(image)
    for file in files.file:
        commented = [
            location
            for location in file.source_code_info.location
            if file.package.startswith(("shop.", "google.type"))
            and (location.leading_comments or location.trailing_comments)
        ]
        file.ClearField("source_code_info")
        file.source_code_info.location.extend(commented)
        if not commented:
            file.ClearField("source_code_info")
    return bytes(files.SerializeToString(deterministic=True))


def _plain_file_set() -> Any:
    """Return FileDescriptorSet from a pool of its own.

    Third-party options stay the bytes that buf wrote, in buf's order, whatever extensions this process imported.
    """
    pool = DescriptorPool()
    pool.AddSerializedFile(descriptor_pb2.DESCRIPTOR.serialized_pb)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FileDescriptorSet"))


def _bytes(path: Path) -> bytes:
    return path.read_bytes()
