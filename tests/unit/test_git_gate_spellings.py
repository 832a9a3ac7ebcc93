"""Every spelling of an upstream ends at the gate, judged by git itself; next door's repositories do not."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from bot_bottle.git_gate.remote import GateRemote
from bot_bottle.git_gate.spellings import Places, elsewhere, gitconfig

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

GATE = "http://127.0.0.1:9420"


def remote(
    scheme: str = "ssh", host: str = "git.test", port: int | None = None, path: str = "/me/project.git"
) -> GateRemote:
    return GateRemote(
        host=host,
        name="project",
        scheme="ssh" if scheme == "ssh" else "https",
        user="git" if scheme == "ssh" else "",
        upstream_host=host,
        port=port,
        path=path,
    )


def rewritten(tmp_path: Path, config: bytes, url: str) -> str:
    """Ask git what it would really talk to."""
    (tmp_path / ".gitconfig").write_bytes(config)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", "ls-remote", "--get-url", url],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


SSH_SPELLINGS = (
    "ssh://git@git.test/me/project.git",
    "ssh://git@git.test/me/project",
    "ssh://git@git.test:22/me/project.git",
    "ssh://git.test/me/project.git",
    "git+ssh://git@git.test/me/project.git",
    "git@git.test:me/project.git",
    "git@git.test:me/project",
    "git@git.test:/me/project.git",
    "git.test:me/project.git",
    "git@git.test:me/project.git/",
    "https://git.test/me/project.git",
    "https://git.test/me/project",
    "https://git.test:443/me/project.git",
    "https://git@git.test/me/project",
    "http://git.test/me/project",
    "git://git.test/me/project.git",
)


@pytest.mark.parametrize("url", SSH_SPELLINGS)
@pytest.mark.parametrize("scheme", ["ssh", "https"])
def test_every_spelling_leads_to_the_remote(tmp_path: Path, scheme: str, url: str) -> None:
    one = remote(scheme)
    led = rewritten(tmp_path, gitconfig([one], GATE), url)
    assert led.startswith(GATE), led
    assert Places([one]).find(led.removeprefix(GATE)) is one


@pytest.mark.parametrize(
    "url", ["ssh://git@git.test:2222/me/project.git", "ssh://git@git.test:2222/me/project"]
)
def test_a_port_belongs_to_the_spelling(tmp_path: Path, url: str) -> None:
    one = remote(port=2222)
    assert Places([one]).find(rewritten(tmp_path, gitconfig([one], GATE), url).removeprefix(GATE)) is one


def test_an_ip_literal_and_a_port_of_https(tmp_path: Path) -> None:
    one = remote("https", host="2001:db8::1", port=8443)
    config = gitconfig([one], GATE)
    led = rewritten(tmp_path, config, "https://[2001:db8::1]:8443/me/project")
    assert Places([one]).find(led.removeprefix(GATE)) is one
    assert rewritten(tmp_path, config, "https://[2001:db8::1]/me/project").startswith("https://")


def test_the_repository_next_door_is_sent_home(tmp_path: Path) -> None:
    one = remote()
    led = rewritten(tmp_path, gitconfig([one], GATE), "https://git.test/me/project-extra.git")
    path = led.removeprefix(GATE)
    assert Places([one]).find(path) is None
    assert elsewhere(path) == "https://git.test/me/project-extra.git"


def test_two_remotes_of_which_one_begins_like_the_other(tmp_path: Path) -> None:
    one, other = remote(), remote(path="/me/project-extra.git")
    other = GateRemote(
        host="b", name="extra", scheme="ssh", user="git", upstream_host="git.test", port=None, path=other.path
    )
    config, places = gitconfig([one, other], GATE), Places([one, other])
    for url, wanted in (("git@git.test:me/project", one), ("git@git.test:me/project-extra", other)):
        assert places.find(rewritten(tmp_path, config, url).removeprefix(GATE)) is wanted


def test_the_name_alone_is_enough() -> None:
    one = remote()
    for path in ("/project", "/project.git", "/project.git/", "/%70roject"):
        assert Places([one]).find(path) is one
    for path in ("", "/", "/project.git.git", "/Project", "/../project", "/at/ssh/git.test/me"):
        assert Places([one]).find(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "/at/ssh/git.test/me/x",
        "/other",
        "/at/https/evil test/x",
        "/at/https/git.test/x%0d%0aSet-Cookie:y",
        "/at/https/a@b/x",
        "/at/ftp/git.test/x",
        "/at/https/git.test\r\nX: y/x",
    ],
)
def test_nothing_else_is_sent_anywhere(path: str) -> None:
    assert elsewhere(path) is None
