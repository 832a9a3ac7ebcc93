"""A Dockerfile that an agent asked for: what it may not have, and what the human should weigh. Pure.

The engine builds it with the reach of the host: it downloads what ``ADD`` names from the host's own network,
and takes any image it has, or may fetch with the operator's login, as a base or to copy out of.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bot_bottle.backend.docker.dockerfile import base_images, needs_context, openings, parse_dockerfile
from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.backend.docker.dockerfile import Instruction

#: What an ADD fetches is not for us to tell: the engine undoes quotes, JSON and variables first.
_ADD = re.compile(r"(?i)(?:ONBUILD )*ADD(?: |$)")
#: What engines, and versions of one, read differently: another escape character, and a here-document whose
#: end holds a backslash.
_ESCAPE = re.compile(r"(?im)^\s*#\s*escape\s*=")
_ODD_END = re.compile(r"<<.*\\")
_FROM = re.compile(r"\bfrom=([^,\s]+)")


def check_asked(text: str, where: str) -> None:
    """Raise ``UsageError`` for what an agent's Dockerfile may never have the engine do.

    And for what leaves it in doubt where an instruction begins: what is not seen here no human is told of.
    """
    if any(_ADD.match(opening) for opening in openings(text)):
        raise UsageError(
            f"{where}: an agent's Dockerfile may not ADD anything: the engine would fetch it from this "
            "host's own network; have it fetched by a RUN line (and begin no line with the word add), or "
            "write agent_provider.dockerfile"
        )
    if _ESCAPE.search(text) or any(_ODD_END.search(one.rest) for one in parse_dockerfile(text)):
        raise UsageError(
            f"{where}: an agent's Dockerfile may not say '# escape=', nor have a backslash behind '<<': "
            "engines differ in where instructions begin then; write it without"
        )


def asked_notes(text: str, in_force: str) -> tuple[str, ...]:
    """Say what a human should weigh of ``text``, in the place of the Dockerfile ``in_force``."""
    instructions = parse_dockerfile(text)
    words = {one.word for one in _all(instructions)}
    known = set(base_images(parse_dockerfile(in_force), {}))
    notes = [
        f"{name} is another image than those in use: all that is in it can be read in the bottle, and the "
        "engine fetches it with your docker login where it is not there"
        for name in dict.fromkeys((*base_images(instructions, {}), *_mounted(instructions)))
        if name not in known
    ]
    before = {one.rest for one in parse_dockerfile(in_force) if one.word == "FROM"}
    if any(_is_open(one) and one.rest not in before for one in _all(instructions)):
        notes.append("an image is named by a variable, so what it is shows at the build")
    if "RUN" in words:
        notes.append("RUN lines run on your engine with its network, not under this bottle's egress")
    if needs_context(instructions):
        notes.append("COPY has no files to take here, so that the build is refused")
    if "FROM" not in words:
        notes.append("it has no FROM, so that the build is refused")
    return tuple(notes)


def _is_open(one: Instruction) -> bool:
    """Tell whether a variable has a part in which image an instruction takes."""
    if one.word == "FROM":
        return "$" in one.rest
    return "$" in one.flags.get("from" if one.word == "COPY" else "mount", "")


def _all(instructions: tuple[Instruction, ...]) -> Iterator[Instruction]:
    """Give the instructions, and those that a stage leaves to who builds on it."""
    for one in instructions:
        yield one
        if one.word == "ONBUILD":
            yield from _all(parse_dockerfile(one.rest))


def _mounted(instructions: tuple[Instruction, ...]) -> Iterator[str]:
    """Give what RUN lines mount images as (BuildKit and Buildah)."""
    stages = {one.rest.split()[-1].lower() for one in instructions if one.word == "FROM" and one.rest}
    for one in _all(instructions):
        if one.word == "RUN":
            yield from (
                name for name in _FROM.findall(one.flags.get("mount", "")) if name.lower() not in stages
            )
