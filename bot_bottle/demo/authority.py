"""A throw-away certificate authority for scripted upstreams; its keys live for one run."""

from __future__ import annotations

import ssl
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = timedelta(days=2)


class Authority:
    """One root certificate that signs a leaf for any name it is asked for (ECDSA P-256, RFC 5280)."""

    def __init__(self, common_name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        self._certificate = (
            _builder(name, name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()

    @property
    def pem(self) -> str:
        """The root certificate, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def server_context(self, host: str) -> ssl.SSLContext:
        """Give a TLS server context whose certificate is ``host``'s and changes with the client's SNI."""
        context = self._leaf_context(host)
        context.sni_callback = self._choose  # the contexts it switches to have none, so it runs once
        return context

    def name_of(self, context: ssl.SSLContext) -> str:
        """Give the name a client asked for in its SNI by the context it was given; empty if it sent none."""
        with self._lock:
            return next((name for name, chosen in self._contexts.items() if chosen is context), "")

    def _choose(self, sock: ssl.SSLObject, server_name: str | None, _context: ssl.SSLContext) -> None:
        if server_name:
            with self._lock:
                if server_name not in self._contexts:
                    self._contexts[server_name] = self._leaf_context(server_name)
                sock.context = self._contexts[server_name]

    def _leaf_context(self, host: str) -> ssl.SSLContext:
        certificate, key = self.leaf(host)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        with tempfile.NamedTemporaryFile() as both:  # mode 0600; the ssl module reads keys from files only
            both.write(key + certificate)
            both.flush()
            context.load_cert_chain(both.name)
        return context

    def root(self) -> tuple[bytes, bytes]:
        """Give the root's certificate and its private key, both PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM), _key_pem(self._key)

    def leaf(self, host: str) -> tuple[bytes, bytes]:
        """Give ``host``'s certificate and its private key, both PEM."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
        try:
            alternative: x509.GeneralName = x509.IPAddress(ip_address(host))
        except ValueError:
            alternative = x509.DNSName(host)
        public_key = self._leaf_key.public_key()
        certificate = (
            _builder(subject, self._certificate.subject, public_key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(self._leaf_key)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LIFETIME)
        .not_valid_after(now + _LIFETIME)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
