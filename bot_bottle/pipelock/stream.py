"""A body as it flows: nothing of a match is released before the verdict, and memory stays flat."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from bot_bottle.pipelock.fields import body_fields, joined
from bot_bottle.pipelock.finding import Context, Finding, Where
from bot_bottle.pipelock.framing import framed
from bot_bottle.pipelock.redaction import can_redact, redacted
from bot_bottle.pipelock.selection import EVERYTHING, Selection
from bot_bottle.pipelock.text import claims_text
from bot_bottle.pipelock.unpack import FramingError, OpaqueError

if TYPE_CHECKING:
    from bot_bottle.pipelock.framing import Framed
    from bot_bottle.pipelock.scanner import Scanner

OnOpaque: TypeAlias = Literal["deny", "allow"]

#: Content is judged in blocks; what could be the beginning of a match is held back until the next one.
BLOCK = 128 * 1024
HOLD = 24 * 1024
#: Bodies up to this are put together from their fields, whatever they say, and are remembered for a while,
#: since a value may come in pieces.
SMALL = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a piece of a body led to: bytes that may go on now, and why nothing more may.

    With any ``refusals`` the body must not go on, whatever was released before. ``notes`` are opaque spots
    that the route lets pass, ``redacted`` is what was taken out, and how often; both belong in the audit log.
    """

    release: bytes = b""
    refusals: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()
    redacted: tuple[tuple[Finding, int], ...] = ()


