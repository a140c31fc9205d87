"""`shopmesh saga`: shows the sagas of orders, and resumes, compensates or settles those that are parked."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from mesh.cli.admin import print_sagas, signed_in
from mesh.cli.terminal import AsJson, StateDir, out, print_json
from mesh.errors import StackError
from mesh.qa.shop_client import new_key

saga = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Show, retry, compensate and settle the sagas of orders."
)

_Id = Annotated[str, typer.Argument(help="A saga, or its order.", metavar="[SAGA]")]
_Why = Annotated[str, typer.Option("--why", help="The explanation that is recorded with the decision.")]
_Reason = Annotated[str, typer.Option("--reason", help="Only those with this reason.")]
_Step = Annotated[str, typer.Option("--step", help="Only those at this step.")]
_After = Annotated[datetime | None, typer.Option("--after", help="Only those created at this time or later.")]
_Before = Annotated[datetime | None, typer.Option("--before", help="Only those created before this time.")]
_All = Annotated[bool, typer.Option("--all", help="All that are parked and match the filters.")]


@saga.command("list")
def list_sagas(
    *,
    state: Annotated[str, typer.Option(help="PARKED, RUNNING, COMPENSATING, COMPENSATED, DONE, or any.")] = "PARKED",
    limit: Annotated[int, typer.Option(min=1, max=100)] = 50,
    json: AsJson = False,
    state_dir: StateDir = None,
) -> None:
    """List sagas, the oldest first; those that are parked unless another state is given."""
    query: dict[str, str | int] = {"pageSize": limit}
    if state != "any":
        query["state"] = f"SAGA_STATE_{state.upper()}"
    print_sagas(uvloop.run(_get(state_dir, "/v1/sagas", query)), json=json)


@saga.command()
def show(saga_id: _Id, *, json: AsJson = False, state_dir: StateDir = None) -> None:
    """Show a saga: its steps, and what operators decided about it."""
    found = uvloop.run(_get(state_dir, f"/v1/sagas/{_saga_id(saga_id)}", {}))
    if json:
        print_json(found)
        return
    print_sagas({"sagas": [found]}, json=False)
    for step in found.get("steps", ()):
        name, steps_state = step["name"], step["state"].removeprefix("SAGA_STEP_STATE_")
        out.print(f"  {name:22} {steps_state:12} {step.get('attempts', 0):3} attempts  {step.get('reason', '')}")
    for one in found.get("decisions", ()):
        action = one["action"].removeprefix("SAGA_ACTION_")
        out.print(f"  {one['createTime']} {action} at {one['step']} by {one['actor']}: {one.get('reason', '')}")


def _for_one_or_many(action: str, description: str) -> None:
    """Add a command that decides about one saga, or about all that match."""

    @saga.command(action, help=description)
    def decide(
        saga_id: _Id = "",
        *,
        why: _Why,
        all_parked: _All = False,
        reason: _Reason = "",
        step: _Step = "",
        after: _After = None,
        before: _Before = None,
        json: AsJson = False,
        state_dir: StateDir = None,
    ) -> None:
        wanted = _filter(saga_id, all_parked=all_parked, reason=reason, step=step, after=after, before=before)
        print_ids(uvloop.run(_decide(state_dir, action, saga_id, wanted, why)), json=json)


_for_one_or_many("retry", "Resume a parked saga, or all that match.")
_for_one_or_many("compensate", "Undo the steps of a saga, or of all parked ones that match.")


@saga.command()
def settle(
    saga_id: Annotated[str, typer.Argument(help="A saga, or its order.", metavar="SAGA")],
    *,
    why: _Why,
    write_off: Annotated[bool, typer.Option("--write-off", help="The loss is accepted.")] = False,
    json: AsJson = False,
    state_dir: StateDir = None,
) -> None:
    """Continue a parked saga after its step, whose effect was achieved outside, once its parcel has left."""
    action = f"SAGA_ACTION_{'WRITE_OFF' if write_off else 'SETTLE'}"
    print_ids([uvloop.run(_settle(state_dir, _saga_id(saga_id), action, why))], json=json)


def print_ids(saga_ids: list[str], *, json: bool) -> None:
    """Print the sagas that a command has changed."""
    if json:
        print_json({"sagaIds": saga_ids})
        return
    for saga_id in saga_ids:
        out.print(saga_id)
    out.print(f"[bold]{len(saga_ids)}[/] changed")


def _saga_id(name: str) -> str:
    return name.replace("order-", "saga-", 1) if name.startswith("order-") else name


def _filter(
    saga_id: str, *, all_parked: bool, reason: str, step: str, after: datetime | None, before: datetime | None
) -> dict[str, str]:
    """Return the filter of a command for many; raises StackError unless it names one saga or some filter."""
    times = {"createdAfter": after, "createdBefore": before}
    wanted = {name: value for name, value in (("reason", reason), ("step", step)) if value}
    wanted |= {name: time.astimezone().isoformat() for name, time in times.items() if time}
    if bool(saga_id) == bool(wanted or all_parked):
        raise StackError("name either one saga, or --all or a filter")
    return wanted


async def _get(state_dir: Path | None, path: str, query: dict[str, str | int]) -> dict[str, Any]:
    async with signed_in(state_dir) as client:
        return await client.get(path, **query)


async def _decide(state_dir: Path | None, action: str, saga_id: str, wanted: dict[str, str], why: str) -> list[str]:
    async with signed_in(state_dir) as client:
        if saga_id:
            path = f"/v1/sagas/{_saga_id(saga_id)}/{action}"
            return [(await client.post(path, {"reason": why, "requestId": new_key()}))["sagaId"]]
        changed: list[str] = []
        while True:
            body = {"filter": wanted, "limit": 500, "reason": why, "requestId": new_key()}
            reply = await client.post(f"/v1/sagas:{action}", body)
            changed += reply.get("sagaIds", [])
            if not reply.get("more") or not reply.get("sagaIds"):
                return changed


async def _settle(state_dir: Path | None, saga_id: str, action: str, why: str) -> str:
    async with signed_in(state_dir) as client:
        body = {"action": action, "reason": why, "requestId": new_key()}
        settled: str = (await client.post(f"/v1/sagas/{saga_id}/settle", body))["sagaId"]
        return settled
