"""The host folders of one bottle: its home, its workspace, its trust.

A resumed bottle's home was written by its agent, so nothing in it is followed: every step goes through
descriptors opened with ``O_NOFOLLOW``.
"""

from __future__ import annotations

import os
import stat
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

from bot_bottle.backend.util import trust_dir
from bot_bottle.errors import LaunchError
from bot_bottle.files import open_folder, open_up

if TYPE_CHECKING:
    from pathlib import Path

HOME, WORKSPACE = "home", "workspace"

#: Kernel accounts for root's bottles: far from anything that systems, containers or subuid files hand out.
_FIRST_ACCOUNT = 2_000_000_000
_ACCOUNTS = 1 << 20
#: The account of the short-lived sandbox that only finds out whether one can be made.
PROBE_ACCOUNT = _FIRST_ACCOUNT + _ACCOUNTS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def account_for(state_dir: Path) -> int:
    """Give the account of a root operator's bottle: the owner of its home, or one no other bottle has."""
    present = _home_owner(state_dir)
    if _is_account(present):
        return present
    used: set[int] = set()
    with suppress(FileNotFoundError):
        used = {_home_owner(other) for other in state_dir.parent.iterdir()}
    offset = zlib.crc32(state_dir.name.encode()) % _ACCOUNTS
    while _FIRST_ACCOUNT + offset in used:
        offset = (offset + 1) % _ACCOUNTS
    return _FIRST_ACCOUNT + offset


def prepare_folders(state_dir: Path, account: int | None) -> tuple[Path, Path, Path]:
    """Make home, workspace and trust where they are missing; gives their paths in that order.

    Raises ``LaunchError`` where one of them is not a plain folder of the bottle's own account.
    """
    try:
        base = os.open(state_dir, _DIRECTORY)
    except OSError as error:
        raise LaunchError(
            f"{state_dir}: the bottle's state folder cannot be opened: {error.strerror}"
        ) from error
    try:
        for name in (HOME, WORKSPACE):
            _own_folder(base, name, account, state_dir)
        with suppress(FileExistsError):
            os.mkdir("trust", 0o755, dir_fd=base)
        _check_mount_point(base, state_dir)
    finally:
        os.close(base)
    trust = trust_dir(state_dir)
    if trust.is_symlink() or not trust.is_dir():
        raise LaunchError(f"{trust}: expected a folder; remove it and start again")
    return state_dir / HOME, state_dir / WORKSPACE, trust


def _own_folder(base: int, name: str, account: int | None, state_dir: Path) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=base)
    try:
        folder = open_folder(name, dir_fd=base)
    except OSError as error:
        raise LaunchError(
            f"{state_dir / name}: expected a folder of the bottle's own: {error.strerror}"
        ) from error
    try:
        owner = os.fstat(folder).st_uid
        if account is None and owner != os.geteuid():
            raise LaunchError(f"{state_dir / name}: belongs to another user; resume it as that user")
        taken = account is not None and owner != account
        if taken and (_is_account(owner) or _holds_something(folder)):
            raise LaunchError(f"{state_dir / name}: belongs to account {owner}, not to this bottle")
        # The agent owns its folders, and may have closed them to itself and so to the bottle's start.
        opened = open_up(folder)
        try:
            if account is not None and taken:
                os.fchown(opened, account, account)
        finally:
            os.close(opened)
    finally:
        os.close(folder)


def _holds_something(folder: int) -> bool:
    opened = os.open(".", _DIRECTORY, dir_fd=folder)
    try:
        return bool(os.listdir(opened))
    finally:
        os.close(opened)


def _check_mount_point(base: int, state_dir: Path) -> None:
    """See to it that the workspace is mounted on a folder of the home, not on what a link there points to."""
    home = os.open(HOME, _DIRECTORY, dir_fd=base)
    try:
        mode = os.stat(WORKSPACE, dir_fd=home, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    finally:
        os.close(home)
    if not stat.S_ISDIR(mode):
        raise LaunchError(f"{state_dir / HOME / WORKSPACE}: expected a folder; remove it and resume again")


def _home_owner(state_dir: Path) -> int:
    try:
        return os.stat(state_dir / HOME, follow_symlinks=False).st_uid
    except OSError:
        return -1


def _is_account(uid: int) -> bool:
    return _FIRST_ACCOUNT <= uid < _FIRST_ACCOUNT + _ACCOUNTS
