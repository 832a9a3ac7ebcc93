"""What a sidecar in a container says on its standard streams, as far as a launcher must know it.

One thread hears (:meth:`Conversation.hear`), others wait. The messages are those of
:mod:`bot_bottle.sidecar.stdio`; the audit log's bytes among them go straight into the host's copy.
"""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

from bot_bottle.backend.docker.streams import STDERR
from bot_bottle.errors import LaunchError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.audit_copy import AuditCopy

_WORDS_BYTES = 2000
#: The longest message tells of every route, with its counters.
_MAX_LINE = 1 << 23


class Conversation:
    """The state of one conversation. ``copy`` takes the log; it is not closed here."""

    def __init__(self) -> None:
        #: What :meth:`hear` was told, for waiting on.
        self.ca_pem = ""
        self.ready = False
        self.over = False
        self.synced = 0
        #: How many bytes of the sidecar's log are in the host's copy.
        self.copied = 0
        self.copy_fault = ""
        #: What the sidecar answered to orders, by their numbers; whoever waits takes its own away.
        self.answers: dict[int, dict[str, object]] = {}
        #: Called, by the thread that hears, when the copy has grown.
        self.on_copied: Callable[[], None] = lambda: None
        self._copy: AuditCopy | None = None
        self._size: int | None = None
        self._refusal = ""
        self._failure = ""
        self._words = b""
        self._line = b""
        self._changed = threading.Condition()

    def record_in(self, copy: AuditCopy) -> None:
        """Append what is passed on of the log to ``copy``."""
        self._copy = copy

    @property
    def complete(self) -> bool:
        """Tell whether the sidecar ended its log and the host's copy has all of it."""
        return self._size is not None and self._size == self.copied and not self.copy_fault

    def hear(self, stream: int, data: bytes) -> None:
        """Take some output; raises ``ValueError`` for what no sidecar of ours says."""
        with self._changed:
            if stream == STDERR:
                self._words = (self._words + data)[-_WORDS_BYTES:]
                return
            *lines, self._line = (self._line + data).split(b"\n")
            if len(self._line) > _MAX_LINE:
                raise ValueError("the sidecar's message has no end")
            for line in lines:
                message = json.loads(line)
                if not isinstance(message, dict):
                    raise ValueError("the sidecar's message is no object")  # noqa: TRY004 - as documented
                self._take(message)
            self._changed.notify_all()

    def end(self, failure: str = "") -> None:
        """Note that nothing more will come, and why, in a sentence, where that is known."""
        with self._changed:
            self.over = True
            self._failure = failure
            self._changed.notify_all()

    def wait(self, done: Callable[[], bool], seconds: float, due: str) -> None:
        """Wait until ``done``; raises ``LaunchError`` with the sidecar's own words where that cannot come."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not done():
                if self._refusal:
                    raise LaunchError(f"the sidecar refused to start: {self._refusal}")
                if self.over:
                    raise LaunchError(self._failure or self.death(f"it ended before it could {due}"))
                left = deadline - time.monotonic()
                if left <= 0:
                    raise LaunchError(self.death(f"it took more than {seconds:.0f} s to {due}"))
                self._changed.wait(left)

    def wait_for_end(self, patience: float) -> bool:
        """Wait for the log's end as long as the log moves on; False after ``patience`` seconds without."""
        with self._changed:
            seen, since = self.copied, time.monotonic()
            while not self.over and self._size is None:
                if self.copied != seen:
                    seen, since = self.copied, time.monotonic()
                left = since + patience - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def wait_until_over(self, seconds: float) -> None:
        """Wait, at most ``seconds``, until nobody hears any more, so that the copy is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.over, seconds)

    def poke(self) -> None:
        """Have everybody who waits look again."""
        with self._changed:
            self._changed.notify_all()

    def death(self, what: str) -> str:
        """Give one sentence for the operator, with the last line the sidecar wrote to standard error."""
        last = self._words.decode("utf-8", "replace").strip().splitlines()[-1:]
        return legible(f"the sidecar failed: {what}" + (f"; its last words: {last[0]}" if last else ""))

    def _take(self, message: dict[str, object]) -> None:
        event = message.get("event")
        if event == "audit":
            self._take_log(message.get("at"), message.get("data"))
        elif event == "ca":
            self.ca_pem = str(message.get("pem"))
        elif event == "ready":
            self.ready = True
        elif event == "error":
            self._refusal = legible(str(message.get("message")))
        elif event == "synced" and isinstance(number := message.get("id"), int):
            self.synced = number
        elif event == "answer" and isinstance(number := message.get("id"), int):
            answer = message.get("answer")
            self.answers[number] = answer if isinstance(answer, dict) else {}
        elif event == "end" and isinstance(size := message.get("size"), int):
            self._size = size
        else:
            raise ValueError(f"the sidecar said {event!r}")

    def _take_log(self, at: object, data: object) -> None:
        if not isinstance(data, str) or self._copy is None:
            raise ValueError("a piece of the log is out of place")
        if self.copy_fault:
            return
        if at != self.copied:
            self.copy_fault = "a piece of it is missing"
            return
        raw = data.encode("latin-1")
        try:
            self._copy.append(raw)
        except OSError as error:
            self.copy_fault = str(error.strerror or error)
            return
        self.copied += len(raw)
        self.on_copied()
