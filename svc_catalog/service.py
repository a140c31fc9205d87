"""The RPCs of products and variants. The cache is invalidated after the commit, before the reply."""

import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from google.protobuf.empty_pb2 import Empty

from chassis import Cache, Context, Database, Transaction, current_call, outbox, transactional
from chassis.types.field_masks import updated_fields
from chassis.types.pagination import Keyset, parse_time, parse_uint
from shop.catalog.v1 import catalog_events_pb2 as events
from shop.catalog.v1 import catalog_service_pb2 as pb
from shop.catalog.v1.catalog_errors import ProductNotFound
from shop.catalog.v1.catalog_service_pb2_grpc import CatalogServiceServicer
from shop.chassis.v1.chassis_errors import InvalidRequest
from svc_catalog import converters, store
from svc_catalog.domain import Product, Status
from svc_catalog.events import LISTS, product_group
from svc_catalog.settings import Settings

_STAFF = frozenset({"staff", "admin"})
#: The sort keys of ListProducts, by the first word of `order_by`; the first page begins after no position.
_KEYSETS = {
    "create_time": Keyset(parse_time, str, start=(None, "")),
    "name": Keyset(str, str, start=(None, "")),
    "price": Keyset(parse_uint, str, start=(None, "")),
}


class CatalogService(CatalogServiceServicer):
    """Manages products and their variants."""

    def __init__(self, db: Database, cache: Cache, settings: Settings) -> None:
        """Serve shoppers' reads from `cache` for as long as the settings say."""
        self.db = db
        self.cache = cache
        self.settings = settings

    async def CreateProduct(self, request: pb.CreateProductRequest, context: Context) -> pb.Product:
        product_id = request.product.product_id or f"product-{uuid.uuid4().hex}"
        product = converters.product_from_proto(product_id, request.product)
        created = await self._create(request, context, product)
        await self.cache.invalidate(LISTS)
        return created

    async def GetProduct(self, request: pb.GetProductRequest, context: Context) -> pb.Product:
        load = partial(self._load_product, request.product_id)
        if _is_staff():
            return await load()
        seconds = self.settings.detail_cache_seconds
        return await self.cache.get_or_load(product_group(request.product_id), "active", pb.Product, seconds, load)

    async def ListProducts(self, request: pb.ListProductsRequest, context: Context) -> pb.ListProductsResponse:
        if converters.status_from_proto(request.status) is not Status.ACTIVE and not _is_staff():
            return pb.ListProductsResponse()
        if converters.has_free_bounds(request):
            return await self._load_page(request)
        entry = request.SerializeToString(deterministic=True).hex()
        seconds, load = self.settings.list_cache_seconds, partial(self._load_page, request)
        return await self.cache.get_or_load(LISTS, entry, pb.ListProductsResponse, seconds, load)

    async def UpdateProduct(self, request: pb.UpdateProductRequest, context: Context) -> pb.Product:
        fields = updated_fields(request.product, request.update_mask)
        changes = converters.product_changes(request.product, fields)
        for field in ("name", "variants"):
            if field in changes and not changes[field]:
                raise InvalidRequest(field=f"product.{field}", problem="cannot be empty")
        updated = await self._update(request, context, changes)
        await self.cache.invalidate(LISTS, product_group(updated.product_id))
        return updated

    async def DeleteProduct(self, request: pb.DeleteProductRequest, context: Context) -> Empty:
        deleted = await self._delete(request, context)
        await self.cache.invalidate(LISTS, product_group(request.product_id))
        return deleted

    async def BatchGetVariants(
        self, request: pb.BatchGetVariantsRequest, context: Context
    ) -> pb.BatchGetVariantsResponse:
        async with self.db.connection() as tx:
            found = await store.read_snapshots(tx, request.skus)
        return pb.BatchGetVariantsResponse(
            variants=[converters.snapshot_to_proto(found[sku]) for sku in request.skus if sku in found]
        )

    @transactional
    async def _create(self, request: pb.CreateProductRequest, tx: Transaction, product: Product) -> pb.Product:
        stored = await store.insert_product(tx, product)
        await outbox.add(tx, converters.product_event(events.ProductCreated, product))
        return converters.product_to_proto(stored)

    @transactional
    async def _update(
        self, request: pb.UpdateProductRequest, tx: Transaction, changes: Mapping[str, Any]
    ) -> pb.Product:
        before = await store.lock_product(tx, request.product.product_id)
        product = before.product.updated(changes, request.product.etag)
        if product is before.product:
            return converters.product_to_proto(before)
        stored = await store.update_product(tx, product)
        await outbox.add(tx, converters.product_event(events.ProductUpdated, product))
        return converters.product_to_proto(stored)

    @transactional
    async def _delete(self, request: pb.DeleteProductRequest, tx: Transaction) -> Empty:
        before = await store.lock_product(tx, request.product_id)
        product = before.product.deleted(request.etag)
        await store.delete_product(tx, product)
        await outbox.add(tx, converters.product_deleted_event(product))
        return Empty()

    async def _load_product(self, product_id: str) -> pb.Product:
        async with self.db.connection() as tx:
            stored = await store.read_product(tx, product_id)
        if stored.product.status is not Status.ACTIVE and not _is_staff():
            raise ProductNotFound(product_id=product_id)
        return converters.product_to_proto(stored)

    async def _load_page(self, request: pb.ListProductsRequest) -> pb.ListProductsResponse:
        key, _, direction = (request.order_by or "create_time desc").partition(" ")
        page = _KEYSETS[key].page(request)
        order = f"{key}_{direction or 'asc'}"
        wanted = converters.filter_from_proto(request)
        async with self.db.transaction() as tx:
            found = await store.list_products(tx, wanted, order=order, after=page.after, limit=page.limit)
        products, next_page_token = page.cut(found, lambda stored: (stored.row["sort_key"], stored.product.id))
        return pb.ListProductsResponse(
            products=map(converters.product_to_proto, products), next_page_token=next_page_token
        )


def _is_staff() -> bool:
    call = current_call()
    return bool(call and call.user and call.user.roles & _STAFF)
