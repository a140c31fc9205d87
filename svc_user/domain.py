"""Accounts, sign-in, sessions, signing keys and address books. Pure: no I/O, no clock, no proto.

A session is a family of refresh tokens of which one is live. It moves LIVE -> ended, by signing out, by the reuse of a
token, or by the loss of a role; ended is final.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from itertools import pairwise

from shop.user.v1.user_errors import (
    AddressNotFound,
    LastAdmin,
    LoginThrottled,
    RefreshTokenInvalid,
    TooManyAddresses,
    VersionMismatch,
)

CUSTOMER = "customer"
ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A person who can sign in."""

    id: str
    email: str = field(repr=False)
    password_hash: str = field(repr=False)
    #: The request that registered it, by which a repeat is told from a second registration.
    registration_id: str
    display_name: str = field(default="", repr=False)
    phone: str = field(default="", repr=False)
    roles: frozenset[str] = frozenset({CUSTOMER})
    version: int = 1
    create_time: datetime
    update_time: datetime

    def edited(self, *, etag: str, now: datetime, display_name: str | None, phone: str | None) -> "Account":
        """Return the account with other fields, itself when none differs; None leaves as it is."""
        _compare(etag, self.version, "The user")
        edited = replace(
            self,
            display_name=self.display_name if display_name is None else display_name,
            phone=self.phone if phone is None else phone,
        )
        return self if edited == self else replace(edited, version=self.version + 1, update_time=now)

    def with_roles(self, roles: Iterable[str], *, admins: Iterable[str], now: datetime) -> "Account":
        """Return the account with exactly these roles; `admins` are the ids of all who have that role now."""
        wanted = frozenset(roles)
        if wanted == self.roles:
            return self
        if ADMIN in self.roles - wanted and not set(admins) - {self.id}:
            raise LastAdmin
        return replace(self, roles=wanted, version=self.version + 1, update_time=now)

    def changed_fields(self, before: "Account") -> list[str]:
        """Return the names of what the user may edit and did."""
        return [name for name in ("display_name", "phone") if getattr(self, name) != getattr(before, name)]


def normalised(email: str) -> str:
    """Return the one spelling under which an address is known here."""
    return email.strip().lower()


#: Wrong passwords that cost no wait, and right ones that may be under way at the same time.
FREE_ATTEMPTS = 10
LONGEST_PAUSE = timedelta(minutes=15)
_DOUBLINGS = 20  # well past the longest pause


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """Attempts to sign in with one email address since the last that succeeded, whether an account has it or not."""

    failures: int = 0
    retry_time: datetime

    def counted(self, now: datetime) -> "Throttle":
        """Count an attempt, before its password is checked, so that guesses made at once cannot share one count."""
        if now < self.retry_time:
            raise LoginThrottled
        failures = self.failures + 1
        doublings = min(failures - FREE_ATTEMPTS, _DOUBLINGS)
        pause = timedelta(seconds=2**doublings) if doublings >= 0 else timedelta()
        return Throttle(failures=failures, retry_time=now + min(pause, LONGEST_PAUSE))


