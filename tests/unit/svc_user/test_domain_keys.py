"""The rotation of signing keys."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from svc_user import domain_keys
from svc_user.domain_keys import SigningKey

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
ROTATION = 30 * DAY
LIFETIME = timedelta(minutes=15)


def a_key(number, use_time):
    return SigningKey(id=f"k-{number}", public_key=b"", private_key_ciphertext=b"", use_time=use_time)


def test_without_keys_one_is_generated_for_now_and_one_for_the_next_rotation():
    assert domain_keys.missing_use_times([], NOW, ROTATION) == [NOW, NOW + ROTATION]


def test_the_next_key_is_generated_when_a_key_begins_to_sign():
    keys = [a_key(0, NOW), a_key(1, NOW + ROTATION)]
    assert domain_keys.missing_use_times(keys, NOW + ROTATION - SECOND, ROTATION) == []
    assert domain_keys.missing_use_times(keys, NOW + ROTATION, ROTATION) == [NOW + 2 * ROTATION]


def test_after_a_long_downtime_the_next_key_is_published_before_it_signs():
    keys = [a_key(0, NOW), a_key(1, NOW + ROTATION)]
    late = NOW + 100 * DAY
    (use_time,) = domain_keys.missing_use_times(keys, late, ROTATION)
    assert late < use_time < late + DAY


def test_the_active_key_is_the_latest_whose_use_time_has_passed():
    keys = [a_key(0, NOW), a_key(1, NOW + ROTATION)]
    assert domain_keys.active_key(keys, NOW).id == "k-0"
    assert domain_keys.active_key(keys, NOW + ROTATION - SECOND).id == "k-0"
    assert domain_keys.active_key(keys, NOW + ROTATION).id == "k-1"


@given(st.integers(0, 400), st.integers(0, 400))
def test_a_key_is_not_retired_before_its_last_token_has_expired(day_of_signing, hours_later):
    keys, now = [], NOW
    signed_at = NOW + day_of_signing * DAY
    while now < signed_at:
        now = min(now + DAY, signed_at)
        missing = domain_keys.missing_use_times(keys, now, ROTATION)
        keys += [a_key(len(keys) + n, time) for n, time in enumerate(missing)]
        retired = domain_keys.retired_keys(keys, now, LIFETIME)
        keys = [key for key in keys if key not in retired]
    if not keys:
        keys = [a_key(n, time) for n, time in enumerate(domain_keys.missing_use_times([], now, ROTATION))]
    signer = domain_keys.active_key(keys, signed_at)
    assert signer not in domain_keys.retired_keys(keys, signed_at + LIFETIME, LIFETIME)
    later = signed_at + LIFETIME + timedelta(hours=hours_later)
    assert domain_keys.active_key(keys, later) not in domain_keys.retired_keys(keys, later, LIFETIME)


def test_a_key_is_retired_some_time_after_the_next_key_began_to_sign():
    keys = [a_key(0, NOW), a_key(1, NOW + ROTATION), a_key(2, NOW + 2 * ROTATION)]
    assert domain_keys.retired_keys(keys, NOW + ROTATION + timedelta(hours=1), LIFETIME) == [keys[0]]
