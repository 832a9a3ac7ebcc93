"""What the gate asks of a scanner, and the one it uses: pipelock's strict profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bot_bottle.git_gate.report import PushFinding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bot_bottle.pipelock.loader import LateEngine
    from bot_bottle.secret import Secret

#: Content is judged in windows of this size, each with the end of the one before, so memory stays bounded.
WINDOW, OVERLAP = 128 * 1024, 16 * 1024
_WINDOW_SECONDS = 60.0
_MOST_LOCATED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One thing found: the rule, the byte ``offset`` (-1: not one spot), the masked value or a reason."""

    rule: str
    offset: int = -1
    excerpt: str = ""


class ContentScanner(Protocol):
    """Judges content. Called from a thread; one that raises has the push refused."""

    def scan(self, data: bytes, *, path: str) -> tuple[Hit, ...]:
        """Give what is found in ``data``, which stands at ``path`` in a repository (``""``: at none)."""
        ...


class PipelockScanner:
    """The built-in engine with the bottle's own secrets.

    Settings and comments that the repository brings mean nothing to it.
    """

    def __init__(
        self, secrets: Mapping[str, Secret], *, placeholders: Iterable[str], engine: LateEngine
    ) -> None:
        """Judge by ``engine``, which may be loading still."""
        from bot_bottle.pipelock.loader import busy, clock  # noqa: PLC0415 - brings native libraries
        from bot_bottle.pipelock.own_secrets import OwnSecrets  # noqa: PLC0415
        from bot_bottle.pipelock.scanner import Limits, Scanner  # noqa: PLC0415

        self._engine = engine
        self._scanner = Scanner(
            profile="strict",
            engine=self._engine,
            own=OwnSecrets(secrets),
            clock=clock,
            busy=busy,
            placeholders=tuple(value.encode() for value in placeholders),
            limits=Limits(seconds=_WINDOW_SECONDS),
        )

    def settle(self, seconds: float = 120.0) -> None:
        """Wait until the engine is as fast as it gets (benchmarks)."""
        self._engine.settle(seconds)

    def scan(self, data: bytes, *, path: str) -> tuple[Hit, ...]:
        """Judge ``data``; what could not be read or judged is a hit too."""
        from bot_bottle.pipelock.finding import Context  # noqa: PLC0415

        found = self._scanner.scan(data, Context(place="file", path=path))
        return tuple(
            Hit(rule=one.rule, offset=one.where.offset, excerpt=one.excerpt or one.message) for one in found
        )


class Content:
    """One object's content as it comes, window by window; gives findings with the line they stand on.

    Windows are cut and settled in order; between the two they may be scanned in any, at once.
    """

    def __init__(self, scan: Callable[[bytes], tuple[Hit, ...]], *, place: str, commit: str) -> None:
        self._scan, self._place, self._commit = scan, place, commit
        self._tail = b""
        self._lines = 0
        self._seen: set[tuple[str, str, int]] = set()

    def look(self, piece: bytes) -> list[PushFinding]:
        """Judge the next piece, at most a window's worth."""
        data = self.window(piece)
        return self.settle(data, self.scan(data))

    def window(self, piece: bytes) -> bytes:
        """Give what is to be scanned for the next piece: it, and the end of the one before."""
        data = self._tail + piece
        self._tail = data[-OVERLAP:]
        return data

    def scan(self, data: bytes) -> tuple[Hit, ...]:
        """Judge one window; changes nothing here."""
        return self._scan(data)

    def settle(self, data: bytes, hits: Iterable[Hit]) -> list[PushFinding]:
        """Give the findings for what a scan of the next window hit."""
        found = []
        for hit in hits:
            line = self._line(data, hit) if len(self._seen) < _MOST_LOCATED else 0
            key = (hit.rule, hit.excerpt, line)
            if key not in self._seen:
                self._seen.add(key)
                found.append(
                    PushFinding(
                        rule=hit.rule, place=self._place, commit=self._commit, line=line, excerpt=hit.excerpt
                    )
                )
        self._lines += data.count(b"\n") - data.count(b"\n", max(0, len(data) - OVERLAP))
        return found

    def _line(self, data: bytes, hit: Hit) -> int:
        """Give the line a hit is on: by its offset, else the last line without which it is not found."""
        if hit.offset >= 0:
            return self._lines + data.count(b"\n", 0, hit.offset) + 1
        lines = data.splitlines(keepends=True)
        low, high = 0, len(lines)
        while high - low > 1:
            middle = (low + high) // 2
            if any(other.rule == hit.rule for other in self._scan(b"".join(lines[:middle]))):
                high = middle
            else:
                low = middle
        return self._lines + high
