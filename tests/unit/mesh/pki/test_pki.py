"""Certificates are short-lived, belong to one workload, and are replaced in time; keys are for their owner alone."""

import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mesh.pki import key_files
from mesh.pki.authority import ROOT_LIFETIME, Authority
from mesh.pki.key_files import PkiError
from mesh.pki.rotation import Rotation

ORDER = "spiffe://shop.test/ns/shop/sa/svc-order"
USER = "spiffe://shop.test/ns/shop/sa/svc-user"


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> Authority:
    return Authority.open(tmp_path / "pki", "shop.test", clock)


def certificate(identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.chain)


def roots(authority: Authority) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(authority.trust_bundle)


def test_a_certificate_has_one_spiffe_id_and_is_for_clients_and_servers(authority, clock):
    issued = certificate(authority.issue(ORDER, timedelta(hours=1)))
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [ORDER]
    assert len(names) == 1
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert issued.not_valid_after_utc == clock.now + timedelta(hours=1)
    issued.verify_directly_issued_by(roots(authority)[0])


def test_openssl_accepts_a_certificate_as_client_and_as_server(authority, tmp_path):
    (tmp_path / "roots.pem").write_bytes(authority.trust_bundle)
    (tmp_path / "order.pem").write_bytes(authority.issue(ORDER, timedelta(hours=1)).chain)
    for purpose in ("sslclient", "sslserver"):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "roots.pem", "order.pem"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_key_belongs_to_the_certificate_and_stays_out_of_logs(authority):
    identity = authority.issue(ORDER, timedelta(hours=1))
    assert load_pem_private_key(identity.key, None).public_key() == certificate(identity).public_key()
    assert "PRIVATE" not in repr(identity)
    assert ORDER in repr(identity)


def test_an_id_of_another_trust_domain_is_rejected(authority):
    for other in ("spiffe://shop.test.evil/ns/shop/sa/svc-order", "spiffe://cluster.local/ns/shop/sa/svc-order"):
        with pytest.raises(PkiError, match="not in the trust domain"):
            authority.issue(other, timedelta(hours=1))


def test_no_other_account_may_read_the_root_key_from_its_first_moment_on(authority, tmp_path, monkeypatch):
    modes = []
    replace = Path.replace

    def record(self, target):
        modes.append(stat.S_IMODE(self.stat().st_mode))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", record)
    Authority.open(tmp_path / "other", "shop.test")
    assert modes == [0o600]
    assert stat.S_IMODE((tmp_path / "other" / "root.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o700


@pytest.mark.parametrize("rights", [0o640, 0o604, 0o620])
def test_a_root_key_that_others_could_use_is_not_used(authority, tmp_path, rights):
    (tmp_path / "pki" / "root.pem").chmod(rights)
    with pytest.raises(PkiError, match="accessible to other accounts"):
        Authority.open(tmp_path / "pki", "shop.test")


@pytest.mark.parametrize("damage", [b"-----BEGIN PRIVATE KEY-----\n", b"", b"x"], ids=["cut", "empty", "text"])
def test_a_damaged_root_is_reported_and_not_replaced(authority, tmp_path, damage):
    key_files.write(tmp_path / "pki" / "root.pem", damage)
    with pytest.raises(PkiError, match="is damaged"):
        Authority.open(tmp_path / "pki", "shop.test")
    assert (tmp_path / "pki" / "root.pem").read_bytes() == damage


def test_the_root_is_the_same_after_a_restart(authority, tmp_path, clock):
    assert Authority.open(tmp_path / "pki", "shop.test", clock).trust_bundle == authority.trust_bundle


def test_another_trust_domain_has_a_root_of_its_own(authority, tmp_path, clock):
    other = Authority.open(tmp_path / "pki", "other.test", clock)
    assert set(roots(other)).isdisjoint(roots(authority))


def test_a_new_root_is_trusted_before_it_signs_and_the_old_one_until_it_expires(authority, clock):
    (old,) = roots(authority)
    clock.now += ROOT_LIFETIME - timedelta(days=29)
    assert authority.renew()
    assert not authority.renew()
    both = roots(authority)
    assert both[0] == old
    certificate(authority.issue(ORDER, timedelta(hours=1))).verify_directly_issued_by(old)
    clock.now += timedelta(days=20)
    certificate(authority.issue(ORDER, timedelta(hours=1))).verify_directly_issued_by(both[1])
    clock.now += timedelta(days=10)
    assert authority.renew()
    assert roots(authority) == both[1:]


def test_a_certificate_never_outlives_the_root_that_signs_it(authority):
    identity = authority.issue(ORDER, timedelta(days=4_000))
    assert identity.not_after == roots(authority)[0].not_valid_after_utc


def test_certificates_are_replaced_when_a_third_of_their_time_has_passed(authority, clock):
    rotation = Rotation(authority, [ORDER, USER], lifetime=timedelta(minutes=60), clock=clock)
    before = dict(rotation.identities)
    assert rotation.rotate() == set()
    assert rotation.seconds_until_due() == 20 * 60
    clock.now += timedelta(minutes=19)
    assert rotation.rotate() == set()
    clock.now += timedelta(minutes=1)
    assert rotation.seconds_until_due() == 0
    assert rotation.rotate() == {ORDER, USER}
    for name, identity in rotation.identities.items():
        assert identity.serial != before[name].serial
        assert identity.key != before[name].key
        assert identity.not_after == clock.now + timedelta(minutes=60)
