"""Accounts. Pure: no I/O, no clock, no proto."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from shop.user.v1.user_errors import LastAdmin, VersionMismatch

CUSTOMER = "customer"
ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user who can sign in."""

    id: str
    email: str = field(repr=False)
    password_hash: str = field(repr=False)
    #: The request_id of the registration, which distinguishes its repeat from a second registration.
    registration_id: str
    display_name: str = field(default="", repr=False)
    phone: str = field(default="", repr=False)
    roles: frozenset[str] = frozenset({CUSTOMER})
    version: int = 1
    create_time: datetime
    update_time: datetime

    def edited(self, *, etag: str, now: datetime, display_name: str | None, phone: str | None) -> "Account":
        """Return the account with fields replaced, itself when none differs; None keeps one. Raises VersionMismatch."""
        check_etag("The user", self.version, etag)
        edited = replace(
            self,
            display_name=self.display_name if display_name is None else display_name,
            phone=self.phone if phone is None else phone,
        )
        return self if edited == self else replace(edited, version=self.version + 1, update_time=now)

    def with_roles(self, roles: Iterable[str], *, admins: Iterable[str], now: datetime) -> "Account":
        """Return the account with exactly these roles; `admins` are the ids of all admins. Raises LastAdmin."""
        wanted = frozenset(roles)
        if wanted == self.roles:
            return self
        if ADMIN in self.roles - wanted and not set(admins) - {self.id}:
            raise LastAdmin
        return replace(self, roles=wanted, version=self.version + 1, update_time=now)

    def changed_fields(self, before: "Account") -> list[str]:
        """Return the names of the fields that an edit has changed since `before`."""
        return [name for name in ("display_name", "phone") if getattr(self, name) != getattr(before, name)]


def normalize_email(email: str) -> str:
    """Return the spelling under which an email address is stored."""
    return email.strip().lower()


def check_etag(resource: str, version: int, etag: str) -> None:
    """Raise VersionMismatch unless `etag` is empty or names this version."""
    if etag and etag != str(version):
        raise VersionMismatch(resource=resource)
