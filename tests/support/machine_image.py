"""The root file system that machines of the tests start from: the small Debian that containers use too."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.base_image import NoBaseError, base_archive
from tests.tools.kvmbox import make_disk

#: Names a folder that holds it already, as in an emulated machine.
VARIABLE = "BOT_BOTTLE_TEST_IMAGE"


class NoImageError(Exception):
    """There is no image, and none can be made here; the text says why."""


def machine_image() -> str:
    """Give the folder, unpacked once and kept in the cache; raises ``NoImageError``."""
    given = os.environ.get(VARIABLE)
    if given:
        return given
    archive = _archive()
    folder = archive.with_suffix("")
    if not folder.exists():
        unfinished = archive.with_suffix(".partial")
        subprocess.run(["rm", "-rf", str(unfinished)], check=True)
        unfinished.mkdir(mode=0o755)
        subprocess.run(["tar", "--numeric-owner", "-C", str(unfinished), "-xf", str(archive)], check=True)
        unfinished.rename(folder)
    return str(folder)


def machine_disk() -> Path:
    """Give the same as a disk for an emulated machine; raises ``NoImageError`` or ``NoBoxError``."""
    disk = _archive().with_suffix(".ext4")
    if not disk.exists():
        make_disk(Path(machine_image()), disk)
    return disk


def _archive() -> Path:
    if os.getuid() != 0:
        raise NoImageError(f"only root can make one; name a folder in {VARIABLE}")
    try:
        return base_archive()
    except NoBaseError as error:
        raise NoImageError(str(error)) from error
