"""`shopmesh new`: a service of one's own."""

import subprocess
import sys
from typing import Annotated

import typer
from rich.console import Console

from mesh.codegen.__main__ import ROOT
from mesh.codegen.__main__ import main as generate
from mesh.scaffold.scaffold import format_protos, format_python, scaffold

_Name = Annotated[str, typer.Argument(help="The resource that the service keeps: one word, such as wishlist.")]


def new(name: _Name) -> None:
    """Write a new service with one resource: its folder, its protos and its tests, and generate gen/ and istio/."""
    console = Console(highlight=False)
    written = scaffold(name, ROOT)
    for path in written:
        console.print(f"wrote: {path}")
    format_protos(written, ROOT)
    if status := generate([]):
        raise typer.Exit(status)
    # Another process: this one has imported the generated modules of before.
    render = [sys.executable, "-m", "mesh", "mesh", "render"]
    subprocess.run(render, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  our own command
    format_python(written, ROOT)
    console.print(
        f"\nsvc_{name} is ready: [bold]make check[/] tests it, [bold]make up[/] serves it. "
        f"Start reading in svc_{name}/service.py."
    )
