"""What an agent writes to the operator's terminal, without what reaches beyond that terminal's screen. Pure.

A program in a bottle draws with escape sequences, as any program does, and must be able to. Some sequences do
more than draw: they write the clipboard (OSC 52), open windows for what is to be answered (title reports),
print, run through a multiplexer into the terminal around it (DCS), raise notices that look like somebody
else's. Those are left out; of strings (OSC, DCS, APC, PM, SOS) only what is known passes. See ECMA-48, 5.6
and 8.3, and xterm's ctlseqs.
"""

from __future__ import annotations

import re

#: Titles, colours and the questions for them, links, the colours' resets, and how far something is (9;4).
_PASSING = re.compile(rb"(?:[012]|4|8|1[0-2]|104|11[0-2])(?:;|$)|9;4(?:;|$)")
#: Controls that a terminal carries out in the middle of a sequence, which goes on behind them.
_CONTROLS = rb"[\x00-\x17\x19\x1c-\x1f\x7f]"
#: Where a string begins: with ESC, or with the one character for it (U+0090 and so on) in UTF-8.
_STRING = re.compile(rb"\x1b" + _CONTROLS + rb"*+[\]PX^_]|\xc2[\x90\x98\x9d\x9e\x9f]")
#: Where it ends: with its terminator, with a cancel, or where another sequence begins in its midst.
_STRING_END = re.compile(rb"\x07|\x1b\\|\xc2\x9c|[\x18\x1a]|(?=\x1b[^\\])|(?=\xc2[\x80-\x9b\x9d-\x9f])")
# Possessive throughout: an agent that writes controls without end must not make this look at them again.
_INSIDE = rb"((?:[0-?]|" + _CONTROLS + rb")*+)((?:[ -/]|" + _CONTROLS + rb")*+)"
_BEGIN = rb"(?:\x1b" + _CONTROLS + rb"*+\[|\xc2\x9b)"
#: What prints (``i``), what reports or keeps titles and windows (``t`` from 11 on).
_SEQUENCE = re.compile(_BEGIN + _INSIDE + rb"([@-~])")
_REPORTS = re.compile(rb"0*(?:1[1-9]|2[0-9])(?:[;:]|$)")
#: What the terminal answers: its place, its kind, its modes, keys, tabs, a part of its screen, its graphics.
_ASKS = frozenset({b"n", b"c", b"q", b"u", b"p", b"x", b"w", b"y", b"S"})
#: The two questions that are no such sequence: what it is (DECID), and what it was told to answer (ENQ).
_IDENTIFY = re.compile(rb"\x1b" + _CONTROLS + rb"*+Z|\xc2\x9a")
_ENQUIRY = b"\x05"
#: A sequence that may go on in what comes next.
_UNFINISHED = re.compile(rb"(?:\x1b" + _CONTROLS + rb"*|" + _BEGIN + _INSIDE + rb"|\xc2)\Z")
_OSC = frozenset({b"]", b"\x9d"})
#: A whole character in UTF-8, or a byte of none that a terminal may take for a control of its own (C1, one
#: byte each: CSI is 0x9b), as those do that read 8-bit text or pass over what is no UTF-8.
_STRAY = re.compile(
    rb"([\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3})|[\x80-\x9f]"
)
#: A character that goes on in what comes next.
_CUT = re.compile(rb"(?:[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z")
#: Stands for what is left out: it ends whatever an earlier piece began, so that no two pieces join (CAN).
_NOTHING = b"\x18"
#: No string that passes is longer, in bytes; the rest of a longer one is left out up to its end.
_LONGEST = 16 * 1024


class EscapeGuard:
    """Goes over one stream of output; with ``quiet`` it leaves out what the terminal would answer, too."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._held = b""
        self._cut = b""
        self._skipping = False

    def feed(self, data: bytes) -> bytes:
        """Give what of ``data``, which follows what was given before, may be shown by now."""
        if self._quiet:
            data = data.replace(
                _ENQUIRY, b""
            )  # carried out in the midst of sequences, of which it is no part
        if self._cut or not data.isascii():
            data = self._whole(data)
        if not self._held and not self._skipping and b"\x1b" not in data and b"\xc2" not in data:
            return data
        data, self._held = self._held + data, b""
        shown: list[bytes] = []
        while data:
            if self._skipping:
                data = self._skip(data)
                continue
            begin = _STRING.search(data)
            if begin is None:
                shown.append(self._plain(data))
                break
            shown.append(self._sequences(data[: begin.start()]))
            data = self._string(data[begin.start() :], begin[0], shown)
        return b"".join(shown)

    def _whole(self, data: bytes) -> bytes:
        """Hold back a character that is not whole yet, and leave out 8-bit controls that are part of none."""
        data, self._cut = self._cut + data, b""
        cut = _CUT.search(data, max(0, len(data) - 3))
        if cut is not None:
            data, self._cut = data[: cut.start()], cut[0]
        try:
            data.decode()
        except UnicodeDecodeError:
            return _STRAY.sub(lambda found: found[1] or _NOTHING, data)
        return data

    def _string(self, data: bytes, begin: bytes, shown: list[bytes]) -> bytes:
        """Take one string from the start of ``data``; gives what comes behind it."""
        end = _STRING_END.search(data, len(begin))
        if end is None:
            if len(data) > _LONGEST:
                self._skipping = True
                shown.append(_NOTHING)
                return data[-1:]
            self._held = data
            return b""
        content = data[len(begin) : end.start()]
        passes = begin[-1:] in _OSC and end[0] and len(content) <= _LONGEST and _PASSING.match(content)
        shown.append(data[: end.end()] if passes and not (self._quiet and b"?" in content) else _NOTHING)
        return data[end.end() :]

    def _skip(self, data: bytes) -> bytes:
        end = _STRING_END.search(data)
        if end is not None:
            self._skipping = False
            return data[end.end() :]
        self._held = data[-1:] if data[-1:] in {b"\x1b", b"\xc2"} else b""
        return b""

    def _plain(self, data: bytes) -> bytes:
        unfinished = _UNFINISHED.search(data)
        if unfinished is None:
            return self._sequences(data)
        data = data[: unfinished.start()]
        if len(unfinished[0]) > _LONGEST:  # no program means it, and its end is not to come unseen
            return self._sequences(data) + _NOTHING
        self._held = unfinished[0]
        return self._sequences(data)

    def _sequences(self, data: bytes) -> bytes:
        shown = _SEQUENCE.sub(self._judged, data)
        return _IDENTIFY.sub(_NOTHING, shown) if self._quiet else shown

    def _judged(self, found: re.Match[bytes]) -> bytes:
        parameters, between = (re.sub(_CONTROLS, b"", part) for part in found.groups()[:2])
        final = found[3]
        if final == b"i" or (final == b"t" and not between and _REPORTS.match(parameters)):
            return _NOTHING
        if self._quiet and final in _ASKS and _is_question(parameters, between, final):
            return _NOTHING
        return found[0]


def _is_question(parameters: bytes, between: bytes, final: bytes) -> bool:
    """Tell what is answered from what sets something with the same last letter."""
    if final in {b"n", b"c", b"x"}:
        return not between
    if final == b"y":
        return between == b"*"
    if final == b"S":
        return parameters[:1] == b"?"
    if final == b"q":
        return parameters[:1] == b">"
    if final == b"u":
        return parameters == b"?"
    return between == b"$"
