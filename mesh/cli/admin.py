"""What the commands of operators share: a client that is signed in as the administrator, and the table of sagas."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rich.table import Table

from mesh.cli.terminal import out, print_json, running_stack, state_in
from mesh.errors import StackError
from mesh.qa.sample_data.people import admin
from mesh.qa.shop_client import OutcomeUnknown, RequestRejected, ShopApiClient
from mesh.stack.secrets import Secrets


@asynccontextmanager
async def signed_in(state_dir: Path | None) -> AsyncIterator[ShopApiClient]:
    """Sign in to the running stack as its administrator; raises StackError, also for a rejected request."""
    record = running_stack(state_dir)
    person = admin(Secrets(state_in(state_dir)))
    try:
        async with ShopApiClient.open(record.edge) as anonymous:
            yield await anonymous.sign_in(person.email, person.password)
    except (RequestRejected, OutcomeUnknown) as error:
        raise StackError(f"the shop replied: {error}") from error


def print_sagas(page: dict[str, Any], *, json: bool) -> None:
    """Print a page of sagas."""
    if json:
        print_json(page)
        return
    table = Table("saga", "state", "step", "attempts", "reason", "created", box=None)
    for one in page.get("sagas", ()):
        attempts = str(one.get("attempts", 0))
        state = one["state"].removeprefix("SAGA_STATE_")
        table.add_row(one["sagaId"], state, one["currentStep"], attempts, one.get("reason", ""), one["createTime"])
    out.print(table if table.row_count else "none")
    if page.get("nextPageToken"):
        out.print("[dim]there are more[/]")
