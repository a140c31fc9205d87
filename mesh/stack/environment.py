"""How the stack runs a Python module: with which words, and how much of our own environment it sees."""

import os
import sys
from pathlib import Path

#: All else, such as a DATABASE_URL of an administrator, is not for children to see.
_PASSED = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LOG_LEVEL",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
)


def python(module: str, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *words)


def inherited() -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if name in _PASSED or name.startswith("OTEL_")}
    # The folder that a process starts in must not be able to hide a module.
    return passed | {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"} | _checkout()


def _checkout() -> dict[str, str]:
    """Where the packages lie when they are run from a checkout."""
    root = Path(__file__).parents[2]
    if not (root / "gen" / "shop").is_dir():
        return {}
    return {"PYTHONPATH": f"{root}{os.pathsep}{root / 'gen'}"}
