"""Address books."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.user.v1.user_errors import AddressNotFound, TooManyAddresses, VersionMismatch
from svc_user.domain_addresses import MAX_ADDRESSES, AddressBook, PostalAddress, SavedAddress

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)

ADDRESS = PostalAddress(
    recipient="Ann",
    phone="",
    line1="1 Road",
    line2="",
    city="Bangkok",
    region="",
    postal_code="10110",
    country_code="TH",
)


def an_entry(address_id):
    return SavedAddress(id=address_id, label="home", address=ADDRESS, create_time=NOW, update_time=NOW)


def a_book(*ids):
    book = AddressBook()
    for address_id in ids:
        book = book.added(an_entry(address_id))
    return book


def defaults(book):
    return [entry.id for entry in book.entries if entry.is_default]


def test_the_first_address_becomes_the_default_and_later_ones_do_not():
    assert defaults(a_book("a", "b", "c")) == ["a"]


def test_a_new_default_replaces_the_old_and_both_get_a_new_version():
    book = a_book("a", "b", "c").with_default("b", NOW + DAY)
    assert defaults(book) == ["b"]
    assert [entry.version for entry in book.entries] == [2, 2, 1]


def test_the_oldest_remaining_entry_replaces_a_removed_default():
    assert defaults(a_book("a", "b", "c").with_default("c", NOW).removed("c", NOW)) == ["a"]
    assert defaults(a_book("a", "b").removed("b", NOW)) == ["a"]
    assert a_book("a").removed("a", NOW) == AddressBook()


def test_a_full_address_book_rejects_another_entry():
    full = a_book(*map(str, range(MAX_ADDRESSES)))
    with pytest.raises(TooManyAddresses) as error:
        full.added(an_entry("one-more"))
    assert error.value.metadata == {"limit": str(MAX_ADDRESSES)}


def test_an_edit_of_an_address_with_a_stale_etag_is_rejected():
    book = a_book("a").edited("a", etag="1", now=NOW, label="work", address=None)
    assert (book.entry("a").label, book.entry("a").address, book.entry("a").version) == ("work", ADDRESS, 2)
    with pytest.raises(VersionMismatch):
        book.edited("a", etag="1", now=NOW, label="home", address=None)


@pytest.mark.parametrize(
    "action",
    [
        lambda book: book.removed("x", NOW),
        lambda book: book.with_default("x", NOW),
        lambda book: book.edited("x", etag="", now=NOW, label="", address=None),
    ],
)
def test_an_address_of_another_book_is_not_found(action):
    with pytest.raises(AddressNotFound):
        action(a_book("a"))


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "default"]), st.integers(0, 9)), max_size=60))
def test_a_book_has_exactly_one_default_unless_it_is_empty(steps):
    book, created = AddressBook(), 0
    for action, number in steps:
        ids = [entry.id for entry in book.entries]
        if action == "add" and len(ids) < MAX_ADDRESSES:
            created += 1
            book = book.added(an_entry(str(created)))
        elif ids and action == "remove":
            book = book.removed(ids[number % len(ids)], NOW)
        elif ids and action == "default":
            book = book.with_default(ids[number % len(ids)], NOW)
        assert len(defaults(book)) == bool(book.entries)
