"""Consumes the catalog's own events, so that the cache is invalidated even if the process that made a change died."""

from collections.abc import Mapping

from google.protobuf.message import Message

from chassis import Cache, Handler, Transaction
from shop.catalog.v1 import catalog_events_pb2 as events

#: The cache's group of all pages of products.
LISTS = "lists"


def product_group(product_id: str) -> str:
    """Return the cache's group of one product."""
    return f"product:{product_id}"


def handlers(cache: Cache) -> Mapping[type[Message], Handler]:
    """Return the handler of each event that the service consumes."""

    async def on_product_changed(
        _tx: Transaction, event: events.ProductCreated | events.ProductUpdated | events.ProductDeleted
    ) -> None:
        await cache.invalidate(LISTS, product_group(event.product_id))

    return dict.fromkeys((events.ProductCreated, events.ProductUpdated, events.ProductDeleted), on_product_changed)
