"""Text from outside, made such that what is seen is what is there. Pure."""

from __future__ import annotations

import unicodedata

#: Marks that one letter may carry; no script needs more, and a flood of them covers what stands beside it.
_MARKS = 3
#: What is shown as nothing, or as a blank, and is printable for Unicode all the same: joiners, selectors of
#: variants (UAX 44, Default_Ignorable_Code_Point), fillers. U+FE0F counts as a mark: emoji have it.
_UNSEEN = frozenset(
    [0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, 0x1D159,
     *range(0x180B, 0x1810), *range(0xFE00, 0xFE0F), *range(0xE0100, 0xE01F0)]
)  # fmt: skip


def is_seen(char: str) -> bool:
    """Tell a character that is shown, as something: it does not control, reorder or hide."""
    return char.isprintable() and ord(char) not in _UNSEEN


def legible(text: str, *, keep: str = "") -> str:
    """Put ``?`` for each character that controls, hides or reorders text, or is not seen; ``keep`` stays."""
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = _MARKS  # a text does not begin with one
    for char in text:
        mark = char == "\ufe0f" or unicodedata.category(char) in {"Mn", "Me"}
        marks = marks + 1 if mark else 0
        fits = char in keep or is_seen(char)
        shown.append(char if fits and marks <= _MARKS else "?")
        if char in keep:
            marks = _MARKS
    return "".join(shown)


def exact(text: str) -> str:
    r"""Write a name such that no two look the same: in ASCII, with everything else as ``\u{CODE}``.

    So are spaces, which would make two names of one, and the backslash itself.
    """
    return "".join(char if "!" <= char <= "~" and char != "\\" else f"\\u{{{ord(char):x}}}" for char in text)
