"""Reading the manifest folders: the operator's home, and the agents a repository brings along."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from bot_bottle import paths
from bot_bottle.egress.routes import egress_manifest_routes
from bot_bottle.errors import ManifestError
from bot_bottle.manifest.build import agent_from_text, bottle_from_text, routes_from_text
from bot_bottle.manifest.extends import resolve_bottles
from bot_bottle.manifest.files import MAX_FILE_SIZE, ManifestFolder, decode
from bot_bottle.manifest.model import (
    AgentOrigin,
    Manifest,
    ManifestAgent,
    ManifestAgentProvider,
    ManifestBottle,
    ManifestEgress,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bot_bottle.egress.routes import EgressRoute

Item = TypeVar("Item")

#: The folder's name in a repository; the operator's own is ``paths.home_dir()``.
REPOSITORY_FOLDER = ".bot-bottle"


def load_manifest(
    cwd: Path, home: Path | None = None, *, instead: Mapping[Path, str] | None = None
) -> Manifest:
    """Read everything declared; see :meth:`Manifest.resolve`.

    ``instead`` has texts that are taken for those of the operator's files, which are not written yet.
    """
    base = home or paths.home_dir()
    drafts = instead or {}
    warnings: list[str] = []
    files, unread = _load(ManifestFolder(path=base / "bottles"), bottle_from_text, warnings, drafts)
    bottles, broken_bottles = resolve_bottles(files, unread)
    own_agents = ManifestFolder(path=base / "agents")
    agents, broken_agents = _load(own_agents, _agent_reader("operator"), warnings, drafts)
    broken_files = {base / "bottles" / f"{name}.md": error for name, error in broken_bottles.items()}
    broken_files |= {base / "agents" / f"{name}.md": error for name, error in broken_agents.items()}

    repository = cwd / REPOSITORY_FOLDER
    if not _same_folder(repository, base):
        _warn_of_bottles(repository, warnings)
        folder = ManifestFolder(path=repository / "agents", writers=stat.S_IWOTH, within=cwd)
        inside = _is_inside(folder.path, cwd)
        if folder.path.is_dir() and not inside:
            warnings.append(f"{folder.path} is a link out of {cwd}; its agents are ignored")
        if inside:
            own = {*agents, *broken_agents}
            found, broken = _load(folder, _agent_reader("repository"), warnings)
            warnings += [
                f"agent {name}: your own is used; {folder.path}/{name}.md is ignored"
                for name in sorted(own & {*found, *broken})
            ]
            agents |= {name: agent for name, agent in found.items() if name not in own}
            theirs = {name: error for name, error in broken.items() if name not in own}
            broken_agents |= theirs
            broken_files |= {folder.path / f"{name}.md": error for name, error in theirs.items()}
    return Manifest(
        agents=agents,
        bottles=bottles,
        broken_agents=broken_agents,
        broken_bottles=broken_bottles,
        broken_files=broken_files,
        warnings=tuple(warnings),
        home=base,
    )


def load_routes_file(path: Path) -> tuple[EgressRoute, ...]:
    """Read the file of ``bot-bottle proxy --routes``: YAML whose ``routes:`` has the manifest's route keys.

    Raises ``ManifestError`` with every problem and its place.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        raise ManifestError(f"{path} cannot be read ({error.strerror})") from error
    bottle = ManifestBottle(
        name=path.stem,
        path=path,
        agent_provider=ManifestAgentProvider(template=""),
        egress=ManifestEgress(routes=routes_from_text(path, decode(data, path))),
    )
    return tuple(
        replace(route, origin=f"routes[{index}]")
        for index, route in enumerate(egress_manifest_routes(bottle))
    )


def _load(
    folder: ManifestFolder,
    read: Callable[[str, Path, str], Item],
    warnings: list[str],
    drafts: Mapping[Path, str] = MappingProxyType({}),
) -> tuple[dict[str, Item], dict[str, ManifestError]]:
    """Read one folder: its good files, and the error of each bad one."""
    names, passed_over = folder.names()
    warnings += passed_over
    found: dict[str, Item] = {}
    broken: dict[str, ManifestError] = {}
    fault = folder.fault() if names else None
    for name, path in names.items():
        if fault:
            broken[name] = fault
            continue
        try:
            found[name] = read(name, path, drafts[path] if path in drafts else folder.read(path))
        except ManifestError as error:
            broken[name] = error
        except OSError as error:
            broken[name] = ManifestError(f"{path} cannot be read ({error.strerror})")
    return found, broken


def _agent_reader(origin: AgentOrigin) -> Callable[[str, Path, str], ManifestAgent]:
    def read(name: str, path: Path, text: str) -> ManifestAgent:
        return agent_from_text(name, path, text, origin)

    return read


def _warn_of_bottles(repository: Path, warnings: list[str]) -> None:
    """Say that a repository cannot declare what a bottle may do."""
    if os.path.lexists(repository / "bottles"):
        warnings.append(
            f"{repository / 'bottles'} is ignored: bottles are read from the operator's home only, "
            "so that a repository cannot say what may leave this machine"
        )


def _same_folder(first: Path, second: Path) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)


def _is_inside(folder: Path, root: Path) -> bool:
    real = Path(os.path.realpath(folder))
    return folder.is_dir() and real.is_relative_to(os.path.realpath(root))
