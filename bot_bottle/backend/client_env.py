"""What makes ordinary clients use a bottle's sidecar and trust it: one table, the same on every backend.

Programs that read none of this still reach the sidecar, which answers DNS and listens where they would
connect. Trust is the harder half: some clients bring roots of their own, and each has its own way to be told.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Debian's folder of trusted certificates, replaced as a whole inside every bottle.
AGENT_CA_DIR = "/etc/ssl/certs"
#: The bottle's own CA alone, for variables that *add* to a client's roots.
AGENT_CA_PATH = f"{AGENT_CA_DIR}/bot-bottle-mitm-ca.pem"
#: The bundle, for variables that *replace* a client's roots. It holds the bottle's CA and nothing else:
#: every TLS connection ends at egress, so no other issuer could ever be met.
AGENT_CA_BUNDLE = f"{AGENT_CA_DIR}/ca-certificates.crt"
#: The same for Java, which reads no PEM.
AGENT_JAVA_TRUST = f"{AGENT_CA_DIR}/bot-bottle-java-truststore.jks"

_NEAR = ("localhost", "127.0.0.1", "::1")

# Java checks a truststore's digest only with its password; neither keeps anything secret.
_JAVA_PASSWORD = "bot-bottle"  # noqa: S105
_JKS_MAGIC, _JKS_VERSION, _JKS_TRUSTED = 0xFEEDFEED, 2, 2
_JKS_SALT = b"Mighty Aphrodite"

#: Variables that take a proxy's URL; programs read one case or the other.
_PROXY = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")

#: Variables that take the bundle, and what reads them.
_BUNDLE = {
    "SSL_CERT_FILE": "OpenSSL, Go, .NET, Ruby, Python's ssl, httpx, rustls with native roots, uv",
    "REQUESTS_CA_BUNDLE": "Python requests",
    "CURL_CA_BUNDLE": "curl",
    "GIT_SSL_CAINFO": "git",
    "PIP_CERT": "pip",
    "CARGO_HTTP_CAINFO": "cargo",
    "AWS_CA_BUNDLE": "AWS tools",
    "DENO_CERT": "Deno",
    "NIX_SSL_CERT_FILE": "Nix and what it built",
    "HTTPLIB2_CA_CERTS": "Python httplib2",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": "gRPC",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE": "gcloud",
}

#: What is neither: switches of clients that otherwise ignore the system.
_SWITCHES = {
    "NODE_USE_ENV_PROXY": "1",  # Node's own fetch, from 22.21 on
    "NODE_EXTRA_CA_CERTS": AGENT_CA_PATH,  # adds, as no other does
    "UV_NATIVE_TLS": "1",
    "UV_SYSTEM_CERTS": "1",  # its name from uv 0.9 on
}


def client_env(sidecar_address: str, proxy_port: int) -> Mapping[str, str]:
    """Give the variables that lead ordinary clients to the sidecar's proxy and let them trust it."""
    proxy = f"http://{sidecar_address}:{proxy_port}"
    near = tuple(dict.fromkeys([*_NEAR, sidecar_address]))
    java = {
        "http.proxyHost": sidecar_address,
        "http.proxyPort": proxy_port,
        "https.proxyHost": sidecar_address,
        "https.proxyPort": proxy_port,
        "http.nonProxyHosts": "|".join(name for name in near if ":" not in name),
        "javax.net.ssl.trustStore": AGENT_JAVA_TRUST,
        "javax.net.ssl.trustStoreType": "JKS",
        "javax.net.ssl.trustStorePassword": _JAVA_PASSWORD,
    }
    return {
        **dict.fromkeys(_PROXY, proxy),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(near)),
        **dict.fromkeys(_BUNDLE, AGENT_CA_BUNDLE),
        **_SWITCHES,
        # Read by every JVM, the ones that build tools start included; it says so on stderr.
        "JAVA_TOOL_OPTIONS": " ".join(f"-D{name}={value}" for name, value in java.items()),
    }


def java_truststore(ca_pem: str) -> bytes:
    """Give a truststore for Java with the one certificate of ``ca_pem``.

    In the JKS format, which every JDK reads and which takes no library to write (java.security.KeyStore;
    the layout is that of OpenJDK's ``JavaKeyStore``).
    """
    der = base64.b64decode("".join(line for line in ca_pem.split() if "-" not in line and line.isascii()))
    body = b"".join(
        (
            struct.pack(">III", _JKS_MAGIC, _JKS_VERSION, 1),
            struct.pack(">I", _JKS_TRUSTED),
            _utf("bot-bottle"),
            struct.pack(">Q", 0),
            _utf("X.509"),
            struct.pack(">I", len(der)),
            der,
        )
    )
    digest = hashlib.sha1(_JAVA_PASSWORD.encode("utf-16-be") + _JKS_SALT + body, usedforsecurity=False)
    return body + digest.digest()


def _utf(text: str) -> bytes:
    data = text.encode("ascii")
    return struct.pack(">H", len(data)) + data
