"""Work comes home from every backend: while the bottle runs where that can be, and once it is kept."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.kept_work import git

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.lab import Lab

pytestmark = pytest.mark.integration

_WORK = """
set -e
cd ~/workspace
git config user.name Agent && git config user.email agent@bottle.test
echo committed > new.txt && git add new.txt && git commit -q -m 'from inside'
echo uncommitted > rest.txt
ln -s /etc/shadow link
for name in pre-commit post-checkout reference-transaction; do
    printf '#!/bin/sh\\ntouch MARK\\n' > .git/hooks/$name; chmod +x .git/hooks/$name
done
git config core.fsmonitor 'touch MARK; false'
"""


@pytest.fixture
def project(lab: Lab) -> Iterator[Path]:
    """Make the lab's project folder a repository for one test."""
    git(lab.project, "init", "-q", "-b", "main")
    (lab.project / "kept.txt").write_text("kept\n")
    git(lab.project, "add", ".")
    git(lab.project, "commit", "-q", "-m", "one")
    lab.own()
    yield lab.project
    shutil.rmtree(lab.project / ".git")
    (lab.project / "kept.txt").unlink()


def test_work_comes_home_running_or_kept(lab: Lab, project: Path) -> None:
    lab.declare("home-comer", "agent_provider: {template: command, argv: [/bin/true]}\n")
    running = lab.launch("home-comer", copy_cwd=True)
    try:
        mark = lab.user_home / "ran"
        done = running.sh(f"mkdir -p .git/hooks\n{_WORK.replace('MARK', str(mark))}", timeout=60)
        assert done.returncode == 0, done.err
        tip = running.sh("git -c core.fsmonitor=false rev-parse HEAD").out.strip()
        shown = lab.cli("diff", running.identity, "--json")
        assert shown.returncode == 0, shown.err
        assert [one["path"] for one in json.loads(shown.out)["files"]] == ["link", "new.txt", "rest.txt"]
    finally:
        running.close(exit_code=5)
    pulled = lab.cli("pull", running.identity)
    assert pulled.returncode == 0, pulled.err
    assert git(project, "rev-parse", f"bottle/{running.identity}") == tip
    whole = lab.cli("pull", running.identity, "--uncommitted")
    assert whole.returncode == 0, whole.err
    branch = f"bottle/{running.identity}"
    assert git(project, "ls-tree", "--name-only", branch).split() == [
        "kept.txt",
        "link",
        "new.txt",
        "rest.txt",
    ]
    assert git(project, "show", f"{branch}:link") == "/etc/shadow"
    assert git(project, "status", "--porcelain") == ""
    assert not mark.exists()
    assert lab.cli("cleanup", running.identity, "--yes").returncode == 0
