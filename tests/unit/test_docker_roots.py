"""The operator's SSL_CERT_FILE and SSL_CERT_DIR, as a sidecar that cannot read them for itself gets them."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from bot_bottle.backend.docker.roots import operator_roots
from bot_bottle.demo.authority import Authority
from bot_bottle.egress import pool
from bot_bottle.errors import UsageError
from bot_bottle.sidecar.config import Roots, SidecarConfig

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO, THREE = (Authority(name) for name in ("one", "two", "three"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder of roots as OpenSSL wants it: certificates by hash, and things that are none of its."""
    made = tmp_path / "certs"
    made.mkdir()
    (made / "two.pem").write_text(TWO.pem)
    (made / "0a1b2c3d.0").symlink_to("two.pem")
    (made / "0a1b2c3d.1").symlink_to("taken-away.pem")
    (made / "three.pem").write_text(THREE.pem)
    (made / "README").write_text("not a certificate")
    return made


def test_nothing_named_is_nothing_given() -> None:
    assert operator_roots({"PATH": "/usr/bin"}) is None
    assert operator_roots({"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}) is None


def test_a_file_and_folders_are_read_at_launch(tmp_path: Path, folder: Path) -> None:
    file = tmp_path / "bundle.pem"
    file.write_text(f"a comment\n{ONE.pem}")
    assert operator_roots({"SSL_CERT_FILE": str(file)}) == Roots(file=ONE.pem)
    listed = f"{folder}:{tmp_path / 'none'}:{file}"
    assert operator_roots({"SSL_CERT_DIR": listed}) == Roots(folder=TWO.pem)
    assert operator_roots({"SSL_CERT_FILE": str(file), "SSL_CERT_DIR": "/dev/null"}) == Roots(
        file=ONE.pem, folder=""
    )


def test_what_cannot_be_trusted_is_refused_by_its_variable(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^SSL_CERT_FILE: .*there is no such file"):
        operator_roots({"SSL_CERT_FILE": str(tmp_path / "none.pem")})
    file = tmp_path / "aabbccdd.0"
    file.write_text("nothing")
    with pytest.raises(UsageError, match=r"^SSL_CERT_FILE: .*no certificate"):
        operator_roots({"SSL_CERT_FILE": str(file)})
    with pytest.raises(UsageError, match=r"^SSL_CERT_DIR: .*no certificate"):
        operator_roots({"SSL_CERT_DIR": str(tmp_path)})
    file.write_text(ONE.pem)
    file.chmod(0o666)
    with pytest.raises(UsageError, match=r"^SSL_CERT_FILE: "):
        operator_roots({"SSL_CERT_FILE": str(file)})


@pytest.mark.parametrize("roots", [None, Roots(file="a"), Roots(folder=""), Roots(file="a", folder="b")])
def test_it_travels_with_the_config(roots: Roots | None) -> None:
    config = SidecarConfig(identity="a-00001", routes=(), audit_path="/a", roots=roots)
    assert SidecarConfig.from_wire(config.to_wire()).roots == roots


def names(context: ssl.SSLContext) -> set[str]:
    return {ssl.DER_cert_to_PEM_cert(der) for der in context.get_ca_certs(binary_form=True)}


def der(*authorities: Authority) -> set[str]:
    return {ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(one.pem)) for one in authorities}


def test_what_is_given_stands_in_place_of_the_same_thing_and_of_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenSSL does with the variables; here they stand for the image's own file and (empty) folder."""
    file = tmp_path / "image.pem"
    file.write_text(THREE.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    of = pool._rooted_context
    assert names(of(Roots(file=ONE.pem))) == der(ONE)
    assert names(of(Roots(folder=TWO.pem))) == der(TWO, THREE)
    assert names(of(Roots(folder=""))) == der(THREE)
    assert names(of(Roots(file=ONE.pem, folder=TWO.pem))) == der(ONE, TWO)
    for context in (of(Roots(file=ONE.pem)), of(Roots(file="", folder=""))):
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert names(of(Roots(file="", folder=""))) == set()
