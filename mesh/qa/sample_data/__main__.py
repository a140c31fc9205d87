"""`python -m mesh.qa.sample_data STATE_DIR UPSTREAMS` loads the sample data into a stack that is starting."""

import json
import sys
from pathlib import Path

import uvloop

from mesh.errors import StackError
from mesh.qa.sample_data import NEEDED
from mesh.qa.sample_data.loader import load
from mesh.qa.sample_data.people import admin, courier, staff
from mesh.qa.sample_data.shop import sample_shop
from mesh.services import SERVICES
from mesh.stack.secrets import Secrets
from mesh.stack.state import State


def main(folder: str, upstreams: str) -> int:
    """Load the sample data, unless a service that it needs is not part of the mesh."""
    if missing := NEEDED.difference(SERVICES):
        sys.stdout.write(f"no sample data: there is no {', '.join(sorted(missing))}\n")
        return 0
    secrets = Secrets(State(Path(folder)))
    people = (staff(secrets), courier(secrets))
    try:
        report = uvloop.run(load(upstreams, admin(secrets), people, sample_shop(), lambda _: None))
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(report.as_json()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
