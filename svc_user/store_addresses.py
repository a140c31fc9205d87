"""Reads and writes address books as domain objects."""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from chassis import Record, Transaction
from shop.user.v1.user_errors import AddressNotFound
from svc_user.domain_addresses import AddressBook, PostalAddress, SavedAddress
from svc_user.store import lock_account, sql


async def lock_book(tx: Transaction, user_id: str) -> AddressBook:
    """Return the address book of a user, locked with its account until this transaction ends; raises UserNotFound."""
    await lock_account(tx, user_id)
    return AddressBook(tuple(map(address_from_row, await tx.fetch(sql.read_book, user_id))))


async def read_address(tx: Transaction, user_id: str, address_id: str) -> SavedAddress:
    """Return one entry of a user's address book; raises AddressNotFound."""
    row = await tx.fetchrow(sql.read_address, user_id, address_id)
    if row is None:
        raise AddressNotFound(address_id=address_id)
    return address_from_row(row)


async def list_addresses(tx: Transaction, user_id: str, *, after: tuple[Any, ...], limit: int) -> list[Record]:
    """Return the rows of a user's address book after a (rank, position): the default first, then the oldest."""
    return await tx.fetch(sql.list_addresses, user_id, *after, limit)


async def update_book(tx: Transaction, user_id: str, before: AddressBook, after: AddressBook) -> None:
    """Write the differences between a book that was locked and the same book after a change."""
    known = {entry.id: entry for entry in before.entries}
    removed = known.keys() - {entry.id for entry in after.entries}
    if removed:
        await tx.execute(sql.delete_addresses, user_id, list(removed))
    changed = [entry for entry in after.entries if known.get(entry.id) != entry]
    # The old default is written before the new one: a unique index allows one default at any time.
    for entry in sorted(changed, key=lambda entry: entry.is_default):
        await tx.execute(sql.update_address if entry.id in known else sql.insert_address, *_row(user_id, entry))


def _row(user_id: str, entry: SavedAddress) -> Sequence[object]:
    times = (entry.create_time, entry.update_time)
    return (entry.id, user_id, entry.label, *astuple(entry.address), entry.is_default, entry.version, *times)


def address_from_row(row: Record) -> SavedAddress:
    """Return the entry that a row of `address` holds."""
    return SavedAddress(
        id=row["address_id"],
        label=row["label"],
        address=PostalAddress(
            recipient=row["recipient"],
            phone=row["phone"],
            line1=row["line1"],
            line2=row["line2"],
            city=row["city"],
            region=row["region"],
            postal_code=row["postal_code"],
            country_code=row["country_code"],
        ),
        is_default=row["is_default"],
        version=row["version"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
