"""The operator's config file: backend, upstream CA, pins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bot_bottle.errors import ManifestError
from bot_bottle.operator_config import (
    DockerConfig,
    OperatorConfig,
    load_operator_config,
    parse_pin_option,
    read_ca_file,
)
from bot_bottle.sidecar.config import Pin

if TYPE_CHECKING:
    from pathlib import Path

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_missing_file_is_an_empty_one(tmp_path: Path) -> None:
    assert load_operator_config(tmp_path / "config.toml") == OperatorConfig()


def test_everything_it_can_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = write(tmp_path / "ca.pem", f"a comment\n{PEM}junk\n{PEM}")
    text = (
        'backend = "bubblewrap"\non_request = ["tell", "a b"]\nnotify = true\nkeep = true\n'
        f'[egress]\nupstream_ca = "{ca}"\n[pins]\n'
        '"API.Example.com" = "127.0.0.1:8443"\n"a.example" = "10.0.0.1"\n"b.example" = "[::1]:443"\n'
        '"c.example" = "2001:DB8::1"\n'
    )
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path))
    write(tmp_path / "config.toml", text)
    config = load_operator_config()
    assert config.backend == "bubblewrap"
    assert (config.on_request, config.notify, config.keep) == (("tell", "a b"), True, True)
    assert config.upstream_ca_pem == PEM.strip() + "\n" + PEM
    assert config.pins == {
        "api.example.com": Pin(address="127.0.0.1", port=8443),
        "a.example": Pin(address="10.0.0.1"),
        "b.example": Pin(address="::1", port=443),
        "c.example": Pin(address="2001:db8::1"),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("backend = bubblewrap", "not valid TOML"),
        ("backend = 1", "backend: must be text"),
        ("bakend = 'x'", "did you mean backend?"),
        ("on_request = 'tell-me'", "on_request: must be a list of texts, a program and its arguments"),
        ("on_request = ['a', 1]", "on_request: must be a list of texts"),
        ("on_request = ['', 'a']", "on_request: the first text is the program to run, and it is empty"),
        ("lenders = '/srv'", "lenders: must be a list of absolute paths"),
        ("lenders = ['srv']", "lenders: must be a list of absolute paths"),
        ("notify = 'yes'", "notify: must be true or false, without quotes"),
        ("keep = 'yes'", "keep: must be true or false, without quotes"),
        ("egress = 1", r"write \[egress\]"),
        ("[egress]\nupstreamca = 'x'", "egress.upstreamca: unknown key; did you mean upstream_ca?"),
        ("[egress]\nupstream_ca = 'ca.pem'", "absolute path"),
        ("[egress]\nupstream_ca = '/nonexistent/ca.pem'", "no such file"),
        ("[pins]\n'a.example' = 'b.example'", "must be an IP address"),
        ("[pins]\n'a.example' = '127.0.0.1:0'", "no port"),
        ("[pins]\n'a.example' = '127.0.0.1:99999'", "no port"),
        ("[pins]\n'a.example' = '1.2.3'", "is no IP address"),
        ("[pins]\n'*.a.example' = '127.0.0.1'", "names one host"),
        ("[pins]\n'https://a' = '127.0.0.1'", "scheme"),
        ("[pins]\n'a.example' = 1", "must be text"),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ManifestError, match=said) as caught:
        load_operator_config(write(tmp_path / "config.toml", text + "\n"))
    assert "config.toml" in str(caught.value)


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "config.toml", "")
    path.chmod(0o666)
    with pytest.raises(ManifestError, match="chmod go-w"):
        load_operator_config(path)


def test_a_file_in_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    path = write(folder / "config.toml", "")
    folder.chmod(0o777)
    with pytest.raises(ManifestError, match="the folder of the config file can be written by others"):
        load_operator_config(path)


def test_a_folder_in_its_place_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(ManifestError, match="no regular file"):
        load_operator_config(tmp_path / "config.toml")


def test_a_ca_file_without_a_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="holds no certificate"):
        read_ca_file(write(tmp_path / "ca.pem", "-----BEGIN PRIVATE KEY-----\n"))


def test_a_pin_on_the_command_line() -> None:
    assert parse_pin_option("A.example=127.0.0.1:1") == ("a.example", Pin(address="127.0.0.1", port=1))
    with pytest.raises(ManifestError, match="HOST=ADDRESS"):
        parse_pin_option("a.example")


def test_everything_docker_can_be_told(tmp_path: Path) -> None:
    ca = write(tmp_path / "ca.pem", f"a comment\n{PEM}")
    config = write(
        tmp_path / "config.toml",
        '[docker]\nbase_image = "registry.example:5000/team/node_x/base.img:22-slim"\n'
        f'sidecar_base_image = "python@sha256:{"a" * 64}"\nnetwork = "corp-net"\nruntime = "runsc"\n'
        f'build_ca = "{ca}"\n',
    )
    assert load_operator_config(config).docker == DockerConfig(
        base_image="registry.example:5000/team/node_x/base.img:22-slim",
        sidecar_base_image=f"python@sha256:{'a' * 64}",
        network="corp-net",
        runtime="runsc",
        build_ca=str(ca),
        build_ca_pem=PEM,
    )


def test_a_file_without_docker_leaves_it_to_the_backend(tmp_path: Path) -> None:
    config = load_operator_config(write(tmp_path / "config.toml", "[docker]\n"))
    assert config.docker == DockerConfig() == OperatorConfig().docker
    assert config.docker.runtime == "auto"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base_imag = 'x'", "docker.base_imag: unknown key; did you mean base_image?"),
        ("base_image = 1", "docker.base_image: must be text"),
        (
            "base_image = 'Node:22'",
            "docker.base_image: Node:22 is no image's name; write one such as node:22",
        ),
        ("base_image = '-v'", "docker.base_image: -v is no image's name"),
        ("base_image = 'node 22'", "docker.base_image: node 22 is no image's name"),
        (f"base_image = '{'a' * 401}'", "docker.base_image: "),
        ("sidecar_base_image = 'a@sha256:12'", "docker.sidecar_base_image: a@sha256:12 is no image's name"),
        ("network = 'host'", "docker.network: the sidecar cannot use host; write bridge"),
        ("network = 'none'", "docker.network: the sidecar cannot use none"),
        ("network = 'container:other'", "docker.network: container:other is no name"),
        ("runtime = '../runc'", "docker.runtime: ../runc is no name"),
        ("build_ca = 'ca.pem'", "docker.build_ca: must be an absolute path"),
        ("build_ca = '/nowhere/ca.pem'", "docker.build_ca: /nowhere/ca.pem: there is no such file"),
    ],
)
def test_a_wrong_docker_setting_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    config = write(tmp_path / "config.toml", f"[docker]\n{text}\n")
    with pytest.raises(ManifestError) as caught:
        load_operator_config(config)
    assert str(caught.value).startswith(f"{config}: {said}")
    assert "\n" not in str(caught.value)
