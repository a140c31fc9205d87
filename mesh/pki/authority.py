"""The local certificate authority: a root in a folder of its own, renewed before it expires."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.pki import key_files
from mesh.pki.certificates import Identity, PrivateKey, key_pem, new_key, pem, root_certificate, workload_identity
from mesh.pki.key_files import PkiError

ROOT_LIFETIME = timedelta(days=365)
#: A new root is trusted so long before the old one expires, and signs later, when every proxy trusts it.
_RENEWAL = timedelta(days=30)
_NEXT_SIGNS = timedelta(days=15)
_ROOT = "root.pem"
_BEGIN = b"-----BEGIN PRIVATE KEY-----"

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Root:
    certificate: x509.Certificate
    key: PrivateKey

    def pem(self) -> bytes:
        return key_pem(self.key) + pem(self.certificate)


class Authority:
    """Signs certificates for workloads of one trust domain."""

    def __init__(self, folder: Path, trust_domain: str, roots: list[_Root], clock: Clock) -> None:
        """`roots` are the trusted ones, the oldest first."""
        self._folder = folder
        self._trust_domain = trust_domain
        self._roots = roots
        self._clock = clock

    @classmethod
    def open(cls, folder: Path, trust_domain: str, clock: Clock = utc_now) -> Self:
        """Return the authority whose root is in the folder; make one when there is none. Raises PkiError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / _ROOT
        roots = _parsed(path, key_files.read(path)) if path.exists() else []
        authority = cls(folder, trust_domain, [one for one in roots if _trust_domain(one) == trust_domain], clock)
        authority.renew()
        return authority

    @property
    def trust_bundle(self) -> bytes:
        """The roots that peers accept, as PEM."""
        return b"".join(pem(root.certificate) for root in self._roots)

    def renew(self) -> bool:
        """Make a new root when the newest expires soon, and drop expired ones; return whether the bundle changed."""
        now = self._clock()
        roots = [root for root in self._roots if root.certificate.not_valid_after_utc > now]
        if not roots or roots[-1].certificate.not_valid_after_utc - now < _RENEWAL:
            key = new_key()
            roots.append(_Root(root_certificate(key, self._trust_domain, now, ROOT_LIFETIME), key))
        if roots == self._roots:
            return False
        self._roots = roots
        key_files.write(self._folder / _ROOT, b"".join(root.pem() for root in roots))
        return True

    def issue(self, spiffe_id: str, lifetime: timedelta) -> Identity:
        """Return a new key and certificate for the workload. Raises PkiError for an id of another trust domain."""
        if not spiffe_id.startswith(f"spiffe://{self._trust_domain}/"):
            raise PkiError(f"{spiffe_id} is not in the trust domain {self._trust_domain}")
        now = self._clock()
        lasting = (one for one in self._roots if one.certificate.not_valid_after_utc - now > _NEXT_SIGNS)
        root = next(lasting, self._roots[-1])
        return workload_identity(spiffe_id, root.certificate, root.key, now, lifetime)


def _parsed(path: Path, content: bytes) -> list[_Root]:
    _, *parts = content.split(_BEGIN)
    try:
        roots = [_root(_BEGIN + part) for part in parts]
    except ValueError:
        roots = []
    if not roots:
        raise PkiError(f"{path} is damaged", fix=f"delete {path}: a new root is made at the next start")
    return roots


def _root(content: bytes) -> _Root:
    key = serialization.load_pem_private_key(content, password=None)
    certificate = x509.load_pem_x509_certificate(content)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        raise ValueError("the key is not the certificate's")
    return _Root(certificate, key)


def _trust_domain(root: _Root) -> str:
    (organization,) = root.certificate.subject
    return str(organization.value)
