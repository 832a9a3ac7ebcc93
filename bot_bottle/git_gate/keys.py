"""An ssh key in the sidecar's memory: its public line and its signatures (RFC 4253, 5656, 8332, 8709)."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.serialization import SSHPrivateKeyTypes

#: Flags of a sign request (RFC 8332, draft-miller-ssh-agent 3.6.1).
RSA_SHA2_256, RSA_SHA2_512 = 2, 4
#: SSH_MSG_USERAUTH_REQUEST (RFC 4252).
_USERAUTH_REQUEST = 50


class KeyNotUsableError(ValueError):
    """A key file cannot be used as it is; the text says why, without the key."""


def string(data: bytes) -> bytes:
    """Write ssh's ``string`` (RFC 4251, 5)."""
    return len(data).to_bytes(4, "big") + data


def take_string(data: bytes) -> tuple[bytes, bytes]:
    """Read a ``string`` and give what follows it; raises ``ValueError``."""
    length = int.from_bytes(data[:4], "big")
    if len(data) < 4 + length:
        raise ValueError("an ssh message is cut short")
    return data[4 : 4 + length], data[4 + length :]


def load_private(text: bytes) -> SSHPrivateKeyTypes:
    """Load a key without a passphrase, PEM or OpenSSH's form; raises :class:`KeyNotUsableError`."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - a heavy library
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415

    openssh = b"BEGIN OPENSSH PRIVATE KEY" in text
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        key = load(text, None)
    except TypeError:
        raise KeyNotUsableError("is protected by a passphrase") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        if "password" in str(error).lower() or "encrypted" in str(error).lower():
            raise KeyNotUsableError("is protected by a passphrase") from None
        raise KeyNotUsableError("is no private key that the gate can read") from None
    if isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        return key
    raise KeyNotUsableError("is of a kind that ssh no longer uses")


def public_line(key: SSHPrivateKeyTypes) -> str:
    """Give the key's public half as ``type base64``."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    data = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return data.decode("ascii")


def public_blob(line: str) -> bytes:
    """Give the bytes of a public line; raises :class:`KeyNotUsableError`."""
    parts = line.split()
    try:
        blob = base64.b64decode(parts[1], validate=True)
        name, _rest = take_string(blob)
    except (IndexError, ValueError, binascii.Error):
        raise KeyNotUsableError("is no public key") from None
    if name != parts[0].encode("ascii", "replace"):
        raise KeyNotUsableError("is no public key")
    return blob


def sign(key: SSHPrivateKeyTypes, data: bytes, flags: int) -> bytes:
    """Sign as ssh wants it (algorithm name, signature); raises ``ValueError`` for SHA-1 with RSA."""
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature  # noqa: PLC0415

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return string(b"ssh-ed25519") + string(key.sign(data))
    if isinstance(key, rsa.RSAPrivateKey):
        if flags & RSA_SHA2_512:
            return string(b"rsa-sha2-512") + string(key.sign(data, padding.PKCS1v15(), hashes.SHA512()))
        if flags & RSA_SHA2_256:
            return string(b"rsa-sha2-256") + string(key.sign(data, padding.PKCS1v15(), hashes.SHA256()))
        raise ValueError("ssh-rsa signatures with SHA-1 are not made")
    if isinstance(key, ec.EllipticCurvePrivateKey):
        size = key.curve.key_size
        digest = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[size]
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
        return string(b"ecdsa-sha2-nistp%d" % size) + string(_mpint(r) + _mpint(s))
    raise ValueError("a key of an unknown kind")


def is_login(data: bytes, *, user: str, blob: bytes) -> bool:
    """Tell whether what is to be signed is a login of ``user`` with that very key (RFC 4252, 7)."""
    try:
        _session, rest = take_string(data)
        if rest[:1] != bytes([_USERAUTH_REQUEST]):
            return False
        who, rest = take_string(rest[1:])
        service, rest = take_string(rest)
        method, rest = take_string(rest)
        if rest[:1] != b"\1":
            return False
        _algorithm, rest = take_string(rest[1:])
        key, _rest = take_string(rest)
    except ValueError:
        return False
    methods = {b"publickey", b"publickey-hostbound-v00@openssh.com"}
    return who == user.encode() and service == b"ssh-connection" and method in methods and key == blob


def _mpint(value: int) -> bytes:
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big"))
