"""`python -m mesh.codegen`: regenerates gen/ and the reference docs from protos/.

The output goes to a scratch folder first, so a failure changes nothing, and `--check` compares the same output.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from mesh.codegen import generate, third_party
from mesh.codegen.tools import ToolError

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Run one of the four actions; the default is to generate. Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mesh.codegen", description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--deps", action="store_true", help="only fill .cache/protos, which plain buf needs")
    action.add_argument("--check", action="store_true", help="change nothing; exit 1 naming what differs")
    action.add_argument("--breaking", metavar="REF", help="compare protos/ with those of a git revision")
    chosen = parser.parse_args(arguments)
    try:
        third_party.materialise(ROOT)
        if chosen.deps:
            return 0
        if chosen.breaking:
            return generate.breaking(ROOT, chosen.breaking)
        return _generate(check=chosen.check)
    except ToolError as error:
        print(error, file=sys.stderr)  # noqa: T201 -- the command's output
        return 1


def _generate(*, check: bool) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        generate.into(Path(scratch), ROOT)
        changes = generate.differences(Path(scratch), ROOT)
        if not check:
            generate.install(Path(scratch), ROOT, changes)
    for path in changes:
        print(f"{'differs' if check else 'wrote'}: {path}")  # noqa: T201
    return 1 if check and changes else 0


if __name__ == "__main__":
    sys.exit(main())
