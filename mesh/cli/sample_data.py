"""`shopmesh sample-data`: loads products, stock, delivery zones and accounts into a running stack."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvloop
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mesh.cli.terminal import AsJson, StateDir, err, out, print_json, running_stack, state_in
from mesh.errors import StackError
from mesh.qa.sample_data import NEEDED
from mesh.qa.sample_data.loader import Report, load
from mesh.qa.sample_data.people import admin, courier, staff
from mesh.qa.sample_data.shop import Shop, sample_shop
from mesh.services import upstreams
from mesh.stack.secrets import Secrets
from mesh.stack.state import Record


def sample_data(*, json: AsJson = False, state_dir: StateDir = None) -> None:
    """Load the sample data. Existing data stay as they are."""
    record = running_stack(state_dir)
    if missing := NEEDED - set(record.services):
        raise StackError(f"the sample data needs {', '.join(sorted(missing))}, which this stack does not run")
    secrets, shop = Secrets(state_in(state_dir)), sample_shop()
    with _progress(shop) as progress:
        people = (staff(secrets), courier(secrets))
        report = uvloop.run(load(_upstreams(record), admin(secrets), people, shop, progress))
    if json:
        print_json(report.as_json())
    elif report.made.total():
        made = ", ".join(f"{number} {what}" for what, number in report.made.items())
        out.print(f"created {made}; {report.kept.total()} existed")
    else:
        out.print(f"nothing to do: all {report.kept.total()} exist")


def _upstreams(record: Record) -> str:
    where = {"*": record.grpc} if record.grpc else upstreams(record.services)
    return ",".join(f"{service}={address}" for service, address in where.items())


@contextmanager
def _progress(shop: Shop) -> Iterator[Callable[[Report], None]]:
    """Show a progress bar, which is removed at the end."""
    whole = sum(map(len, (shop.categories, shop.products, shop.levels, shop.zones)))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True) as bars:
        bar = bars.add_task("sample data", total=whole)

        def show(report: Report) -> None:
            bars.update(bar, completed=report.made.total() + report.kept.total())

        yield show
