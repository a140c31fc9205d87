"""Builds programs in Go: the foreign service of the tests, and the gateway for comparison."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.edge.compile import generate

FOREIGN = Path(__file__).parent / "foreign"
PROTOS = FOREIGN / "protos"


def build(source: Path, protos: Path, into: Path) -> Path:
    """Generate code with the tools of a Go module, and compile it; return the program."""
    folder = into / source.name
    shutil.copytree(source, folder)
    module = (source / "go.mod").read_text().split()[1]
    tools = folder / "bin"
    _go(folder, "install", "tool", GOBIN=str(tools))
    arguments = []
    for tool in sorted(tools.iterdir()):
        kind = tool.name.removeprefix("protoc-gen-")
        arguments += [f"--plugin={tool.name}={tool}", f"--{kind}_out={folder}", f"--{kind}_opt=module={module}"]
    generate(protos, *arguments)
    _go(folder, "build", "-o", "program", ".")
    return folder / "program"


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
