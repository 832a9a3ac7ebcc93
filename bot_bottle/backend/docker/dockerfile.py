"""Reading a Dockerfile as far as a build ahead of time must: its base images, and whether it wants files.

The engine alone gives a Dockerfile its meaning. What is found here decides which images are fetched first
(so that one that is not to be had is named) and what the cache depends on; a mistake costs a rebuild, never
more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ESCAPE = re.compile(r"#\s*escape\s*=\s*([\\`])\s*", re.IGNORECASE)
_DIRECTIVE = re.compile(r"#\s*[A-Za-z][A-Za-z0-9]*\s*=")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::-([^}]*))?\}|([A-Za-z_]\w*))")
_FLAG = re.compile(r"--([a-z-]+)(?:=(\S*))?\s+")
_URL = re.compile(r"(?:https?|ftp)://", re.IGNORECASE)
_BLANKS = re.compile(r"\s+")
#: As much of an instruction as holds ONBUILD and the word behind it.
_OPENING = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction: its word in capitals, its ``--flags``, and the rest of it on one line."""

    word: str
    flags: Mapping[str, str]
    rest: str


def parse_dockerfile(text: str) -> tuple[Instruction, ...]:
    """Split a Dockerfile into instructions, lines that are continued joined and comments left out."""
    return tuple(_instruction(line) for line in _logical_lines(text))


def base_images(instructions: tuple[Instruction, ...], args: Mapping[str, str]) -> tuple[str, ...]:
    """Name every image that the build begins from or copies out of, each once, in order.

    ``args`` are the build's arguments. A name that stays unknown (an argument without a value) is left out.
    """
    values: dict[str, str] = {}
    stages: set[str] = set()
    found: dict[str, None] = {}
    first = True
    for one in instructions:
        if one.word == "ARG" and first:
            # Only arguments before the first FROM count for one (Dockerfile reference, "ARG and FROM").
            values.update(_arguments(one.rest, values, args))
        elif one.word == "FROM":
            first = False
            words = _substituted(one.rest, values).split()
            if words and words[0].lower() not in stages:
                found[words[0]] = None
            if len(words) == 3 and words[1].lower() == "as":
                stages.add(words[2].lower())
        elif one.word == "COPY" and "from" in one.flags:
            source = _substituted(one.flags["from"], values)
            if source.lower() not in stages and not source.isdigit():
                found[source] = None
    return tuple(name for name in found if name and name != "scratch" and "$" not in name)


def needs_context(instructions: tuple[Instruction, ...]) -> bool:
    """Tell whether the build copies anything out of the Dockerfile's own folder."""
    return any(
        (one.word == "COPY" and "from" not in one.flags) or (one.word == "ADD" and not _URL.match(one.rest))
        for one in instructions
    )


def declares(instructions: tuple[Instruction, ...], name: str) -> bool:
    """Tell whether the Dockerfile has ``ARG name``."""
    return any(
        one.word == "ARG" and name in (word.partition("=")[0] for word in one.rest.split())
        for one in instructions
    )


def _logical_lines(text: str) -> Iterator[str]:
    lines = text.replace("\r\n", "\n").split("\n")
    escape = "\\"
    for line in lines:
        match = _ESCAPE.fullmatch(line.strip())
        if match:
            escape = match[1]
        if match or not _DIRECTIVE.match(line.strip()):
            break  # directives stand before everything else
    yield from _joined(lines, escape)


def openings(text: str) -> Iterator[str]:
    """Give, for each line of a Dockerfile, the first characters of what would begin with it.

    Whatever an engine takes for continued, for a comment or for the text of a here-document: how each of its
    own instructions begins is among these, with single spaces.
    """
    following = ""
    for line in reversed(text.split("\n")):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        bare = line.rstrip()
        whole = f"{bare[:-1]}{following}" if bare.endswith(tuple("\\`")) else bare
        following = _BLANKS.sub(" ", whole)[:_OPENING]
        yield following.lstrip()


def _joined(lines: Sequence[str], escape: str) -> Iterator[str]:
    """Join the lines that an escape continues, as Docker does: with nothing in between, comments left out.

    A word may go over two lines. An escape behind another one continues nothing.
    """
    held: list[str] = []
    for line in lines:
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        text = line if held else line.lstrip()
        bare = text.rstrip(" \t")
        if bare.endswith(escape) and not bare.endswith(escape * 2):
            held.append(bare[:-1])
            continue
        yield "".join((*held, text)).strip()
        held.clear()
    if rest := "".join(held).strip():
        yield rest


def _instruction(line: str) -> Instruction:
    word, rest = (*line.split(None, 1), "")[:2]
    flags: dict[str, str] = {}
    match = _FLAG.match(rest)
    while match:
        flags[match[1]] = match[2] or ""
        rest = rest[match.end() :]
        match = _FLAG.match(rest)
    return Instruction(word=word.upper(), flags=flags, rest=rest)


def _arguments(text: str, values: Mapping[str, str], args: Mapping[str, str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for word in text.split():
        name, sign, default = word.partition("=")
        if name in args:
            given[name] = args[name]
        elif sign:
            given[name] = _substituted(default.strip("\"'"), {**values, **given})
    return given


def _substituted(text: str, values: Mapping[str, str]) -> str:
    """Fill in variables; one that is not known stays as it is written."""
    return _VARIABLE.sub(lambda m: values.get(m[1] or m[3]) or m[2] or m[0], text)
