"""Reading through the gate with a real git, from a real sshd that knows one key."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bot_bottle.git_gate.remote import SshKey
from bot_bottle.git_gate.upstream import Upstream
from tests.support.git_lab import Repo

if TYPE_CHECKING:
    from tests.support.git_lab import GitLab

pytestmark = pytest.mark.integration


def test_a_clone_has_all_the_upstream_has(gate_lab: GitLab) -> None:
    gate_lab.start()
    work = gate_lab.clone()
    assert work.git("rev-parse", "origin/main") == gate_lab.upstream.refs()["refs/heads/main"]
    assert (work.path / "src/b.py").read_text() == "print('b')\n"
    assert work.git("fsck", "--strict") == ""
    assert work.git("ls-remote", "--symref", "origin", "HEAD").startswith("ref: refs/heads/main\tHEAD")


def test_a_fetch_sees_what_came_to_the_upstream_since(gate_lab: GitLab) -> None:
    gate_lab.start()
    work = gate_lab.clone()
    seed = Repo(gate_lab.folder / "seed-upstream.git", gate_lab.env)
    new = seed.commit({"c.txt": "c\n"})
    seed.git("push", "-q", str(gate_lab.upstream.path), "main", "HEAD:refs/heads/other")
    work.git("fetch", "-q")
    assert work.git("rev-parse", "origin/main") == new
    seed.git("push", "-q", str(gate_lab.upstream.path), ":refs/heads/other")
    work.git("fetch", "-q", "--prune")
    assert "refs/remotes/origin/other" not in work.refs()


@pytest.mark.parametrize("version", ["0", "1", "2"])
def test_every_protocol_version_and_kind_of_clone(gate_lab: GitLab, version: str) -> None:
    seed = Repo(gate_lab.folder / "seed-upstream.git", gate_lab.env)
    seed.git("tag", "-a", "v1", "-m", "one")
    seed.git("push", "-q", str(gate_lab.upstream.path), "v1")
    gate_lab.start()
    config = ("-c", f"protocol.version={version}")
    here = Repo(gate_lab.folder, gate_lab.env)
    here.git(*config, "clone", "-q", "--depth=1", gate_lab.url, "shallow")
    shallow = Repo(gate_lab.folder / "shallow", gate_lab.env)
    assert shallow.git("rev-list", "--count", "HEAD") == "1"
    shallow.git(*config, "fetch", "-q", "--unshallow")
    assert shallow.git("rev-list", "--count", "HEAD") == "2"
    here.git(*config, "clone", "-q", "--filter=blob:none", "--no-checkout", gate_lab.url, "partial")
    partial = Repo(gate_lab.folder / "partial", gate_lab.env)
    assert partial.git("rev-list", "--objects", "--missing=print", "HEAD").count("?") == 3
    assert partial.git(*config, "show", "HEAD:src/a.py") == "print('a')"
    assert "refs/tags/v1" in partial.refs()
    assert "refs/tags/v1^{}" in here.git(*config, "ls-remote", gate_lab.url)


def test_a_fetch_fails_closed_when_the_upstream_is_away(gate_lab: GitLab) -> None:
    gate_lab.start()
    work = gate_lab.clone()
    gate_lab.upstream.path.rename(gate_lab.folder / "away")
    done = work.run("fetch")
    assert done.returncode != 0
    assert "remote: bot-bottle: ssh://" in done.stderr
    assert "cannot be reached, so nothing is served" in done.stderr
    (gate_lab.folder / "away").rename(gate_lab.upstream.path)
    work.git("fetch")


def test_another_host_key_is_refused_and_none_is_believed_at_first_sight(gate_lab: GitLab) -> None:
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5oOqEWb6a1R7kYWj0nqkTnDJSfXWlEUvFNHbDLbPZz"
    gate_lab.start(known_host_key=other)
    done = Repo(gate_lab.folder, gate_lab.env).run("clone", gate_lab.url, "work")
    assert done.returncode != 0
    assert "KnownHostKey pins (Host key verification failed)" in done.stderr
    assert "ssh-keygen" not in done.stderr
    gate_lab.stop()
    gate_lab.start(known_host_key="")
    done = Repo(gate_lab.folder, gate_lab.env).run("clone", gate_lab.url, "work")
    assert "KnownHostKey" in done.stderr


def test_without_its_key_the_upstream_is_closed(gate_lab: GitLab) -> None:
    gate_lab.start(key=None)
    done = Repo(gate_lab.folder, gate_lab.env).run("clone", gate_lab.url, "work")
    assert "Permission denied" in done.stderr


def test_the_key_is_in_no_file_of_the_gate_and_the_mirror_names_no_upstream(gate_lab: GitLab) -> None:
    gate_lab.start()
    gate_lab.clone()
    private = (gate_lab.keys / "user").read_text()
    line = private.splitlines()[2]
    for path in gate_lab.gate_folder.rglob("*"):
        if path.is_file():
            assert line.encode() not in path.read_bytes(), path
    assert "url" not in (gate_lab.mirror.path / "config").read_text()
    assert gate_lab.gate_folder.stat().st_mode & 0o777 == 0o700


def test_what_is_not_declared_is_not_there(gate_lab: GitLab) -> None:
    gate_lab.start()
    assert gate_lab.gate is not None
    here = Repo(gate_lab.folder, gate_lab.env)
    done = here.run("clone", f"{gate_lab.gate.url}/other.git")
    assert done.returncode != 0
    assert "this bottle declares no git remote for /other.git" in done.stderr
    assert "Use one it declares: project" in done.stderr
    here.git("clone", "-q", f"{gate_lab.gate.url}/project.git", "by-name")


def test_every_fetch_is_on_record(gate_lab: GitLab) -> None:
    gate_lab.start()
    gate_lab.clone()
    gate_lab.stop()
    lines = [json.loads(line) for line in gate_lab.audit_path.read_text().splitlines()]
    fetches = [line for line in lines if line["event"] == "git_fetch"]
    assert [(line["decision"], line["remote"]) for line in fetches] == [("allow", "project")]


def test_two_fetches_at_once_share_one_question(gate_lab: GitLab) -> None:
    gate_lab.start()
    work = gate_lab.clone()
    lines = work.git("-c", "fetch.parallel=2", "fetch", "--multiple", "origin", "origin", "-q")
    assert lines == ""


def test_an_agent_of_the_operators_signs_for_the_gate_alone(gate_lab: GitLab, gate_ssh_agent: str) -> None:
    key = gate_lab.remote.key
    assert key is not None
    remote = replace(gate_lab.remote, key=SshKey(public=key.public, agent=gate_ssh_agent))
    gate_lab.start(remote)
    work = gate_lab.clone()
    new = work.commit({"x": "x"})
    work.git("push", "-q", "origin", "bottle/x")
    assert gate_lab.upstream.refs()["refs/heads/bottle/x"] == new
    # Its human may be asked for each login, and is so only for a push that was accepted.
    asked = Upstream(remote, folder=gate_lab.folder, number=9, pin=None, ca_pem="")
    assert asked.receiver() is None
    own = Upstream(gate_lab.remote, folder=gate_lab.folder, number=9, pin=None, ca_pem="")
    assert (own.receiver() or [""])[-1] == f"git-receive-pack '{gate_lab.remote.path}'"
    gate_lab.stop()
    gate_lab.start(replace(remote, key=SshKey(public=key.public, agent=str(gate_lab.folder / "nobody"))))
    done = Repo(gate_lab.folder, gate_lab.env).run("clone", gate_lab.url, "again")
    assert "Permission denied" in done.stderr
