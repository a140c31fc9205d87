"""`shopmesh mesh`: who may call what, the Istio configuration of it, and what the running proxy does."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from mesh.cli.terminal import AsJson, StateDir, err, out, print_json, running_stack
from mesh.istio import render as istio
from mesh.istio.comparison import disagreements
from mesh.istio.reading import Cluster
from mesh.policy.compiler import compile_policy
from mesh.policy.table import Method, Policy
from mesh.proxy.admin import proxy_status

mesh = typer.Typer(no_args_is_help=True, add_completion=False, help="The policy of the mesh, and its proxies.")
Folder = Annotated[Path, typer.Option(help="The folder of the Istio configuration.", file_okay=False)]


@mesh.command()
def who(
    pattern: Annotated[str, typer.Argument(help="A part of a method's path, or of a caller's name.")] = "",
    *,
    json: AsJson = False,
) -> None:
    """Show who may call each method, for how long, and how often a call is tried again."""
    policy = compile_policy()
    rows = [_row(policy, method) for method in policy.methods.values() if _fits(method, pattern)]
    if json:
        print_json(rows)
        return
    table = Table("method", "users", "callers", "timeout", "retries", "rate limit", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(", ".join(value) if isinstance(value, list) else str(value) for value in row.values()))
    out.print(table)


@mesh.command()
def render(
    *,
    folder: Folder = Path("istio"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 when files differ.")] = False,
) -> None:
    """Write the Istio configuration of the policy."""
    rendered = istio.files(compile_policy())
    changed = istio.differences(rendered, folder) if check else istio.write(rendered, folder)
    for name in changed:
        err.print(f"{folder / name} {'differs' if check else 'written'}")
    if check and changed:
        raise typer.Exit(1)


@mesh.command("check")
def check_all(*, folder: Folder = Path("istio")) -> None:
    """Derive what the Istio configuration allows, and compare it with the policy. Exits with 1 when they differ."""
    policy = compile_policy()
    found = disagreements(policy, Cluster(istio.read(folder)))
    found += [f"{folder / name} is not what `shopmesh mesh render` writes" for name in _stale(policy, folder)]
    for line in found:
        err.print(f"[red]✗[/] {escape(line)}", soft_wrap=True)
    if found:
        raise typer.Exit(1)
    decisions = policy.decisions().values()
    allowed = sum(decision.allowed for decision in decisions)
    out.print(f"[green]✓[/] {folder}: {len(decisions)} calls agree with the policy, {allowed} of them allowed")


@mesh.command()
def status(*, json: AsJson = False, state_dir: StateDir = None) -> None:
    """Show the processes behind the ingress: which get no calls, and which circuit breakers are open."""
    found = proxy_status(f"unix:{running_stack(state_dir).run}/ingress.sock")
    if json:
        processes = [{"cluster": u.cluster, "address": u.address, "left_out": u.left_out} for u in found.upstreams]
        print_json({"processes": processes, "open_breakers": found.tripped})
        return
    table = Table("workload", "process", "calls", box=None, pad_edge=False)
    for one in found.upstreams:
        reason = f"[red]none: {', '.join(one.left_out)}[/]" if one.left_out else "[green]yes[/]"
        table.add_row(one.cluster, one.address, reason)
    out.print(table)
    for name in found.tripped:
        out.print(f"[red]✗[/] the circuit breaker {name}")


def _fits(method: Method, pattern: str) -> bool:
    return pattern in method.path or any(pattern in caller for caller in method.callers)


def _row(policy: Policy, method: Method) -> dict[str, str | list[str] | int]:
    limit = method.rate_limit
    return {
        "method": method.path.removeprefix("/"),
        "users": [method.access.value, *method.roles],
        "callers": list(method.callers),
        "timeout": f"{policy.route_timeout(method):g} s",
        "retries": policy.attempts(method),
        "rate_limit": f"{limit.requests} per {limit.per:g} s" if limit else "",
    }


def _stale(policy: Policy, folder: Path) -> list[str]:
    return istio.differences(istio.files(policy), folder)
