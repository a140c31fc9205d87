"""Composes svc_catalog."""

from chassis import App, run
from shop.catalog.v1.catalog_service_pb2_grpc import add_CatalogServiceServicer_to_server
from svc_catalog.events import handlers
from svc_catalog.service import CatalogService
from svc_catalog.settings import Settings


async def compose(app: App, settings: Settings) -> None:
    """Put the service together."""
    db, cache = await app.database(), app.cache()
    app.serve(
        "shop.catalog.v1.CatalogService", CatalogService(db, cache, settings), add_CatalogServiceServicer_to_server
    )
    await app.consume(db, handlers(cache))


if __name__ == "__main__":
    run("svc_catalog", Settings, compose)
