"""What a manifest declares beside its routes really is inside, on every backend and for every account."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.lab import Lab

pytestmark = pytest.mark.integration

_BASE = """\
git: {user: {name: 'Base "Bot" \\', email: base@example.com}}
workspace: copy
env: {EDITOR: vi}
"""
_CHILD = """\
extends: base
env: {EDITOR: ed}
agent_provider:
  template: command
  argv: [/bin/sh, -c, 'git config --get user.name; git config --get user.email; echo $EDITOR; cat note.txt']
"""


def test_what_is_inherited_and_overlaid_holds_inside(lab: Lab) -> None:
    lab.write("bottles/base.md", f"---\n{_BASE}---\n")
    lab.write("bottles/child.md", f"---\n{_CHILD}---\n")
    lab.write("agents/inherits.md", "---\nbottle: child\n---\n")
    lab.write("agents/overlays.md", "---\nbottle: child\ngit: {user: {email: own@example.com}}\n---\n")
    (lab.project / "note.txt").write_text("from the folder\n")
    lab.own()
    for agent, email in (("inherits", "base@example.com"), ("overlays", "own@example.com")):
        done = lab.cli("start", agent, "--yes", "--headless")
        assert done.returncode == 0, done.err
        assert done.out == f'Base "Bot" \\\n{email}\ned\nfrom the folder\n'
    done = lab.cli("start", "inherits", "--yes", "--headless", "--no-cwd")
    assert "from the folder" not in done.out


def test_skills_are_where_the_program_looks_and_are_the_agents_own_copies(lab: Lab) -> None:
    skill = lab.user_home / ".claude" / "skills" / "tdd"
    (skill / "scripts").mkdir(parents=True)
    (skill / "SKILL.md").write_text("# Test first\n")
    (skill / "scripts" / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (skill / "scripts" / "run.sh").chmod(0o755)
    programs = lab.user_home / "programs"
    programs.mkdir()
    program = programs / "claude"
    program.write_text(
        "#!/bin/sh\ncd ~/.claude/skills/tdd && cat SKILL.md && scripts/run.sh && echo mine >>SKILL.md\n"
    )
    program.chmod(0o755)
    for folder in (lab.user_home / ".claude", skill.parent, skill, skill / "scripts", programs):
        folder.chmod(0o755)
    lab.own()
    lab.write("bottles/reader.md", "---\nagent_provider: {template: claude}\n---\n")
    lab.write("agents/reader.md", "---\nbottle: reader\nskills: [tdd]\n---\n")
    with lab.program(program) as env:
        done = lab.cli("start", "reader", "--yes", "--headless", "--prompt", "go", env=env)
    assert done.returncode == 0, done.err
    assert done.out == "# Test first\nran\n"
    assert (skill / "SKILL.md").read_text() == "# Test first\n"
