"""The bottle's own certificate authority, and the server certificates it signs.

Both private keys exist in this process's memory only. The certificates satisfy ``VERIFY_X509_STRICT``
(Python >= 3.13), Go, OpenSSL and rustls: basicConstraints and keyUsage, subject and authority key
identifiers, serverAuth.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bot_bottle.egress.hosts import is_ip_literal

_CA_LIFE = timedelta(days=90)
_LEAF_LIFE = timedelta(days=7)
#: How far a clock may be set back, or a bottle's lag behind (a resumed microVM's does): its programs trust
#: what was signed before all the same. The keys are younger than that, so that nothing else comes of it.
_SKEW = timedelta(days=7)


class CertificateAuthority:
    """One bottle's CA: makes its own key and certificate, and signs a leaf for any host."""

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

    @property
    def certificate_pem(self) -> str:
        """The CA's certificate; there is no way to get its key."""
        return self._cert.public_bytes(serialization.Encoding.PEM).decode("ascii")

    @property
    def leaf_key_pem(self) -> bytes:
        """The one private key of all leaves; it goes into TLS contexts and nowhere else."""
        return self._leaf_key_pem

    def leaf_pem(self, host: str, *, now: datetime) -> bytes:
        """Sign a certificate for ``host`` (normalised name or IP literal) and give it as PEM."""
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


def new_root(common_name: str) -> tuple[bytes, bytes]:
    """Make another root, for a program of ours that opens TLS itself: its certificate and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    certificate = _ca_certificate(key, common_name, datetime.now(UTC))
    return certificate.public_bytes(serialization.Encoding.PEM), pem


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
