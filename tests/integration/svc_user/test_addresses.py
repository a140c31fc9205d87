"""The RPCs of AddressService."""

import asyncio

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chassis.types.pagination import page_token
from shop.chassis.v1.chassis_errors import InvalidRequest, PageTokenInvalid, TokenInvalid
from shop.type.v1.address_pb2 import Address
from shop.user.v1 import address_service_pb2 as address_pb
from shop.user.v1 import auth_service_pb2 as auth_pb
from shop.user.v1.user_errors import AddressNotFound, TooManyAddresses, VersionMismatch
from svc_user.domain_addresses import MAX_ADDRESSES
from tests.integration.svc_user.people import a_request_id, an_email, bearing, login, register


def an_address(**changes):
    fields = {"recipient": "Ann", "line1": "1 Road", "city": "Bangkok", "postal_code": "10110", "country_code": "TH"}
    return Address(**{**fields, **changes})


def create(label="home", request_id=None, **changes):
    return address_pb.CreateAddressRequest(
        saved_address=address_pb.SavedAddress(label=label, address=an_address(**changes)),
        request_id=request_id or a_request_id(),
    )


def edit(address_id, *paths, **fields):
    return address_pb.UpdateAddressRequest(
        saved_address=address_pb.SavedAddress(address_id=address_id, **fields),
        update_mask=FieldMask(paths=paths),
        request_id=a_request_id(),
    )


def delete(address_id):
    return address_pb.DeleteAddressRequest(address_id=address_id, request_id=a_request_id())


def choose(address_id):
    return address_pb.SetDefaultAddressRequest(address_id=address_id, request_id=a_request_id())


@pytest.fixture
def book(users, ann):
    """Calls the service as a customer who has logged in."""
    with bearing(ann[1]):
        yield users


async def labels(users):
    listed = (await users.addresses.ListAddresses(address_pb.ListAddressesRequest())).saved_addresses
    return [entry.label + "*" * entry.is_default for entry in listed]


async def test_the_first_address_is_the_default_and_the_default_is_listed_first(book):
    home = await book.addresses.CreateAddress(create("home"))
    work = await book.addresses.CreateAddress(create("work"))
    assert (home.is_default, work.is_default) == (True, False)
    assert await labels(book) == ["home*", "work"]
    assert (await book.addresses.SetDefaultAddress(choose(work.address_id))).is_default
    assert await labels(book) == ["work*", "home"]
    assert await book.addresses.GetAddress(address_pb.GetAddressRequest(address_id=home.address_id)) != home


async def test_get_returns_an_address_as_it_was_created(book):
    given = an_address(phone="+66 1", line2="2nd floor", region="BKK")
    created = await book.addresses.CreateAddress(
        address_pb.CreateAddressRequest(saved_address={"address": given}, request_id=a_request_id())
    )
    assert created.address == given
    assert await book.addresses.GetAddress(address_pb.GetAddressRequest(address_id=created.address_id)) == created


async def test_the_oldest_remaining_address_replaces_a_deleted_default(book):
    home = await book.addresses.CreateAddress(create("home"))
    await book.addresses.CreateAddress(create("work"))
    await book.addresses.CreateAddress(create("mother"))
    await book.addresses.DeleteAddress(delete(home.address_id))
    assert await labels(book) == ["work*", "mother"]
    with pytest.raises(AddressNotFound):
        await book.addresses.DeleteAddress(delete(home.address_id))


async def test_an_update_with_a_mask_replaces_the_named_fields_of_an_address(book):
    home = await book.addresses.CreateAddress(create("home"))
    moved = await book.addresses.UpdateAddress(
        edit(home.address_id, "address", label="ignored", address=an_address(city="Chiang Mai"))
    )
    assert (moved.label, moved.address.city, moved.etag) == ("home", "Chiang Mai", "2")
    renamed = await book.addresses.UpdateAddress(edit(home.address_id, label="nest", etag="2"))
    assert (renamed.label, renamed.address.city) == ("nest", "Chiang Mai")
    with pytest.raises(VersionMismatch):
        await book.addresses.UpdateAddress(edit(home.address_id, "label", label="x", etag="2"))


async def test_an_update_to_an_invalid_or_missing_postal_address_is_rejected(book):
    home = await book.addresses.CreateAddress(create("home"))
    with pytest.raises(InvalidRequest) as error:
        await book.addresses.UpdateAddress(edit(home.address_id, "address"))
    assert error.value.metadata["field"] == "saved_address.address"
    with pytest.raises(InvalidRequest):
        await book.addresses.UpdateAddress(
            edit(home.address_id, "address", address=an_address(country_code="Thailand"))
        )
    with pytest.raises(InvalidRequest):
        await book.addresses.UpdateAddress(edit(home.address_id, "is_default", is_default=True))


