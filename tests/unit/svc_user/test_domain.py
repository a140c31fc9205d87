"""The rules of accounts, sign-in, sessions, signing keys and address books, without any I/O."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.user.v1.user_errors import (
    AddressNotFound,
    LastAdmin,
    LoginThrottled,
    RefreshTokenInvalid,
    TooManyAddresses,
    VersionMismatch,
)
from svc_user import domain
from svc_user.domain import (
    FREE_ATTEMPTS,
    GRACE,
    LONGEST_PAUSE,
    Account,
    AddressBook,
    Exchange,
    Place,
    RefreshToken,
    SavedAddress,
    Session,
    SessionLimits,
    SigningKey,
    Throttle,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


def an_account(**changes):
    fields = {
        "id": "u-1",
        "email": "a@example.com",
        "password_hash": "$argon2id$",
        "registration_id": "r-1",
        "display_name": "Ann",
        "create_time": NOW,
        "update_time": NOW,
    }
    return Account(**{**fields, **changes})


def a_session(**changes):
    fields = {"id": "s-1", "user_id": "u-1", "create_time": NOW, "expire_time": NOW + DAY}
    return Session(**{**fields, **changes})


def a_key(number, use_time):
    return SigningKey(id=f"k-{number}", public_key=b"", sealed_private_key=b"", use_time=use_time)


PLACE = Place(
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
    return SavedAddress(id=address_id, label="home", place=PLACE, create_time=NOW, update_time=NOW)


def a_book(*ids):
    book = AddressBook()
    for address_id in ids:
        book = book.added(an_entry(address_id))
    return book


def defaults(book):
    return [entry.id for entry in book.entries if entry.is_default]


@pytest.mark.parametrize("written", ["Ann@Example.com", " ann@example.com ", "ANN@EXAMPLE.COM"])
def test_an_email_address_has_one_spelling(written):
    assert domain.normalised(written) == "ann@example.com"


def test_editing_raises_the_version_and_tells_what_changed():
    before = an_account()
    after = before.edited(etag="1", now=NOW + DAY, display_name="Bea", phone=None)
    assert (after.display_name, after.version, after.update_time) == ("Bea", 2, NOW + DAY)
    assert after.changed_fields(before) == ["display_name"]


def test_editing_that_changes_nothing_keeps_the_version():
    before = an_account()
    assert before.edited(etag="", now=NOW + DAY, display_name="Ann", phone=None) is before


def test_a_stale_etag_is_refused_even_where_nothing_would_change():
    with pytest.raises(VersionMismatch):
        an_account(version=2).edited(etag="1", now=NOW, display_name=None, phone=None)


def test_an_account_shows_no_secret_and_no_person_in_its_repr():
    shown = repr(an_account(phone="+66 1"))
    assert not any(secret in shown for secret in ("argon2", "example.com", "Ann", "+66"))


def test_the_last_admin_keeps_the_role():
    admin = an_account(roles=frozenset({"admin"}))
    with pytest.raises(LastAdmin):
        admin.with_roles(["customer"], admins=["u-1"], now=NOW)
    assert admin.with_roles(["customer"], admins=["u-1", "u-2"], now=NOW).roles == {"customer"}


def test_setting_the_roles_that_are_there_changes_nothing():
    account = an_account()
    assert account.with_roles(["customer"], admins=[], now=NOW + DAY) is account


def test_ten_attempts_are_free_and_then_each_waits_twice_as_long_as_the_one_before():
    throttle, now, pauses = Throttle(retry_time=NOW), NOW, []
    for _ in range(FREE_ATTEMPTS + 12):
        throttle = throttle.counted(now)
        pauses.append(throttle.retry_time - now)
        now = throttle.retry_time
    assert pauses[: FREE_ATTEMPTS - 1] == [timedelta()] * (FREE_ATTEMPTS - 1)
    assert pauses[FREE_ATTEMPTS - 1 : FREE_ATTEMPTS + 3] == [1 * SECOND, 2 * SECOND, 4 * SECOND, 8 * SECOND]
    assert pauses[-1] == LONGEST_PAUSE


def test_an_attempt_in_the_pause_is_refused_and_does_not_prolong_it():
    throttle = Throttle(failures=FREE_ATTEMPTS, retry_time=NOW + 8 * SECOND)
    with pytest.raises(LoginThrottled):
        throttle.counted(NOW + 7 * SECOND)
    assert throttle.counted(NOW + 8 * SECOND).failures == FREE_ATTEMPTS + 1


@given(st.lists(st.integers(0, 3600), max_size=200))
def test_whatever_the_timing_a_day_of_guessing_stays_under_a_hundred_and_fifty(gaps):
    throttle, now, guesses = Throttle(retry_time=NOW), NOW, 0
    for gap in [*gaps, *[1] * 2000]:
        now += timedelta(seconds=gap)
        if now > NOW + DAY:
            break
        try:
            throttle = throttle.counted(now)
        except LoginThrottled:
            now = throttle.retry_time  # the most patient guesser comes back at the first moment
            continue
        guesses += 1
    assert guesses < 150


LIVE = RefreshToken()
ROTATED = RefreshToken(rotate_time=NOW, sealed_successor=b"box")


@pytest.mark.parametrize(
    ("token", "now", "verdict"),
    [
        (LIVE, NOW, Exchange.ROTATE),
        (ROTATED, NOW + GRACE - SECOND, Exchange.REPEAT),
        (ROTATED, NOW - SECOND, Exchange.REPEAT),  # it waited for the lock that the rotation held
        (ROTATED, NOW + GRACE, Exchange.REUSED),
        (replace(ROTATED, successor_rotated=True), NOW + SECOND, Exchange.REUSED),
        (replace(ROTATED, sealed_successor=None), NOW + SECOND, Exchange.REUSED),
    ],
)
def test_what_a_refresh_token_comes_to(token, now, verdict):
    assert domain.exchange(a_session(), token, now) is verdict


@pytest.mark.parametrize("token", [LIVE, ROTATED])
@pytest.mark.parametrize("session", [a_session(ended=True), a_session(expire_time=NOW)])
def test_no_token_of_a_session_that_is_over_is_worth_anything(session, token):
    with pytest.raises(RefreshTokenInvalid):
        domain.exchange(session, token, NOW)


def test_a_session_is_prolonged_by_use_up_to_its_longest_time():
    limits = SessionLimits(idle=2 * DAY, longest=3 * DAY)
    assert limits.expire_time(NOW, NOW) == NOW + 2 * DAY
    assert limits.expire_time(NOW, NOW + 2 * DAY) == NOW + 3 * DAY


ROTATION = 30 * DAY
LIFETIME = timedelta(minutes=15)


def test_at_first_there_is_a_key_for_now_and_one_to_follow():
    assert domain.missing_use_times([], NOW, ROTATION) == [NOW, NOW + ROTATION]


def test_when_a_key_begins_to_sign_its_follower_is_made():
    keys = [a_key(0, NOW), a_key(1, NOW + ROTATION)]
    assert domain.missing_use_times(keys, NOW + ROTATION - SECOND, ROTATION) == []
    assert domain.missing_use_times(keys, NOW + ROTATION, ROTATION) == [NOW + 2 * ROTATION]


def test_after_a_long_stop_the_next_key_is_known_before_it_signs():
    keys = [a_key(0, NOW), a_key(1, NOW + ROTATION)]
    late = NOW + 100 * DAY
    (use_time,) = domain.missing_use_times(keys, late, ROTATION)
    assert late < use_time < late + DAY


def test_the_key_that_signs_is_the_last_whose_time_has_come():
    keys = [a_key(0, NOW), a_key(1, NOW + ROTATION)]
    assert domain.signing_key(keys, NOW).id == "k-0"
    assert domain.signing_key(keys, NOW + ROTATION - SECOND).id == "k-0"
    assert domain.signing_key(keys, NOW + ROTATION).id == "k-1"


@given(st.integers(0, 400), st.integers(0, 400))
def test_a_key_that_signed_is_published_until_its_last_token_has_expired(day_of_signing, hours_later):
    keys, now = [], NOW
    signed_at = NOW + day_of_signing * DAY
    while now < signed_at:
        now = min(now + DAY, signed_at)
        keys += [a_key(len(keys) + n, time) for n, time in enumerate(domain.missing_use_times(keys, now, ROTATION))]
        gone = domain.retired_keys(keys, now, LIFETIME)
        keys = [key for key in keys if key not in gone]
    if not keys:
        keys = [a_key(n, time) for n, time in enumerate(domain.missing_use_times([], now, ROTATION))]
    signer = domain.signing_key(keys, signed_at)
    assert signer not in domain.retired_keys(keys, signed_at + LIFETIME, LIFETIME)
    later = signed_at + LIFETIME + timedelta(hours=hours_later)
    assert domain.signing_key(keys, later) not in domain.retired_keys(keys, later, LIFETIME)


def test_a_key_is_retired_some_time_after_the_next_began():
    keys = [a_key(0, NOW), a_key(1, NOW + ROTATION), a_key(2, NOW + 2 * ROTATION)]
    assert domain.retired_keys(keys, NOW + ROTATION + timedelta(hours=1), LIFETIME) == [keys[0]]


def test_the_first_address_becomes_the_default_and_later_ones_do_not():
    assert defaults(a_book("a", "b", "c")) == ["a"]


def test_another_default_takes_the_place_of_the_old_and_both_have_a_new_version():
    book = a_book("a", "b", "c").with_default("b", NOW + DAY)
    assert defaults(book) == ["b"]
    assert [entry.version for entry in book.entries] == [2, 2, 1]


def test_the_oldest_that_is_left_follows_a_default_that_is_removed():
    assert defaults(a_book("a", "b", "c").with_default("c", NOW).removed("c", NOW)) == ["a"]
    assert defaults(a_book("a", "b").removed("b", NOW)) == ["a"]
    assert a_book("a").removed("a", NOW) == AddressBook()


def test_the_default_is_listed_first_and_the_others_by_age():
    assert [entry.id for entry in a_book("a", "b", "c").with_default("b", NOW).listed()] == ["b", "a", "c"]


def test_an_address_book_has_its_limit():
    full = a_book(*map(str, range(domain.MOST_ADDRESSES)))
    with pytest.raises(TooManyAddresses) as refusal:
        full.added(an_entry("one-more"))
    assert refusal.value.metadata == {"limit": str(domain.MOST_ADDRESSES)}


def test_editing_an_address_compares_its_etag():
    book = a_book("a").edited("a", etag="1", now=NOW, label="work", place=None)
    assert (book.entry("a").label, book.entry("a").place, book.entry("a").version) == ("work", PLACE, 2)
    with pytest.raises(VersionMismatch):
        book.edited("a", etag="1", now=NOW, label="home", place=None)


@pytest.mark.parametrize(
    "action",
    [
        lambda book: book.removed("x", NOW),
        lambda book: book.with_default("x", NOW),
        lambda book: book.edited("x", etag="", now=NOW, label="", place=None),
    ],
)
def test_an_address_that_is_not_in_the_book_is_not_found(action):
    with pytest.raises(AddressNotFound):
        action(a_book("a"))


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "default"]), st.integers(0, 9)), max_size=60))
def test_a_book_has_exactly_one_default_unless_it_is_empty(steps):
    book, made = AddressBook(), 0
    for action, number in steps:
        ids = [entry.id for entry in book.entries]
        if action == "add" and len(ids) < domain.MOST_ADDRESSES:
            made += 1
            book = book.added(an_entry(str(made)))
        elif ids and action == "remove":
            book = book.removed(ids[number % len(ids)], NOW)
        elif ids and action == "default":
            book = book.with_default(ids[number % len(ids)], NOW)
        assert len(defaults(book)) == bool(book.entries)
