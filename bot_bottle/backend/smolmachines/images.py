"""What a machine starts from: a folder or an archive on this host, an image fetched by name, or one built.

Nothing is ever fetched from inside a machine, which has no way out, nor by one that has.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bot_bottle import paths, process
from bot_bottle.backend.registry import IMAGE_BUILDER, get_bottle_backend
from bot_bottle.backend.smolmachines import engine
from bot_bottle.errors import UnavailableError, UsageError
from bot_bottle.files import make_private_dir
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from bot_bottle.manifest.model import ManifestBottle
    from bot_bottle.operator_config import OperatorConfig

Kind = Literal["folder", "archive", "name", "dockerfile"]

_PULL_SECONDS = 1800.0
_PACK = ".smolmachine"
# What fetching may need of the operator's own settings: where a registry's login lies, and the way there.
_FETCH_ENV = (
    "PATH",
    "HOME",
    "DOCKER_CONFIG",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
#: What this machine is called by Python, and by image registries.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """What a bottle's machine is to start from; ``where`` names the setting that says so, for sentences."""

    kind: Kind
    value: str
    where: str


def image_source(bottle: ManifestBottle, config: OperatorConfig) -> ImageSource:
    """Choose: the bottle's ``image``, its ``dockerfile``, the config file's image, the provider's Dockerfile.

    Raises ``UsageError`` for a path that is neither folder nor archive.
    """
    provider = bottle.agent_provider
    if provider.image:
        return _named(provider.image, "agent_provider.image")
    if config.smolmachines.image and not provider.dockerfile:
        return _named(config.smolmachines.image, "smolmachines.image of config.toml")
    where = "agent_provider.dockerfile" if provider.dockerfile else f"the Dockerfile of {provider.template}"
    return ImageSource(kind="dockerfile", value=provider.dockerfile, where=where)


def _named(text: str, where: str) -> ImageSource:
    if not text.startswith(("/", "~/")):
        return ImageSource(kind="name", value=text, where=where)
    path = Path(text).expanduser()
    shown = legible(str(path))
    # A pack brings its own settings, network and all, and the SDK would take them in place of ours.
    if path.name.endswith(_PACK):
        raise UsageError(f"{where}: {shown} is a pack, whose own settings would count; name an image")
    try:
        info = path.stat()
    except OSError as error:
        raise UsageError(f"{where}: {shown}: {error.strerror}; name a folder or an archive") from error
    if stat.S_ISDIR(info.st_mode):
        if not os.path.lexists(path / "bin" / "sh"):
            raise UsageError(f"{where}: {shown} holds no bin/sh; name the root of a whole file system")
        return ImageSource(kind="folder", value=str(_open_to_machine(path.resolve(), where)), where=where)
    if not stat.S_ISREG(info.st_mode):
        raise UsageError(f"{where}: {shown} is neither a folder nor an image archive")
    return ImageSource(kind="archive", value=str(path.resolve()), where=where)


def _open_to_machine(folder: Path, where: str) -> Path:
    """Refuse a folder that root's machines, which run as accounts of their own, could not read."""
    if os.geteuid() == 0:
        closed = [one for one in (folder, *folder.parents) if not one.stat().st_mode & stat.S_IXOTH]
        if closed:
            raise UsageError(
                f"{where}: root's machines run as another account, which cannot enter {closed[-1]}; put the "
                f"folder elsewhere, or open it with: chmod o+x {closed[-1]}"
            )
    return folder


def ready(source: ImageSource, bottle: ManifestBottle, *, refresh: bool = False) -> Path:
    """Give the folder or archive to start from, fetched or built where it has to be (or with ``refresh``).

    Raises ``UnavailableError``, and what building raises.
    """
    if source.kind == "name":
        return fetched(source, refresh=refresh)
    if source.kind != "dockerfile":
        return Path(source.value)
    builder = get_bottle_backend(IMAGE_BUILDER)
    try:
        return builder.save_image(bottle, _folder(), refresh=refresh)
    except UnavailableError as error:
        raise UnavailableError(
            f"a machine starts from an image, and {source.where} cannot be built: {error}. Name a folder, an "
            "archive or an image in agent_provider.image instead"
        ) from error


def origin(source: ImageSource, path: Path) -> str:
    """Tell the image that a machine starts from apart from others, and from what stood at ``path`` before.

    A folder is what it holds at each start, and what is built is named after its content; only another
    archive can stand at the same path. Raises ``OSError``.
    """
    said = str(path)
    if source.kind in {"archive", "name"}:
        info = path.stat()
        said += f"\n{info.st_size} {info.st_mtime_ns}"
    return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def fetched(source: ImageSource, *, refresh: bool = False) -> Path:
    """Give the archive of an image's name, fetched now where it is not there yet (or with ``refresh``).

    Raises ``UnavailableError`` where it is not to be had.
    """
    machine = platform.machine()
    folder = _folder()
    key = hashlib.sha256(f"{source.value}\n{machine}".encode()).hexdigest()[:32]
    archive = folder / f"{key}.tar"
    if archive.exists() and not refresh:
        return archive
    make_private_dir(folder)
    unfinished = folder / f".{key}.{os.getpid()}.partial"
    print(f"bot-bottle: fetching {legible(source.value)} ({source.where})", file=sys.stderr)
    env = {name: os.environ[name] for name in _FETCH_ENV if name in os.environ}
    options = ["--platform", f"linux/{ARCHITECTURES.get(machine, machine)}"]
    try:
        done = process.run(
            [str(fetcher()), "pull", *options, source.value, str(unfinished)], env=env, timeout=_PULL_SECONDS
        )
        if done.returncode != 0:
            words = process.first_line(done.stderr, "no reason was given")
            raise UnavailableError(f"{source.where}: {source.value} could not be fetched: {words}")
        unfinished.replace(archive)
    finally:
        unfinished.unlink(missing_ok=True)
    return archive


def _folder() -> Path:
    return paths.cache_dir() / engine.PACKAGE / "images"


def fetcher() -> Path:
    """Give the program with which the engine itself fetches images; it unpacks it at its first machine."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    found = sorted(cache.glob("smolvm/rootfs/*/usr/local/bin/crane"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UnavailableError(
            "the engine has not unpacked the program that fetches images yet; let it start a machine with: "
            "bot-bottle doctor"
        )
    return found[-1]
