"""The bottle's own certificate authority, and the server certificates it signs.

Both private keys exist in this process's memory only. What OpenSSL must read from a path goes through an
anonymous memory file, never a disk. The certificates satisfy ``VERIFY_X509_STRICT`` (Python >= 3.13), Go,
OpenSSL and rustls: basicConstraints and keyUsage, subject and authority key identifiers, serverAuth.
"""

from __future__ import annotations

import os
import ssl
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bot_bottle.egress.hosts import HostError, is_ip_literal, normalise_host

_CA_LIFE = timedelta(days=90)
_LEAF_LIFE = timedelta(days=7)
_LEAF_RENEW = timedelta(days=3)
#: How far a bottle's clock may lag behind (a resumed microVM's does).
_SKEW = timedelta(days=1)
_MAX_LEAVES = 256
_LOOPBACK = "127.0.0.1"


class SniSSLObject(ssl.SSLObject):
    """A TLS session that remembers the server name its client asked for (``None``: it named none)."""

    sni: str | None = None


class CertificateAuthority:
    """One bottle's CA: makes its own key and certificate, and a TLS context for each intercepted host."""

    def __init__(self, identity: str, *, now: datetime | None = None) -> None:
        moment = now or datetime.now(UTC)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_key_pem = self._leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._cert = _ca_certificate(self._key, identity, moment)
        self._aki = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
            self._cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        )
        self._transparent: ssl.SSLContext | None = None
        self._contexts: OrderedDict[str, tuple[ssl.SSLContext, datetime]] = OrderedDict()

    @property
    def certificate_pem(self) -> str:
        """The CA's certificate; there is no way to get its key."""
        return self._cert.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def context_for(self, host: str, *, now: datetime | None = None) -> ssl.SSLContext:
        """Give the server context with a leaf for ``host`` (normalised name or IP literal)."""
        moment = now or datetime.now(UTC)
        held = self._contexts.get(host)
        if held and held[1] > moment:
            self._contexts.move_to_end(host)
            return held[0]
        context = _server_context(self.leaf_pem(host, now=moment) + self._leaf_key_pem)
        self._contexts[host] = (context, moment + _LEAF_RENEW)
        self._contexts.move_to_end(host)
        if len(self._contexts) > _MAX_LEAVES:
            self._contexts.popitem(last=False)
        return context

    def transparent_context(self) -> ssl.SSLContext:
        """Give the context for clients that say the host only in their handshake.

        It turns into the named host's context there. Without a readable name the certificate is for the
        loopback address the client must have dialled, so that the refusal inside can be read.
        """
        if self._transparent is None:
            self._transparent = _server_context(
                self.leaf_pem(_LOOPBACK, now=datetime.now(UTC)) + self._leaf_key_pem
            )
            self._transparent.sni_callback = self._choose
        return self._transparent

    def _choose(self, session: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        if isinstance(session, SniSSLObject):
            session.sni = name
        try:
            session.context = self.context_for(normalise_host(name or _LOOPBACK))
        except (HostError, ValueError):
            session.context = self.context_for(_LOOPBACK)

    def leaf_pem(self, host: str, *, now: datetime) -> bytes:
        """Sign a certificate for ``host`` and give it as PEM."""
        san: x509.GeneralName
        san = x509.IPAddress(ip_address(host)) if is_ip_literal(host) else x509.DNSName(host)
        # RFC 5280, appendix A: a common name holds 64 characters; without a subject the SAN is critical.
        named = len(host) <= 64
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)] if named else [])
        certificate = (
            _builder(subject, self._cert.subject, now, min(_LEAF_LIFE, self._remaining(now)))
            .public_key(self._leaf_key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([san]), critical=not named)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._leaf_key.public_key()), critical=False
            )
            .add_extension(self._aki, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _remaining(self, now: datetime) -> timedelta:
        return max(self._cert.not_valid_after_utc - now, timedelta(minutes=1))


def _ca_certificate(key: ec.EllipticCurvePrivateKey, identity: str, now: datetime) -> x509.Certificate:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "bot-bottle"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"bot-bottle {identity}"[:64]),
        ]
    )
    ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        _builder(name, name, now, _CA_LIFE)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(ski, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski), critical=False)
        .sign(key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _server_context(chain_and_key: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslobject_class = SniSSLObject
    # No tickets: a resumed session could carry a name that was decided under another context.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    context.sni_callback = _remember_sni
    fd = os.memfd_create("bot-bottle-leaf", os.MFD_CLOEXEC)
    try:
        os.write(fd, chain_and_key)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    return context


def _remember_sni(session: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
    if isinstance(session, SniSSLObject):
        session.sni = name
