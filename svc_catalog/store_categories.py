"""Reads and writes the rows of categories as domain objects."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chassis import Queries, Record, Transaction
from shop.catalog.v1.catalog_errors import CategoryIdTaken, CategoryNotFound
from svc_catalog.domain import Category

sql = Queries(Path(__file__).parent / "queries.sql")


async def insert_category(tx: Transaction, category: Category) -> Record:
    """Insert a new category; raises CategoryIdTaken, or CategoryNotFound for its parent."""
    await require_categories(tx, [category.parent_id] if category.parent_id else [])
    row = await tx.fetchrow(sql.insert_category, *_values(category))
    if row is None:
        raise CategoryIdTaken(category_id=category.id)
    return row


async def update_category(tx: Transaction, category: Category) -> Record:
    """Replace a category while the tree is locked; raises CategoryNotFound for its parent."""
    await require_categories(tx, [category.parent_id] if category.parent_id else [])
    row = await tx.fetchrow(sql.update_category, *_values(category))
    assert row is not None, "the tree is locked"
    return row


async def delete_category(tx: Transaction, category_id: str) -> None:
    """Delete a category that was locked and has no contents."""
    await tx.execute(sql.delete_category, category_id)


async def lock_tree(tx: Transaction) -> None:
    """Lock the tree against other moves until this transaction ends."""
    await tx.execute(sql.lock_tree)


async def read_category(tx: Transaction, category_id: str) -> Record:
    """Return a category's row; raises CategoryNotFound."""
    return _found(await tx.fetchrow(sql.read_category, category_id), category_id)


async def lock_category(tx: Transaction, category_id: str) -> Record:
    """Return a category's row, locked so that nothing can be put into it; raises CategoryNotFound."""
    return _found(await tx.fetchrow(sql.lock_category, category_id), category_id)


async def require_categories(tx: Transaction, category_ids: Sequence[str]) -> None:
    """Lock categories against deletion until this transaction ends; raises CategoryNotFound for one that is missing."""
    unknown = await tx.fetchval(sql.lock_and_find_unknown_category, category_ids)
    if unknown is not None:
        raise CategoryNotFound(category_id=unknown)


async def is_descendant(tx: Transaction, category_id: str, ancestor_id: str) -> bool:
    """Return whether a category is below another, or the same."""
    descendant: bool = await tx.fetchval(sql.is_descendant, category_id, ancestor_id)
    return descendant


async def has_contents(tx: Transaction, category_id: str) -> bool:
    """Return whether a category has products or categories."""
    contents: bool = await tx.fetchval(sql.has_contents, category_id)
    return contents


async def list_categories(tx: Transaction, parent_id: str, *, after: tuple[Any, ...], limit: int) -> list[Record]:
    """Return the rows of categories after a `sort_key`; those of one parent unless `parent_id` is empty."""
    return await tx.fetch(sql.list_categories, parent_id, *after, limit)


def sort_key(row: Record) -> tuple[str, int, str, str]:
    """Return the sort key of a row of `list_categories`."""
    return (row["parent_id"] or "", row["position"], row["sort_name"], row["category_id"])


def category_from_row(row: Record) -> Category:
    """Return the category that a row holds."""
    return Category(
        id=row["category_id"],
        parent_id=row["parent_id"] or "",
        name=row["name"],
        position=row["position"],
        version=row["version"],
    )


def _found(row: Record | None, category_id: str) -> Record:
    if row is None:
        raise CategoryNotFound(category_id=category_id)
    return row


def _values(category: Category) -> tuple[object, ...]:
    return (category.id, category.parent_id or None, category.name, category.position, category.version)
