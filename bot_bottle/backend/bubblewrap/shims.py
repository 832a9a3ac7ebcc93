"""Find the program behind a version manager's stand-in on the ``PATH``, without running it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_SHIM = 1 << 16
_ENV_SHIM = re.compile(r"exec \"[^\"]*/(?:py|nod|rb|go)env\" exec|exec (?:py|nod|rb|go)env exec|\benv exec\b")
_ASDF_PLUGIN = re.compile(r"^# asdf-plugin: (\S+) (\S+)$", re.MULTILINE)


def behind(path: str, real: str) -> str:
    """Give the program behind a shim script (pyenv, nodenv, rbenv, asdf), or an empty text."""
    folder = Path(path).parent
    if folder.name != "shims" or os.path.getsize(real) > _MAX_SHIM:
        return ""
    text = Path(real).read_text("utf-8", "replace")
    name = Path(path).name
    root = folder.parent
    plugins = _ASDF_PLUGIN.findall(text)
    if plugins:
        return _first(root / "installs" / plugin / version / "bin" / name for plugin, version in plugins)
    if _ENV_SHIM.search(text):
        chosen = _chosen_versions(root)
        installed = _newest_first((root / "versions").glob("*"))
        return _first(
            [*(root / "versions" / v / "bin" / name for v in chosen), *(v / "bin" / name for v in installed)]
        )
    return ""


def behind_link(path: str, real: str, name: str) -> str:
    """Give the program behind a shim that is a link to its manager (mise, volta), or an empty text."""
    manager = Path(real).name
    if manager == "mise" and name != "mise":
        root = Path(path).parent.parent
        return _first(
            _newest_first(root.glob(f"installs/*/*/bin/{name}"))
            + _newest_first(root.glob(f"installs/*/*/{name}"))
        )
    if manager == "volta-shim":
        tools = Path(path).parent.parent / "tools" / "image"
        places = [*tools.glob(f"packages/*/bin/{name}"), *tools.glob(f"packages/*/*/bin/{name}")]
        return _first(places + _newest_first(tools.glob(f"*/*/bin/{name}")))
    return ""


def _chosen_versions(root: Path) -> list[str]:
    """Read the manager's global choice; names that are no plain folder names are ignored (CVE-2022-35861)."""
    try:
        words = (root / "version").read_text("utf-8", "replace").split()
    except OSError:
        return []
    return [word for word in words if "/" not in word and word not in {".", "..", "system"}]


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))], reverse=True)


def _first(paths: Iterable[Path]) -> str:
    return next((str(path) for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), "")
