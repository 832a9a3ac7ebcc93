"""What an npm package needs in order to run: itself and its dependencies, found as node finds them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_PACKAGES = 5000
_MAX_MANIFEST = 1 << 20
_KINDS = ("dependencies", "optionalDependencies", "peerDependencies")


def package_root(path: str) -> str:
    """Give the innermost package folder that ``path`` (real) lies in, or an empty text."""
    current = os.path.dirname(path)
    while current != "/":
        parent = os.path.dirname(current)
        scoped = (
            os.path.basename(parent).startswith("@")
            and os.path.basename(os.path.dirname(parent)) == "node_modules"
        )
        plain = os.path.basename(parent) == "node_modules" and not os.path.basename(current).startswith(
            (".", "@")
        )
        if (plain or scoped) and os.path.isfile(f"{current}/package.json"):
            return current
        current = parent
    return ""


def closure(root: str) -> Iterator[tuple[str, str]]:
    """Walk a package's dependencies, itself first; yields (real folder, the path it was found at).

    A dependency that is not installed is passed over: optional ones for other machines usually are not.
    """
    queue = [(root, root)]
    seen = {root}
    while queue and len(seen) <= _MAX_PACKAGES:
        folder, found_at = queue.pop()
        yield folder, found_at
        for name in _dependencies(folder):
            place = _find(name, folder)
            if place:
                real = os.path.realpath(place)
                if real not in seen:
                    seen.add(real)
                    queue.append((real, place))


def _dependencies(folder: str) -> list[str]:
    try:
        with open(f"{folder}/package.json", "rb") as file:
            manifest = json.loads(file.read(_MAX_MANIFEST))
    except (OSError, ValueError):
        return []
    names: dict[str, None] = {}
    for kind in _KINDS:
        part = manifest.get(kind) if isinstance(manifest, dict) else None
        if isinstance(part, dict):
            names.update(dict.fromkeys(name for name in part if _is_name(name)))
    return list(names)


def _find(name: str, folder: str) -> str:
    """Look for a package as node does: in ``node_modules`` of the folder and of each of its parents."""
    current = folder
    while True:
        if os.path.basename(current) != "node_modules":
            candidate = f"{current.rstrip('/')}/node_modules/{name}"
            if os.path.isfile(f"{candidate}/package.json"):
                return candidate
        if current == "/":
            return ""
        current = os.path.dirname(current)


def _is_name(name: str) -> bool:
    parts = name.split("/")
    return 0 < len(parts) <= 2 and all(part and not part.startswith(".") for part in parts)
