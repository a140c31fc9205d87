"""`shopmesh up`: starts a stack and shows how far it is; in the foreground, or as a process of its own."""

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from json import dumps
from typing import Annotated, Self

import typer
from rich.markup import escape
from rich.status import Status

from mesh.cli.terminal import AsJson, StateDir, err, print_json, state_in
from mesh.errors import StackError
from mesh.services import SERVICES
from mesh.stack.environment import inherited, python
from mesh.stack.run import run_stack
from mesh.stack.secrets import ADMIN_EMAIL, Secrets
from mesh.stack.stack import Options
from mesh.stack.state import Record, State


class Events(StrEnum):
    """The event buses that there are."""

    redis = "redis"
    kafka = "kafka"


def up(
    *,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when everything is ready, and leave it running.")
    ] = False,
    json: AsJson = False,
    events: Annotated[Events, typer.Option(help="What carries events; Kafka needs Java 17 and Maven.")] = Events.redis,
    port_base: Annotated[
        int, typer.Option(min=0, max=65_436, help="The first of the hundred ports it may use; 0 looks for free ones.")
    ] = 8000,
    replicas: Annotated[
        list[str] | None, typer.Option(metavar="svc=N", help="Run several processes of a service; may be repeated.")
    ] = None,
    mesh: Annotated[bool, typer.Option(help="Put an Envoy ingress in front of the edge and the services.")] = True,
    sample_data: Annotated[bool, typer.Option(help="Fill the shop, where that has not been done yet.")] = True,
    state_dir: StateDir = None,
) -> None:
    """Start everything, say where it is, and stop all of it on Ctrl-C."""
    state = state_in(state_dir)
    options = Options(
        events=events.value,
        port_base=port_base,
        replicas=dict(map(_replicas, replicas or ())),
        mesh=mesh,
        sample_data=sample_data,
    )

    def on_ready(record: Record) -> None:
        if json:
            print_json(record.public())
        else:
            _tell(record, Secrets(state), detached=detach)

    with Progress(on_ready) as progress:
        if detach:
            _detach(options, state, progress)
        else:
            asyncio.run(run_stack(options, state, progress.show))


class Progress:
    """Prints each process as it becomes ready, and which ones are still awaited."""

    def __init__(self, on_ready: Callable[[Record], None]) -> None:
        self._on_ready = on_ready
        self._began = time.monotonic()
        self._seen: dict[str, tuple[str, int]] = {}
        self._phase = ""
        self._status = Status("starting", console=err)

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def show(self, record: Record) -> None:
        for one in record.processes:
            if self._seen.get(one.name) != (one.state, one.restarts):
                self._seen[one.name] = (one.state, one.restarts)
                if one.state in ("ready", "restarting"):
                    sign = "[green]✓[/]" if one.state == "ready" else "[yellow]↻[/]"
                    err.print(
                        f"{sign} {one.name:18} {one.state:10} {self._seconds():5.1f} s  {escape(one.address)}",
                        soft_wrap=True,
                    )
        self._status.update(f"{record.phase} {', '.join(record.busy)}")
        if record.phase != self._phase:
            self._phase = record.phase
            if record.phase == "ready":
                self._status.stop()
                err.print(f"everything is ready after {self._seconds():.1f} s")
                self._on_ready(record)
            elif record.phase == "stopping":
                self._status.start()

    def _seconds(self) -> float:
        return time.monotonic() - self._began


def _tell(record: Record, secrets: Secrets, *, detached: bool) -> None:
    """Where everything is."""
    rows = [("JSON", record.edge)]
    if record.grpc:
        rows.append(("gRPC, gRPC-Web", f"{record.grpc}   grpcurl -plaintext {record.grpc} list"))
    rows += [
        ("docs", f"{record.edge}/docs"),
        ("admin", f"{ADMIN_EMAIL} / {secrets.admin_password}"),
        ("logs", "shopmesh logs [NAME] [-f]"),
        ("stop", "shopmesh down" if detached else "Ctrl-C"),
    ]
    for name, what in rows:
        err.print(f"  [bold]{name:15}[/] {escape(what)}", soft_wrap=True)


def _detach(options: Options, state: State, progress: Progress) -> None:
    """Run the stack in a process of its own, and watch it until everything is ready or it gave up."""
    state.create()
    state.require_stopped()
    said = state.log("supervisor")
    with said.open("wb") as log:
        child = subprocess.Popen(  # noqa: S603  it is our own program
            python("mesh.stack.run", str(state.folder), dumps(asdict(options))),
            env=dict(os.environ) | inherited(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        while child.poll() is None:
            record = state.read()
            if record and record.supervisor.pid == child.pid:
                progress.show(record)
                if record.phase == "ready":
                    return
            time.sleep(0.05)
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
    raise StackError(said.read_text().strip() or "the stack ended without a word")


def _replicas(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    if name not in SERVICES or not count.isdecimal() or not 1 <= int(count) <= 16:
        raise typer.BadParameter(
            f"{text!r} is not a service and a number from 1 to 16, such as {SERVICES[0]}=2", param_hint="--replicas"
        )
    return name, int(count)
