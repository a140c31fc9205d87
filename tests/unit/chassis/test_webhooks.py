"""Verification of webhooks, by the standard's example and by malformed variants of it."""

from datetime import UTC, datetime

import pytest

from chassis.external.webhooks import Untrusted, key_of, verify

# The example of the Standard Webhooks specification.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
THEN = datetime.fromtimestamp(1614265330, UTC)


def reason(headers=HEADERS, body=BODY, secrets=(SECRET,)):
    with pytest.raises(Untrusted) as rejected:
        verify(headers, body, secrets, THEN, read=dict)
    return rejected.value.reason


def test_the_example_of_the_standard_has_a_valid_signature_which_is_checked_before_the_body():
    assert reason() == "body_malformed"
    assert reason(body=BODY + b"\n") == "signature_mismatch"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("webhook-id", "", "id_missing"),
        ("webhook-id", "msg.1", "id_malformed"),
        ("webhook-id", "m" * 129, "id_malformed"),
        ("webhook-id", "msg\n", "id_malformed"),
        ("webhook-timestamp", "", "timestamp_missing"),
        ("webhook-timestamp", "-1614265330", "timestamp_malformed"),
        ("webhook-timestamp", "1614265330.0", "timestamp_malformed"),
        ("webhook-timestamp", "\u0660", "timestamp_malformed"),
        ("webhook-timestamp", "9" * 12, "timestamp_malformed"),
        ("webhook-timestamp", "99999999999", "timestamp_out_of_window"),
        ("webhook-timestamp", "1614265331", "signature_mismatch"),
        ("webhook-signature", "", "signature_mismatch"),
        ("webhook-signature", "v1,", "signature_mismatch"),
        ("webhook-signature", "v1,é", "signature_mismatch"),
        ("webhook-signature", HEADERS["webhook-signature"].replace("v1", "v2"), "signature_mismatch"),
        ("webhook-signature", " ".join(["v1,AAAA"] * 8 + [HEADERS["webhook-signature"]]), "signature_mismatch"),
    ],
)
def test_malformed_headers_are_rejected(name, value, expected):
    assert reason(HEADERS | {name: value}) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("webhook-id", "id_missing"),
        ("webhook-timestamp", "timestamp_missing"),
        ("webhook-signature", "signature_mismatch"),
    ],
)
def test_a_missing_header_is_rejected(name, expected):
    assert reason({other: value for other, value in HEADERS.items() if other != name}) == expected


def test_one_valid_signature_among_others_suffices():
    headers = HEADERS | {"webhook-signature": f"v1a,xx v1,AAAA {HEADERS['webhook-signature']}"}
    assert reason(headers) == "body_malformed"


@pytest.mark.parametrize(
    "secret", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_no base64", "whpk_" + "A" * 32, ""]
)
def test_a_malformed_secret_is_a_configuration_error_and_no_rejection(secret):
    with pytest.raises(ValueError, match="whsec_"):
        key_of(secret)
