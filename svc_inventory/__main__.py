"""Composes svc_inventory."""

from datetime import timedelta

from chassis import App, WatchPace, run
from svc_inventory.service import InventoryService
from svc_inventory.settings import Settings


async def compose(app: App, settings: Settings) -> None:
    """Put the service together."""
    pace = WatchPace(settings.watch_messages_per_second, settings.watch_interval_seconds)
    inventory = InventoryService(await app.database(), hold=timedelta(seconds=settings.hold_seconds), pace=pace)
    app.serve(inventory)
    app.repeat(inventory.expire_holds, settings.expire_seconds)


if __name__ == "__main__":
    run("svc_inventory", Settings, compose)
