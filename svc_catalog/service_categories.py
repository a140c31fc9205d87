"""The RPCs of categories."""

import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from google.protobuf.empty_pb2 import Empty

from chassis import Context, Database, Transaction, outbox, transactional
from chassis.types.field_masks import updated_fields
from chassis.types.pagination import Keyset, parse_uint
from shop.catalog.v1 import catalog_events_pb2 as events
from shop.catalog.v1 import category_service_pb2 as pb
from shop.catalog.v1.catalog_errors import CategoryCycle, CategoryNotEmpty
from shop.catalog.v1.category_service_pb2_grpc import CategoryServiceServicer
from shop.chassis.v1.chassis_errors import InvalidRequest
from svc_catalog import converters, store_categories
from svc_catalog.domain import check_etag

#: By parent, position, name and id; `position` is the database's int.
_CATEGORIES = Keyset(str, partial(parse_uint, maximum=2**31 - 1), str, str, start=("", -1, "", ""))


class CategoryService(CategoryServiceServicer):
    """Manages the tree of categories."""

    def __init__(self, db: Database) -> None:
        """Keep categories in `db`."""
        self.db = db

    @transactional
    async def CreateCategory(self, request: pb.CreateCategoryRequest, tx: Transaction) -> pb.Category:
        category_id = request.category.category_id or f"category-{uuid.uuid4().hex}"
        category = converters.category_from_proto(category_id, request.category)
        row = await store_categories.insert_category(tx, category)
        await outbox.add(tx, converters.category_event(events.CategoryCreated, category))
        return converters.category_to_proto(row)

    async def GetCategory(self, request: pb.GetCategoryRequest, context: Context) -> pb.Category:
        async with self.db.connection() as tx:
            return converters.category_to_proto(await store_categories.read_category(tx, request.category_id))

    async def ListCategories(self, request: pb.ListCategoriesRequest, context: Context) -> pb.ListCategoriesResponse:
        page = _CATEGORIES.page(request)
        async with self.db.connection() as tx:
            rows = await store_categories.list_categories(tx, request.parent_id, after=page.after, limit=page.limit)
        rows, next_page_token = page.cut(rows, store_categories.sort_key)
        return pb.ListCategoriesResponse(
            categories=map(converters.category_to_proto, rows), next_page_token=next_page_token
        )

    async def UpdateCategory(self, request: pb.UpdateCategoryRequest, context: Context) -> pb.Category:
        fields = updated_fields(request.category, request.update_mask)
        changes = converters.category_changes(request.category, fields)
        if changes.get("name") == "":
            raise InvalidRequest(field="category.name", problem="cannot be empty")
        return await self._update(request, context, changes)

    @transactional
    async def DeleteCategory(self, request: pb.DeleteCategoryRequest, tx: Transaction) -> Empty:
        row = await store_categories.lock_category(tx, request.category_id)
        category = store_categories.category_from_row(row)
        check_etag(f"The category {category.id}", category.version, request.etag)
        if await store_categories.has_contents(tx, category.id):
            raise CategoryNotEmpty(category_id=category.id)
        await store_categories.delete_category(tx, category.id)
        await outbox.add(tx, events.CategoryDeleted(category_id=category.id, version=category.version + 1))
        return Empty()

    @transactional
    async def _update(
        self, request: pb.UpdateCategoryRequest, tx: Transaction, changes: Mapping[str, Any]
    ) -> pb.Category:
        await store_categories.lock_tree(tx)
        row = await store_categories.read_category(tx, request.category.category_id)
        before = store_categories.category_from_row(row)
        category = before.updated(changes, request.category.etag)
        if category is before:
            return converters.category_to_proto(row)
        if category.parent_id and await store_categories.is_descendant(tx, category.parent_id, category.id):
            raise CategoryCycle(category_id=category.id, parent_id=category.parent_id)
        row = await store_categories.update_category(tx, category)
        await outbox.add(tx, converters.category_event(events.CategoryUpdated, category))
        return converters.category_to_proto(row)
