"""Letters that look like ASCII's, and characters that nobody sees, brought back to what is read."""

from __future__ import annotations

import re
import unicodedata

#: Letters of other scripts that look like Latin ones; NFKC leaves them (Unicode TR 39, confusables).
_LOOKALIKES = zip(
    "АВЕКМНОРСТХУІЈЅаеорсухіјѕԁԛԝһοΟΑΒΕΗΙΚΜΝΡΤΥΧΖνυѵѡɡƖԌԛՕՏՍՑօսոցᎪᏴᏟᎠᎬᎻᏦᏞᎷᏢᎡᏚᎢᏙᏃ",
    "ABEKMHOPCTXYIJSaeopcyxijsdqwhoOABEHIKMNPTYXZvuvwgIGqOSUGounGABCDEHKLMPRSTVZ",
    strict=True,
)
#: What has no width goes (general category Cf, and the joiner U+034F).
_WIDTHLESS = [
    0xAD,
    0x34F,
    0x61C,
    0x180E,
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    *range(0x300, 0x370),
    *range(0xFE00, 0xFE10),
    0xFEFF,
]
_FOLDED = {**dict(_LOOKALIKES), **dict.fromkeys(map(chr, _WIDTHLESS), "")}
#: Invisible twins of ASCII's characters (block Tags), and squared and circled capitals that no form folds.
_TAGS = {0xE0000 + code: code for code in range(0x20, 0x7F)} | {
    start + index: 65 + index for start in (0x1F150, 0x1F170) for index in range(26)
}
_ODD = re.compile("[" + "".join(map(re.escape, _FOLDED)) + "]")


def fold(data: bytes) -> bytes:
    """Bring look-alike and full-width letters to ASCII and drop what has no width."""
    text = unicodedata.normalize("NFKD", data.decode("utf-8", "replace")).translate(_TAGS)
    return _ODD.sub(lambda match: _FOLDED[match[0]], text).encode("utf-8")
