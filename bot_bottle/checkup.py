"""What ``doctor`` finds out: the backends, the programs this needs, the operator's own files."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle import paths
from bot_bottle.agent_provider.registry import provider_programs
from bot_bottle.backend.registry import get_bottle_backend, known_backend_names
from bot_bottle.errors import BotBottleError
from bot_bottle.legible import legible
from bot_bottle.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bot_bottle.backend.base import ProbeLevel

_OLDEST_PYTHON = (3, 11)

#: How many files of one cause are named.
_MAX_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at. ``remedy`` is the one act that would change it, empty if all is well."""

    kind: str
    name: str
    level: ProbeLevel
    detail: str
    remedy: str = ""


def examine(cwd: Path) -> tuple[Finding, ...]:
    """Look at everything; never raises for what it finds."""
    return (*_backends(), *_programs(), *_own_files(), *_manifest(cwd))


def _backends() -> Iterator[Finding]:
    for name in known_backend_names():
        try:
            result = get_bottle_backend(name).probe()
        except BotBottleError as error:
            yield Finding(kind="backend", name=name, level="unavailable", detail=str(error))
            continue
        yield Finding(
            kind="backend", name=name, level=result.level, detail=result.detail, remedy=result.remedy
        )


def _programs() -> Iterator[Finding]:
    version = platform.python_version()
    if sys.version_info[:2] >= _OLDEST_PYTHON:
        yield Finding(kind="program", name="python", level="ok", detail=version)
    else:
        yield Finding(
            kind="program",
            name="python",
            level="unavailable",
            detail=version,
            remedy="install Python 3.11 or newer",
        )
    git = shutil.which("git")
    if git:
        yield Finding(kind="program", name="git", level="ok", detail=git)
    else:
        yield Finding(
            kind="program",
            name="git",
            level="degraded",
            detail="not found; `start --cwd` cannot copy a repository",
            remedy="install git with this system's package manager, e.g.: sudo apt-get install git",
        )
    for program, install in provider_programs():
        place = shutil.which(program)
        if place:
            yield Finding(kind="program", name=program, level="ok", detail=place)
        else:
            yield Finding(
                kind="program",
                name=program,
                level="degraded",
                detail=f"not found; agents whose template is {program} cannot start",
                remedy=install,
            )


def _own_files() -> Iterator[Finding]:
    home = paths.home_dir()
    try:
        info = home.stat()
    except FileNotFoundError:
        yield _missing_home(home)
        return
    except OSError as error:
        yield _folder(home, "unavailable", f"cannot be read ({error.strerror})")
        return
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        detail = "can be written by others, so its manifests and its config.toml are refused"
        yield _folder(home, "unavailable", detail, f"chmod go-w '{home}'")
    elif info.st_uid not in {0, os.geteuid()}:
        detail = "belongs to another user, so its manifests and its config.toml are refused"
        yield _folder(home, "unavailable", detail, f"chown {os.geteuid()} '{home}'")
    elif not os.access(home, os.W_OK | os.X_OK):
        detail = "cannot be written (read-only), so nothing can be started"
        yield _folder(home, "unavailable", detail, "set BOT_BOTTLE_HOME to a folder that can be written")
    elif _is_open(home.parent):
        yield _replaceable(home)
    else:
        yield _folder(home, "ok", "yours alone to write")


def _missing_home(home: Path) -> Finding:
    """Say of a folder that is not there whether a start could make it."""
    above = next(one for one in home.parents if one.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        detail = f"not there, and cannot be made: {above} cannot be written"
        return _folder(home, "unavailable", detail, "set BOT_BOTTLE_HOME to a folder that can be written")
    if _is_open(above):
        return _replaceable(home)
    return _folder(home, "ok", "not there yet; bot-bottle init makes it, and a first agent in it")


def _is_open(folder: Path) -> bool:
    """Tell whether others may put something else in the place of what lies in ``folder``."""
    mode = folder.stat().st_mode
    return bool(mode & (stat.S_IWGRP | stat.S_IWOTH)) and not mode & stat.S_ISVTX


def _replaceable(home: Path) -> Finding:
    above = next(one for one in home.parents if one.exists())
    detail = f"{above} can be written by others, who can put another folder in its place"
    return _folder(home, "degraded", detail, f"chmod go-w '{above}'")


def _folder(home: Path, level: ProbeLevel, detail: str, remedy: str = "") -> Finding:
    return Finding(kind="folder", name=str(home), level=level, detail=detail, remedy=remedy)


def _manifest(cwd: Path) -> Iterator[Finding]:
    from bot_bottle.config_check import config_problems  # noqa: PLC0415 - as below
    from bot_bottle.manifest.model import Manifest  # noqa: PLC0415 - pydantic only when it comes to this

    manifest = Manifest.resolve(cwd)
    told = str(paths.home_dir())  # what is wrong with that folder itself has a line already
    causes: dict[str, list[str]] = {}
    for file, error in manifest.broken_files.items():
        causes.setdefault(str(error).replace("\n", "; "), []).append(f"{file.parent.name}/{file.stem}")
    for cause, names in causes.items():
        if not cause.startswith(f"{told} "):
            yield Finding(kind="manifest", name=_some(names), level="degraded", detail=cause)
    for warning in manifest.warnings:
        yield Finding(kind="manifest", name="warning", level="degraded", detail=warning)
    if not causes:
        bottles, agents = counted(len(manifest.bottles), "bottle"), counted(len(manifest.agents), "agent")
        detail = f"{bottles} and {agents}, all readable"
        if not manifest.agents:
            detail = "no agent is declared yet; write one with: bot-bottle init"
        yield Finding(kind="manifest", name=str(manifest.home), level="ok", detail=detail)
    for problem in config_problems(paths.config_file(), known_backend_names()):
        if not problem.message.startswith(f"{told}: the folder of the config file "):
            yield Finding(
                kind="config", name="config.toml", level="unavailable", detail=legible(str(problem))
            )


def _some(names: list[str]) -> str:
    """Name a few of many."""
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
