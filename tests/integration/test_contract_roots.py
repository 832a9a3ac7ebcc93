"""Which servers a sidecar trusts: by the operator's own variables, alike on every backend."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from bot_bottle.demo.authority import Authority
from tests.support.outside import new_marker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.lab import Lab
    from tests.support.outside import World

pytestmark = pytest.mark.integration


@pytest.fixture
def plain(lab: Lab) -> Iterator[Lab]:
    """Give the installation without the setting that trusts the scripted outside."""
    config = lab.home / "config.toml"
    before = config.read_text()
    kept = [line for line in before.splitlines() if not line.startswith("upstream_ca")]
    lab.write("config.toml", "\n".join(kept) + "\n")
    lab.declare(
        "roots",
        "agent_provider: {template: command, argv: [/bin/true]}\negress: {routes: [{host: allowed.test}]}\n",
    )
    yield lab
    lab.write("config.toml", before)


def answer(lab: Lab, env: dict[str, str], marker: str) -> str:
    """Ask once from a new bottle; gives the answer's head."""
    with lab.launch("roots", env=env) as running:
        return running.sh(
            f"curl -sS --noproxy '*' -m 20 -o /dev/null -D - https://allowed.test/{marker}"
        ).out.lower()


def test_a_file_of_roots_is_trusted(plain: Lab, world: World) -> None:
    marker = new_marker("rooted")
    assert answer(plain, {"SSL_CERT_FILE": str(world.ca_file)}, marker).startswith("http/1.1 200 ")
    assert world.reached(marker)


def test_a_folder_of_roots_is_trusted(plain: Lab, world: World) -> None:
    """By the name that OpenSSL looks for: the hash of the subject."""
    folder = plain.home / "roots"
    folder.mkdir(exist_ok=True)
    pem = world.ca_file.read_text()
    plain.write(f"roots/{subject_hash(pem)}.0", pem)
    marker = new_marker("rooted")
    assert answer(plain, {"SSL_CERT_DIR": str(folder)}, marker).startswith("http/1.1 200 ")
    assert world.reached(marker)


def test_other_roots_are_no_help(plain: Lab, world: World) -> None:
    file = plain.write("other.pem", Authority("somebody else").pem)
    for env in ({}, {"SSL_CERT_FILE": str(file)}):
        marker = new_marker("rootless")
        head = answer(plain, env, marker)
        assert head.startswith("http/1.1 502 ")
        assert "x-bot-bottle-reason: upstream_tls" in head.splitlines(), head
        assert [seen for seen in world.records().requests if marker in seen.target] == []


def subject_hash(pem: str) -> str:
    """Compute OpenSSL's name for a certificate (X509_NAME_hash) whose subject is one short common name."""
    subject = x509.load_pem_x509_certificate(pem.encode()).subject
    (name,) = subject
    text = str(name.value).encode()
    # The canonical form is lower case and without the outermost SEQUENCE's two bytes.
    canonical = subject.public_bytes()[2:].replace(text, text.lower())
    return hashlib.sha1(canonical, usedforsecurity=False).digest()[3::-1].hex()
