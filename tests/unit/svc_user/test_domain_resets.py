from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shop.user.v1.user_errors import PasswordResetInvalid
from svc_user.domain_resets import TRIES, VALIDITY, PasswordReset, accepts_request, normalize_code, redeem

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RESET = PasswordReset(
    requests=1, request_time=NOW, user_id="ann", code_digest=b"code", expire_time=NOW + VALIDITY, tries=1
)


def test_a_code_is_valid_until_it_expires_and_for_few_tries():
    assert redeem(replace(RESET, tries=TRIES), b"code", NOW + VALIDITY - timedelta(seconds=1)) == "ann"


@pytest.mark.parametrize(
    ("reset", "code", "after"),
    [
        (RESET, b"other", timedelta()),
        (RESET, b"code", VALIDITY),
        (replace(RESET, tries=TRIES + 1), b"code", timedelta()),
        (PasswordReset(requests=1, request_time=NOW), b"code", timedelta()),
        (None, b"code", timedelta()),
    ],
)
def test_any_other_code_is_not_valid_for_the_same_reason(reset, code, after):
    with pytest.raises(PasswordResetInvalid):
        redeem(reset, code, NOW + after)


def test_the_pause_between_two_messages_doubles_to_fifteen_minutes():
    assert accepts_request(None, NOW)
    for requests, minutes in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 15), (50, 15)):
        before = replace(RESET, requests=requests)
        assert accepts_request(before, NOW + timedelta(minutes=minutes))
        assert not accepts_request(before, NOW + timedelta(minutes=minutes, seconds=-1))


def test_a_code_is_recognised_however_it_is_typed():
    assert normalize_code("ab2c-d3ef") == normalize_code("AB2C D3EF") == "AB2CD3EF"
