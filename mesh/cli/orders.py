"""`shopmesh orders`: shows orders that need attention."""

from pathlib import Path
from typing import Any

import typer
import uvloop

from mesh.cli.admin import print_sagas, signed_in
from mesh.cli.terminal import AsJson, StateDir

orders = typer.Typer(no_args_is_help=True, add_completion=False, help="Show orders that need attention.")


@orders.callback()
def group() -> None:
    """Show orders that need attention."""


@orders.command()
def stuck(*, json: AsJson = False, state_dir: StateDir = None) -> None:
    """List the sagas of orders that are parked, or whose current step had many attempts, the oldest first."""
    print_sagas(uvloop.run(_stuck(state_dir)), json=json)


async def _stuck(state_dir: Path | None) -> dict[str, Any]:
    async with signed_in(state_dir) as client:
        return await client.get("/v1/sagas", stuck="true", pageSize=100)
