"""`shopmesh up`: starts a stack, in the foreground or as a background process, and shows its progress."""

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
    """The event buses."""

    redis = "redis"
    kafka = "kafka"


def up(
    *,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when everything is ready; the stack keeps running.")
    ] = False,
    json: AsJson = False,
    events: Annotated[Events, typer.Option(help="The event bus; Kafka needs Java 17 and Maven.")] = Events.redis,
    port_base: Annotated[
        int, typer.Option(min=0, max=65_436, help="The first of its one hundred ports; 0 selects a free range.")
    ] = 8000,
    replicas: Annotated[
        list[str] | None, typer.Option(metavar="svc=N", help="Run several processes of a service; may be repeated.")
    ] = None,
    mesh: Annotated[bool, typer.Option(help="Put an Envoy ingress in front of the edge and the services.")] = True,
    sample_data: Annotated[bool, typer.Option(help="Load the sample data.")] = True,
    probe_seconds: Annotated[
        float, typer.Option(min=0, help="Seconds between two liveness probes; 0: none, as for a debugger.")
    ] = 5.0,
    log_size: Annotated[
        int, typer.Option(min=1, metavar="MB", help="The size at which the log of a process begins anew.")
    ] = 32,
    log_files: Annotated[int, typer.Option(min=1, help="The log files of a process, older ones included.")] = 4,
    state_dir: StateDir = None,
) -> None:
    """Start everything, print the addresses, and stop it on Ctrl-C."""
    state = state_in(state_dir)
    options = Options(
        events=events.value,
        port_base=port_base,
        replicas=dict(map(_replicas, replicas or ())),
        mesh=mesh,
        sample_data=sample_data,
        probe_seconds=probe_seconds,
        log_megabytes=log_size,
        log_files=log_files,
    )

    def on_ready(record: Record) -> None:
        if json:
            print_json(record.public())
        else:
            _print_addresses(record, Secrets(state), detached=detach)

    with Progress(on_ready) as progress:
        if detach:
            _detach(options, state, progress)
        else:
            asyncio.run(run_stack(options, state, progress.show))


class Progress:
    """Prints each process when it is ready, and which ones are starting."""

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
        """Print what changed since the last record."""
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


def _print_addresses(record: Record, secrets: Secrets, *, detached: bool) -> None:
    """Print the addresses, the admin account, and the next commands."""
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
    """Run the stack in a background process; return when everything is ready. Raises StackError."""
    state.create()
    state.require_stopped()
    log_file = state.log("supervisor")
    with log_file.open("wb") as log:
        child = subprocess.Popen(  # noqa: S603  our own program
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
    raise StackError(log_file.read_text().strip() or "the stack ended without a message")


def _replicas(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    if name not in SERVICES or not count.isdecimal() or not 1 <= int(count) <= 16:
        raise typer.BadParameter(
            f"{text!r} is not a service and a number from 1 to 16, such as {SERVICES[0]}=2", param_hint="--replicas"
        )
    return name, int(count)