async def test_an_address_of_another_user_is_not_found(users, ann):
    with bearing(ann[1]):
        home = await users.addresses.CreateAddress(create("home"))
    email = an_email()
    await register(users, email)
    attempts = (
        lambda address_id: users.addresses.GetAddress(address_pb.GetAddressRequest(address_id=address_id)),
        lambda address_id: users.addresses.UpdateAddress(edit(address_id, "label", label="mine")),
        lambda address_id: users.addresses.DeleteAddress(delete(address_id)),
        lambda address_id: users.addresses.SetDefaultAddress(choose(address_id)),
    )
    with bearing(await login(users, email)):
        await users.addresses.CreateAddress(create("own"))
        for attempt in attempts:
            for address_id in (home.address_id, "absent"):
                with pytest.raises(AddressNotFound) as error:
                    await attempt(address_id)
                assert error.value.metadata == {"address_id": address_id}
        assert await labels(users) == ["own*"]
    with bearing(ann[1]):
        assert await users.addresses.GetAddress(address_pb.GetAddressRequest(address_id=home.address_id)) == home


async def test_a_creation_with_a_repeated_request_id_creates_one_address(book):
    first = await book.addresses.CreateAddress(create("home", request_id="k-1"))
    assert await book.addresses.CreateAddress(create("home", request_id="k-1")) == first
    assert await labels(book) == ["home*"]


async def test_concurrent_creations_have_one_default_and_respect_the_limit(book, rows):
    async def attempt(number):
        try:
            await book.addresses.CreateAddress(create(str(number)))
        except TooManyAddresses:
            return False
        return True

    created = await asyncio.gather(*map(attempt, range(MAX_ADDRESSES + 10)))
    assert created.count(True) == MAX_ADDRESSES
    assert len(await rows("SELECT 1 FROM address WHERE is_default")) == 1


async def test_concurrent_changes_and_deletions_of_the_default_leave_exactly_one(book, rows):
    ids = [(await book.addresses.CreateAddress(create(str(number)))).address_id for number in range(8)]
    await asyncio.gather(
        *(book.addresses.SetDefaultAddress(choose(address_id)) for address_id in ids[4:]),
        *(book.addresses.DeleteAddress(delete(address_id)) for address_id in ids[:4]),
    )
    assert len(await rows("SELECT 1 FROM address")) == 4
    assert len(await rows("SELECT 1 FROM address WHERE is_default")) == 1


async def test_the_book_is_listed_page_by_page_with_the_default_first(book):
    ids = [(await book.addresses.CreateAddress(create(str(number)))).address_id for number in range(5)]
    await book.addresses.SetDefaultAddress(choose(ids[3]))
    listed, token = [], None
    while token != "":
        request = address_pb.ListAddressesRequest(page_size=2, page_token=token or "")
        page = await book.addresses.ListAddresses(request)
        listed.append([entry.label for entry in page.saved_addresses])
        token = page.next_page_token
    assert listed == [["3", "0"], ["1", "2"], ["4"]]


async def test_changes_between_two_pages_neither_repeat_nor_skip_other_addresses(book):
    for number in range(3):
        await book.addresses.CreateAddress(create(str(number)))
    first = await book.addresses.ListAddresses(address_pb.ListAddressesRequest(page_size=2))
    await book.addresses.DeleteAddress(delete(first.saved_addresses[1].address_id))
    await book.addresses.CreateAddress(create("new"))
    request = address_pb.ListAddressesRequest(page_size=2, page_token=first.next_page_token)
    rest = await book.addresses.ListAddresses(request)
    assert [entry.label for entry in rest.saved_addresses] == ["2", "new"]


@pytest.mark.parametrize("key", [("2", "1"), ("0", "-1"), ("0", "x"), ("0",), ("0", "9" * 30)])
async def test_a_forged_page_token_is_rejected(book, key):
    with pytest.raises(PageTokenInvalid):
        await book.addresses.ListAddresses(address_pb.ListAddressesRequest(page_token=page_token(*key)))


async def test_every_method_is_rejected_after_the_end_of_the_session(book):
    home = await book.addresses.CreateAddress(create("home"))
    await book.auth.Logout(auth_pb.LogoutRequest())
    for call in (
        lambda: book.addresses.ListAddresses(address_pb.ListAddressesRequest()),
        lambda: book.addresses.GetAddress(address_pb.GetAddressRequest(address_id=home.address_id)),
        lambda: book.addresses.CreateAddress(create("work")),
        lambda: book.addresses.UpdateAddress(edit(home.address_id, "label", label="nest")),
        lambda: book.addresses.SetDefaultAddress(choose(home.address_id)),
        lambda: book.addresses.DeleteAddress(delete(home.address_id)),
    ):
        with pytest.raises(TokenInvalid):
            await call()


async def test_a_request_rejected_for_its_ended_session_succeeds_with_the_same_request_id_after_a_login(users, ann):
    email, tokens = ann
    with bearing(tokens):
        await users.auth.Logout(auth_pb.LogoutRequest())
        with pytest.raises(TokenInvalid):
            await users.addresses.CreateAddress(create("home", request_id="k-1"))
    with bearing(await login(users, email)):
        await users.addresses.CreateAddress(create("home", request_id="k-1"))
        assert await labels(users) == ["home*"]


async def test_a_repeated_request_is_rejected_after_the_end_of_the_session(book):
    await book.addresses.CreateAddress(create("home", request_id="k-1"))
    await book.auth.Logout(auth_pb.LogoutRequest())
    with pytest.raises(TokenInvalid):
        await book.addresses.CreateAddress(create("home", request_id="k-1"))
