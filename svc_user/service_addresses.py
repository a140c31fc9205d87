"""The RPCs of address books. Each change locks the account, so that changes of one book come one after the other."""

import uuid
from functools import partial

from google.protobuf.empty_pb2 import Empty

from chassis import Context, Database, Transaction, current_time, current_user, transactional
from chassis.types.field_masks import updated_fields
from chassis.types.pagination import Keyset, parse_uint
from shop.chassis.v1.chassis_errors import InvalidRequest
from shop.user.v1 import address_service_pb2 as pb
from shop.user.v1.address_service_pb2_grpc import AddressServiceServicer
from svc_user import converters, store_addresses
from svc_user.current_account import current_account, requires_session
from svc_user.domain_addresses import PostalAddress

#: By rank, which is 0 for the default and 1 for the others, and position, which grows with each entry.
_ADDRESSES = Keyset(partial(parse_uint, maximum=1), parse_uint, start=(-1, 0))


class AddressService(AddressServiceServicer):
    """Manages the address book of the signed-in user."""

    def __init__(self, db: Database) -> None:
        """Keep address books in `db`."""
        self.db = db

    async def ListAddresses(self, request: pb.ListAddressesRequest, context: Context) -> pb.ListAddressesResponse:
        page = _ADDRESSES.page(request)
        async with self.db.connection() as tx:
            owner = await current_account(tx)
            rows = await store_addresses.list_addresses(tx, owner.id, after=page.after, limit=page.limit)
        rows, next_page_token = page.cut(rows, lambda row: (row["rank"], row["position"]))
        entries = map(store_addresses.address_from_row, rows)
        return pb.ListAddressesResponse(
            saved_addresses=map(converters.address_to_proto, entries), next_page_token=next_page_token
        )

    async def GetAddress(self, request: pb.GetAddressRequest, context: Context) -> pb.SavedAddress:
        async with self.db.connection() as tx:
            owner = await current_account(tx)
            return converters.address_to_proto(await store_addresses.read_address(tx, owner.id, request.address_id))

    @requires_session
    @transactional
    async def CreateAddress(self, request: pb.CreateAddressRequest, tx: Transaction) -> pb.SavedAddress:
        owner_id = current_user().id
        before = await store_addresses.lock_book(tx, owner_id)
        entry = converters.address_from_proto(uuid.uuid4().hex, request.saved_address, await current_time(tx))
        after = before.added(entry)
        await store_addresses.update_book(tx, owner_id, before, after)
        return converters.address_to_proto(after.entry(entry.id))

    async def UpdateAddress(self, request: pb.UpdateAddressRequest, context: Context) -> pb.SavedAddress:
        entry = request.saved_address
        fields = updated_fields(entry, request.update_mask)
        if "address" in fields and not entry.HasField("address"):
            raise InvalidRequest(field="saved_address.address", problem="cannot be removed")
        label = entry.label if "label" in fields else None
        address = converters.postal_address_from_proto(entry.address) if "address" in fields else None
        return await self._update(request, context, label, address)

    @requires_session
    @transactional
    async def DeleteAddress(self, request: pb.DeleteAddressRequest, tx: Transaction) -> Empty:
        owner_id = current_user().id
        before = await store_addresses.lock_book(tx, owner_id)
        after = before.removed(request.address_id, await current_time(tx))
        await store_addresses.update_book(tx, owner_id, before, after)
        return Empty()

    @requires_session
    @transactional
    async def SetDefaultAddress(self, request: pb.SetDefaultAddressRequest, tx: Transaction) -> pb.SavedAddress:
        owner_id = current_user().id
        before = await store_addresses.lock_book(tx, owner_id)
        after = before.with_default(request.address_id, await current_time(tx))
        await store_addresses.update_book(tx, owner_id, before, after)
        return converters.address_to_proto(after.entry(request.address_id))

    @requires_session
    @transactional
    async def _update(
        self, request: pb.UpdateAddressRequest, tx: Transaction, label: str | None, address: PostalAddress | None
    ) -> pb.SavedAddress:
        owner_id, address_id, etag = current_user().id, request.saved_address.address_id, request.saved_address.etag
        before = await store_addresses.lock_book(tx, owner_id)
        after = before.edited(address_id, etag=etag, now=await current_time(tx), label=label, address=address)
        await store_addresses.update_book(tx, owner_id, before, after)
        return converters.address_to_proto(after.entry(address_id))
