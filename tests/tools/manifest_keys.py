"""The page of every key a bottle and an agent may have, read off the manifest's JSON Schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bot_bottle.manifest.json_schema import json_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = """\
# Keys of the manifest

Made by `python -m tests.tools.reference` of the schema that `bot-bottle schema` prints; not written by hand.
What they do together, and worked examples: [manifest.md](manifest.md). `[]` stands for each entry of a list,
`NAME` for a name of your own. A key without a mark may be left out.
"""
_TITLES = {
    "bottle": "A bottle: `~/.bot-bottle/bottles/NAME.md`",
    "agent": "An agent: `~/.bot-bottle/agents/NAME.md`, or a repository's `.bot-bottle/agents/NAME.md`",
}


def page() -> str:
    """Write the page."""
    lines = [_HEAD]
    for kind, title in _TITLES.items():
        schema = json_schema(kind)
        lines += [f"\n## {title}\n", "| key | value | meaning | for example |", "| --- | --- | --- | --- |"]
        for key, node, required in _keys(schema, schema, "", set()):
            cells = (
                f"`{key}`" + (" (required)" if required else ""),
                _values(node, schema),
                _escape(_meaning(node, schema)),
                _example(node),
            )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _keys(
    node: dict[str, Any], schema: dict[str, Any], before: str, told: set[int]
) -> Iterator[tuple[str, Any, bool]]:
    """List the keys of an object and of those in it; what stands in two places is told once."""
    for name, one in node.get("properties", {}).items():
        key = f"{before}{name}"
        yield key, one, name in node.get("required", ())
        for inner, where in _inside(one, schema):
            if id(inner) not in told:
                told.add(id(inner))
                yield from _keys(inner, schema, f"{key}{where}.", told)


def _inside(node: dict[str, Any], schema: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Give the objects that a value holds, and how their place is written."""
    node = _followed(node, schema)
    if "properties" in node:
        yield node, ""
    for one in node.get("anyOf", ()):
        yield from _inside(one, schema)
    if isinstance(node.get("items"), dict):
        for inner, where in _inside(node["items"], schema):
            yield inner, f"[]{where}"
    if isinstance(node.get("additionalProperties"), dict):
        for inner, where in _inside(node["additionalProperties"], schema):
            yield inner, f".NAME{where}"


def _followed(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    if reference is None:
        return node
    found: dict[str, Any] = schema["$defs"][reference.rpartition("/")[2]]
    return found


def _values(node: dict[str, Any], schema: dict[str, Any]) -> str:
    """Say what may stand there."""
    node = _followed(node, schema)
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(_values(one, schema) for one in node["anyOf"]))
    if "enum" in node:
        return ", ".join(f"`{json.dumps(value)}`" if value == "" else f"`{value}`" for value in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    match node.get("type"):
        case "array":
            return f"list of {_values(node['items'], schema)}"
        case "object":
            of = node.get("additionalProperties")
            return f"keys, each {_values(of, schema)}" if isinstance(of, dict) else "keys"
        case "integer" | "number":
            low, high = node.get("minimum"), node.get("maximum")
            bounds = f" {low} to {high}" if high is not None else f" from {low}" if low is not None else ""
            return f"number{bounds}"
        case "boolean":
            return "`true` or `false`"
        case "null":
            return "nothing"
        case kind:
            return "text" if kind == "string" else "anything"


def _meaning(node: dict[str, Any], schema: dict[str, Any]) -> str:
    words = str(node.get("description") or _followed(node, schema).get("description", ""))
    # What a class says of itself begins with its key.
    return words.partition("``: ")[2] or words


def _example(node: dict[str, Any]) -> str:
    found = node.get("examples") or []
    return f"`{_escape(json.dumps(found[0]))}`" if found else ""


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("``", "`")
