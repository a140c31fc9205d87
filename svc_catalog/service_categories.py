"""The RPCs of categories."""

import uuid

from google.protobuf.empty_pb2 import Empty

from chassis import Context, Database, Transaction, idempotent, outbox
from chassis.types.field_masks import updated_fields
from chassis.types.pagination import page_position, page_size, page_token, parse_uint
from shop.catalog.v1 import catalog_events_pb2 as events
from shop.catalog.v1 import category_service_pb2 as pb
from shop.catalog.v1.catalog_errors import CategoryCycle, CategoryNotEmpty
from shop.catalog.v1.category_service_pb2_grpc import CategoryServiceServicer
from shop.chassis.v1.chassis_errors import InvalidRequest
from svc_catalog import messages, store
from svc_catalog.domain import Category, check_etag

#: The database's int.
_LAST_PLACE = 2**31 - 1


class CategoryService(CategoryServiceServicer):
    """Manages the tree of categories."""

    def __init__(self, db: Database) -> None:
        """Keep categories in `db`."""
        self.db = db

    async def CreateCategory(self, request: pb.CreateCategoryRequest, context: Context) -> pb.Category:
        asked = request.category
        category = Category(
            id=asked.category_id or f"category-{uuid.uuid4().hex}",
            parent_id=asked.parent_id,
            name=asked.name,
            position=asked.position,
        )

        async def change(tx: Transaction) -> pb.Category:
            row = await store.insert_category(tx, category)
            await outbox.add(tx, messages.category_event(events.CategoryCreated, category))
            return messages.category_to_proto(row)

        return await idempotent(self.db, request, pb.Category, change)

    async def GetCategory(self, request: pb.GetCategoryRequest, context: Context) -> pb.Category:
        async with self.db.connection() as tx:
            return messages.category_to_proto(await store.read_category(tx, request.category_id))

    async def ListCategories(self, request: pb.ListCategoriesRequest, context: Context) -> pb.ListCategoriesResponse:
        size = page_size(request.page_size)
        async with self.db.connection() as tx:
            rows = await store.list_categories(tx, request.parent_id, _position(request.page_token), size + 1)
        last = rows[size - 1] if len(rows) > size else None
        return pb.ListCategoriesResponse(
            categories=[messages.category_to_proto(row) for row in rows[:size]],
            next_page_token=page_token(
                last["parent_id"] or "", last["position"], last["sort_name"], last["category_id"]
            )
            if last
            else "",
        )

    async def UpdateCategory(self, request: pb.UpdateCategoryRequest, context: Context) -> pb.Category:
        asked = request.category
        changes = messages.category_changes(asked, updated_fields(asked, request.update_mask))
        if changes.get("name") == "":
            raise InvalidRequest(field="category.name", problem="cannot be empty")

        async def change(tx: Transaction) -> pb.Category:
            await store.lock_categories(tx)
            row = await store.read_category(tx, asked.category_id)
            before = store.category_from_row(row)
            category = before.updated(changes, asked.etag)
            if category is before:
                return messages.category_to_proto(row)
            if category.parent_id and await store.is_below(tx, category.parent_id, category.id):
                raise CategoryCycle(category_id=category.id, parent_id=category.parent_id)
            row = await store.update_category(tx, category)
            await outbox.add(tx, messages.category_event(events.CategoryUpdated, category))
            return messages.category_to_proto(row)

        return await idempotent(self.db, request, pb.Category, change)

    async def DeleteCategory(self, request: pb.DeleteCategoryRequest, context: Context) -> Empty:
        async def change(tx: Transaction) -> Empty:
            category = store.category_from_row(await store.lock_category(tx, request.category_id))
            check_etag(f"The category {category.id}", category.version, request.etag)
            if await store.is_used(tx, category.id):
                raise CategoryNotEmpty(category_id=category.id)
            await store.delete_category(tx, category.id)
            await outbox.add(tx, events.CategoryDeleted(category_id=category.id, version=category.version + 1))
            return Empty()

        return await idempotent(self.db, request, Empty, change)


def _position(token: str) -> tuple[str, int, str, str]:
    position = page_position(token, 4)
    if position is None:
        return ("", -1, "", "")
    parent_id, place, name, category_id = position
    return (parent_id, parse_uint(place, _LAST_PLACE), name, category_id)
