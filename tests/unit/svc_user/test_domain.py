"""Accounts and the throttle of logins."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.user.v1.user_errors import LastAdmin, LoginThrottled, VersionMismatch
from svc_user import domain
from svc_user.domain import FREE_ATTEMPTS, LONGEST_PAUSE, Account, LoginThrottle

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


@pytest.mark.parametrize("written", ["Ann@Example.com", " ann@example.com ", "ANN@EXAMPLE.COM"])
def test_email_addresses_are_normalized(written):
    assert domain.normalize_email(written) == "ann@example.com"


def test_an_edit_increments_the_version_and_returns_the_changed_fields():
    before = an_account()
    after = before.edited(etag="1", now=NOW + DAY, display_name="Bea", phone=None)
    assert (after.display_name, after.version, after.update_time) == ("Bea", 2, NOW + DAY)
    assert after.changed_fields(before) == ["display_name"]


def test_an_edit_without_changes_returns_the_same_account():
    before = an_account()
    assert before.edited(etag="", now=NOW + DAY, display_name="Ann", phone=None) is before


def test_a_stale_etag_is_rejected_even_without_changes():
    with pytest.raises(VersionMismatch):
        an_account(version=2).edited(etag="1", now=NOW, display_name=None, phone=None)


def test_the_repr_of_an_account_has_neither_secrets_nor_personal_data():
    shown = repr(an_account(phone="+66 1"))
    assert not any(secret in shown for secret in ("argon2", "example.com", "Ann", "+66"))


def test_the_last_admin_keeps_the_role():
    admin = an_account(roles=frozenset({"admin"}))
    with pytest.raises(LastAdmin):
        admin.with_roles(["customer"], admins=["u-1"], now=NOW)
    assert admin.with_roles(["customer"], admins=["u-1", "u-2"], now=NOW).roles == {"customer"}


def test_setting_the_present_roles_returns_the_same_account():
    account = an_account()
    assert account.with_roles(["customer"], admins=[], now=NOW + DAY) is account


def test_the_pause_starts_after_ten_attempts_and_doubles_up_to_its_maximum():
    throttle, now, pauses = LoginThrottle(retry_time=NOW), NOW, []
    for _ in range(FREE_ATTEMPTS + 12):
        throttle = throttle.attempted(now)
        pauses.append(throttle.retry_time - now)
        now = throttle.retry_time
    assert pauses[: FREE_ATTEMPTS - 1] == [timedelta()] * (FREE_ATTEMPTS - 1)
    assert pauses[FREE_ATTEMPTS - 1 : FREE_ATTEMPTS + 3] == [1 * SECOND, 2 * SECOND, 4 * SECOND, 8 * SECOND]
    assert pauses[-1] == LONGEST_PAUSE


def test_an_attempt_during_the_pause_is_rejected_and_does_not_extend_it():
    throttle = LoginThrottle(failures=FREE_ATTEMPTS, retry_time=NOW + 8 * SECOND)
    with pytest.raises(LoginThrottled):
        throttle.attempted(NOW + 7 * SECOND)
    assert throttle.attempted(NOW + 8 * SECOND).failures == FREE_ATTEMPTS + 1


@given(st.lists(st.integers(0, 3600), max_size=200))
def test_at_any_timing_a_day_allows_fewer_than_150_guesses(gaps):
    throttle, now, guesses = LoginThrottle(retry_time=NOW), NOW, 0
    for gap in [*gaps, *[1] * 2000]:
        now += timedelta(seconds=gap)
        if now > NOW + DAY:
            break
        try:
            throttle = throttle.attempted(now)
        except LoginThrottled:
            now = throttle.retry_time  # the fastest guesser retries at the first moment allowed
            continue
        guesses += 1
    assert guesses < 150
