"""The root file system that machines of the tests start from.

It is the small Debian that containers use too, with the providers' programs that the cache holds.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.support.base_image import NoBaseError, base_archive
from tests.support.outside import download_cache
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
    folder = _place()
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o755)
        subprocess.run(["tar", "--numeric-owner", "-C", str(unfinished), "-xf", str(_archive())], check=True)
        for program in _programs():
            target = unfinished / "usr" / "local" / "bin" / program.name
            shutil.copyfile(program, target)
            target.chmod(0o755)
        unfinished.rename(folder)
    return str(folder)


def machine_disk() -> Path:
    """Give the same as a disk for an emulated machine; raises ``NoImageError`` or ``NoBoxError``."""
    disk = _place().with_suffix(".ext4")
    if not disk.exists():
        make_disk(Path(machine_image()), disk)
    return disk


def _place() -> Path:
    """Name the folder after all that goes into it."""
    parts = [f"{program} {program.stat().st_size}" for program in _programs()]
    key = hashlib.sha256("\n".join((_archive().name, *parts)).encode()).hexdigest()[:12]
    return download_cache() / f"machine-{key}"


def _programs() -> list[Path]:
    found = (download_cache() / name / "node_modules" / ".bin" / name for name in ("claude",))
    return [path for path in found if path.exists()]


def _archive() -> Path:
    if os.getuid() != 0:
        raise NoImageError(f"only root can make one; name a folder in {VARIABLE}")
    try:
        return base_archive()
    except NoBaseError as error:
        raise NoImageError(str(error)) from error
