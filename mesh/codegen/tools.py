"""Runs the build tools, which are installed next to the running Python."""

import os
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
_CHECKOUT = Path(__file__).parents[2]


class ToolError(Exception):
    """A tool is missing or failed; the text is its output, for the user of the build."""


def run(root: Path, name: str, *arguments: str | Path) -> str:
    """Run the tool in `root` and return its stdout. Raises ToolError."""
    tool = BIN / name
    if not tool.exists():
        raise ToolError(f"{name} is not installed in this Python's environment ({BIN}): run `make setup`")
    path = os.pathsep.join((str(BIN), os.environ.get("PATH", "")))
    env = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(_CHECKOUT),  # our plugins are modules of this checkout, whatever `root` is
        "BUF_CACHE_DIR": str(root / ".cache" / "buf"),
    }
    done = subprocess.run(  # noqa: S603 -- our own tools, no shell
        [tool, *arguments], cwd=root, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ToolError((done.stdout + done.stderr).strip())
    return done.stdout
