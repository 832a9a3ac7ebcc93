"""The JSON Schema says what the loader holds to; docs/manifest.md is held to both in test_manifest_doc.py."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle.cli import main
from bot_bottle.manifest.json_schema import KINDS, json_schema
from bot_bottle.manifest.refused import REFUSED
from bot_bottle.manifest.yaml_tree import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST_DOC = (Path(__file__).parents[2] / "docs" / "manifest.md").read_text()
BOTTLE, AGENT = re.findall(r"```yaml\n(.*?)```", MANIFEST_DOC, re.DOTALL)

Node = dict[str, Any]


def faults(data: object, node: Node, defs: Node, at: str = "") -> Iterator[str]:
    """Judge data by the part of JSON Schema that ours uses."""
    if "$ref" in node:
        node = defs[node["$ref"].rpartition("/")[2]]
    if "anyOf" in node:
        if all(list(faults(data, option, defs, at)) for option in node["anyOf"]):
            yield f"{at}: none of the alternatives"
        return
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "integer": int,
        "null": type(None),
    }
    wanted = node.get("type")
    if wanted in kinds and not isinstance(data, kinds[wanted]):
        yield f"{at}: no {wanted}"
        return
    if "enum" in node and data not in node["enum"]:
        yield f"{at}: not in enum"
    if isinstance(data, str) and "pattern" in node and not re.search(node["pattern"], data):
        yield f"{at}: does not match"
    if isinstance(data, list):
        for index, item in enumerate(data):
            yield from faults(item, node.get("items", {}), defs, f"{at}[{index}]")
    if isinstance(data, dict):
        known = node.get("properties", {})
        more = node.get("additionalProperties", True)
        names = re.compile(node.get("propertyNames", {}).get("pattern", ""))
        yield from (f"{at}.{key}: no such name" for key in data if not names.search(key))
        yield from (f"{at}.{key}: missing" for key in node.get("required", ()) if key not in data)
        for key, value in data.items():
            if key in known:
                yield from faults(value, known[key], defs, f"{at}.{key}")
            elif more is False:
                yield f"{at}.{key}: unknown"
            elif isinstance(more, dict):
                yield from faults(value, more, defs, f"{at}.{key}")


def judge(kind: str, text: str) -> list[str]:
    tree = parse_yaml(text, file="x")
    assert tree.problems == ()
    made: Node = json_schema(kind)
    return list(faults(tree.data, made, made.get("$defs", {})))


@pytest.mark.parametrize(("kind", "text"), [("bottle", BOTTLE), ("agent", AGENT)])
def test_what_the_documentation_shows_is_valid(kind: str, text: str) -> None:
    assert judge(kind, text) == []


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "examples").glob("*/*.md")), ids=str)
def test_the_examples_are_valid(path: Path) -> None:
    kind = path.parent.name.removesuffix("s")
    assert judge(kind, path.read_text().split("---\n")[1]) == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("bottle", "egres: {}\n"),
        ("bottle", "extends: Base\n"),
        ("bottle", "extends: [5]\n"),
        ("bottle", "env: {A: 5}\n"),
        ("bottle", "env: {A-B: x}\n"),
        ("bottle", "egress: {routes: [{}]}\n"),
        ("bottle", "egress: {routes: [{host: a.example, auth: {scheme: Digest, token_ref: T}}]}\n"),
        ("bottle", "egress: {routes: [{host: a.example, methods: [get]}]}\n"),
        ("bottle", "agent_provider: {template: Clade}\n"),
        ("bottle", "limits: {memory: 4GB}\n"),
        ("bottle", "workspace: full\n"),
        ("agent", "skills: []\n"),
        ("agent", "bottle: b\ngit: {remotes: {}}\n"),
        ("agent", "bottle: b\nenv: {A: x}\n"),
        ("routes", "routes: [{host: a.example, role: x}]\n"),
    ],
)
def test_what_the_loader_refuses_the_schema_refuses(kind: str, text: str) -> None:
    assert judge(kind, text) != []


def test_every_mapping_is_closed_and_every_key_has_words_or_an_example() -> None:
    for kind in KINDS:
        made: Node = json_schema(kind)
        for node in (made, *made.get("$defs", {}).values()):
            assert node["additionalProperties"] is False
            for key, value in node["properties"].items():
                ignored = kind == "agent" and key in {"name", "description", "model", "color", "memory"}
                assert ignored or value.keys() & {"description", "examples"}, key


def test_no_refused_key_is_offered() -> None:
    for model, keys in REFUSED.items():
        assert not set(keys) & set(model.model_fields)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in KINDS:
        assert main(["schema", kind]) == 0
        assert json.loads(capsys.readouterr().out) == json_schema(kind)
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "A bottle's YAML frontmatter"
