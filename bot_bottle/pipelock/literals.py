"""One short value by itself: does it look like a credential? By our own rules, without the rule engine."""

from __future__ import annotations

import re

from bot_bottle.pipelock.finding import Context
from bot_bottle.pipelock.rule import is_placeholder
from bot_bottle.pipelock.ruleset import rule_set

_CONTEXT = Context(place="file")

#: RFC 3986, 3.2.1: a password in a URL's user part. In content that is the rule engine's to find.
_PASSWORD_IN_URL = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@:]*:([^\s/?#@]+)@")
_NO_PASSWORDS = frozenset({b"password", b"passwd", b"secret", b"postgres", b"root", b"test", b"admin"})


def credential_rule(name: str, value: str) -> str:
    """Give the strict profile's rule that ``name=value`` breaks, ``""`` for none.

    Quick enough for a summary, since it loads no engine, and so no proof that a value is none.
    """
    rules = rule_set("strict")
    data = f"{name}={value}".encode("utf-8", "surrogateescape")
    in_url = _PASSWORD_IN_URL.search(data)
    if in_url and not is_placeholder(in_url[1]) and in_url[1].lower() not in _NO_PASSWORDS:
        return "password-in-url"
    found = rules.settle(data, rules.look(data).hits, _CONTEXT, ())
    return next((match.rule.id for match in found if match.rule.kind == "credential"), "")
