"""The command `shopmesh`. Each command is a function in a module of its own, and registered by the table below."""

from typing import Any

import typer

from mesh.cli.demo import demo
from mesh.cli.down import down
from mesh.cli.load import load
from mesh.cli.logs import logs
from mesh.cli.sample_data import sample_data
from mesh.cli.status import status
from mesh.cli.terminal import complain
from mesh.cli.up import up
from mesh.cli.verify import verify
from mesh.errors import StackError

_COMMANDS = (up, down, status, logs, demo, sample_data, load, verify)


class _App(typer.Typer):
    """Says what keeps a stack from running, and how to fix it, where others would show a traceback."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except StackError as error:
            complain(error)
            raise SystemExit(1) from None


app = _App(
    name="shopmesh",
    help="The local mesh: six services, their databases and everything around them, on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in _COMMANDS:
    app.command()(command)
