"""Whether content is text, and whether it is what it says."""

from __future__ import annotations

import functools
import re

_TEXT_TYPE = re.compile(
    r"(?i)(?:text/|application/(?:[\w.+-]*[+.-])?(?:json|xml|yaml|javascript|x-javascript|ecmascript|graphql|"
    r"x-www-form-urlencoded|sql|toml|csv|x-ndjson|jsonl|x-sh)\b)"
)
_WIDE = re.compile(r"(?i)charset\s*=\s*[\"']?utf-?(?:16|32)")
#: Control characters that no text has (it has TAB, LF, VT, FF, CR, ESC).
_CONTROLS = bytes([*range(9), *range(14, 27), *range(28, 32), 127])
_SAMPLE = 4096
_LONGEST_KEPT = 128


def claims_text(content_type: str) -> bool:
    """Tell whether a ``Content-Type`` promises text."""
    if not content_type:
        return False
    # What agents say again and again is short; what is longer is not kept.
    return (_is_text if len(content_type) <= _LONGEST_KEPT else _is_text.__wrapped__)(content_type)


@functools.lru_cache(maxsize=256)
def _is_text(content_type: str) -> bool:
    return _TEXT_TYPE.match(content_type.strip()) is not None


def looks_opaque(data: bytes, content_type: str = "") -> bool:
    """Tell content that is no text: control characters, or bytes that are no UTF-8 and not nearly ASCII."""
    sample = data[:_SAMPLE]
    if not sample:
        return False
    if _WIDE.search(content_type):
        try:
            data[: _SAMPLE & ~3].decode("utf-16", "strict")
        except UnicodeDecodeError:
            return True
        return False
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    if controls * 50 > len(sample):
        return True
    if sample.isascii():
        return False
    try:
        sample[: len(sample) - 8 if len(data) > _SAMPLE else len(sample)].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start >= len(sample) - 12:  # a character cut by the sample's end
            return False
        high = sum(byte > 126 for byte in sample)
        return high * 3 > len(sample)  # Latin-1 prose stays far below
    return False
