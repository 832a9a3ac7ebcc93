"""Skills come in as they are, or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bot_bottle.agent_account import AGENT_HOME
from bot_bottle.agent_provider import skills
from bot_bottle.agent_provider.common import with_common_files
from bot_bottle.agent_provider.plan import AgentProvisionPlan
from bot_bottle.errors import UsageError
from bot_bottle.manifest.model import (
    ManifestAgent,
    ManifestAgentProvider,
    ManifestBottle,
    ManifestGit,
    ManifestGitUser,
)

if TYPE_CHECKING:
    from pathlib import Path

PLAN = AgentProvisionPlan(template="claude", program="claude", argv=("claude",))


@pytest.fixture
def skill(tmp_path: Path) -> Path:
    folder = tmp_path / ".claude" / "skills" / "tdd"
    (folder / "scripts").mkdir(parents=True)
    put(folder / "SKILL.md", b"# Test first\n")
    put(folder / "scripts" / "run.sh", b"#!/bin/sh\n", 0o755)
    for path in (folder, folder / "scripts"):
        path.chmod(0o755)
    return folder


def put(path: Path, content: bytes, mode: int = 0o644) -> None:
    path.write_bytes(content)
    path.chmod(mode)


def made(
    home: Path, names: tuple[str, ...] = ("tdd",), template: str = "claude", *, resume: bool = False
) -> AgentProvisionPlan:
    bottle = ManifestBottle(
        name="b",
        path=home / "b.md",
        agent_provider=ManifestAgentProvider(template=template),
        git=ManifestGit(user=ManifestGitUser(name="Bot")),
    )
    agent = ManifestAgent(name="a", path=home / "a.md", bottle="b", skills=names)
    return with_common_files(PLAN, bottle, agent, env={"HOME": str(home)}, resume=resume)


def refusal(home: Path) -> str:
    with pytest.raises(UsageError) as caught:
        made(home)
    assert str(caught.value).startswith(f"{home}/a.md: skills: ")
    return str(caught.value)


def test_a_skill_is_copied_to_where_the_program_looks(tmp_path: Path, skill: Path) -> None:
    files = {file.path: (file.content, file.mode) for file in made(tmp_path).files}
    place = f"{AGENT_HOME}/.claude/skills/tdd"
    assert files[f"{place}/SKILL.md"] == (b"# Test first\n", 0o600)
    assert files[f"{place}/scripts/run.sh"] == (b"#!/bin/sh\n", 0o700)
    assert files[f"{AGENT_HOME}/.gitconfig"] == (b'[user]\n\tname = "Bot"\n', 0o644)
    assert len(files) == 4


def test_a_resumed_bottle_keeps_its_own_gitconfig(tmp_path: Path, skill: Path) -> None:
    assert len(made(tmp_path, resume=True).files) == 3


def test_a_missing_skill_names_those_there_are(tmp_path: Path, skill: Path) -> None:
    skill.rename(skill.with_name("other"))
    assert f"there is no folder {skill}; those that exist: other" in refusal(tmp_path)


def test_without_any_skill_the_sentence_is_the_same(tmp_path: Path) -> None:
    assert "those that exist: none" in refusal(tmp_path)


def test_a_program_without_skills_is_told(tmp_path: Path, skill: Path) -> None:
    with pytest.raises(UsageError, match="runs template command, which has no skills"):
        made(tmp_path, template="command")


@pytest.mark.parametrize("target", ["/etc/passwd", "SKILL.md", "../../../secret"])
def test_a_link_in_a_skill_is_refused(tmp_path: Path, skill: Path, target: str) -> None:
    (skill / "link").symlink_to(target)
    assert "is a link; a skill holds plain files only" in refusal(tmp_path)


def test_a_skill_that_is_itself_a_link_out_is_refused(tmp_path: Path, skill: Path) -> None:
    skill.rename(tmp_path / "elsewhere")
    skill.symlink_to(tmp_path / "elsewhere")
    assert "is a link out of" in refusal(tmp_path)


def test_a_pipe_in_a_skill_does_not_hang(tmp_path: Path, skill: Path) -> None:
    os.mkfifo(skill / "pipe")
    assert "is no regular file" in refusal(tmp_path)


@pytest.mark.parametrize("place", [".", "SKILL.md", "scripts"])
def test_what_every_user_can_write_is_refused(tmp_path: Path, skill: Path, place: str) -> None:
    (skill / place).chmod(0o777)
    assert "can be written by every user; run: chmod -R o-w" in refusal(tmp_path)


def test_a_skill_is_bounded(tmp_path: Path, skill: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skills, "MAX_FILES", 1)
    assert "holds more than 1 files" in refusal(tmp_path)
    monkeypatch.setattr(skills, "MAX_FILES", 2)
    assert len(made(tmp_path).files) == 4
    put(skill / "big", b"x" * (skills.MAX_BYTES + 1))
    assert "is larger than 4 MiB" in refusal(tmp_path)
    (skill / "big").unlink()
    deep = skill.joinpath(*"abcdefghijklmnopqrst")
    deep.mkdir(parents=True)
    assert "lies too deep" in refusal(tmp_path)
