"""Stands in for the pipelock program where it is not to be had: its command line, config and ways, in small.

A CONNECT proxy that reaches every allowed name at one port of this machine, opens TLS with the pair of its
config unless a host is passed through, and writes down what it was asked and what it read. It refuses what
says ``BLOCKED-BY-THE-HOP``.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import stat
import sys
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

FORBIDDEN = b"BLOCKED-BY-THE-HOP"
_KNOWN = {
    "version", "mode", "enforce", "api_allowlist", "fetch_proxy", "forward_proxy", "tls_interception",
    "request_body_scanning", "ssrf",
}  # fmt: skip


def script(folder: Path, upstream: int, *, breaks: bool = False) -> tuple[Path, Path]:
    """Write an executable that is this program, reaching ``upstream``; gives it and its log."""
    program, log = folder / "pipelock", folder / "pipelock.log"
    repository = Path(__file__).parents[2]
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(repository)!r})\n"
        + ("sys.exit(7)\n" if breaks else "")
        + "from tests.support.stand_in_pipelock import main\n"
        f"main({upstream}, {str(log)!r}, sys.argv[1:])\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program, log


def main(upstream: int, log: str, argv: list[str]) -> None:
    """Serve until killed."""
    assert argv[:2] == ["run", "--config"], argv
    config = json.loads(Path(argv[2]).read_text())
    assert set(config) <= _KNOWN, set(config) - _KNOWN
    host, port = config["fetch_proxy"]["listen"].split(":")
    with socket.create_server((host, int(port))) as server:
        _note(log, f"started {os.getpid()} {','.join(config['api_allowlist'])} {sorted(os.environ)}")
        while True:
            connection, _address = server.accept()
            threading.Thread(target=_serve, args=(connection, config, upstream, log), daemon=True).start()


def _note(log: str, text: str) -> None:
    with Path(log).open("a") as file:
        file.write(text + "\n")


def _serve(connection: socket.socket, config: dict[str, Any], upstream: int, log: str) -> None:
    with connection, contextlib.suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(4096)
            if not data:
                return
            head += data
        method, target, _version = head.split(b"\r\n")[0].decode().split(" ")
        if (method, target) == ("GET", "/health"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return
        name = target.rpartition(":")[0]
        _note(log, f"{method} {target}")
        if method != "CONNECT" or name not in config["api_allowlist"]:
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", upstream)) as further:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            settings = config["tls_interception"]
            if name in settings["passthrough_domains"]:
                _splice(connection, further, lambda _data: None)
                return
            inside = _leaf(settings, name).wrap_socket(connection, server_side=True)
            trust = ssl.create_default_context()
            trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE  # the test's own server
            _splice(inside, trust.wrap_socket(further, server_hostname=name), lambda data: _judge(data, log))


def _judge(data: bytes, log: str) -> bytes | None:
    _note(log, f"read {data.split(bytes([13]), 1)[0].decode('latin-1')}")
    if FORBIDDEN not in data:
        return None
    return b"HTTP/1.1 403 Forbidden\r\nX-Hop: refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def _splice(near: socket.socket, far: socket.socket, judge: Any) -> None:
    def back() -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                near.sendall(data)
            near.shutdown(socket.SHUT_WR)

    threading.Thread(target=back, daemon=True).start()
    while data := near.recv(65536):
        if refusal := judge(data):
            near.sendall(refusal)
            return
        far.sendall(data)


def _leaf(settings: dict[str, Any], name: str) -> ssl.SSLContext:
    root = x509.load_pem_x509_certificate(Path(settings["ca_cert"]).read_bytes())
    root_key = serialization.load_pem_private_key(Path(settings["ca_key"]).read_bytes(), None)
    assert isinstance(root_key, ec.EllipticCurvePrivateKey)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(root.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(root_key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as both:
        both.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        both.flush()
        context.load_cert_chain(both.name)
    return context