class End(Enum):
    """Why a session ended."""

    SIGNED_OUT = "SIGNED_OUT"
    TOKEN_REUSED = "TOKEN_REUSED"  # noqa: S105  no secret
    ROLE_LOST = "ROLE_LOST"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """How long sessions last."""

    #: Without a refresh.
    idle: timedelta
    #: In all.
    longest: timedelta

    def expire_time(self, begin: datetime, now: datetime) -> datetime:
        """Return when a session that began at `begin` and is used `now` expires."""
        return min(now + self.idle, begin + self.longest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a sign-in began."""

    id: str
    user_id: str
    create_time: datetime
    expire_time: datetime
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken:
    """One token of a session's family."""

    #: When it was exchanged for its successor; None for the live one.
    rotate_time: datetime | None = None
    #: Its successor, which the token itself opens.
    sealed_successor: bytes | None = field(default=None, repr=False)
    #: Whether the successor was exchanged in its turn, so that the client must have received it.
    successor_rotated: bool = False


#: For this long a repeat is taken for the retry of a client that did not get the answer.
GRACE = timedelta(seconds=10)


class Exchange(Enum):
    """What presenting a refresh token comes to."""

    ROTATE = "ROTATE"
    #: Answer with the successor again.
    REPEAT = "REPEAT"
    #: Somebody else has or had the token too: end the session.
    REUSED = "REUSED"


def exchange(session: Session, token: RefreshToken, now: datetime) -> Exchange:
    """Judge a refresh token; raises RefreshTokenInvalid when its session is over anyway."""
    if session.ended or now >= session.expire_time:
        raise RefreshTokenInvalid
    if token.rotate_time is None:
        return Exchange.ROTATE
    if token.sealed_successor is None or token.successor_rotated or now >= token.rotate_time + GRACE:
        return Exchange.REUSED
    return Exchange.REPEAT


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key that access tokens are signed with from `use_time` until the next key's."""

    id: str
    public_key: bytes
    sealed_private_key: bytes = field(repr=False)
    use_time: datetime


#: A new key is known this long before it signs, when its time was missed while nothing ran.
_NOTICE = timedelta(hours=1)
#: A key is published this much longer than its tokens live, for clocks that differ.
_SKEW = timedelta(minutes=5)


def missing_use_times(keys: Sequence[SigningKey], now: datetime, rotation: timedelta) -> list[datetime]:
    """Return the times for new keys, so that one signs now and one stands ready to follow."""
    if not keys:
        return [now, now + rotation]
    latest = max(key.use_time for key in keys)
    return [max(latest + rotation, now + _NOTICE)] if latest <= now else []


def signing_key(keys: Iterable[SigningKey], now: datetime) -> SigningKey:
    """Return the key that signs now."""
    return max((key for key in keys if key.use_time <= now), key=lambda key: key.use_time)


def retired_keys(keys: Iterable[SigningKey], now: datetime, token_lifetime: timedelta) -> list[SigningKey]:
    """Return the keys none of whose tokens can still be valid."""
    ordered = sorted(keys, key=lambda key: key.use_time)
    return [key for key, following in pairwise(ordered) if following.use_time + token_lifetime + _SKEW <= now]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where, and to whom, a parcel goes."""

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
    place: Place = field(repr=False)
    is_default: bool = False
    version: int = 1
    create_time: datetime
    update_time: datetime


MOST_ADDRESSES = 50


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

    def listed(self) -> list[SavedAddress]:
        """Return the entries with the default first."""
        return sorted(self.entries, key=lambda entry: not entry.is_default)

    def added(self, entry: SavedAddress) -> "AddressBook":
        """Return the book with one more entry, the default if it is the first."""
        if len(self.entries) >= MOST_ADDRESSES:
            raise TooManyAddresses(limit=MOST_ADDRESSES)
        return AddressBook((*self.entries, replace(entry, is_default=not self.entries)))

    def edited(
        self, address_id: str, *, etag: str, now: datetime, label: str | None, place: Place | None
    ) -> "AddressBook":
        """Return the book with an entry edited; None leaves as it is."""
        before = self.entry(address_id)
        _compare(etag, before.version, "The address")
        label = before.label if label is None else label
        place = before.place if place is None else place
        return self._revised(now, lambda entry: replace(entry, label=label, place=place) if entry is before else entry)

    def removed(self, address_id: str, now: datetime) -> "AddressBook":
        """Return the book without an entry; the oldest that is left follows a default."""
        gone = self.entry(address_id)
        rest = AddressBook(tuple(entry for entry in self.entries if entry is not gone))
        return rest.with_default(rest.entries[0].id, now) if gone.is_default and rest.entries else rest

    def with_default(self, address_id: str, now: datetime) -> "AddressBook":
        """Return the book with another default."""
        chosen = self.entry(address_id)
        return self._revised(now, lambda entry: replace(entry, is_default=entry is chosen))

    def _revised(self, now: datetime, revise: Callable[[SavedAddress], SavedAddress]) -> "AddressBook":
        """Apply `revise` to every entry; those that it changes get a new version."""
        pairs = ((entry, revise(entry)) for entry in self.entries)
        return AddressBook(
            tuple(
                before if after == before else replace(after, version=before.version + 1, update_time=now)
                for before, after in pairs
            )
        )


def _compare(etag: str, version: int, resource: str) -> None:
    if etag and etag != str(version):
        raise VersionMismatch(resource=resource)
