"""`shopmesh refunds`: refunds of returns and cancelled lines that the payment provider rejects."""

from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.table import Table

from mesh.cli.admin import signed_in
from mesh.cli.terminal import AsJson, StateDir, out, print_json
from mesh.qa.shop_client import new_key

refunds = typer.Typer(no_args_is_help=True, add_completion=False, help="Decide about refunds that were rejected.")

_CANCELLATION = "cancellation-"


@refunds.command("list")
def list_refunds(*, json: AsJson = False, state_dir: StateDir = None) -> None:
    """List the returns whose refunds were rejected, the newest first."""
    page = uvloop.run(_list(state_dir))
    if json:
        print_json(page)
        return
    table = Table("return", "order", "problem", "updated", box=None)
    for one in page.get("returns", ()):
        table.add_row(one["returnId"], one["orderId"], one.get("problem", ""), one["updateTime"])
    out.print(table if table.row_count else "none")


@refunds.command()
def settle(
    refund_id: Annotated[str, typer.Argument(help="A return, or a cancellation of lines.", metavar="ID")],
    *,
    why: Annotated[str, typer.Option("--why", help="The explanation that is recorded with the decision.")],
    outside: Annotated[bool, typer.Option("--outside", help="It was made outside, as by a bank transfer.")] = False,
    json: AsJson = False,
    state_dir: StateDir = None,
) -> None:
    """Request a rejected refund once more, or record that it was made outside."""
    settled = uvloop.run(_settle(state_dir, refund_id, "REFUNDED_OUTSIDE" if outside else "RETRY", why))
    if json:
        print_json(settled)
    else:
        out.print(f"{refund_id} is {settled['state'].partition('STATE_')[2]}")


async def _list(state_dir: Path | None) -> dict[str, Any]:
    async with signed_in(state_dir) as client:
        return await client.get("/v1/returns", state="RETURN_STATE_REFUND_REFUSED", pageSize=100)


async def _settle(state_dir: Path | None, refund_id: str, decision: str, why: str) -> dict[str, Any]:
    collection = "cancellations" if refund_id.startswith(_CANCELLATION) else "returns"
    body = {"decision": f"REFUND_DECISION_{decision}", "reason": why, "requestId": new_key()}
    async with signed_in(state_dir) as client:
        return await client.post(f"/v1/{collection}/{refund_id}/settle", body)
