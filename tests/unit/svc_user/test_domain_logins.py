"""The throttle of logins."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.user.v1.user_errors import LoginThrottled
from svc_user.domain_logins import (
    FREE_ATTEMPTS,
    FREE_ATTEMPTS_BY_EMAIL,
    LONGEST_PAUSE,
    LoginClient,
    LoginThrottle,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


def test_an_unknown_client_is_counted_by_its_address_and_by_the_email_address():
    client = LoginClient.of("a@example.com", "192.0.2.1", "")
    assert client.limits(set()) == {
        client.by_address: FREE_ATTEMPTS,
        client.by_email: FREE_ATTEMPTS_BY_EMAIL,
    }


def test_an_unknown_device_is_counted_by_its_address():
    client = LoginClient.of("a@example.com", "192.0.2.1", "invented")
    assert set(client.limits(set())) == {client.by_address, client.by_email}


def test_a_known_address_is_counted_by_itself():
    client = LoginClient.of("a@example.com", "192.0.2.1", "")
    assert client.limits({client.by_address}) == {client.by_address: FREE_ATTEMPTS}


def test_a_known_device_is_not_counted_with_others_of_its_address():
    client = LoginClient.of("a@example.com", "192.0.2.1", "token")
    assert client.limits({client.by_address, client.by_device}) == {client.by_device: FREE_ATTEMPTS}


def test_a_client_of_one_email_address_is_no_client_of_another():
    one, other = (LoginClient.of(f"{name}@example.com", "192.0.2.1", "token") for name in "ab")
    assert not {*one.keys, one.by_email} & {*other.keys, other.by_email}


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
    with pytest.raises(LoginThrottled) as raised:
        throttle.attempted(NOW + 7 * SECOND)
    assert raised.value.retry_seconds == 1
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
