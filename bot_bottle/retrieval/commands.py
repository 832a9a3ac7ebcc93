"""Commands of git that take or give a stream."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

from bot_bottle.git_gate import git
from bot_bottle.git_gate.git import GitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from types import TracebackType


async def feed(
    argv: Sequence[str], cwd: Path, way: git.Way, pieces: Iterable[bytes], *, seconds: float
) -> None:
    """Run a command whose input comes piece by piece; raises ``GitError`` with its words where it fails."""
    child = await git.start(argv, cwd=cwd, way=way, given=True)

    async def give() -> None:
        for piece in pieces:
            await child.feed(piece, last=False)
        await child.feed(b"")

    try:
        async with asyncio.timeout(seconds):
            _, words, _ = await asyncio.gather(give(), git.read_words(child.stderr), child.stdout.read())
            if await child.wait() != 0:
                raise GitError(git.last_words(words, "a command of git failed"))
    except TimeoutError:
        raise GitError(f"git took longer than {seconds:.0f} s") from None
    finally:
        await child.end()


class PackFrom:
    """The pack that a command writes, as :class:`~bot_bottle.git_gate.quarantine.Pack`; use as a context."""

    def __init__(self, argv: Sequence[str], cwd: Path, way: git.Way, given: bytes) -> None:
        self._argv, self._cwd, self._way, self._given = argv, cwd, way, given
        self._buffer = b""
        self.received = 0

    async def __aenter__(self) -> Self:
        self._child = await git.start(self._argv, cwd=self._cwd, way=self._way, given=True)
        self._feeding = asyncio.ensure_future(self._child.feed(self._given))
        self._words = asyncio.ensure_future(git.read_words(self._child.stderr))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # A pack that is cut short is told with the words of the command that did not finish it.
            if kind is None or issubclass(kind, (GitError, EOFError)):
                await self.check()
        finally:
            for task in (self._feeding, self._words):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await self._child.end()

    async def check(self) -> None:
        """Raise ``GitError`` where the command has failed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                words = await asyncio.shield(self._words)
                if await self._child.wait() != 0:
                    raise GitError(git.last_words(words, "the objects cannot be packed"))

    async def read(self) -> bytes:
        """Give the next piece, ``b""`` at the end."""
        piece, self._buffer = self._buffer, b""
        if not piece:
            piece = await self._child.stdout.read(1 << 16)
            self.received += len(piece)
        return piece

    async def exactly(self, count: int) -> bytes:
        """Give exactly ``count`` bytes; raises ``EOFError`` where there are fewer."""
        data = self._buffer
        while len(data) < count:
            piece = await self._child.stdout.read(1 << 16)
            if not piece:
                raise EOFError("the pack ended early")
            self.received += len(piece)
            data += piece
        self._buffer = data[count:]
        return data[:count]
