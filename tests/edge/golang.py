"""Builds the foreign service of the tests: a gRPC server in Go."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.edge.compile import generate

SOURCE = Path(__file__).parent / "foreign"
PROTOS = SOURCE / "protos"


def build(into: Path) -> Path:
    """Generates and compiles it; returns the program."""
    folder = into / "go"
    shutil.copytree(SOURCE, folder)
    tools = folder / "bin"
    _go(folder, "install", "tool", GOBIN=str(tools))
    plugins = [f"--plugin={tool.name}={tool}" for tool in tools.iterdir()]
    module = "module=foreign"
    outs = [f"--go_out={folder}", f"--go_opt={module}", f"--go-grpc_out={folder}", f"--go-grpc_opt={module}"]
    generate(PROTOS, *plugins, *outs)
    _go(folder, "build", "-o", "parcel", ".")
    return folder / "parcel"


def _go(folder: Path, *arguments: str, **environment: str) -> None:
    done = subprocess.run(
        ["go", *arguments],
        cwd=folder,
        env={**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"go {' '.join(arguments)}: {done.stderr}")
