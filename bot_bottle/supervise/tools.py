"""The tools an agent sees, as data: names, descriptions, JSON Schemas of their arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.supervise.request import Kind

INSTRUCTIONS = (
    "You run in a bottle: what it may reach is decided outside of it. A refused request (HTTP 403 with "
    '"error": "bot_bottle_denied", or a refused git push) is no network trouble and repeating it does not '
    "help. Ask here for what your task needs, as narrowly as it will do; a human answers, perhaps much "
    "later. While an answer is pending, go on with what you can do without it and look with request_status."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool; ``kind`` is what it asks for, None for those that only look."""

    name: str
    description: str
    properties: Mapping[str, Mapping[str, object]]
    required: tuple[str, ...] = ()
    kind: Kind | None = None

    @property
    def schema(self) -> dict[str, object]:
        """The JSON Schema of the tool's arguments."""
        return {
            "type": "object",
            "properties": {name: dict(schema) for name, schema in self.properties.items()},
            "required": list(self.required),
            "additionalProperties": False,
        }


def _text(description: str) -> dict[str, object]:
    return {"type": "string", "description": description}


def _texts(description: str) -> dict[str, object]:
    return {"type": "array", "items": {"type": "string"}, "description": description}


_REASON = _text("what it is needed for, in a sentence or two; a human reads it")

TOOLS: tuple[Tool, ...] = (
    Tool(
        name="list_egress_routes",
        description="What this bottle may reach: hosts, paths, methods and ports.",
        properties={},
    ),
    Tool(
        name="request_egress",
        description="Ask a human to open a host to this bottle, as narrowly as the task allows.",
        properties={
            "host": _text("a host name, like docs.example.org; *.example.org asks for every name below"),
            "paths": _texts("path prefixes that are enough, like /api/; none asks for all"),
            "methods": _texts("HTTP methods that are enough, like GET; none asks for all"),
            "reason": _REASON,
        },
        required=("host", "reason"),
        kind="egress",
    ),
    Tool(
        name="request_git",
        description="Ask a human to allow pushes that the git gate refuses.",
        properties={
            "remote": _text("the name of the git remote, as the gate's refusal says it"),
            "refs": _texts("refs to push, like refs/heads/fix-12"),
            "paths": _texts("protected paths to change, like .github/workflows/ci.yml"),
            "reason": _REASON,
        },
        required=("remote", "reason"),
        kind="git",
    ),
    Tool(
        name="request_capability",
        description="Ask a human for a program, a package or a setting that is missing in this bottle.",
        properties={
            "text": _text("what is missing"),
            "dockerfile": _text("where the image should change: the whole Dockerfile as you would have it"),
            "reason": _REASON,
        },
        required=("reason",),
        kind="capability",
    ),
    Tool(
        name="request_status",
        description="How a request of this bottle was answered, or that it is still pending.",
        properties={"id": _text("the id that the request was given; none lists those that are open")},
    ),
)
