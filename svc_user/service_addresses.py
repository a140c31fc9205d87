"""The RPCs of address books. A book changes under the lock of its account, so that changes come one after the other."""

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from chassis import Context, Database, Transaction, idempotent
from chassis.types.field_masks import updated_fields
from chassis.types.pagination import int_position, page_size, page_token
from shop.chassis.v1.chassis_errors import InvalidRequest
from shop.user.v1 import address_service_pb2 as pb
from shop.user.v1.address_service_pb2_grpc import AddressServiceServicer
from svc_user import messages, store
from svc_user.domain import AddressBook, SavedAddress
from svc_user.signed_in import signed_in

Reply = TypeVar("Reply", bound=Message)


class AddressService(AddressServiceServicer):
    """Manages the address book of the signed-in user."""

    def __init__(self, db: Database) -> None:
        """Keep them in `db`."""
        self.db = db

    async def ListAddresses(self, request: pb.ListAddressesRequest, context: Context) -> pb.ListAddressesResponse:
        async with self.db.connection() as tx:
            entries = (await store.read_book(tx, (await signed_in(tx)).id)).listed()
        start, size = int_position(request.page_token, 0), page_size(request.page_size)
        return pb.ListAddressesResponse(
            saved_addresses=[messages.address_to_proto(entry) for entry in entries[start : start + size]],
            next_page_token=page_token(start + size) if len(entries) > start + size else "",
        )

    async def GetAddress(self, request: pb.GetAddressRequest, context: Context) -> pb.SavedAddress:
        async with self.db.connection() as tx:
            book = await store.read_book(tx, (await signed_in(tx)).id)
        return messages.address_to_proto(book.entry(request.address_id))

    async def CreateAddress(self, request: pb.CreateAddressRequest, context: Context) -> pb.SavedAddress:
        address_id = uuid.uuid4().hex
        asked = request.saved_address

        def add(book: AddressBook, now: datetime) -> AddressBook:
            place = messages.place_from_proto(asked.address)
            entry = SavedAddress(id=address_id, label=asked.label, place=place, create_time=now, update_time=now)
            return book.added(entry)

        return await self._change(
            request, pb.SavedAddress, add, lambda book: messages.address_to_proto(book.entry(address_id))
        )

    async def UpdateAddress(self, request: pb.UpdateAddressRequest, context: Context) -> pb.SavedAddress:
        asked = request.saved_address
        fields = updated_fields(asked, request.update_mask)
        if "address" in fields and not asked.HasField("address"):
            raise InvalidRequest(field="saved_address.address", problem="cannot be removed")
        label = asked.label if "label" in fields else None
        place = messages.place_from_proto(asked.address) if "address" in fields else None
        return await self._change(
            request,
            pb.SavedAddress,
            lambda book, now: book.edited(asked.address_id, etag=asked.etag, now=now, label=label, place=place),
            lambda book: messages.address_to_proto(book.entry(asked.address_id)),
        )

    async def DeleteAddress(self, request: pb.DeleteAddressRequest, context: Context) -> Empty:
        return await self._change(
            request, Empty, lambda book, now: book.removed(request.address_id, now), lambda _: Empty()
        )

    async def SetDefaultAddress(self, request: pb.SetDefaultAddressRequest, context: Context) -> pb.SavedAddress:
        return await self._change(
            request,
            pb.SavedAddress,
            lambda book, now: book.with_default(request.address_id, now),
            lambda book: messages.address_to_proto(book.entry(request.address_id)),
        )

    async def _change(
        self,
        request: Message,
        reply: type[Reply],
        decide: Callable[[AddressBook, datetime], AddressBook],
        answer: Callable[[AddressBook], Reply],
    ) -> Reply:
        """Change the caller's book once, as `decide` says."""
        async with self.db.connection() as connection:
            owner = await signed_in(connection)

        async def change(tx: Transaction) -> Reply:
            await store.lock_account(tx, owner.id)
            before = await store.read_book(tx, owner.id)
            after = decide(before, await store.read_now(tx))
            await store.update_book(tx, owner.id, before, after)
            return answer(after)

        return await idempotent(self.db, request, reply, change)
