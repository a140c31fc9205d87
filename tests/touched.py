"""Prints the folders of integration tests of the services that were changed. Run as `python -m tests.touched [BASE]`.

A service is changed when its code, its protos or its tests differ from BASE, committed or not. Without BASE it is where
the current branch left the main branch.
"""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
_SERVICE = re.compile(r"(?:svc_|protos/shop/|tests/(?:unit|integration)/svc_)(\w+)/")


def folders(changed: Iterable[str]) -> list[str]:
    """Return the folders of tests that belong to these files."""
    names = {found[1] for path in changed if (found := _SERVICE.match(path))}
    return sorted(name for name in (f"tests/integration/svc_{one}" for one in names) if (ROOT / name).is_dir())


def changed_files(base: str) -> list[str]:
    """Return the files that differ from a revision, those that git does not know yet included."""
    return [*_git("diff", "--name-only", base), *_git("ls-files", "--others", "--exclude-standard")]


def branch_point() -> str:
    """Return where the current branch left the main branch, HEAD when there is no such branch."""
    for main in ("origin/HEAD", "main"):
        if commit := _git("merge-base", "HEAD", main):
            return commit[0]
    return "HEAD"


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


if __name__ == "__main__":
    print(*folders(changed_files(sys.argv[1] if len(sys.argv) > 1 else branch_point())))
