"""A route put into a bottle's file: one more, and every byte that stood there stays."""

from __future__ import annotations

import difflib

import pytest

from bot_bottle.manifest.insert import with_route

BLOCK = """---
# mine
egress:
  routes:
    - host: a.example   # the first
      methods: [GET]
    # not the last
    - {host: b.example}
    # a word at the end

env:
  KEY: "x"   # kept
---
The body:
egress: {routes: []}
"""


def added(old: str, new: str) -> list[str]:
    """Give the lines that came; none may go."""
    lines = [line for line in difflib.ndiff(old.splitlines(), new.splitlines()) if line[0] in "+-"]
    assert all(line.startswith("+") for line in lines), lines
    return [line[2:] for line in lines]


def test_a_block_keeps_its_comments_and_its_form() -> None:
    new = with_route(BLOCK, "docs.example", ["/3/"], ["GET", "HEAD"])
    assert added(BLOCK, new) == [
        "    - host: docs.example",
        "      path_allowlist: [/3/]",
        "      methods: [GET, HEAD]",
    ]
    assert new.index("docs.example") < new.index("# a word at the end")


@pytest.mark.parametrize(
    ("front", "wanted"),
    [
        ("", "egress:\n  routes:\n    - host: d.example\n"),
        ("extends: base\n", "extends: base\negress:\n  add_routes:\n    - host: d.example\n"),
        ("egress: {routes: []}\n", "egress: {routes: [{host: d.example}]}\n"),
        (
            "egress: {routes: [{host: a.example}] }  # x\n",
            "egress: {routes: [{host: a.example}, {host: d.example}] }  # x\n",
        ),
        (
            "egress:\n  add_routes:\n  - host: a.example\n",
            "egress:\n  add_routes:\n  - host: a.example\n  - host: d.example\n",
        ),
        (
            "egress:\n  routes: [\n    {host: a.example}\n  ]\n",
            "egress:\n  routes: [\n    {host: a.example}, {host: d.example}]\n",
        ),
    ],
)
def test_each_form(front: str, wanted: str) -> None:
    assert with_route(f"---\n{front}---\nbody\n", "d.example", [], []) == f"---\n{wanted}---\nbody\n"


def test_words_that_yaml_would_take_for_others_are_quoted() -> None:
    new = with_route("---\n---\n", "*.d.example", ["/a b,[", "/x: #"], [])
    assert '- host: "*.d.example"' in new
    assert 'path_allowlist: ["/a b,[", "/x: #"]' in new


@pytest.mark.parametrize(
    "front",
    [
        "egress:\n",
        "egress: {}\n",
        "egress:\n  routes:\n",
        "egress: text\n",
        "- a\n",
        "egress:\n  routes: [{host: a.example}, ]\n",
        "a: &x 1\n",
    ],
)
def test_what_is_not_understood_is_left_alone(front: str) -> None:
    with pytest.raises(ValueError, match=r"by hand|not accepted"):
        with_route(f"---\n{front}---\n", "d.example", [], [])
