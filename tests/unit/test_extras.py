"""What a user is told to type for a package of an extra: it fits the environment, and never names us."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shlex
import sys
from pathlib import Path

import pytest

from bot_bottle import extras

REPO = Path(__file__).parents[2]
DECLARED = ["click>=8.1", "docker>=7.1; extra == 'docker'", 'pip ; extra == "docker"', "x; extra == 'dev'"]


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let this installation declare ``DECLARED``, in an environment that is a folder of the test's."""
    monkeypatch.setattr(importlib.metadata, "requires", lambda _name: list(DECLARED))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/home/some one/bin/python")
    return tmp_path


@pytest.mark.parametrize(
    ("mark", "has_pip", "begins"),
    [
        ("", True, ["/home/some one/bin/python", "-P", "-m", "pip", "install"]),
        ("", False, ["uv", "pip", "install", "--python", "/home/some one/bin/python"]),
        ("uv-receipt.toml", True, ["uv", "pip", "install", "--python", "/home/some one/bin/python"]),
        ("pipx_metadata.json", True, ["pipx", "inject", "bot-bottle"]),
    ],
)
def test_the_installer_is_the_one_that_rules_the_environment(
    declared: Path, monkeypatch: pytest.MonkeyPatch, mark: str, *, has_pip: bool, begins: list[str]
) -> None:
    if mark:
        (declared / mark).touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object() if has_pip else None)
    assert shlex.split(extras.install_command("docker")) == [*begins, "docker>=7.1", "pip"]


def test_what_an_extra_needs_is_read_from_this_installation() -> None:
    for extra, package in (("docker", "docker"), ("dashboard", "textual"), ("smolmachines", "smolmachines")):
        assert package in [one.partition(">")[0] for one in extras.requirements(extra)], extra


def test_run_from_its_source_that_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", nowhere)
    assert extras.requirements("docker") == (".[docker]",)


def test_no_page_or_message_fetches_our_own_name_from_an_index() -> None:
    pages = [REPO / "README.md", *(REPO / "docs").rglob("*.md"), *(REPO / "bot_bottle").rglob("*.py")]
    assert len(pages) > 100
    assert [page for page in pages if "bot-bottle[" in page.read_text("utf-8")] == []
