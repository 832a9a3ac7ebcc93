"""A small Debian root to make images of, without any image registry: debootstrap, once, kept in the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.outside import download_cache

#: What bottles and sidecars need to find in their base: the scripted world has no package source.
PACKAGES = ("ca-certificates", "curl", "git", "iproute2", "openssh-client", "procps", "python3")

#: Left out of the image: what only installing needs.
_LITTER = (
    "var/cache/apt/archives",
    "var/lib/apt/lists",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
)


class NoBaseError(Exception):
    """This machine cannot make a base image; the text says why."""


def base_archive() -> Path:
    """Give a tar archive of the base root, made with debootstrap where the cache has none.

    The distribution is this machine's own and comes from where its apt is set up to look.

    Raises ``NoBaseError``.
    """
    suite, mirror = package_source()
    name = hashlib.sha256("\n".join((suite, *PACKAGES, *_LITTER)).encode()).hexdigest()[:12]
    archive = download_cache() / f"base-{suite}-{name}.tar"
    if not archive.exists():
        _make(archive, suite, mirror)
    return archive


def package_source() -> tuple[str, str]:
    """Give the code name and the package source that this machine's apt installs from.

    Raises ``NoBaseError``.
    """
    command = [
        "apt-get",
        "indextargets",
        "--format",
        "$(CODENAME) $(COMPONENT) $(REPO_URI)",
        "Created-By: Packages",
    ]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoBaseError(f"apt cannot say where packages come from: {error}") from error
    for line in listed:
        codename, _, rest = line.partition(" ")
        component, _, mirror = rest.partition(" ")
        if (
            component == "main"
            and "-" not in codename
            and Path("/usr/share/debootstrap/scripts", codename).exists()
        ):
            return codename, mirror
    raise NoBaseError("apt has no package source that debootstrap knows (is debootstrap installed?)")


def _make(archive: Path, suite: str, mirror: str) -> None:
    program = shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        raise NoBaseError("debootstrap is not installed; install it with: apt install debootstrap")
    with tempfile.TemporaryDirectory(prefix="base-", dir=archive.parent) as place:
        root = Path(place, "root")
        options = ("--variant=minbase", f"--include={','.join(PACKAGES)}")
        made = subprocess.run(
            [program, *options, suite, str(root), mirror],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
            check=False,
        )
        if made.returncode != 0:
            raise NoBaseError(f"debootstrap failed: {(made.stdout + made.stderr).strip()[-800:]}")
        for name in _LITTER:
            shutil.rmtree(root / name)
            (root / name).mkdir()
        finished = Path(place, archive.name)
        packed = ["tar", "--numeric-owner", "--exclude=./dev/*", "--exclude=./proc/*", "-C", str(root), "-cf"]
        subprocess.run([*packed, str(finished), "."], check=True)
        finished.replace(archive)
