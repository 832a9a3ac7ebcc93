"""Whether a request is a git push over smart HTTP, in any spelling, or plainly a fetch (gitprotocol-http)."""

from __future__ import annotations

import re

from bot_bottle.egress.paths import fully_decoded

_SERVICE = "git-receive-pack"

#: The two targets of a fetch, spelt so that no server reads them in another way: no escape, no dot segment.
_SEGMENT = r"/(?=[^/]*[A-Za-z0-9_~-])[A-Za-z0-9_.~-]+"
_ADVERTISEMENT = re.compile(rf"(?:{_SEGMENT})+/info/refs")
_FETCH = re.compile(rf"(?:{_SEGMENT})+/git-upload-pack")

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


def is_git_fetch(method: str, path: str, query: str) -> bool:
    """Tell whether a request reads a repository over smart HTTP, in the one spelling that git itself uses."""
    if method == "GET":
        return query == "service=git-upload-pack" and _ADVERTISEMENT.fullmatch(path) is not None
    return method == "POST" and not query and _FETCH.fullmatch(path) is not None


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
