"""Address books. Pure: no I/O, no clock, no proto."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from shop.user.v1.user_errors import AddressNotFound, TooManyAddresses
from svc_user.domain import check_etag


@dataclass(frozen=True, slots=True, kw_only=True)
class PostalAddress:
    """The recipient and address of a parcel."""

    recipient: str
    phone: str
    line1: str
    line2: str
    city: str
    region: str
    postal_code: str
    country_code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedAddress:
    """An entry of an address book."""

    id: str
    label: str = field(repr=False)
    address: PostalAddress = field(repr=False)
    is_default: bool = False
    version: int = 1
    create_time: datetime
    update_time: datetime


MAX_ADDRESSES = 50


@dataclass(frozen=True, slots=True)
class AddressBook:
    """All addresses of a user, the oldest first. Exactly one is the default, unless there is none."""

    entries: tuple[SavedAddress, ...] = ()

    def entry(self, address_id: str) -> SavedAddress:
        """Return an entry; raises AddressNotFound."""
        for entry in self.entries:
            if entry.id == address_id:
                return entry
        raise AddressNotFound(address_id=address_id)

    def added(self, entry: SavedAddress) -> "AddressBook":
        """Return the book with one more entry, the default if it is the first; raises TooManyAddresses."""
        if len(self.entries) >= MAX_ADDRESSES:
            raise TooManyAddresses(limit=MAX_ADDRESSES)
        return AddressBook((*self.entries, replace(entry, is_default=not self.entries)))

    def edited(
        self, address_id: str, *, etag: str, now: datetime, label: str | None, address: PostalAddress | None
    ) -> "AddressBook":
        """Return the book with an entry edited; None keeps a field. Raises AddressNotFound or VersionMismatch."""
        before = self.entry(address_id)
        check_etag("The address", before.version, etag)
        label = before.label if label is None else label
        address = before.address if address is None else address
        return self._revised(
            now, lambda entry: replace(entry, label=label, address=address) if entry is before else entry
        )

    def removed(self, address_id: str, now: datetime) -> "AddressBook":
        """Return the book without an entry; the oldest remaining entry replaces a default. Raises AddressNotFound."""
        removed = self.entry(address_id)
        rest = AddressBook(tuple(entry for entry in self.entries if entry is not removed))
        return rest.with_default(rest.entries[0].id, now) if removed.is_default and rest.entries else rest

    def with_default(self, address_id: str, now: datetime) -> "AddressBook":
        """Return the book with another default; raises AddressNotFound."""
        chosen = self.entry(address_id)
        return self._revised(now, lambda entry: replace(entry, is_default=entry is chosen))

    def _revised(self, now: datetime, revise: Callable[[SavedAddress], SavedAddress]) -> "AddressBook":
        """Apply `revise` to every entry; each entry that it changes gets a new version."""
        pairs = ((entry, revise(entry)) for entry in self.entries)
        return AddressBook(
            tuple(
                before if after == before else replace(after, version=before.version + 1, update_time=now)
                for before, after in pairs
            )
        )
