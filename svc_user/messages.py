"""Between the users' domain and their proto."""

from dataclasses import asdict

from chassis import timestamp
from shop.type.v1 import address_pb2
from shop.user.v1 import address_service_pb2 as address_pb
from shop.user.v1 import user_events_pb2 as events
from shop.user.v1 import user_service_pb2 as pb
from svc_user.domain import Account, Place, SavedAddress


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
        address=address_pb2.Address(**asdict(entry.place)),
        is_default=entry.is_default,
        etag=str(entry.version),
        create_time=timestamp(entry.create_time),
        update_time=timestamp(entry.update_time),
    )


def place_from_proto(address: address_pb2.Address) -> Place:
    """Return where a parcel goes."""
    return Place(
        recipient=address.recipient,
        phone=address.phone,
        line1=address.line1,
        line2=address.line2,
        city=address.city,
        region=address.region,
        postal_code=address.postal_code,
        country_code=address.country_code,
    )


def registered(account: Account) -> events.UserRegistered:
    """Return the event that a person has an account."""
    return events.UserRegistered(user_id=account.id, version=account.version, roles=sorted(account.roles))


def updated(before: Account, after: Account) -> events.UserUpdated:
    """Return the event that a user edited something; it says what, not to what."""
    return events.UserUpdated(user_id=after.id, version=after.version, changed_fields=after.changed_fields(before))


def roles_changed(account: Account) -> events.UserRolesChanged:
    """Return the event that a user has other roles."""
    return events.UserRolesChanged(user_id=account.id, version=account.version, roles=sorted(account.roles))
