"""docs/manifest.md shows every key there is and nothing that is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.manifest import schema
from bot_bottle.manifest.build import agent_from_text, bottle_from_text
from bot_bottle.operator_config import load_operator_config

if TYPE_CHECKING:
    import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "manifest.md").read_text()
BLOCKS = re.findall(r"```(yaml|toml)\n(.*?)```", TEXT, re.DOTALL)
BOTTLE, AGENT = (body for kind, body in BLOCKS if kind == "yaml")


def test_the_examples_are_accepted() -> None:
    layer = bottle_from_text("b", Path("b.md"), f"---\n{BOTTLE}---\n").layer
    assert list(layer.routes.entries) == ["api.example.com"]
    assert agent_from_text("a", Path("a.md"), f"---\n{AGENT}---\n", "operator").bottle == "my-bottle"


def test_the_config_file_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (config,) = (body for kind, body in BLOCKS if kind == "toml")
    ca = tmp_path / "ca.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    path = tmp_path / "config.toml"
    path.write_text(config.replace("/etc/lab/ca.pem", str(ca)))
    for file in (ca, path):
        file.chmod(0o600)
    assert load_operator_config(path).pins["api.example.com"].port == 8443


def test_every_key_is_described() -> None:
    models = [
        value
        for value in vars(schema).values()
        if isinstance(value, type) and value.__module__ == schema.__name__
    ]
    keys = {key for model in models for key in getattr(model, "model_fields", {})}
    assert {"token_ref", "memory", "argv"} <= keys
    assert {key for key in keys if not re.search(rf"\b{key}\b", TEXT)} == set()
