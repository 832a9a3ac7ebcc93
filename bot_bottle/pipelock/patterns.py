"""Many patterns in one pass: a thin, thread-safe shell around the Hyperscan library.

Hyperscan matches hundreds of expressions at more than a gigabyte a second and in time linear in the input,
whatever that input is, which is what a scanner that its adversary feeds has to promise.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import threading
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from bot_bottle.files import write_atomic
from bot_bottle.pipelock.deadline import OverBudgetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import hyperscan

#: Where an image has its sets: root's, and in a file system that is read-only by the time anything runs.
AHEAD: Final = Path("/opt/bot-bottle/gates")

#: (index of the pattern, offset just behind its match)
Hit: TypeAlias = tuple[int, int]

#: More hits than this in one piece of content is an attack on the scanner; honest traffic stays far below.
_MOST_HITS = 200_000


class PatternSet:
    """A set of expressions compiled once; ``once`` says which are reported only the first time they match."""

    __slots__ = ("_database", "_local")

    def __init__(self, database: hyperscan.Database) -> None:
        self._database = database
        self._local = threading.local()

    @classmethod
    def expressions(cls, patterns: Sequence[bytes], *, once: Sequence[bool] | bool = True) -> PatternSet:
        """Compile regular expressions (PCRE without back-references); raises ``hyperscan.CompilerError``."""
        import hyperscan  # noqa: PLC0415

        each = [once] * len(patterns) if isinstance(once, bool) else list(once)
        flags = [hyperscan.HS_FLAG_SINGLEMATCH if single else 0 for single in each]
        return cls(_compiled(list(patterns), flags, literal=False))

    @classmethod
    def kept(
        cls, patterns: Sequence[bytes], *, once: Sequence[bool] | bool, folder: Path | None, name: str
    ) -> PatternSet:
        """Compile expressions, or take what an earlier process compiled of the same ones from ``folder``.

        Raises ``hyperscan.CompilerError``.
        """
        import hyperscan  # noqa: PLC0415

        facts = [version("hyperscan"), platform.machine(), platform.processor(), repr(once)]
        key = hashlib.sha256("\0".join(facts).encode() + b"\0".join(patterns)).hexdigest()
        file = f"pipelock-{name}-{key[:24]}.set"
        for place in (folder, AHEAD):
            if place is not None:
                with contextlib.suppress(OSError, hyperscan.HyperscanError):
                    return cls.restored((place / file).read_bytes())
        made = cls.expressions(patterns, once=once)
        if folder is not None:
            with contextlib.suppress(OSError):  # a full disk costs time, nothing else
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_atomic(folder / file, made.image(), mode=0o600)
        return made

    @classmethod
    def literals(cls, needles: Sequence[bytes], *, once: bool = True) -> PatternSet:
        """Compile literal strings, matched without regard to ASCII case."""
        import hyperscan  # noqa: PLC0415

        flag = hyperscan.HS_FLAG_CASELESS | (hyperscan.HS_FLAG_SINGLEMATCH if once else 0)
        return cls(_compiled(list(needles), [flag] * len(needles), literal=True))

    @classmethod
    def restored(cls, image: bytes) -> PatternSet:
        """Load what :meth:`image` wrote; raises ``hyperscan.HyperscanError`` where it does not fit."""
        import hyperscan  # noqa: PLC0415

        database = hyperscan.loadb(image, hyperscan.HS_MODE_BLOCK)
        database.scratch = hyperscan.Scratch(database)
        return cls(database)

    def image(self) -> bytes:
        """Give the compiled form, which loads in a millisecond on the same kind of processor."""
        import hyperscan  # noqa: PLC0415

        return bytes(hyperscan.dumpb(self._database))

    def hits(self, data: bytes, *, most: int = _MOST_HITS) -> list[Hit]:
        """Find the patterns in ``data``; raises :class:`OverBudgetError` on more than ``most`` hits."""
        found: list[Hit] = []

        def note(index: int, _start: int, end: int, _flags: int, _context: object) -> bool | None:
            found.append((index, end))
            return len(found) > most or None

        try:
            scratch = self._local.scratch
        except AttributeError:
            scratch = self._local.scratch = self._database.scratch.clone()
        try:
            self._database.scan(data, note, 0, None, scratch)  # by name it takes four times as long
        except Exception as error:
            if len(found) > most:  # ended by our own callback
                raise OverBudgetError("the content has too many suspicious spots to judge") from error
            raise
        return found


def _compiled(patterns: list[bytes], flags: list[int], *, literal: bool) -> hyperscan.Database:
    import hyperscan  # noqa: PLC0415

    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    ids = list(range(len(patterns)))
    database.compile(expressions=patterns, ids=ids, elements=len(patterns), flags=flags, literal=literal)
    return database
