"""The keys that leave an attached session to itself: Ctrl-P, then Ctrl-Q."""

from __future__ import annotations

import re

#: For the operator to read.
NAMES = "Ctrl-P Ctrl-Q"

# A key comes as its control character, or, where the agent has asked the terminal for it, as a sequence:
# CSI 112;5u (kitty's keyboard protocol, fixterms) or CSI 27;5;112~ (xterm's modifyOtherKeys).
_FIRST = re.compile(rb"\x10|\x1b\[112;5(?::1)?u|\x1b\[27;5;112~")
_SECOND = re.compile(rb"\x11|\x1b\[113;5(?::1)?u|\x1b\[27;5;113~")
#: The first key let go of again, which kitty's protocol may tell too.
_RELEASED = re.compile(rb"(?:\x1b\[112;5:3u)*")


class DetachKeys:
    """Looks for the two keys in what is typed; all else is given on, the first key once it stands alone."""

    def __init__(self) -> None:
        self._held = b""

    @property
    def holding(self) -> bool:
        """Tell whether the first key is held back: :meth:`let_go` is due after a moment without another."""
        return bool(self._held)

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Take in what was typed; gives what goes on, and whether the session is to be left."""
        data, self._held = self._held + data, b""
        start = 0
        while match := _FIRST.search(data, start):
            after = _after_release(data, match.end())
            if _SECOND.match(data, after):
                return data[: match.start()], True
            if after == len(data):
                self._held = data[match.start() :]
                return data[: match.start()], False
            start = match.end()
        return data, False

    def let_go(self) -> bytes:
        """Give what is held back."""
        held, self._held = self._held, b""
        return held


def _after_release(data: bytes, position: int) -> int:
    match = _RELEASED.match(data, position)
    return match.end() if match else position
