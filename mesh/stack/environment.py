"""How the stack runs a Python module: its command line, and the part of our environment that it inherits."""

import os
import sys
from pathlib import Path

#: Everything else, such as an administrator's DATABASE_URL, is kept from children.
_INHERITED = (
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


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line that runs the module with this Python."""
    return (sys.executable, "-m", module, *arguments)


def inherited() -> dict[str, str]:
    """Return the environment that a child inherits."""
    passed = {name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith("OTEL_")}
    # A file in the working directory must not shadow a module.
    return passed | {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"} | _checkout()


def _checkout() -> dict[str, str]:
    """Return the PYTHONPATH of a checkout; nothing when the packages are installed."""
    root = Path(__file__).parents[2]
    if not (root / "gen" / "shop").is_dir():
        return {}
    return {"PYTHONPATH": f"{root}{os.pathsep}{root / 'gen'}"}
