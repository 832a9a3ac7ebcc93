"""Find the program behind a version manager's stand-in on the ``PATH``, without running it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_SHIM = 1 << 16
#: pyenv, nodenv, rbenv and goenv write ``exec "/path/pyenv" exec "$program" "$@"``.
_ENV_SHIM = re.compile(r"^\s*exec .*\b\w+env\"? exec ", re.MULTILINE)
_ASDF_SHIM = re.compile(r"^# asdf-plugin: (\S+) (\S+)$", re.MULTILINE)


def program_behind(path: str) -> str:
    """Give ``path`` itself where it is no stand-in, else the program behind it; empty where there is none."""
    manager = os.path.basename(os.path.realpath(path))
    place = Path(path)
    if manager == "mise" and place.name != "mise":
        installs = place.parent.parent / "installs"
        return _first(
            _newest_first([*installs.glob(f"*/*/bin/{place.name}"), *installs.glob(f"*/*/{place.name}")])
        )
    if manager == "volta-shim":
        tools = place.parent.parent / "tools" / "image"
        packages = [
            *tools.glob(f"packages/*/bin/{place.name}"),
            *tools.glob(f"packages/*/*/bin/{place.name}"),
        ]
        return _first(packages + _newest_first(tools.glob(f"*/*/bin/{place.name}")))
    if place.parent.name == "shims":
        return _behind_script(place)
    return path


def _behind_script(shim: Path) -> str:
    with shim.open("rb") as file:
        text = file.read(_MAX_SHIM).decode("utf-8", "replace")
    root = shim.parent.parent
    asdf = _ASDF_SHIM.findall(text)
    if asdf:
        return _first(
            root / "installs" / plugin / version / "bin" / shim.name
            for plugin, version in asdf
            if _is_folder_name(plugin) and _is_folder_name(version)
        )
    if _ENV_SHIM.search(text):
        versions = [*_chosen_versions(root), *_newest_first((root / "versions").glob("*"))]
        return _first(version / "bin" / shim.name for version in versions)
    return str(shim)


def _chosen_versions(root: Path) -> list[Path]:
    """Read the manager's global choice."""
    try:
        words = (root / "version").read_text("utf-8", "replace").split()
    except OSError:
        return []
    return [root / "versions" / word for word in words if _is_folder_name(word)]


def _is_folder_name(word: str) -> bool:
    # A version that is a path leads out of the manager's folders (CVE-2022-35861).
    return "/" not in word and word not in {".", ".."}


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))], reverse=True)


def _first(paths: Iterable[Path]) -> str:
    return next((str(path) for path in paths if path.is_file() and os.access(path, os.X_OK)), "")
