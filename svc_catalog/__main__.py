"""Composes svc_catalog."""

from chassis import App, run
from svc_catalog.events import handlers
from svc_catalog.service import CatalogService
from svc_catalog.service_categories import CategoryService
from svc_catalog.settings import Settings


async def compose(app: App, settings: Settings) -> None:
    """Put the service together."""
    db, cache = await app.database(), app.cache()
    app.serve(CatalogService(db, cache, settings), CategoryService(db))
    await app.consume(db, handlers(cache))


if __name__ == "__main__":
    run("svc_catalog", Settings, compose)
