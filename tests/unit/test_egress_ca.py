"""The bottle's CA: what its certificates say, and that strict clients take them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from bot_bottle.egress.ca import CertificateAuthority
from bot_bottle.egress.tls import ServerContexts, SniSSLObject

NOW = datetime.now(UTC)
LONG = ".".join(["l" * 60, "m" * 60, "example"])


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Shake hands in memory; raises what the client raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [ours, theirs]
    for _ in range(10):
        for side in tuple(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
        if not waiting:
            return ours, theirs
    raise AssertionError("the handshake does not end")


def strict_client(ca: CertificateAuthority) -> ssl.SSLContext:
    client = ssl.create_default_context(cadata=ca.certificate_pem)
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT | ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    return client


def test_the_ca_certificate() -> None:
    ca = CertificateAuthority("agent-abc12")
    certificate = x509.load_pem_x509_certificate(ca.certificate_pem.encode())
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    assert certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert certificate.not_valid_before_utc <= NOW - timedelta(days=6)
    assert "agent-abc12" in certificate.subject.rfc4514_string()
    assert "PRIVATE" not in ca.certificate_pem
    assert CertificateAuthority("agent-abc12").certificate_pem != ca.certificate_pem


@pytest.mark.parametrize("host", ["a.test", "_egress.local", "127.0.0.1", "::1", LONG])
def test_a_leaf(host: str) -> None:
    ca = CertificateAuthority("x")
    leaf = x509.load_pem_x509_certificate(ca.leaf_pem(host, now=NOW))
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    names: list[object] = [name.value for name in san.value]
    assert names == [host if host not in {"127.0.0.1", "::1"} else ip_address(host)]
    assert leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value == x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH]
    )
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= timedelta(days=14)
    root = x509.load_pem_x509_certificate(ca.certificate_pem.encode())
    leaf.verify_directly_issued_by(root)
    assert leaf.not_valid_after_utc <= root.not_valid_after_utc
    late = x509.load_pem_x509_certificate(ca.leaf_pem(host, now=NOW + timedelta(days=89)))
    assert late.not_valid_after_utc <= root.not_valid_after_utc + timedelta(minutes=1)


@pytest.mark.parametrize("host", ["a.test", "_egress.local", "127.0.0.1", "::1", LONG])
def test_strict_clients_take_the_leaf(host: str) -> None:
    ca = CertificateAuthority("x")
    ours, theirs = handshake(ServerContexts(ca).context_for(host), strict_client(ca), host)
    assert ours.version() in {"TLSv1.2", "TLSv1.3"}
    assert isinstance(theirs, SniSSLObject)
    if not host[-1].isdigit():
        assert theirs.sni == host


def test_a_leaf_holds_for_its_own_host_only() -> None:
    ca = CertificateAuthority("x")
    contexts = ServerContexts(ca)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(contexts.context_for("a.test"), strict_client(ca), "b.test")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(contexts.context_for("a.test"), strict_client(CertificateAuthority("x")), "a.test")


def test_the_transparent_context_becomes_the_named_hosts() -> None:
    ca = CertificateAuthority("x")
    contexts = ServerContexts(ca)
    for name in ("a.test", "B.test", "127.0.0.1"):
        _, theirs = handshake(contexts.transparent(), strict_client(ca), name)
        assert isinstance(theirs, SniSSLObject)
        assert theirs.sni == (name if name != "127.0.0.1" else None)


def test_old_tls_is_not_spoken_and_sessions_are_not_resumed() -> None:
    ca = CertificateAuthority("x")
    server = ServerContexts(ca).context_for("a.test")
    old = ssl.create_default_context(cadata=ca.certificate_pem)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    ours, _ = handshake(server, old, "a.test")
    assert ours.session is not None
    assert not ours.session.has_ticket
    assert server.minimum_version == ssl.TLSVersion.TLSv1_2
    ours, _ = handshake(server, strict_client(ca), "a.test")
    assert ours.selected_alpn_protocol() is None


def test_the_leaf_for_who_names_no_host_is_made_anew_as_well() -> None:
    contexts = ServerContexts(CertificateAuthority("x"))
    first = contexts.transparent(now=NOW)
    assert contexts.transparent(now=NOW + timedelta(days=2)) is first
    assert contexts.transparent(now=NOW + timedelta(days=4)) is not first


def test_contexts_are_held_renewed_and_bounded() -> None:
    contexts = ServerContexts(CertificateAuthority("x"))
    first = contexts.context_for("a.test", now=NOW)
    assert contexts.context_for("a.test", now=NOW + timedelta(days=2)) is first
    assert contexts.context_for("a.test", now=NOW + timedelta(days=4)) is not first
    late = contexts.context_for("a.test", now=NOW + timedelta(days=4))
    assert contexts.context_for("a.test", now=NOW) is not late, "the clock was set back past its beginning"
    for number in range(300):
        contexts.context_for(f"h{number}.test", now=NOW)
    assert len(contexts._contexts) == 256
