"""Mutual TLS with SPIFFE ids: each side shows its certificate, and accepts the ids that are expected of the other."""

from betterproto2 import Message
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls
from envoy_data_plane.envoy.type.matcher import v3 as matcher

from mesh.pki.certificates import Identity
from mesh.proxy.clusters import pack
from mesh.xds.resources import ADS, Resource, resource

#: The secret with the roots. Its name precedes those of identities, and so does its delivery.
_BUNDLE = "bundle"
_TLS_1_3 = tls.TlsParameters(
    tls_minimum_protocol_version=tls.TlsParametersTlsProtocol.TLSv1_3,
    tls_maximum_protocol_version=tls.TlsParametersTlsProtocol.TLSv1_3,
)


def secrets(trust_bundle: bytes, identities: dict[str, Identity]) -> list[Resource]:
    """Return the roots and, by workload, the identities as secrets."""
    roots = tls.CertificateValidationContext(trusted_ca=_inline(trust_bundle))
    found = [resource(_BUNDLE, tls.Secret(name=_BUNDLE, validation_context=roots))]
    for workload, identity in sorted(identities.items()):
        pair = tls.TlsCertificate(certificate_chain=_inline(identity.chain), private_key=_inline(identity.key))
        name = _identity(workload)
        found.append(resource(name, tls.Secret(name=name, tls_certificate=pair)))
    return found


def client_socket(workload: str, peer: str) -> core.TransportSocket:
    """Return TLS for calls by the workload to the service with the SPIFFE id `peer`, and to no other."""
    return _socket(tls.UpstreamTlsContext(common_tls_context=_common(workload, matcher.StringMatcher(exact=peer))))


def server_socket(workload: str, trust_domain: str) -> core.TransportSocket:
    """Return TLS for calls to the workload by any workload of the trust domain; routes decide further."""
    peers = matcher.StringMatcher(prefix=f"spiffe://{trust_domain}/")
    context = tls.DownstreamTlsContext(common_tls_context=_common(workload, peers), require_client_certificate=True)
    return _socket(context)


def _common(workload: str, peers: matcher.StringMatcher) -> tls.CommonTlsContext:
    name = tls.SubjectAltNameMatcher(san_type=tls.SubjectAltNameMatcherSanType.URI, matcher=peers)
    validation = tls.CommonTlsContextCombinedCertificateValidationContext(
        default_validation_context=tls.CertificateValidationContext(match_typed_subject_alt_names=[name]),
        validation_context_sds_secret_config=tls.SdsSecretConfig(name=_BUNDLE, sds_config=ADS),
    )
    own = tls.SdsSecretConfig(name=_identity(workload), sds_config=ADS)
    return tls.CommonTlsContext(
        tls_params=_TLS_1_3,
        alpn_protocols=["h2"],
        tls_certificate_sds_secret_configs=[own],
        combined_validation_context=validation,
    )


def _socket(context: Message) -> core.TransportSocket:
    return core.TransportSocket(name="envoy.transport_sockets.tls", typed_config=pack(context))


def _inline(content: bytes) -> core.DataSource:
    return core.DataSource(inline_bytes=content)


def _identity(workload: str) -> str:
    return f"identity/{workload}"
