"""Accounts."""

from datetime import UTC, datetime, timedelta

import pytest

from shop.user.v1.user_errors import LastAdmin, VersionMismatch
from svc_user import domain
from svc_user.domain import Account

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
