"""The way to an ssh upstream, opened while a push is looked through, so that its login costs no time after.

The upstream hears what it hears before a fetch: a login, and that somebody may push to this repository.
Nothing of the push goes there before the gate has decided; then git is handed the ends (git-remote-fd(1)),
and where the push is refused the connection ends without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from bot_bottle.git_gate import git

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bot_bottle.git_gate.mirror import Mirror

#: An upstream may end what says nothing; after so many seconds a new connection is surer.
_FRESH_SECONDS = 30.0


class EarlyWay:
    """One connection; :func:`early_way` makes it, :meth:`lend` gives it away once."""

    def __init__(self, child: git.Child, ends: tuple[int, int]) -> None:
        self._child, self._ends = child, ends
        self._born = asyncio.get_running_loop().time()
        self._words = asyncio.ensure_future(git.read_words(child.stderr))

    @property
    def usable(self) -> bool:
        """Whether it stands still, as far as can be seen from here."""
        return self._child.running and asyncio.get_running_loop().time() - self._born < _FRESH_SECONDS

    def way(self) -> git.Way:
        """Give what ``git push`` needs to go this way."""
        reading, writing = self._ends
        env = git.environment(GIT_ALLOW_PROTOCOL="fd")
        return git.Way(url=f"fd::{reading},{writing}/upstream", env=env, fds=self._ends)

    async def close(self) -> bytes:
        """End it; gives what ssh said. Twice is no error."""
        await self._child.end()
        ends, self._ends = self._ends, (-1, -1)
        for end in ends:
            if end >= 0:
                os.close(end)
        self._words.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            return await self._words
        return b""


@contextlib.asynccontextmanager
async def early_way(mirror: Mirror) -> AsyncIterator[EarlyWay | None]:
    """Open the way while the body runs; None over https, and where it cannot be (the push will say why)."""
    argv = mirror.upstream.receiver()
    found: EarlyWay | None = None
    if argv is not None:
        with contextlib.suppress(git.GitError, OSError):
            found = await _open(argv, mirror)
    try:
        yield found
    finally:
        if found is not None:
            await found.close()


async def _open(argv: list[str], mirror: Mirror) -> EarlyWay:
    with contextlib.ExitStack() as stack:
        theirs_in, ours_out = _pipe(stack)
        ours_in, theirs_out = _pipe(stack)
        way = git.Way(env=git.environment())
        child = await git.start(argv, cwd=mirror.folder, way=way, pipes=(theirs_in, theirs_out))
        found = EarlyWay(child, (ours_in, ours_out))
        stack.pop_all()
        os.close(theirs_in)
        os.close(theirs_out)
    return found


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        stack.callback(os.close, end)
    return ends
