"""X.509 certificates with SPIFFE ids (X.509-SVID): their content, as PEM."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey
#: The clocks of two machines may differ by so much.
_CLOCK_SKEW = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The certificate of one workload with its private key."""

    spiffe_id: str
    #: The certificate, as PEM.
    chain: bytes
    key: bytes
    serial: int
    not_before: datetime
    not_after: datetime

    def __repr__(self) -> str:
        """Leave the key out, so that no log line has it."""
        return f"Identity({self.spiffe_id}, serial={self.serial:x}, not_after={self.not_after:%Y-%m-%dT%H:%M:%SZ})"


def new_key() -> PrivateKey:
    """Return a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def root_certificate(key: PrivateKey, trust_domain: str, now: datetime, lifetime: timedelta) -> x509.Certificate:
    """Return a self-signed certificate that may sign workloads, and no further authority."""
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain)])
    usage = x509.KeyUsage(**_USAGE | {"key_cert_sign": True, "crl_sign": True})
    return (
        _builder(key, now, lifetime)
        .subject_name(name)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(_uri(f"spiffe://{trust_domain}"), critical=False)
        .sign(key, hashes.SHA256())
    )


def workload_identity(
    spiffe_id: str, root: x509.Certificate, root_key: PrivateKey, now: datetime, lifetime: timedelta
) -> Identity:
    """Return a new key and its certificate, for clients and servers, which outlives the root never."""
    key = new_key()
    lifetime = min(lifetime, root.not_valid_after_utc - now)
    roles = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _builder(key, now, lifetime)
        .subject_name(x509.Name([]))
        .issuer_name(root.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**_USAGE | {"digital_signature": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage(roles), critical=False)
        # Critical, because the subject is empty (RFC 5280, 4.2.1.6).
        .add_extension(_uri(spiffe_id), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
            critical=False,
        )
        .sign(root_key, hashes.SHA256())
    )
    return Identity(
        spiffe_id=spiffe_id,
        chain=pem(certificate),
        key=key_pem(key),
        serial=certificate.serial_number,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def pem(certificate: x509.Certificate) -> bytes:
    """Return the certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: PrivateKey) -> bytes:
    """Return the private key as PEM, without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


_USAGE = dict.fromkeys(
    (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)


def _builder(key: PrivateKey, now: datetime, lifetime: timedelta) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _uri(value: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(value)])
