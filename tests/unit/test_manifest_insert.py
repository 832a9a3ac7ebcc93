"""A route put into a bottle's file: one more, and every byte that stood there stays."""

from __future__ import annotations

import difflib

import pytest

from bot_bottle.manifest.insert import with_push, with_route

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


FLOW = '    other.example.com: {Name: other, Upstream: "https://other.example.com/b.git"}  # x'
GIT = """---
git:
  remotes:
    git.example.com:   # ours
      Name: project
      Upstream: ssh://git@git.example.com/a.git
FLOW
env: {A: b}
---
""".replace("FLOW", FLOW)


@pytest.mark.parametrize(
    ("old", "remote", "branches", "paths", "lines"),
    [
        (
            GIT,
            "project",
            ["fix-*"],
            [".github/**"],
            ['      Branches: ["bottle/**", "fix-*"]', '      AllowPaths: [".github/**"]'],
        ),
        (
            GIT.replace("a.git\n", "a.git\n      Branches: [topic/x]  # mine\n"),
            "project",
            ["fix-1", "topic/x"],
            [],
            ["      Branches: [topic/x, fix-1]  # mine"],
        ),
        (
            GIT.replace("a.git\n", "a.git\n      AllowPaths:\n        - a.yml  # one\n"),
            "project",
            [],
            ["b.yml"],
            ["        - b.yml"],
        ),
        (
            GIT,
            "other",
            ["fix-1"],
            [],
            [
                FLOW.replace("}", ', Branches: ["bottle/**", fix-1]}'),
            ],
        ),
    ],
)
def test_what_may_be_pushed_is_added_to_one_remote(
    old: str, remote: str, branches: list[str], paths: list[str], lines: list[str]
) -> None:
    new = with_push(old, remote, branches, paths)
    came = [line for line in new.splitlines() if line not in old.splitlines()]
    assert came == lines
    kept = [line for line in old.splitlines() if line in new.splitlines()]
    assert len(kept) >= len(old.splitlines()) - 1, "what was in a list's line stands in it still"


def test_what_is_there_already_changes_nothing() -> None:
    assert with_push(GIT, "project", ["bottle/**"], []) == GIT


@pytest.mark.parametrize(
    "old",
    ["---\n---\n", "---\ngit: x\n---\n", GIT.replace("project", "p"), GIT.replace("other,", "project,")],
)
def test_a_remote_that_is_not_there_once_is_for_a_hand(old: str) -> None:
    with pytest.raises(ValueError, match="by hand"):
        with_push(old, "project", ["fix-1"], [])


def test_a_form_that_is_not_added_to_is_for_a_hand() -> None:
    for wrong in ("Branches: *b", "Branches: x"):
        with pytest.raises(ValueError, match=r"by hand|alias"):
            with_push(GIT.replace("a.git\n", f"a.git\n      {wrong}\n"), "project", ["fix-1"], [])
