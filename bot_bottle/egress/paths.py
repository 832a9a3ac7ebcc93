"""Every way a path can be read, and the prefixes it must stay under in all of them.

Servers differ in how often they decode, whether they merge slashes, drop ``;params`` or take a backslash
for a slash. A rule that checks one reading is passed by another. So a path is allowed only if *each* of
its readings lies under an allowed prefix; what has too many readings is refused.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from bot_bottle.egress.hosts import HostError, parse_authority

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: A path of this shape has exactly one reading.
_PLAIN = re.compile(r"(?:/(?!\.+(?:/|$))[A-Za-z0-9_.~!$&'()*+,=:@-]+)*/?")
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")

#: Encodings some servers decode and others take literally (IIS reads four digits behind %u), and control
#: characters: some servers drop them, strip them off a segment or, as with NUL, end the path there.
_TWO_FACED = re.compile(r"%u[0-9A-Fa-f]{4}|[\x00-\x1f\x7f-\x9f]", re.IGNORECASE)

#: A segment of dots and spaces that is not plainly ``.`` or ``..``: some servers trim it to one of them.
_TRIMMED_DOTS = re.compile(r"(?:^|[/\\])(?!\.{1,2}(?:[/\\;?#]|$))[ .]*\.[ .]*(?:[/\\;?#]|$)")

#: What cuts a path into parts; a lookalike that a server folds into one of these (NFKC) is refused.
_SYNTAX = "./\\;%?#"

_MAX_LENGTH = 4096
_MAX_READINGS = 48
_MAX_DECODES = 8


class AmbiguousPathError(ValueError):
    """The path can be read in more ways than can be checked."""


def readings(path: str) -> frozenset[str]:
    """Give every reading of a request path (latin-1 text, without query), the raw one included.

    Raises :class:`AmbiguousPathError` where they are too many or where servers differ on what one of them
    says: it is no strict UTF-8 (RFC 3629, 3: lenient decoders read overlong forms as ``.`` or ``/``), holds
    a control character, a segment of dots and spaces, or a lookalike of a character with a meaning.
    """
    if _PLAIN.fullmatch(path):
        return frozenset((path,))
    if len(path) > _MAX_LENGTH:
        raise AmbiguousPathError("the path is too long to be read in every way")
    seen = {path}
    fresh = [path]
    while fresh:
        reading = fresh.pop()
        _check(reading)
        for transform in _TRANSFORMS:
            other = transform(reading)
            if other not in seen:
                seen.add(other)
                fresh.append(other)
        if len(seen) > _MAX_READINGS:
            raise AmbiguousPathError("the path can be read in too many ways")
    return frozenset(seen)


def path_allowed(path: str, prefixes: tuple[str, ...]) -> bool:
    """Tell whether every reading of ``path`` lies under one of ``prefixes``; none means all paths.

    ``/a`` covers ``/a`` and what is below, never ``/ab``; ``/a/`` covers what is below. Raises
    :class:`AmbiguousPathError`.
    """
    if not prefixes:
        return True
    if _PLAIN.fullmatch(path):
        return _under(path, prefixes)
    return all(_under(reading, prefixes) for reading in readings(path))


def paths_named(value: str, host: str) -> tuple[str, ...]:
    """Give the paths of ``host`` that a header's value can be read to name; none where it names no one place.

    It is a URI or a path, or as object stores write it the name of a bucket and of what is in it. Not every
    server ends it at ``?`` or ``#``: what stands behind it is part of a second path where it could lead on.
    """
    scheme, separator, rest = value.partition("://")
    if separator:
        end = min((at for mark in "/?#" if (at := rest.find(mark)) >= 0), default=len(rest))
        try:
            named = parse_authority(rest[:end]).host
        except HostError:
            return ()
        if scheme.lower() not in {"http", "https"} or named != host:
            return ()
        value = rest[end:]
    elif value.startswith(("//", "\\")):
        return ()  # a host of its own stands there
    value = value if value.startswith("/") else f"/{value}"
    path, *behind = re.split(r"[?#]", value, maxsplit=1)
    leads_on = any(mark in part for part in behind for mark in "/\\%")
    return (path, value) if leads_on else (path,)


def fully_decoded(text: str) -> str:
    """Percent-decode until nothing changes, in lower case; :class:`AmbiguousPathError` after 8 rounds."""
    for _ in range(_MAX_DECODES):
        decoded = _decode(text)
        if decoded == text:
            return text.lower()
        text = decoded
    raise AmbiguousPathError("the request target is percent-encoded too many times over")


def _check(reading: str) -> None:
    try:
        text = reading.encode("latin-1").decode("utf-8")
    except UnicodeError:
        raise AmbiguousPathError("the path is not valid UTF-8 once it is decoded") from None
    if _TWO_FACED.search(text):
        raise AmbiguousPathError(
            "the path has an encoding or a control character that servers read differently"
        )
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    if folded != text and any(folded.count(mark) > text.count(mark) for mark in _SYNTAX):
        raise AmbiguousPathError("the path has a lookalike of a dot, a slash or another separator")
    if _TRIMMED_DOTS.search(folded):
        raise AmbiguousPathError("the path has a segment of dots and spaces that servers read differently")


def _under(reading: str, prefixes: Sequence[str]) -> bool:
    for prefix in prefixes:
        if reading.startswith(prefix) and (
            prefix.endswith("/") or len(reading) == len(prefix) or reading[len(prefix)] == "/"
        ):
            return True
    return False


def _decode(path: str) -> str:
    return _ENCODED.sub(lambda match: chr(int(match[1], 16)), path)


def _resolve_dots(path: str) -> str:
    # RFC 3986, 5.2.4; a ".." above the root stays at the root.
    kept: list[str] = []
    segments = path.split("/")[1:]
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment == "..":
            if kept:
                kept.pop()
            if last:
                kept.append("")
        elif segment == ".":
            if last:
                kept.append("")
        else:
            kept.append(segment)
    return "/" + "/".join(kept)


def _merge_slashes(path: str) -> str:
    return re.sub(r"//+", "/", path)


def _strip_params(path: str) -> str:
    return re.sub(r";[^/]*", "", path)


def _turn_backslashes(path: str) -> str:
    return path.replace("\\", "/")


def _cut_query(path: str) -> str:
    # A server that decodes before it splits sees a query or a fragment here.
    return re.split(r"[?#]", path, maxsplit=1)[0]


_TRANSFORMS: tuple[Callable[[str], str], ...] = (
    _decode,
    _resolve_dots,
    _merge_slashes,
    _strip_params,
    _turn_backslashes,
    _cut_query,
)
