"""Values that only what surrounds them shows to be secret: a name beside them, a block, a list of words.

They count in the ``egress`` profile alone, where what surrounds them leaves too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bot_bottle.pipelock import numbers
from bot_bottle.pipelock.rule import AFTER, BEFORE, Match, Rule, is_placeholder

if TYPE_CHECKING:
    from typing import Final

_NO_VALUE = re.compile(
    rb"(?i)[$<{%\[(].*|true|false|null|none|undefined|.*(?:your|here|change|insert|todo).*"
)
_SAID_TO_REPLACE = re.compile(rb"(?i)your|here|insert|paste|replace|content_of")
_OTHER_LINE = re.compile(rb"(?:^|\n)(?:export )?(?:PATH|HOME|SHELL|USER|PWD|LANG|[A-Z][A-Z0-9_]{2,40})=")
_DIFFERENT = 9
_SEED_SIZES: Final = frozenset((12, 15, 18, 21, 24))
#: No list of seed words (BIP 39) has these, and hardly one of their endings; no sentence goes without.
_OF_SENTENCES = frozenset(
    b"the and for with are was were has had have not but from they them their been into than then its our "
    b"your his her who how why all any each more most other some such only also which while after before "
    b"because could should would does did being over under between through".split()
)
_ENDINGS = re.compile(rb".+(?:ing|ed|tion|ly|es|[^aiosu]s)")


def _is_value(match: Match) -> bool:
    value = match.value
    if _NO_VALUE.fullmatch(value) or is_placeholder(value):
        return False
    return bool(re.search(rb"\d", value) and re.search(rb"[A-Za-z]", value)) and numbers.entropy(value) >= 3.0


def _in_a_query(match: Match) -> bool:
    place, kind = match.context.place, match.context.content_type
    return (place == "query" or "x-www-form-urlencoded" in kind) and _is_value(match)


def _in_an_environment(match: Match) -> bool:
    """One line of several that all set a variable, with no white space around the sign."""
    around = _OTHER_LINE.search(match.before[: match.before.rfind(b"\n") + 1]) or _OTHER_LINE.search(
        match.after
    )
    return around is not None and match.context.place in {"body", "websocket"} and _is_value(match)


def _is_key_text(match: Match) -> bool:
    return _SAID_TO_REPLACE.search(match.value.rpartition(b"-----")[2]) is None


def _is_lone_secret(match: Match) -> bool:
    value = match.value
    mixed = all(re.search(kind, value) for kind in (rb"[A-Z]", rb"[a-z]", rb"\d", rb"[/+]"))
    return mixed and value.count(b"/") <= 4 and numbers.entropy(value) >= 4.2


def _is_seed(match: Match) -> bool:
    words = re.split(rb"[ +,]|%20", match.value)
    if len(words) not in _SEED_SIZES or _OF_SENTENCES & set(words):
        return False
    if len(set(words)) < _DIFFERENT and not (len(set(words)) == 2 and len(set(words[:-1])) == 1):
        return False  # said again and again; but one word, and a last one for the sum, is a wallet's
    return 4 * sum(_ENDINGS.fullmatch(word) is not None for word in words) <= len(words)


NAMED_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        id="named-secret",
        pattern=rb"(?i)(?:^|[?&;\s])(?:(?:user_?|db_?|admin_?)?pass(?:word|wd|phrase)|pwd|client_?secret|api[_-]?key"
        rb"|secret(?:_?key)?|private_?key|access_?key|auth_?token)=([^&;\s\"'<>]{10,256})",
        judge=_in_a_query,
        strict=False,
    ),
    Rule(
        id="environment-secret",
        pattern=rb"(?:^|\n)(?:export )?[A-Z][A-Z0-9_]{0,40}(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY"
        rb"|PRIVATE_KEY|ACCESS_KEY|CREDENTIALS?)[A-Z0-9_]{0,20}=[\"']?([^\s\"']{8,256})",
        judge=_in_an_environment,
        strict=False,
    ),
    Rule(
        id="private-key-block",
        reach=256,
        pattern=rb"(-----BEGIN (?:[A-Z0-9]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----(?:\s|\\[nr]){1,8}"
        rb"[A-Za-z0-9+/_=]{16,64})",
        judge=_is_key_text,
        strict=False,
    ),
    Rule(
        id="aws-access-key-id-folded",
        pattern=BEFORE + rb"((?:akia|asia)[a-z0-9]{16})" + AFTER,
        judge=lambda match: bool(re.search(rb"\d", match.value[4:])) and not match.value[4:].isdigit(),
        strict=False,
    ),
    Rule(
        id="discord-webhook",
        pattern=rb"(discord(?:app)?\.com/api/(?:v\d+/)?webhooks/\d{17,20}/[\w-]{50,90})",
        strict=False,
    ),
    Rule(
        id="wallet-key-named",
        kind="financial",
        pattern=rb"(?i)(?:priv(?:ate)?|secret|wallet|signing)[_-]?key[\"'\s]{0,3}[=:][\"'\s]{0,3}"
        rb"((?:0x)?[0-9a-f]{64})(?:$|[^0-9a-f])",
        strict=False,
    ),
    Rule(
        id="social-security-number",
        kind="financial",
        pattern=rb"(?i)(?:\bssn|social[ _-]?security(?:[ _-]?(?:number|no))?)[\w]{0,12}[\"'\s]{0,3}"
        rb"[=:]?[\"'\s]{0,3}([0-8]\d{2}-\d{2}-\d{4})(?:$|\D)",
        strict=False,
    ),
    Rule(
        id="lone-secret-key",
        number=True,
        places=frozenset(("query", "header", "cookie")),
        pattern=rb"(?:[=\"']|: )([A-Za-z0-9/+]{40})(?:$|[^A-Za-z0-9/+=])",
        judge=_is_lone_secret,
        strict=False,
    ),
    Rule(
        id="seed-words",
        kind="financial",
        number=True,
        pattern=rb"(?:^|[=\"'>]|: )((?:[a-z]{3,8}(?:[ +,]|%20)){11,23}[a-z]{3,8})(?:$|[\"'<&\s])",
        judge=_is_seed,
        strict=False,
    ),
)
