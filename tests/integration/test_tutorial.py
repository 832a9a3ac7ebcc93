"""The tutorial, done as it says: its files written, its commands run one after the other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.lab import Lab
from tests.support.outside import REPO

if TYPE_CHECKING:
    from tests.support.outside import Completed

pytestmark = pytest.mark.integration

TEXT = (REPO / "docs" / "tutorial.md").read_text()
#: A file's name and content: named at the end of a paragraph, shown right below.
FILES = re.findall(r"`~/\.bot-bottle/([\w/.]+)`:\n\n```yaml\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"^    (bot-bottle .*|git .*)$", TEXT, re.MULTILINE)
IDENTITY = "scribe-x7k2p"


@pytest.fixture
def newcomer(lab: Lab) -> Lab:
    """Give an installation with a repository of its own, on the default backend."""
    if lab.backend != "bubblewrap":
        pytest.skip("the tutorial is for the default backend")
    # An installation of its own, since its project becomes a repository.
    lab = Lab(world=lab.world, account=lab.account, backend=lab.backend)
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "Begin")):
        if words[0] == "add":
            (lab.project / "README").write_text("A project.\n")
            lab.own()
        done = git(lab, *words)
        assert done.returncode == 0, done.err
    return lab


def git(lab: Lab, *words: str) -> Completed:
    """Run the operator's git in their repository."""
    env = {**lab.env, **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "N")}
    env.update(dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "n@n.test"))
    return lab.world.run(["git", *words], account=lab.account, env=env, cwd=lab.project)


def test_the_tutorial_does_what_it_says(newcomer: Lab) -> None:
    assert [name for name, _ in FILES] == ["bottles/scribe.md", "agents/scribe.md"]
    for name, content in FILES:
        newcomer.write(name, content)
    identity, said = "", {}
    for command in COMMANDS:
        program, *words = shlex.split(command.replace(IDENTITY, identity or IDENTITY))
        done = git(newcomer, *words) if program == "git" else newcomer.cli(*words, timeout=90)
        said[words[0]] = done
        assert done.returncode == (3 if words[0] == "start" else 0), (command, done.out, done.err)
        if words[0] == "start":
            (state,) = newcomer.states("scribe")
            identity = str(state["identity"])
    assert "bubblewrap" in said["doctor"].out
    assert "docs.python.org" in said["info"].out
    assert '"reason": "host_not_allowed"' in said["start"].out
    assert f"bot-bottle resume {identity}" in said["start"].err
    assert identity in said["list"].out
    assert "example.com" in said["logs"].out
    assert "kept in a bottle" in said["diff"].out
    assert "notes.txt" in said["show"].out
    assert newcomer.states("scribe") == []


def test_the_readme_leads_there_and_every_page_it_names_exists() -> None:
    pages = re.findall(r"\]\(((?:\.\./)?[\w/.-]+\.md)\)", TEXT)
    assert pages
    for page in pages:
        assert (REPO / "docs" / page).resolve().is_file(), page
    assert "docs/tutorial.md" in (REPO / "README.md").read_text()


def test_links_between_the_documents_lead_somewhere() -> None:
    for document in (REPO / "README.md", REPO / "SECURITY.md", *sorted((REPO / "docs").rglob("*.md"))):
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in link and not link.startswith("mailto:"):
                assert Path(document.parent, link).exists(), f"{document}: {link}"
