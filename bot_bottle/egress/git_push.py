"""Whether a request is a git push over smart HTTP, in any spelling (gitprotocol-http)."""

from __future__ import annotations

import re

from bot_bottle.egress.paths import fully_decoded

_SERVICE = "git-receive-pack"

#: Where a server that decodes before it splits would end the path.
_PATH_END = re.compile(r"[?#\x00]")


def is_git_push(path: str, query: str) -> bool:
    """Tell whether ``path?query`` asks for ``git-receive-pack``: the push itself or its ref advertisement.

    Raises ``AmbiguousPathError`` where the target is encoded too deeply to tell.
    """
    clear = fully_decoded(path) if "%" in path else path.lower()
    if "pack" not in clear and "refs" not in clear:
        return False
    clear_path, *rest = _PATH_END.split(clear.replace("\\", "/"), maxsplit=1)
    segments = _segments(clear_path)
    if segments[-1:] == [_SERVICE]:
        return True
    if segments[-2:] != ["info", "refs"]:
        return False
    return any(_SERVICE in part for part in (fully_decoded(query), *rest))


def _segments(path: str) -> list[str]:
    """Split a decoded path into segments, without params, empty and dot segments resolved."""
    kept: list[str] = []
    for raw in path.split("/"):
        segment = raw.partition(";")[0].strip()
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    return kept
