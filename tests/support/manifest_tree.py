"""An operator's home and a repository to write manifests into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bot_bottle.errors import ManifestError
from bot_bottle.manifest.model import Manifest

if TYPE_CHECKING:
    from pathlib import Path


class Tree:
    """One operator's home and one repository."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home" / ".bot-bottle"
        self.cwd = root / "repo"
        for folder in (self.home / "bottles", self.home / "agents", self.cwd):
            folder.mkdir(parents=True, mode=0o755)

    def bottle(self, text: str, name: str = "b") -> Path:
        return put(self.home / "bottles" / f"{name}.md", f"---\n{text}---\nfor humans\n")

    def agent(self, text: str = "bottle: b\n", name: str = "a", body: str = "\nDo it.\n\n") -> Path:
        return put(self.home / "agents" / f"{name}.md", f"---\n{text}---\n{body}")

    def repo_agent(self, text: str = "bottle: b\n", name: str = "a", body: str = "theirs") -> Path:
        folder = self.cwd / ".bot-bottle" / "agents"
        folder.mkdir(parents=True, exist_ok=True)
        return put(folder / f"{name}.md", f"---\n{text}---\n{body}")

    def resolve(self) -> Manifest:
        return Manifest.resolve(self.cwd, self.home)

    def refusal(self, agent: str = "a") -> str:
        with pytest.raises(ManifestError) as caught:
            self.resolve().bottle_for(agent)
        assert caught.value.exit_code == 2
        return str(caught.value)


def put(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o644)
    return path
