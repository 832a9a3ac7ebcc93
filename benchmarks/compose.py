"""The compose plugin of Docker's client: this machine's, or Debian's package of it, unpacked in the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.support.base_image import NoBaseError, package_source
from tests.support.outside import download_cache

if TYPE_CHECKING:
    from pathlib import Path

#: The Debian release that has the plugin as a package; the program is static enough to run on older ones.
_SUITE = "trixie"
_PACKAGE = "docker-compose"


class NoComposeError(Exception):
    """There is no compose plugin here; the text says why."""


def client_config() -> str:
    """Give the DOCKER_CONFIG with which ``docker compose`` works; empty where it works without one.

    Raises ``NoComposeError``.
    """
    if _works(""):
        return ""
    folder = download_cache() / "compose"
    if not _works(str(folder)):
        _fetch(folder)
    if not _works(str(folder)):
        raise NoComposeError(f"the compose plugin of Debian {_SUITE} does not run here")
    return str(folder)


def _works(config: str) -> bool:
    env = {**os.environ, **({"DOCKER_CONFIG": config} if config else {})}
    try:
        ran = subprocess.run(["docker", "compose", "version"], env=env, capture_output=True, check=False)
    except OSError:
        return False
    return ran.returncode == 0


def _fetch(folder: Path) -> None:
    """Unpack the package with an apt that looks nowhere but in that release; nothing is installed."""
    place = folder / "apt"
    for name in ("lists/partial", "archives/partial"):
        (place / name).mkdir(parents=True, exist_ok=True)
    try:
        mirror = package_source()[1]
    except NoBaseError as error:
        raise NoComposeError(str(error)) from error
    (place / "sources.list").write_text(f"deb {mirror} {_SUITE} main\n")
    apt = ["apt-get", "-qq"]
    for option in (
        f"Dir::Etc::SourceList={place / 'sources.list'}",
        "Dir::Etc::SourceParts=/dev/null",
        f"Dir::State::Lists={place / 'lists'}",
        f"Dir::Cache={place}",
    ):
        apt += ["-o", option]
    for command in ([*apt, "update"], [*apt, "download", _PACKAGE]):
        ran = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            raise NoComposeError(
                f"{_PACKAGE} of Debian {_SUITE} is not to be had: {ran.stderr.strip()[-300:]}"
            )
    (archive,) = place.glob(f"{_PACKAGE}_*.deb")
    subprocess.run(["dpkg", "-x", str(archive), str(place / "root")], check=True)
    (folder / "cli-plugins").mkdir(exist_ok=True)
    (plugin,) = (place / "root").glob("usr/**/cli-plugins/docker-compose")
    shutil.copy(plugin, folder / "cli-plugins" / "docker-compose")
    shutil.rmtree(place)
