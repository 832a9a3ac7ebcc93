"""What a bottle changed: a listing of files, and the text of the changes, both fit for a terminal."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.errors import UsageError
from bot_bottle.git_gate import git
from bot_bottle.git_gate.git import GitError
from bot_bottle.git_gate.protected import is_protected
from bot_bottle.legible import is_seen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bot_bottle.retrieval.arrival import Arrival

#: No program named by an attribute or a setting is asked; there is none anyway (see git_gate.git).
_PLAIN = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--submodule=short")
_SECONDS = 600.0
_MAX_PATCH = 1 << 30
_EMOJI = "\ufe0f"
_STATUS = {"A": "added", "M": "modified", "D": "deleted", "T": "kind changed"}
_COLOURS = {"+": "32", "-": "31", "@": "36"}
_HEADS = (
    "diff --git ",
    "index ",
    "--- ",
    "+++ ",
    "new file ",
    "deleted file ",
    "old mode ",
    "new mode ",
    "Binary ",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One path. Lines are None for binary content; ``runs``: a forge or CI follows this path by itself."""

    path: str
    status: str
    added: int | None
    removed: int | None
    mode: str
    runs: bool


async def list_changes(arrival: Arrival) -> tuple[FileChange, ...]:
    """List what differs between the base and the bottle's work."""
    done = await _diff(arrival, "--raw", "--numstat", "-z")
    status: dict[bytes, tuple[str, str]] = {}
    lines: dict[bytes, tuple[int | None, int | None]] = {}
    fields = iter(done.stdout.split(b"\0"))
    for field in fields:
        if field.startswith(b":"):
            facts = field[1:].decode("ascii").split(" ")
            status[next(fields)] = (_STATUS.get(facts[4][:1], facts[4]), facts[1])
        elif field:
            added, removed, path = field.split(b"\t", 2)
            lines[path] = (_count(added), _count(removed))
    return tuple(
        FileChange(
            path=os.fsdecode(path),
            status=what,
            added=lines.get(path, (None, None))[0],
            removed=lines.get(path, (None, None))[1],
            mode=mode,
            runs=is_protected(os.fsdecode(path)),
        )
        for path, (what, mode) in status.items()
    )


async def write_patch(arrival: Arrival, place: Path) -> None:
    """Write the text of the changes, as the bottle has it, to a new file.

    Raises ``UsageError`` where that would be larger than 1 GiB, which a few commits can make of it.
    """
    try:
        await _diff(arrival, "--patch", f"--output={place}")
    except GitError as error:
        if _is_cut_off(place):
            raise UsageError(
                f"the difference is larger than {_MAX_PATCH >> 30} GiB; list the files with --json or pull it"
            ) from error
        raise


def _is_cut_off(place: Path) -> bool:
    return place.exists() and place.stat().st_size >= _MAX_PATCH


def patch_lines(place: Path, *, colour: bool) -> Iterator[str]:
    """Read a patch line by line; what could steer a terminal is shown escaped."""
    in_head = True
    with place.open("rb") as file:
        for raw in file:
            text = visible(raw.rstrip(b"\n").decode("utf-8", "replace"))
            if text.startswith("diff --git "):
                in_head = True
            elif text.startswith("@@"):
                in_head = False
            code = "1" if in_head and text.startswith(_HEADS) else _COLOURS.get(text[:1], "")
            yield f"\x1b[{code}m{text}\x1b[0m\n" if colour and code else f"{text}\n"


def visible(text: str) -> str:
    """Escape every character that is not shown as itself: control, format, bidirectional, unseen ones.

    Among the unseen are the variation selectors, of which whole programs have been written that no review
    showed. One (U+FE0F) stays behind a character that is no letter of ASCII, since emoji have it there.
    """
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    before = ""
    for char in text:
        emoji = char == _EMOJI and before > "\x7f" and before != _EMOJI and is_seen(before)
        kept = char == "\t" or emoji or (char != _EMOJI and is_seen(char))
        shown.append(char if kept else char.encode("unicode_escape").decode("ascii"))
        before = char
    return "".join(shown)


async def _diff(arrival: Arrival, *form: str) -> git.Finished:
    empty = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    if len(arrival.tip) == 64:
        empty = "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"
    ends = (arrival.base or empty, arrival.tip or arrival.base or empty)
    way = git.Way(env=arrival.quarantine.env, bounds={resource.RLIMIT_FSIZE: _MAX_PATCH})
    return await arrival.view.git("diff", *form, *_PLAIN, *ends, "--", way=way, seconds=_SECONDS)


def _count(text: bytes) -> int | None:
    return int(text) if text.isdigit() else None
