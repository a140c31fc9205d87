"""Composes svc_catalog."""

from chassis import App, run
from shop.catalog.v1.catalog_service_pb2_grpc import add_CatalogServiceServicer_to_server
from shop.catalog.v1.category_service_pb2_grpc import add_CategoryServiceServicer_to_server
from svc_catalog.events import handlers
from svc_catalog.service import CatalogService
from svc_catalog.service_categories import CategoryService
from svc_catalog.settings import Settings


async def compose(app: App, settings: Settings) -> None:
    """Put the service together."""
    db, cache = await app.database(), app.cache()
    catalog = CatalogService(db, cache, settings)
    app.serve("shop.catalog.v1.CatalogService", catalog, add_CatalogServiceServicer_to_server)
    app.serve("shop.catalog.v1.CategoryService", CategoryService(db), add_CategoryServiceServicer_to_server)
    await app.consume(db, handlers(cache))


if __name__ == "__main__":
    run("svc_catalog", Settings, compose)
