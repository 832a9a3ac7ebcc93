"""Markdown with YAML frontmatter, taken apart without reading either."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontmatter:
    """The YAML between the two ``---`` lines, the line of the file it starts on, and the body after it."""

    yaml: str
    first_line: int
    body: str


def split_frontmatter(text: str) -> Frontmatter:
    """Split a manifest file.

    Raises ``ValueError`` with a sentence where the opening or the closing ``---`` line is missing.
    """
    lines = text.removeprefix("\ufeff").split("\n")
    if lines[0].rstrip() != "---":
        raise ValueError("does not start with a line '---'; write the YAML keys between two such lines")
    for index, line in enumerate(lines[1:], start=1):
        if line.rstrip() == "---":
            yaml = "".join(f"{line}\n" for line in lines[1:index])
            return Frontmatter(yaml=yaml, first_line=2, body="\n".join(lines[index + 1 :]))
    raise ValueError("has no closing line '---' after its YAML keys; add one")
