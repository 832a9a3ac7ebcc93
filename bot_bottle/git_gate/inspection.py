"""Look through everything a push brings: content, paths, messages, people, names of refs."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from bot_bottle.git_gate.merges import overruled
from bot_bottle.git_gate.quarantine import UNFOLDED, TooLargeError
from bot_bottle.git_gate.report import PushFinding
from bot_bottle.git_gate.scanning import Content
from bot_bottle.git_gate.unfolding import SignsError, Unfolder
from bot_bottle.pipelock.files_rules import file_kind
from bot_bottle.words import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence

    from bot_bottle.decision import Deny
    from bot_bottle.git_gate.commands import Command
    from bot_bottle.git_gate.objects import Change, NewObject
    from bot_bottle.git_gate.policy import Rules
    from bot_bottle.git_gate.quarantine import Piece, Quarantine
    from bot_bottle.git_gate.scanning import ContentScanner, Hit

Say: TypeAlias = "Callable[..., Awaitable[None]]"
_Window: TypeAlias = "tuple[Content, bytes]"

_SCAN_SECONDS = 1800.0
#: Objects are handed to a scanning thread so many, or so many bytes, at a time.
_BATCH_OBJECTS, _BATCH_BYTES = 64, 256 * 1024
#: Most of a scan is spent in native code that holds no lock; so much of a push is in memory for each thread.
THREADS = max(1, min(4, os.cpu_count() or 1))
#: After so many findings nothing is gained by more.
_ENOUGH = 100
_NAMES_AT_ONCE = 64 * 1024
_WHAT = {"commit": "commit message or people", "tag": "tag"}


async def inspect(
    quarantine: Quarantine,
    commands: Sequence[Command],
    new: Sequence[NewObject],
    rules: Rules,
    scanner: ContentScanner,
    say: Say,
) -> tuple[tuple[PushFinding, ...], Deny | None]:
    """Judge a push's content: findings of the scan, and the first rule on paths it breaks.

    ``new`` are the objects that it brings, by :meth:`Quarantine.new_objects`.

    Raises ``GitError``, ``TooLargeError``, ``TimeoutError``, and what the scanner raises.
    """
    commits = [one.oid for one in new if one.type == "commit"]
    # Oldest first: a finding is told of the commit that brought it.
    changes = await quarantine.changes(commits[::-1]) if commits else ()
    plain = ((one.commit, one.path) for one in changes if not one.folder)
    if denied := rules.judge_paths(plain):
        return (), denied
    if denied := rules.judge_merges(await overruled(quarantine, commits[::-1], rules.guards)):
        return (), denied
    size = sum(one.size for one in new)
    await say(f"bot-bottle: looking through {counted(len(commits), 'commit')}, {_amount(size)}")
    survey = _Survey(scanner, rules, new, changes)
    async with asyncio.timeout(_SCAN_SECONDS):
        names = [*(one.ref for one in commands), *survey.paths()]
        await asyncio.to_thread(survey.look_at_names, names)
        # What trees hold is their paths, and git has vouched for their form (fsck).
        content = [one for one in new if one.type != "tree"]
        async with contextlib.aclosing(quarantine.contents(content)) as contents:
            await _look_through(survey, contents)
    return tuple(survey.findings), None


async def _look_through(survey: _Survey, contents: AsyncIterator[Piece]) -> None:
    """Have everything scanned, several batches at once; what is found is told in the order of the objects."""
    under_way: deque[tuple[list[_Window], asyncio.Task[list[tuple[Hit, ...]]]]] = deque()

    async def settle() -> None:
        windows, scan = under_way.popleft()
        hits = await scan
        if any(hits):  # to find the line, the window is scanned again and again
            await asyncio.to_thread(survey.settle, windows, hits)
        else:
            survey.settle(windows, hits)

    batch: list[_Window] = []
    size = 0
    try:
        async for piece in contents:
            for window in survey.windows(piece):
                batch.append(window)
                size += len(window[1])
                if len(batch) >= _BATCH_OBJECTS or size >= _BATCH_BYTES:
                    if len(under_way) >= THREADS:
                        await settle()
                    under_way.append((batch, asyncio.ensure_future(asyncio.to_thread(_scan, batch))))
                    batch, size = [], 0
            if len(survey.findings) >= _ENOUGH:
                break
        under_way.append((batch, asyncio.ensure_future(asyncio.to_thread(_scan, batch))))
        while under_way:
            await settle()
    finally:
        for _, scan in under_way:
            scan.cancel()
        await asyncio.gather(*(scan for _, scan in under_way), return_exceptions=True)


def _scan(windows: Sequence[_Window]) -> list[tuple[Hit, ...]]:
    return [content.scan(data) for content, data in windows]


class _Survey:
    """The state of one scan; its methods run one after the other."""

    def __init__(
        self, scanner: ContentScanner, rules: Rules, new: Sequence[NewObject], changes: Sequence[Change]
    ) -> None:
        self._scanner = scanner
        self._rules = rules
        #: What was packed in files: its bytes and streams so far, held to the bounds of a push's own.
        self._bytes = self._streams = 0
        self._unfolder: Unfolder | None = None
        self._new = new
        self._places: dict[str, list[Change]] = {}
        for change in changes:
            self._places.setdefault(change.oid, []).append(change)
        self._changes = changes
        self._at: list[Content] = []
        self._current = ""
        self.findings: list[PushFinding] = []

    def paths(self) -> Iterable[str]:
        """Give every path the push speaks of, each once."""
        return dict.fromkeys(
            [*(one.path for one in self._changes), *(one.path for one in self._new if one.path)]
        )

    def look_at_names(self, names: Iterable[str]) -> None:
        """Judge names in bulk, and one by one where something is found."""
        bulk: list[str] = []
        size = 0
        for name in names:
            bulk.append(name)
            size += len(name)
            if size > _NAMES_AT_ONCE:
                self._look_at_some(bulk)
                bulk, size = [], 0
        self._look_at_some(bulk)

    def _look_at_some(self, names: list[str]) -> None:
        if not self._scanner.scan("\n".join(names).encode("utf-8", "surrogateescape"), path=""):
            return
        found = False
        for name in names:
            for hit in self._scanner.scan(name.encode("utf-8", "surrogateescape"), path=""):
                found = True
                commit = next((one.commit for one in self._changes if one.path == name), "")
                place = "name of a ref" if name.startswith("refs/") and not commit else "name of a file"
                self.findings.append(
                    PushFinding(rule=hit.rule, place=place, commit=commit, excerpt=hit.excerpt)
                )
        if not found:  # what only their sum shows: a value cut into several names
            self.findings.append(PushFinding(rule="split-secret", place="names of files taken together"))

    def windows(self, piece: Piece) -> Iterator[_Window]:
        """Give what is to be scanned for the next piece of an object, each window with what judges it.

        What is packed in a file comes with it. Raises ``TooLargeError`` where that is without end.
        """
        one, data, _last = piece
        if one.oid != self._current:
            self._current = one.oid
            self._at = list(self._contents(one))
            self._unfolder = Unfolder(self._path(one)[0])
        for content in self._at:
            yield content, content.window(data)
        if one.type == "blob":
            yield from self._unfolded(one, data)

    def _unfolded(self, one: NewObject, data: bytes) -> Iterator[_Window]:
        """Give what ``data``, the next piece of a blob, unfolds to."""
        unfolder = self._unfolder
        if unfolder is None:
            return
        before = unfolder.opened
        path, commit = self._path(one)
        try:
            for member, piece in unfolder.feed(data):
                self._bytes += len(piece)
                self._judge_size(bytes_seen=self._bytes // UNFOLDED)
                if not member.contents:
                    place = f"{path or 'a file'}!{member.name}"
                    member.contents.append(self._content(member.name, place=place, commit=commit))
                for content in member.contents:
                    yield content, content.window(piece)
        except SignsError:
            self._unfolder = None
            self.findings.append(
                PushFinding(rule="unreadable-archive", place=path or "a file", commit=commit)
            )
        self._streams += unfolder.opened - before
        self._judge_size(objects=self._streams)

    def _judge_size(self, *, bytes_seen: int = 0, objects: int = 0) -> None:
        if denied := self._rules.judge_size(bytes_seen=bytes_seen, objects=objects):
            raise TooLargeError(denied)

    def _path(self, one: NewObject) -> tuple[str, str]:
        """Give a path that a blob has, and the commit that gave it that (``""``: not known)."""
        places = self._places.get(one.oid)
        return (places[0].path, places[0].commit) if places else (one.path, "")

    def settle(self, windows: Sequence[_Window], hits: Sequence[tuple[Hit, ...]]) -> None:
        """Take in what scanning windows came to, in their order."""
        for (content, data), found in zip(windows, hits, strict=True):
            self.findings.extend(content.settle(data, found))

    def _contents(self, one: NewObject) -> Iterable[Content]:
        """Give what judges an object: once, or once for each kind of file that it is."""
        if one.type != "blob":
            commit = one.oid if one.type == "commit" else ""
            yield self._content("", place=_WHAT[one.type], commit=commit)
            return
        kinds: dict[str, tuple[str, str]] = {}
        for change in self._places.get(one.oid, []):
            kinds.setdefault(file_kind(change.path), (change.path, change.commit))
        if not kinds:
            kinds[""] = self._path(one)
        for path, commit in kinds.values():
            yield self._content(path, place=path or "a file", commit=commit)

    def _content(self, path: str, *, place: str, commit: str) -> Content:
        return Content(lambda data: self._scanner.scan(data, path=path), place=place, commit=commit)


def _amount(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size} bytes"
