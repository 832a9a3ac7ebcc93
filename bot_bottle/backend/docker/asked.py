"""A Dockerfile that an agent asked for: what it may not have, and what the human should weigh. Pure.

The engine builds it with the reach of the host: it downloads what ``ADD`` names from the host's own network,
and takes any image it has, or may fetch with the operator's login, as a base or to copy out of.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bot_bottle.backend.docker.dockerfile import base_images, needs_context, parse_dockerfile
from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.backend.docker.dockerfile import Instruction

#: What the engine fetches by itself: addresses, and repositories of git (Dockerfile reference, "ADD").
_FETCHED = re.compile(r"(?i)[a-z][a-z0-9+.-]*://|\bgit@|github\.com/|\.git(?:[#\s\"]|$)|\$")
_FROM = re.compile(r"\bfrom=([^,\s]+)")


def check_asked(text: str, where: str) -> None:
    """Raise ``UsageError`` for what an agent's Dockerfile may never have the engine do."""
    for one in _all(parse_dockerfile(text)):
        if one.word == "ADD" and _FETCHED.search(one.rest):
            raise UsageError(
                f"{where}: an agent's Dockerfile may not ADD what is fetched from somewhere: the engine "
                "would do that from this host's own network; have it fetched by a RUN line, or write "
                "agent_provider.dockerfile"
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
    if any(one.word == "FROM" and "$" in one.rest for one in instructions) and "$" not in in_force:
        notes.append("an image is named by a variable, so what it is shows at the build")
    if "RUN" in words:
        notes.append("RUN lines run on your engine with its network, not under this bottle's egress")
    if needs_context(instructions):
        notes.append("COPY and ADD have no files to take here, so that the build is refused")
    if "FROM" not in words:
        notes.append("it has no FROM, so that the build is refused")
    return tuple(notes)


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