class StreamScanner:
    """Judges one body.

    ``on_opaque`` is the route's; without it what says it is text must be readable and the rest may be opaque.
    With ``redact`` what is found is taken out where that is safe. Of compressed content the coded bytes,
    which are what goes on, are judged as they are too. At most ``HOLD + 2 * BLOCK`` bytes are held, and for
    compressed content twice as much again.
    """

    __slots__ = (
        "_coded", "_context", "_deny_opaque", "_done", "_headless", "_held", "_judged", "_notes",
        "_plain", "_raw", "_redact", "_redacted", "_refused", "_scanner", "_seen", "_selection", "_unpack",
        "_whole", "aside", "small",
    )  # fmt: skip

    def __init__(
        self,
        scanner: Scanner,
        context: Context,
        *,
        on_opaque: OnOpaque | None = None,
        selection: Selection = EVERYTHING,
        redact: bool = False,
    ) -> None:
        self._scanner = scanner
        self._redact = redact and can_redact(context)
        self._redacted: tuple[tuple[Finding, int], ...] = ()
        self._selection = selection
        #: The whole content, undone, where it was small; what a window over several requests takes.
        self.small = b""
        # The coding is undone here, piece by piece; blocks behind the first are no longer sniffed.
        self._context = replace(context, encoding="")
        self._deny_opaque = (
            on_opaque == "deny" if on_opaque else claims_text(context.content_type) or bool(context.encoding)
        )
        self._held: list[bytes] = []
        self._plain = 0  # bytes in _held
        self._judged = 0  # of them already judged, held as the beginning of the next block
        self._raw: deque[tuple[bytes, int]] = (
            deque()
        )  # (coded bytes, plain bytes still to be judged for them)
        self._seen = 0
        self._refused: tuple[Finding, ...] = ()
        self._notes: dict[tuple[str, str], Finding] = {}
        self._whole = True
        self._done = False
        self._unpack: Framed | None = None
        #: What a compressed body says beside its content; for the same window.
        self.aside = b""
        self._coded: StreamScanner | None = None
        # Whether the first coded byte went on: without it nothing takes the rest for packed and opens it.
        self._headless = False
        try:
            self._unpack = framed(context.encoding)
        except OpaqueError as error:
            self._opaque(error)
        if self._unpack is not None:
            plain = replace(context, encoding="", content_type="")
            self._coded = StreamScanner(scanner, plain, on_opaque="allow", selection=selection)

    def feed(self, data: bytes) -> Step:
        """Take a piece of the body. Never raises for what the body holds."""
        if self._refused:
            return Step(refusals=self._refused)
        return self._advance(data, last=False)

    def finish(self) -> Step:
        """Take the body's end; gives what was still held back."""
        if self._refused or self._done:
            return Step(refusals=self._refused)
        self._done = True
        return self._advance(b"", last=True)

    def _advance(self, data: bytes, *, last: bool) -> Step:
        released: list[bytes] = []
        steps = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)] or [b""]
        for index, piece in enumerate(steps):
            released.append(self._take(piece, last=last and index == len(steps) - 1))
            if self._refused:
                return Step(refusals=self._refused, notes=self._taken_notes())
        taken, self._redacted = self._redacted, ()
        return Step(release=b"".join(released), notes=self._taken_notes(), redacted=taken)

    def _take(self, data: bytes, *, last: bool) -> bytes:
        plain = self._undone(data, last=last)
        if self._refused:
            return b""
        if plain:
            self._held.append(plain)
            self._plain += len(plain)
        if self._unpack is not None and data:
            self._raw.append((data, len(plain)))
        if self._plain - self._judged < BLOCK and not last:
            return b""
        return self._judge(last=last)

    def _undone(self, data: bytes, *, last: bool) -> bytes:
        if self._unpack is None:
            return data
        try:
            plain = self._unpack.feed(data) if data else b""
            plain += self._unpack.finish() if last else b""
        except OpaqueError as error:
            self._opaque(error)
            return data
        if self._unpack.aside and not self.aside:
            self.aside = self._unpack.aside
            self._sort(self._scanner.scan(self.aside, replace(self._context, content_type="")))
        return plain

    def _judge(self, *, last: bool) -> bytes:
        block = b"".join(self._held)
        self._sort(self._scanner.scan(block, self._context))
        if self._refused and self._redact:
            block = self._without(block, last=last)
        if not self._refused and last and self._whole and len(block) <= SMALL:
            self._look_divided(block)
            self.small = block
        if self._refused:
            self._held.clear()
            self._raw.clear()
            return b""
        self._whole = False
        # Only the first block tells whether the content is what it says.
        self._context = replace(self._context, content_type="")
        kept = b"" if last else block[-HOLD:]
        released = block[: len(block) - len(kept)]
        self._held = [kept] if kept else []
        self._plain = self._judged = len(kept)
        if self._unpack is None:
            return released
        return self._release_raw(len(released), last=last)

    def _without(self, block: bytes, *, last: bool) -> bytes:
        """Take out what was found, and forget that it was; leaves all as it is where that is not safe."""
        until = -1 if last else len(block) - HOLD
        done = redacted(self._scanner, block, self._context, self._selection, until=until)
        if done is None:
            return block
        self._refused = ()
        self._redacted += done.taken
        return done.data

    def _release_raw(self, judged: int, *, last: bool) -> bytes:
        """Let the coded bytes go whose whole content was judged and released."""
        parts: list[bytes] = []
        self._seen += judged
        while self._raw and (last or self._raw[0][1] <= self._seen):
            data, plain = self._raw.popleft()
            self._seen -= plain
            parts.append(data)
        return self._judged_coded(b"".join(parts), last=last)

    def _judged_coded(self, data: bytes, *, last: bool) -> bytes:
        """Judge coded bytes as they are; gives those that go on."""
        coded = self._coded
        if coded is None:
            return data
        first = b""
        if not self._headless and data:
            self._headless, first, data = True, data[:1], data[1:]
        step = coded.feed(data)
        release = step.release
        if last and not step.refusals:
            step = coded.finish()
            release += step.release
        if step.refusals:
            self._refused = step.refusals
            return b""
        return first + release

    def _look_divided(self, body: bytes) -> None:
        """Put the fields of a body that is whole together."""
        own = self._scanner.own
        if not own:
            return
        found = own.search(joined(body_fields(body, self._context.content_type)))
        if found is not None:
            where = Where(place=self._context.place, layers=(*found.layers, "divided"))
            self._refused = (Finding(kind="own_secret", rule=f"own-secret:{found.name}", where=where),)

    def _sort(self, findings: tuple[Finding, ...]) -> None:
        for found in findings:
            if found.kind == "opaque" and not self._deny_opaque:
                self._notes[found.rule, found.message] = found
            elif self._selection.counts(found):
                self._refused = (*self._refused, found)

    def _taken_notes(self) -> tuple[Finding, ...]:
        notes, self._notes = tuple(self._notes.values()), {}
        return notes

    def _opaque(self, error: OpaqueError) -> None:
        where = Where(place=self._context.place, field=self._context.field)
        found = Finding(kind="opaque", rule="opaque-content", where=where, message=str(error))
        if isinstance(error, FramingError):
            self._refused = (found,)  # whatever the route says: this is no content, but a place to hide some
            return
        self._sort((found,))
        self._unpack = None
        held = self._coded._held if self._coded is not None else []
        if not self._refused and (self._raw or held):
            # From here on the coded bytes are all there is to judge; those that wait go first, as they came.
            waiting = b"".join((*held, *(data for data, _plain in self._raw)))
            self._raw.clear()
            self._held = [waiting]
            self._plain, self._judged = len(waiting), 0
