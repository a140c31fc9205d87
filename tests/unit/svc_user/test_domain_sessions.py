"""Sessions and their refresh tokens."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shop.user.v1.user_errors import RefreshTokenInvalid
from svc_user import domain_sessions
from svc_user.domain_sessions import GRACE_PERIOD, RefreshResult, RefreshToken, Session, SessionLimits

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


def a_session(**changes):
    fields = {"id": "s-1", "user_id": "u-1", "create_time": NOW, "expire_time": NOW + DAY}
    return Session(**{**fields, **changes})


LIVE = RefreshToken()
ROTATED = RefreshToken(rotate_time=NOW, successor_ciphertext=b"ciphertext")


@pytest.mark.parametrize(
    ("token", "now", "result"),
    [
        (LIVE, NOW, RefreshResult.ROTATE),
        (ROTATED, NOW + GRACE_PERIOD - SECOND, RefreshResult.REPEAT),
        (ROTATED, NOW - SECOND, RefreshResult.REPEAT),  # it waited for the lock that the rotation held
        (ROTATED, NOW + GRACE_PERIOD, RefreshResult.REUSED),
        (replace(ROTATED, successor_rotated=True), NOW + SECOND, RefreshResult.REUSED),
        (replace(ROTATED, successor_ciphertext=None), NOW + SECOND, RefreshResult.REUSED),
    ],
)
def test_the_result_of_a_refresh_token_follows_from_its_age_and_its_successor(token, now, result):
    assert domain_sessions.refresh(a_session(), token, now) is result


@pytest.mark.parametrize("token", [LIVE, ROTATED])
@pytest.mark.parametrize("session", [a_session(ended=True), a_session(expire_time=NOW)])
def test_a_token_of_an_ended_or_expired_session_is_invalid(session, token):
    with pytest.raises(RefreshTokenInvalid):
        domain_sessions.refresh(session, token, NOW)


def test_a_refresh_extends_a_session_up_to_its_longest_time():
    limits = SessionLimits(idle=2 * DAY, longest=3 * DAY)
    assert limits.expire_time(NOW, NOW) == NOW + 2 * DAY
    assert limits.expire_time(NOW, NOW + 2 * DAY) == NOW + 3 * DAY
