"""`shopmesh verify`: checks the invariants of a running stack."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from mesh.alerts.scraping import write_verified
from mesh.cli.terminal import AsJson, StateDir, err, out, print_json, running_stack, state_in
from mesh.qa.verify.checks import PARTICIPANTS
from mesh.qa.verify.copies import MOST_ROWS, Finding
from mesh.qa.verify.sources import sources_of
from mesh.qa.verify.verifier import verify as find_breaches

_SHOWN = 10


def verify(
    *,
    json: AsJson = False,
    wait: Annotated[
        float, typer.Option("--wait", min=0, metavar="SECONDS", help="How long to wait for running sagas and events.")
    ] = 30.0,
    history: Annotated[
        Path | None, typer.Option(help="Also compare the history that `load` wrote with the databases.", dir_okay=False)
    ] = None,
    state_dir: StateDir = None,
) -> None:
    """Check every invariant of the running system. Exits with 1 and prints the rows that violate one."""
    record = running_stack(state_dir)
    began = time.monotonic()
    with err.status("checking"):
        state = state_in(state_dir)
        findings = uvloop.run(find_breaches(sources_of(state, record), wait, history))
    write_verified(state, {f"{one.check.where}/{one.check.name}": len(one.rows) for one in findings})
    seconds = time.monotonic() - began
    violated = [finding for finding in findings if finding.rows]
    if json:
        checks = [finding.as_json() for finding in findings]
        print_json({"ok": not violated, "seconds": round(seconds, 3), "checks": checks})
    else:
        _print_findings(findings, seconds)
        if missing := set(PARTICIPANTS) - set(record.services):
            out.print(f"[yellow]not checked[/]: invariants between services, which need {', '.join(sorted(missing))}")
    if violated:
        raise typer.Exit(1)


def _print_findings(findings: Sequence[Finding], seconds: float) -> None:
    where = ""
    for finding in findings:
        if finding.check.where != where:
            where = finding.check.where
            out.print(f"[bold]{where}[/]")
        sign = "[red]✗[/]" if finding.rows else "[green]✓[/]"
        out.print(f"{sign} {escape(finding.check.description)} [dim]{' '.join(finding.check.numbers)}[/]")
        if finding.rows:
            out.print(Padding(_rows(finding), (0, 0, 0, 2)))
    violated = sum(1 for finding in findings if finding.rows)
    verdict = (
        f"[bold red]{violated} of {len(findings)} invariants are violated[/]"
        if violated
        else (f"[bold green]all {len(findings)} invariants hold[/]")
    )
    out.print(f"{verdict} ({seconds:.1f} s)")


def _rows(finding: Finding) -> Table:
    it = Table(*finding.rows[0], title=finding.check.name, title_justify="left", box=None, pad_edge=False)
    for row in finding.rows[:_SHOWN]:
        it.add_row(*(escape(str(value)) for value in row.values()))
    if more := len(finding.rows) - _SHOWN:
        least = "at least " if len(finding.rows) == MOST_ROWS else ""
        it.caption = f"and {least}{more} more" if more > 0 else None
    return it
