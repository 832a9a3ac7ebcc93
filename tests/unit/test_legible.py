"""What an agent writes shows what it is: nothing hides, covers or reorders a part of it."""

from __future__ import annotations

import pytest

from bot_bottle.legible import exact, legible
from bot_bottle.supervise.push_grant import PushGrant, push_warnings, widest_first
from bot_bottle.supervise.request import clean, read_request

UNSEEN = [
    *map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0x200B, 0x2010))),
    "\u034f", "\u115f", "\u2060", "\u2800", "\u3164", "\ufe01", "\ufeff", "\uffa0", "\u00ad",
    "\U000e0001", "\U000e0041", "\U000e0100", "\x1b", "\x9b", "\r", "\u2028", "\u00a0",
]  # fmt: skip


@pytest.mark.parametrize("char", UNSEEN, ids=[f"{ord(char):x}" for char in UNSEEN])
def test_what_is_not_seen_is_seen(char: str) -> None:
    assert legible(f"a{char}b") == "a?b"
    assert legible(f"a{char}b") == "a?b"
    assert clean(f"a{char}b", 100) == "a?b"
    assert exact(f"a{char}b") == f"a\\u{{{ord(char):x}}}b"


def test_letters_of_all_scripts_stay_and_a_flood_of_marks_does_not() -> None:
    for text in ("für", "e\u0301te\u0301", "Việt", "Vie\u0323\u0302t", "שלום", "हिन्दी", "日本語", "❤\ufe0f"):
        assert legible(text) == text
    assert legible("a" + "\u0336" * 200 + "b") == "a" + "\u0336" * 3 + "?" * 197 + "b"
    assert legible("\u0336a\n\u0336b", keep="\n") == "?a\n?b"


def test_what_is_granted_is_written_in_one_way_only() -> None:
    names = ("main", "m\u0430in", "main\ufe01", "ma\u0336in", "ma in", "ma\\u{69}n", "\u202emain", "שלום")
    assert len({exact(name) for name in names}) == len(names)
    assert all(exact(name).isascii() and " " not in exact(name) for name in names)
    grant = PushGrant(request="abcd2345", remote="p", branches=("fix-\u05d0\u0336**", "m\u0430in"))
    assert grant.items == ("branch fix-\\u{5d0}\\u{336}**", "branch m\\u{430}in")
    assert grant.terms.isascii()
    request = read_request(
        "git", {"remote": "p", "refs": ["m\u0430in", "a b"], "reason": "r"}, new_id="abcd2345", now=1
    )
    assert request.summary == "push to p: m\\u{430}in a\\u{20}b"


def test_warnings_stay_short_and_begin_with_the_widest() -> None:
    many = tuple(f"{number:02d}{'x' * 150}*" for number in range(19))
    assert widest_first((*many, "a/**", "z", "**")) == ("**", "a/**", *many, "z")
    found = push_warnings(PushGrant(request="abcd2345", remote="p", branches=(*many, "**"), paths=("**",)))
    assert found[0] == "** opens every branch that it matches"
    assert "17 more patterns open every branch that they match" in found
    assert "** opens every protected path that it matches" in found
    assert max(map(len, found)) < 110
