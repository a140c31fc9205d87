"""The programs inside installed wheels."""

from importlib.util import find_spec
from pathlib import Path

from mesh.errors import StackError

_FIX = "run `make setup`"


def folder(package: str) -> Path:
    """Return the folder of an installed package. Raises StackError."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise StackError(f"the package {package} is not installed", fix=_FIX)
    return Path(spec.origin).parent


def program(path: Path) -> Path:
    """Return the path. Raises StackError when there is no such file."""
    if not path.exists():
        raise StackError(f"the program {path} is missing", fix=_FIX)
    return path
