"""Converts the domain objects of svc_user to messages and events, and requests back."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

from chassis import timestamp
from shop.type.v1 import address_pb2
from shop.user.v1 import address_service_pb2 as address_pb
from shop.user.v1 import auth_service_pb2 as auth_pb
from shop.user.v1 import user_events_pb2 as events
from shop.user.v1 import user_service_pb2 as pb
from svc_user.domain import Account
from svc_user.domain_addresses import PostalAddress, SavedAddress


def account_to_proto(account: Account) -> pb.User:
    """Return a user."""
    return pb.User(
        user_id=account.id,
        email=account.email,
        display_name=account.display_name,
        phone=account.phone,
        roles=sorted(account.roles),
        etag=str(account.version),
        create_time=timestamp(account.create_time),
        update_time=timestamp(account.update_time),
    )


def address_to_proto(entry: SavedAddress) -> address_pb.SavedAddress:
    """Return an entry of an address book."""
    return address_pb.SavedAddress(
        address_id=entry.id,
        label=entry.label,
        address=address_pb2.Address(**asdict(entry.address)),
        is_default=entry.is_default,
        etag=str(entry.version),
        create_time=timestamp(entry.create_time),
        update_time=timestamp(entry.update_time),
    )


def address_from_proto(address_id: str, entry: address_pb.SavedAddress, now: datetime) -> SavedAddress:
    """Return the new entry of an address book that a request describes."""
    address = postal_address_from_proto(entry.address)
    return SavedAddress(id=address_id, label=entry.label, address=address, create_time=now, update_time=now)


def postal_address_from_proto(address: address_pb2.Address) -> PostalAddress:
    """Return a postal address."""
    return PostalAddress(
        recipient=address.recipient,
        phone=address.phone,
        line1=address.line1,
        line2=address.line2,
        city=address.city,
        region=address.region,
        postal_code=address.postal_code,
        country_code=address.country_code,
    )


def revocations_to_proto(expire_times: Mapping[str, datetime]) -> auth_pb.WatchRevocationsResponse:
    """Return ended sessions, with the time until which their access tokens are rejected."""
    return auth_pb.WatchRevocationsResponse(
        revocations=[
            auth_pb.Revocation(session_id=session_id, expire_time=timestamp(expire_time))
            for session_id, expire_time in expire_times.items()
        ]
    )


def user_registered_event(account: Account) -> events.UserRegistered:
    """Return the event that a user registered."""
    return events.UserRegistered(user_id=account.id, version=account.version, roles=sorted(account.roles))


def user_password_reset_requested_event(account: Account, expire_time: datetime) -> events.UserPasswordResetRequested:
    """Return the event that a code for a new password was made."""
    return events.UserPasswordResetRequested(user_id=account.id, expire_time=timestamp(expire_time))


def user_password_changed_event(account: Account) -> events.UserPasswordChanged:
    """Return the event that a password has changed."""
    return events.UserPasswordChanged(user_id=account.id)


def user_updated_event(before: Account, after: Account) -> events.UserUpdated:
    """Return the event that a user was updated: the names of the fields, without their values."""
    return events.UserUpdated(user_id=after.id, version=after.version, changed_fields=after.changed_fields(before))


def user_roles_changed_event(account: Account) -> events.UserRolesChanged:
    """Return the event that a user's roles changed."""
    return events.UserRolesChanged(user_id=account.id, version=account.version, roles=sorted(account.roles))
