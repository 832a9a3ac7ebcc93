"""The YAML that manifests use: YAML 1.2 scalars, places, and everything dangerous refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.manifest.frontmatter import split_frontmatter
from bot_bottle.manifest.problem import ManifestFileError, Problem, key_text, shown
from bot_bottle.manifest.yaml_tree import MAX_DEPTH, core_scalar, parse_yaml

if TYPE_CHECKING:
    from bot_bottle.manifest.yaml_tree import YamlTree


def read(text: str) -> YamlTree:
    return parse_yaml(text, file="f.md", first_line=2)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("y", "y"),
        ("2026-11-23", "2026-11-23"),
        ("12:30", "12:30"),
        ("0b1", "0b1"),
        ("1_000", "1_000"),
        ("true", True),
        ("False", False),
        ("", None),
        ("~", None),
        ("null", None),
        ("12", 12),
        ("-7", -7),
        ("0o17", 15),
        ("0x1F", 31),
        ("010", 10),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("-.inf", float("-inf")),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert core_scalar(text) == value
    assert type(core_scalar(text)) is type(value)


def test_quoted_and_block_scalars_are_always_text() -> None:
    tree = read("a: '1'\nb: \"true\"\nc: |\n  2\n")
    assert tree.data == {"a": "1", "b": "true", "c": "2\n"}
    assert tree.problems == ()


def test_every_key_and_value_keeps_its_place_in_the_file() -> None:
    tree = read("egress:\n  routes:\n    - host: a.example\n    - {host: b.example, ports: [443]}\n")
    assert tree.place(("egress", "routes"), of_key=True) == (3, 3)
    assert tree.place(("egress", "routes", 0, "host")) == (4, 13)
    assert tree.place(("egress", "routes", 1, "ports", 0)) == (5, 33)
    assert tree.place(("egress", "routes", 1, "absent")) == (5, 7)


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("a: &x 1\n", 2, 4, "anchors"),
        ("a: &x 1\nb: *x\n", 3, 4, "aliases"),
        ("a: !!str x\n", 2, 4, "tags"),
        ("a: !!python/object/apply:os.system [x]\n", 2, 4, "tags"),
        ("!!map {a: 1}\n", 2, 1, "tags"),
        ("? !x a\n: 1\n", 2, 3, "tags"),
        ("<<: {b: 1}\n", 2, 1, "merge keys"),
        ("a: 1\na: 2\n", 3, 1, "written twice (first on line 2)"),
        ("a: {b: 1, b: 2}\n", 2, 11, "written twice"),
        ("? [x]\n: 1\n", 2, 3, "a key must be plain text"),
        ("a: 1\n---\nb: 2\n", 3, 1, "second YAML document"),
        ("%YAML 1.1\n---\na: 1\n", 2, 1, "directives"),
        ("a: b: c\n", 2, 5, "not valid YAML"),
        ("a: [1\n", 3, 1, "not valid YAML"),
        ("a:\n\tb: 1\n", 3, 1, "a tab stands here"),
        ("a: 1\nb: \x07\n", 3, 1, "control character"),
        (f"a: {'9' * 80}\n", 2, 4, "too long for a number"),
    ],
)
def test_dangerous_or_broken_yaml_is_refused_with_its_place(
    text: str, line: int, column: int, said: str
) -> None:
    problems = read(text).problems
    assert any((p.line, p.column) == (line, column) and said in p.message for p in problems), problems


def test_a_billion_laughs_is_refused_without_being_unfolded() -> None:
    levels = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    problems = read("\n".join(levels)).problems
    assert {"aliases", "anchors"} <= {word for p in problems for word in p.message.split()}


def test_deep_nesting_ends_at_once() -> None:
    problems = read("a: " + "[" * 5000).problems
    assert f"nests deeper than {MAX_DEPTH} levels" in problems[-1].message


@given(st.text(max_size=300))
def test_no_text_whatever_raises(text: str) -> None:
    tree = parse_yaml(text, file="f.md")
    assert all(p.line >= 1 and p.column >= 1 for p in tree.problems)


@given(st.lists(st.sampled_from(list("ab:-?[]{}&*!|>'\"%#<, \n\t0")), max_size=60).map("".join))
def test_no_yaml_soup_raises(text: str) -> None:
    parse_yaml(text, file="f.md")


def test_frontmatter_is_what_stands_between_the_first_two_lines_of_dashes() -> None:
    front = split_frontmatter("\ufeff---\r\na: 1\r\n--- \r\nbody\n---\nmore\n")
    assert front.yaml == "a: 1\r\n"
    assert front.first_line == 2
    assert front.body == "body\n---\nmore\n"
    assert split_frontmatter("---\n---").body == ""


@pytest.mark.parametrize(
    ("text", "said"), [("", "does not start"), ("a: 1\n", "does not start"), ("---\na: 1\n", "no closing")]
)
def test_a_file_without_frontmatter_says_which_line_is_missing(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        split_frontmatter(text)


def test_key_paths_and_foreign_text_are_safe_to_print() -> None:
    assert key_text(("egress", "routes", 0, "host")) == "egress.routes[0].host"
    assert key_text(("env", "a b\x1b[2J")) == r'env["a b\x1b[2J"]'
    assert shown("\x1b]0;x\x07\u202eabc") == r"\x1b]0;x\x07\u202eabc"
    assert shown("x" * 100, 5) == "xxxxx..."


def test_many_problems_are_sorted_and_bounded() -> None:
    problems = [Problem(file="f", line=n, column=1, key="k", message="m") for n in range(30, 0, -1)]
    lines = str(ManifestFileError(problems)).splitlines()
    assert lines[0] == "f:1:1: k: m"
    assert lines[-1] == "... and 10 more"
    assert len(lines) == 21
