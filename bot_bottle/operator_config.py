"""The operator's config file ``~/.bot-bottle/config.toml``: the machine's own facts, not a bottle's.

    backend = "bubblewrap"
    on_request = ["/home/me/bin/tell-me"]   # run when an agent asks, with the request as JSON to read
    notify = true                           # and a notification on the desktop (notify-send)
    lenders = ["/srv/git-cache"]            # who may lend a --cwd repository its objects

    [egress]
    upstream_ca = "/path/ca.pem"      # trusted for upstream servers, in addition to the system's roots
    proxy = "http://proxy.example:3128"   # the way to every upstream (CONNECT)
    proxy_user = "me"
    proxy_password_ref = "PROXY_PASSWORD" # the name of a variable
    proxy_resolves = false            # true: it is told names, and where they lead is not checked
    no_proxy = ["*.corp.example", "10.0.0.0/8"]

    [pins]
    "api.example.com" = "127.0.0.1:8443"   # dialled instead of asking DNS; the name is still verified

    [docker]
    base_image = "node:22-bookworm-slim"        # what agent images are built from
    sidecar_base_image = "python:3.12-slim-bookworm"
    network = "bridge"                # the sidecar's way out; the agent has none
    runtime = "auto"                  # or a runtime that the engine has
    build_ca = "/path/ca.pem"         # trusted while images are built (a proxy that inspects TLS)

    [pipelock]
    program = "/usr/local/bin/pipelock"   # for bottles with engine: external; without it, the one on PATH

Whatever is written here is shown in the preflight of every launch it touches.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import stat
import tomllib
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import paths
from bot_bottle.errors import ManifestError
from bot_bottle.manifest import values
from bot_bottle.manifest.hosts import parse_host_pattern
from bot_bottle.manifest.problem import shown
from bot_bottle.sidecar.config import Pin
from bot_bottle.upstream_proxy import proxy_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bot_bottle.sidecar.config import UpstreamProxy

#: A machine's whole bundle of roots is a few hundred KiB.
_MAX_SIZE = 4 * 1024 * 1024
#: The settings of ``[egress]`` that say something together only.
PROXY_KEYS = ("proxy", "proxy_user", "proxy_password_ref", "proxy_resolves", "no_proxy")
#: What may stand as ``[name]``.
TABLES = ("egress", "pins", "docker", "smolmachines", "pipelock")
_PEM_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


# Docker's own rule for the names of networks and runtimes: mistakes are found before an engine is asked.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
#: Networks that are none of the sidecar's own: it would share the host's, or have none.
_NO_NETWORKS = frozenset({"host", "none", "container"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerConfig:
    """Settings of ``[docker]``; an empty text stands for the backend's own choice.

    ``base_image`` is what agent images are built from, ``sidecar_base_image`` the sidecar's. ``network`` is
    the engine's network that the sidecar joins, ``runtime`` the agent's (``auto``: the backend chooses).
    ``build_ca_pem`` holds CA certificates that builds trust, from the file ``build_ca``.
    """

    base_image: str = ""
    sidecar_base_image: str = ""
    network: str = ""
    runtime: str = "auto"
    build_ca: str = ""
    build_ca_pem: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmolmachinesConfig:
    """Settings of ``[smolmachines]``. ``image`` is what machines start from where the bottle names none."""

    image: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorConfig:
    """The config file's settings; the empty one is what a missing file means.

    ``on_request`` is an argv that is run for each request of an agent's, ``notify`` asks for a notification
    on the desktop, ``keep`` keeps each bottle's work after exit code 0, as if every start said ``--keep``.
    ``lenders`` are folders with repositories that others may borrow from, None where the file does not say.
    """

    backend: str = ""
    on_request: tuple[str, ...] = ()
    notify: bool = False
    keep: bool = False
    lenders: tuple[str, ...] | None = None
    upstream_ca: str = ""
    upstream_ca_pem: str = field(default="", repr=False)
    proxy: UpstreamProxy | None = None
    pipelock: str = ""
    pins: Mapping[str, Pin] = field(default_factory=dict)
    docker: DockerConfig = field(default_factory=DockerConfig)
    smolmachines: SmolmachinesConfig = field(default_factory=SmolmachinesConfig)


def load_operator_config(path: Path | None = None) -> OperatorConfig:
    """Read the config file, by default ``paths.config_file()``; a missing one is an empty one.

    Raises ``ManifestError`` with one sentence that names the file and the key.
    """
    path = path or paths.config_file()
    with contextlib.suppress(OSError):
        _refuse_foreign(path.parent.stat(), path.parent, "the folder of the config file")
    text = read_operator_file(path, "the config file")
    if text is None:
        return OperatorConfig()
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{path}: not valid TOML: {shown(str(error), 160)}") from error
    return parse_operator_config(data, path)


def read_ca_file(path: Path) -> str:
    """Read a file of CA certificates in PEM form; raises ``ManifestError`` if it holds none."""
    text = read_operator_file(path, "the CA file")
    if text is None:
        raise ManifestError(f"{path}: there is no such file; write the path of a PEM file of CA certificates")
    blocks = _PEM_BLOCK.findall(text)
    if not blocks:
        raise ManifestError(f"{path}: holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
    return "\n".join(blocks) + "\n"


def parse_operator_config(data: Mapping[str, object], path: Path) -> OperatorConfig:
    """Read what stands in the config file ``path``; raises as :func:`load_operator_config`."""
    _known(data, ("backend", "on_request", "notify", "keep", "lenders", *TABLES), path, "")
    egress = _table(data, "egress", path)
    _known(egress, ("upstream_ca", *PROXY_KEYS), path, "egress.")
    upstream_ca, pem = _cas(egress, "upstream_ca", path, "egress.")
    pins = _table(data, "pins", path)
    return OperatorConfig(
        backend=_text(data, "backend", path, ""),
        on_request=_argv(data, "on_request", path),
        notify=_flag(data, "notify", path, ""),
        keep=_flag(data, "keep", path, ""),
        lenders=_lenders(data, path),
        upstream_ca=upstream_ca,
        upstream_ca_pem=pem,
        proxy=_proxy(egress, path),
        pins=dict(
            _pin(host, _text(pins, host, path, "pins."), f'{path}: pins."{shown(host)}"') for host in pins
        ),
        docker=_docker(_table(data, "docker", path), path),
        smolmachines=_smolmachines(_table(data, "smolmachines", path), path),
        pipelock=_program(_table(data, "pipelock", path), path),
    )


def _program(table: Mapping[str, object], path: Path) -> str:
    _known(table, ("program",), path, "pipelock.")
    program = _text(table, "program", path, "pipelock.")
    if program and not Path(program).is_absolute():
        raise ManifestError(f"{path}: pipelock.program: {shown(program)} is no absolute path")
    return program


def _proxy(table: Mapping[str, object], path: Path) -> UpstreamProxy | None:
    texts = {key: _text(table, key, path, "egress.") for key in ("proxy", "proxy_user", "proxy_password_ref")}
    resolves, bypass = _flag(table, "proxy_resolves", path, "egress."), table.get("no_proxy", [])
    if not isinstance(bypass, list) or not all(isinstance(entry, str) for entry in bypass):
        raise ManifestError(f'{path}: egress.no_proxy: must be a list of texts, such as ["*.corp.example"]')
    if not texts["proxy"]:
        orphan = next((key for key in PROXY_KEYS if table.get(key)), "")
        if orphan:
            raise ManifestError(f"{path}: egress.{orphan}: goes with proxy; write proxy, or remove it")
        return None
    try:
        return proxy_settings(
            texts["proxy"],
            user=texts["proxy_user"],
            password_ref=texts["proxy_password_ref"],
            resolves=resolves,
            bypass=bypass,
        )
    except ValueError as error:
        raise ManifestError(f"{path}: egress.{error}") from error


def _cas(table: Mapping[str, object], key: str, path: Path, prefix: str) -> tuple[str, str]:
    """Read a key that names one file of CA certificates or a list of them."""
    written = table.get(key, "")
    if not isinstance(written, list):
        return _ca(table, key, path, prefix)
    found = [_ca({key: one}, key, path, prefix) for one in written]
    return ", ".join(name for name, _pem in found), "".join(pem for _name, pem in found)


def _smolmachines(table: Mapping[str, object], path: Path) -> SmolmachinesConfig:
    _known(table, ("image",), path, "smolmachines.")
    image = _text(table, "image", path, "smolmachines.")
    try:
        return SmolmachinesConfig(image=values.image(image) if image else "")
    except ValueError as error:
        raise ManifestError(f"{path}: smolmachines.image: {shown(image)} {error}") from error


def _docker(table: Mapping[str, object], path: Path) -> DockerConfig:
    _known(table, ("base_image", "sidecar_base_image", "network", "runtime", "build_ca"), path, "docker.")
    build_ca, pem = _ca(table, "build_ca", path, "docker.")
    network = _named(table, "network", path)
    if network in _NO_NETWORKS:
        raise ManifestError(
            f"{path}: docker.network: the sidecar cannot use {network}; write bridge, or the name "
            "of a network made with: docker network create NAME"
        )
    return DockerConfig(
        base_image=_image(table, "base_image", path),
        sidecar_base_image=_image(table, "sidecar_base_image", path),
        network=network,
        runtime=_named(table, "runtime", path) or "auto",
        build_ca=build_ca,
        build_ca_pem=pem,
    )


def _image(table: Mapping[str, object], key: str, path: Path) -> str:
    text = _text(table, key, path, "docker.")
    if text and (len(text) > values.MAX_IMAGE or not values.IMAGE_REFERENCE.fullmatch(text)):
        raise ManifestError(
            f"{path}: docker.{key}: {shown(text)} is no image's name; write one such as node:22-bookworm-slim"
        )
    return text


def _named(table: Mapping[str, object], key: str, path: Path) -> str:
    text = _text(table, key, path, "docker.")
    if text and not _NAME.fullmatch(text):
        raise ManifestError(
            f"{path}: docker.{key}: {shown(text)} is no name; it holds letters, digits, _, . and - only"
        )
    return text


def _ca(table: Mapping[str, object], key: str, path: Path, prefix: str) -> tuple[str, str]:
    """Read a key that names a file of CA certificates; gives the name as written and the certificates."""
    written = _text(table, key, path, prefix)
    if not written:
        return "", ""
    ca_path = Path(os.path.expanduser(written))  # noqa: PTH111 - Path.expanduser raises for unknown users
    if not ca_path.is_absolute():
        raise ManifestError(f"{path}: {prefix}{key}: must be an absolute path")
    try:
        return written, read_ca_file(ca_path)
    except ManifestError as error:
        raise ManifestError(f"{path}: {prefix}{key}: {error}") from error


def parse_pin_option(text: str) -> tuple[str, Pin]:
    """Read ``HOST=ADDRESS[:PORT]`` from the command line; raises ``ManifestError``."""
    host, sign, target = text.partition("=")
    if not sign:
        raise ManifestError(f"--pin {shown(text)}: write HOST=ADDRESS or HOST=ADDRESS:PORT")
    return _pin(host, target, f"--pin {shown(text)}")


def _pin(host: str, target: str, where: str) -> tuple[str, Pin]:
    try:
        name = parse_host_pattern(host)
    except ValueError as error:
        raise ManifestError(f"{where}: the host {error}") from error
    if name.startswith("*."):
        raise ManifestError(f"{where}: a pin names one host; write it in full")
    return name, parse_pin(target, where)


def parse_pin(text: str, where: str) -> Pin:
    """Read ``address``, ``address:port`` or ``[v6]:port``; raises ``ManifestError`` with ``where``."""
    match = re.fullmatch(r"\[([^\]]+)\](?::([0-9]{1,5}))?|([0-9.]+)(?::([0-9]{1,5}))?|([0-9a-fA-F:.]+)", text)
    if not match:
        raise ManifestError(
            f"{where}: must be an IP address with or without a port, such as 127.0.0.1:8443 or [::1]:8443"
        )
    address, port = match[1] or match[3] or match[5], match[2] or match[4]
    try:
        canonical = str(ip_address(address))
    except ValueError as error:
        raise ManifestError(f"{where}: {shown(address)} is no IP address; a pin never asks DNS") from error
    if port is not None and not 1 <= int(port) <= 65535:
        raise ManifestError(f"{where}: {port} is no port; write a number from 1 to 65535")
    return Pin(address=canonical, port=int(port) if port else None)


def _known(table: Mapping[str, object], known: Iterable[str], path: Path, prefix: str) -> None:
    names = list(known)
    for key in table:
        if key not in names:
            close = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the keys here are {', '.join(names)}"
            raise ManifestError(f"{path}: {prefix}{shown(key)}: unknown key; {hint}")


def _table(data: Mapping[str, object], key: str, path: Path) -> Mapping[str, object]:
    value = data.get(key, {})
    if not isinstance(value, dict):
        raise ManifestError(f"{path}: {key}: must be a table; write [{key}] on a line of its own")
    return value


def _text(table: Mapping[str, object], key: str, path: Path, prefix: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise ManifestError(f"{path}: {prefix}{shown(key)}: must be text in quotes")
    return value


def _flag(table: Mapping[str, object], key: str, path: Path, prefix: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise ManifestError(f"{path}: {prefix}{key}: must be true or false, without quotes")
    return value


def _argv(table: Mapping[str, object], key: str, path: Path) -> tuple[str, ...]:
    """Read a program with its arguments; no shell ever reads them."""
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) and "\0" not in one for one in value):
        raise ManifestError(
            f"{path}: {key}: must be a list of texts, a program and its arguments, "
            'such as ["tell-me", "--loud"]'
        )
    if value and not value[0]:
        raise ManifestError(f"{path}: {key}: the first text is the program to run, and it is empty")
    return tuple(value)


def _lenders(table: Mapping[str, object], path: Path) -> tuple[str, ...] | None:
    value = table.get("lenders")
    if value is None:
        return None
    if isinstance(value, list):
        folders = [os.path.expanduser(one) for one in value if isinstance(one, str)]  # noqa: PTH111 - as _ca
        if len(folders) == len(value) and all(Path(one).is_absolute() and "\0" not in one for one in folders):
            return tuple(folders)
    raise ManifestError(f'{path}: lenders: must be a list of absolute paths, such as ["/srv/git-cache"]')


def _refuse_foreign(info: os.stat_result, path: Path, what: str) -> None:
    """Raise ``ManifestError`` where another than the operator (or root) could have written ``path``."""
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ManifestError(f"{path}: {what} can be written by others; run: chmod go-w '{path}'")
    if info.st_uid not in {0, os.geteuid()}:
        raise ManifestError(f"{path}: {what} belongs to another user of this machine")


def read_operator_file(path: Path, what: str) -> str | None:
    """Read a small file of the operator's, called ``what`` in sentences; None if it is missing.

    Raises ``ManifestError`` if it may not be used: others could have written it, or it is no text.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ManifestError(f"{path}: {what} cannot be read ({error.strerror})") from error
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise ManifestError(f"{path}: {what} is no regular file")
        _refuse_foreign(info, path, what)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(_MAX_SIZE + 1)
    finally:
        os.close(descriptor)
    if len(data) > _MAX_SIZE:
        raise ManifestError(f"{path}: {what} is larger than {_MAX_SIZE // 1024} KiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: {what} is not UTF-8") from error
