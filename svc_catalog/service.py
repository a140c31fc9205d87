"""The RPCs of products and variants."""

import uuid
from collections.abc import Callable

from google.protobuf.empty_pb2 import Empty

from chassis import Cache, Context, Database, Transaction, current_call, idempotent, outbox
from chassis.types.field_masks import updated_fields
from chassis.types.money import minor_units
from chassis.types.pagination import page_position, page_size, page_token, parse_time, parse_uint
from shop.catalog.v1 import catalog_events_pb2 as events
from shop.catalog.v1 import catalog_service_pb2 as pb
from shop.catalog.v1.catalog_errors import ProductNotFound
from shop.catalog.v1.catalog_service_pb2_grpc import CatalogServiceServicer
from shop.chassis.v1.chassis_errors import InvalidRequest
from svc_catalog import messages, store
from svc_catalog.domain import Status
from svc_catalog.events import LISTS, detail
from svc_catalog.settings import Settings
from svc_catalog.store import Filter

_STAFF = frozenset({"staff", "admin"})
_ANY_PRICE = 2**62
#: How a page token's sort key is read, by what the list is ordered by.
_SORT_KEYS: dict[str, Callable[[str], object]] = {"create_time": parse_time, "name": str, "price": parse_uint}


class CatalogService(CatalogServiceServicer):
    """Manages products and their variants."""

    def __init__(self, db: Database, cache: Cache, settings: Settings) -> None:
        """Serve what shoppers see from `cache` for as long as the settings say."""
        self.db = db
        self.cache = cache
        self.settings = settings

    async def CreateProduct(self, request: pb.CreateProductRequest, context: Context) -> pb.Product:
        product = messages.product_from_proto(
            request.product.product_id or f"product-{uuid.uuid4().hex}", request.product
        )

        async def change(tx: Transaction) -> pb.Product:
            stored = await store.insert_product(tx, product)
            await outbox.add(tx, messages.product_event(events.ProductCreated, product))
            return messages.product_to_proto(stored)

        created = await idempotent(self.db, request, pb.Product, change)
        await self.cache.invalidate(LISTS)
        return created

    async def GetProduct(self, request: pb.GetProductRequest, context: Context) -> pb.Product:
        async def read() -> pb.Product:
            async with self.db.connection() as tx:
                stored = await store.read_product(tx, request.product_id)
            if stored.product.status is not Status.ACTIVE and not _is_staff():
                raise ProductNotFound(product_id=request.product_id)
            return messages.product_to_proto(stored)

        if _is_staff():
            return await read()
        seconds = self.settings.detail_cache_seconds
        return await self.cache.get_or_load(detail(request.product_id), "shown", pb.Product, seconds, read)

    async def ListProducts(self, request: pb.ListProductsRequest, context: Context) -> pb.ListProductsResponse:
        if messages.status_from_proto(request.status) is not Status.ACTIVE and not _is_staff():
            return pb.ListProductsResponse()

        async def read() -> pb.ListProductsResponse:
            return await self._list(request)

        entry = request.SerializeToString(deterministic=True).hex()
        seconds = self.settings.list_cache_seconds
        return await self.cache.get_or_load(LISTS, entry, pb.ListProductsResponse, seconds, read)

    async def UpdateProduct(self, request: pb.UpdateProductRequest, context: Context) -> pb.Product:
        fields = updated_fields(request.product, request.update_mask)
        changes = messages.product_changes(request.product, fields)
        for path in ("name", "variants"):
            if path in changes and not changes[path]:
                raise InvalidRequest(field=f"product.{path}", problem="cannot be empty")

        async def change(tx: Transaction) -> pb.Product:
            before = await store.lock_product(tx, request.product.product_id)
            product = before.product.updated(changes, request.product.etag)
            if product is before.product:
                return messages.product_to_proto(before)
            stored = await store.update_product(tx, product)
            await outbox.add(tx, messages.product_event(events.ProductUpdated, product))
            return messages.product_to_proto(stored)

        updated = await idempotent(self.db, request, pb.Product, change)
        await self.cache.invalidate(LISTS, detail(updated.product_id))
        return updated

    async def DeleteProduct(self, request: pb.DeleteProductRequest, context: Context) -> Empty:
        async def change(tx: Transaction) -> Empty:
            gone = (await store.lock_product(tx, request.product_id)).product.deleted(request.etag)
            await store.delete_product(tx, gone)
            await outbox.add(tx, events.ProductDeleted(product_id=gone.id, version=gone.version, skus=gone.skus))
            return Empty()

        await idempotent(self.db, request, Empty, change)
        await self.cache.invalidate(LISTS, detail(request.product_id))
        return Empty()

    async def BatchGetVariants(
        self, request: pb.BatchGetVariantsRequest, context: Context
    ) -> pb.BatchGetVariantsResponse:
        async with self.db.connection() as tx:
            found = await store.read_snapshots(tx, request.skus)
        return pb.BatchGetVariantsResponse(
            variants=[messages.snapshot_to_proto(found[sku]) for sku in request.skus if sku in found]
        )

    async def _list(self, request: pb.ListProductsRequest) -> pb.ListProductsResponse:
        key, _, direction = (request.order_by or "create_time desc").partition(" ")
        size = page_size(request.page_size)
        async with self.db.connection() as tx:
            found = await store.list_products(
                tx,
                _filter(request),
                order=f"{key}_{direction or 'asc'}",
                after=_position(key, request.page_token),
                limit=size + 1,
            )
        last = found[size - 1] if len(found) > size else None
        return pb.ListProductsResponse(
            products=[messages.product_to_proto(stored) for stored in found[:size]],
            next_page_token=page_token(last.row["sort_key"], last.product.id) if last else "",
        )


def _is_staff() -> bool:
    call = current_call()
    return bool(call and call.user and call.user.roles & _STAFF)


def _position(key: str, token: str) -> tuple[object, str]:
    """Return the (sort key, id) after which a page begins; raises PageTokenInvalid."""
    position = page_position(token, 2)
    return (None, "") if position is None else (_SORT_KEYS[key](position[0]), position[1])


def _filter(request: pb.ListProductsRequest) -> Filter:
    lower = request.min_price if request.HasField("min_price") else None
    upper = request.max_price if request.HasField("max_price") else None
    currencies = {price.currency_code for price in (lower, upper) if price}
    if len(currencies) > 1:
        raise InvalidRequest(field="max_price.currency_code", problem="must be the currency of min_price")
    return Filter(
        status=messages.status_from_proto(request.status),
        category_id=request.category_id,
        words=request.query,
        brand=request.brand,
        currency=next(iter(currencies), ""),
        least=minor_units(lower, "min_price") if lower else 0,
        most=minor_units(upper, "max_price") if upper else _ANY_PRICE,
    )
