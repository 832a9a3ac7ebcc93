"""One mistake in what the operator declared, with the place where it stands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: How many problems one error prints; a file with more is better mended a few at a time.
MAX_SHOWN = 20

#: A path of keys: names for mappings, numbers for lists.
KeyPath = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake. ``line`` and ``column`` count from 1; ``key`` is a path as in ``egress.routes[0].host``.

    Both are 0 where the file as a whole is meant. ``message`` says what is wrong and what to write instead;
    it never holds a credential.
    """

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        if not self.line and not self.key:
            return self.message  # such a sentence names the file itself
        where = f"{shown(self.file, 400)}:" + (f"{self.line}:{self.column}: " if self.line else " ")
        return f"{where}{self.key}: {self.message}" if self.key else f"{where}{self.message}"


class ManifestFileError(ManifestError):
    """Several problems at once, one a line in ``str(error)`` and as values in ``problems``."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=lambda p: (p.file, p.line, p.column, p.key)))
        lines = [str(problem) for problem in self.problems[:MAX_SHOWN]]
        hidden = len(self.problems) - len(lines)
        if hidden:
            lines.append(f"... and {hidden} more")
        super().__init__("\n".join(lines))


def shown(text: str, limit: int = 60) -> str:
    """Give ``text`` fit for a terminal: control and format characters escaped, cut after ``limit``.

    Manifests in a repository are written by strangers; an escape sequence in one must not reach the
    operator's terminal.
    """
    cut = text[:limit]
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)
    return safe + "..." if len(text) > limit else safe


def key_text(path: KeyPath) -> str:
    """Write a key path the way messages show it: ``egress.routes[0].host``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            # What stands behind "=" is a value in the wrong place, perhaps a credential (`env: {KEY=value}`).
            name, equals, _value = part.partition("=")
            text += f'["{shown(name)}{equals and "=..."}"]'
    return text
