"""No provider is known by name outside its own room: read off the source itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import bot_bottle

PACKAGE = Path(bot_bottle.__file__).parent
#: Names of the programs, of who makes them, and of the hosts and variables that only they have.
NAMES = re.compile(r"claude|anthropic|codex|openai|chatgpt|opencode|gemini|aider", re.IGNORECASE)
#: The provider's own room; a demonstration that plays one of them; detectors, whose subject keys' forms are.
ROOMS = ("agent_provider", "demo", "pipelock")
#: Where one of these words is something else than a provider, and why.
ELSEWHERE = {
    "backend/bubblewrap/program.py": "folders of an operator's home that are never shown",
    "egress/headers.py": "headers by which anybody presents a credential",
}


def named(path: Path) -> list[str]:
    """List where a module's code, not its comments or docstrings, names a provider."""
    tree = ast.parse(path.read_text("utf-8"))
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    found = []
    for node in ast.walk(tree):
        texts = []
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in docs:
            texts = [node.value if isinstance(node.value, str) else node.value.decode("latin-1")]
        elif isinstance(node, ast.Name):
            texts = [node.id]
        elif isinstance(node, ast.Attribute):
            texts = [node.attr]
        elif isinstance(node, ast.alias):
            texts = [node.name]
        elif isinstance(node, ast.ImportFrom):
            texts = [node.module or ""]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            texts = [node.name]
        found += [f"{getattr(node, 'lineno', 0)}: {text[:80]}" for text in texts if NAMES.search(text)]
    return found


def test_no_provider_is_named_outside_its_room() -> None:
    modules = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in ROOMS]
    assert len(modules) > 100
    found = {str(path.relative_to(PACKAGE)): named(path) for path in modules}
    wrong = {name: lines for name, lines in found.items() if lines and name not in ELSEWHERE}
    assert wrong == {}


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_every_exception_is_still_one(name: str) -> None:
    assert named(PACKAGE / name)


def test_the_look_finds_what_it_is_for() -> None:
    assert named(PACKAGE / "agent_provider" / "registry.py")
    assert named(PACKAGE / "agent_provider" / "codex.py")
