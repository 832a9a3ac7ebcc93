"""The manifest's keys as JSON Schema (2020-12), for editors: made from the models the loader checks with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.manifest.schema import AgentKeys, BottleKeys, RoutesFileKeys

if TYPE_CHECKING:
    from pydantic import BaseModel

_KINDS: dict[str, tuple[type[BaseModel], str]] = {
    "bottle": (BottleKeys, "A bottle's YAML frontmatter"),
    "agent": (AgentKeys, "An agent's YAML frontmatter"),
    "routes": (RoutesFileKeys, "The file of bot-bottle proxy --routes"),
}

KINDS = tuple(_KINDS)


def json_schema(kind: str) -> dict[str, object]:
    """Describe one kind of file. What only code can say (two keys that exclude each other) is not in it."""
    model, title = _KINDS[kind]
    schema = _plain(model.model_json_schema())
    assert isinstance(schema, dict)  # noqa: S101 - that of a model is one
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}


def _plain(node: object, *, named: bool = False) -> object:
    """Drop what pydantic adds for itself: titles made of names, and defaults that stand for "not written".

    ``named`` is set below ``properties`` and the like, whose keys are names and not keywords.
    """
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    if not named and "patternProperties" in node:
        # Names that do not match are refused, not merely left undescribed.
        ((pattern, value),) = node["patternProperties"].items()
        rest = {key: item for key, item in node.items() if key != "patternProperties"}
        node = {**rest, "propertyNames": {"pattern": pattern}, "additionalProperties": value}
    return {
        key: _plain(value, named=not named and key in {"properties", "$defs"})
        for key, value in node.items()
        if named or key not in {"title", "default"}
    }
