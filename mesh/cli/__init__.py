"""The command `shopmesh`. A command is a function, or a Typer with commands of its own, in the module of its name.

A module is imported only for its own command, so that `shopmesh status` does not wait for imports of `shopmesh load`.
"""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from mesh.cli.terminal import print_error
from mesh.errors import StackError

_COMMANDS = (
    "up", "down", "restart", "status", "logs", "demo", "sample-data", "load", "chaos", "verify",
    "outbox", "dlq", "topics", "saga", "orders", "refunds", "mesh", "new",
)  # fmt: skip


class _Commands(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  the base class's signature
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        found = getattr(import_module(f"mesh.cli.{name}"), name)
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(add_completion=False)
            alone.command(cmd_name)(found)
            found = alone
        return typer.main.get_command(found)


class _App(typer.Typer):
    """Prints a StackError and its fix instead of a traceback."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except StackError as error:
            print_error(error)
            raise SystemExit(1) from None


app = _App(
    name="shopmesh",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def shopmesh() -> None:
    """Run the mesh on this machine: the services, their databases and everything else they need."""
