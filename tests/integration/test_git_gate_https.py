"""An https upstream behind the gate: git's own server, a token by name, and where the token must never be."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from bot_bottle.demo.authority import Authority
from tests.support.git_https import GitHttps, git_https
from tests.support.git_lab import HOST, GitLab, Repo
from tests.support.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

TOKEN = f"marked-{secrets.token_hex(16)}"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("git over https")


@pytest.fixture
def server(gate_lab: GitLab, authority: Authority) -> Iterator[GitHttps]:
    """Serve the lab's upstream over https and turn the lab to it."""
    with gate_lab.over_https(authority, TOKEN) as running:
        yield running


def test_clone_and_push_with_a_token_that_is_nowhere(gate_lab: GitLab, server: GitHttps) -> None:
    with Watch(TOKEN, gate_lab.folder) as watch:
        gate_lab.start()
        work = gate_lab.clone()
        new = work.commit({"src/c.py": "print('c')\n"})
        done = work.run("push", "origin", "bottle/x")
    assert done.returncode == 0, done.stderr
    assert gate_lab.upstream.refs()["refs/heads/bottle/x"] == new
    assert any(server.seen)
    assert watch.found == set()
    assert watch.rounds > 1


def test_another_token_opens_nothing_and_is_not_repeated(gate_lab: GitLab, server: GitHttps) -> None:
    server.token = "another"
    gate_lab.start()
    done = Repo(gate_lab.folder, gate_lab.env).run("clone", gate_lab.url, "work")
    assert done.returncode != 0
    assert "cannot be reached" in done.stderr
    assert "no entry with Basic [redacted] [redacted]" in done.stderr
    assert TOKEN not in done.stderr
    gate_lab.stop()
    assert TOKEN not in gate_lab.audit_path.read_text()


def test_no_redirect_is_followed(gate_lab: GitLab, server: GitHttps, authority: Authority) -> None:
    with git_https(gate_lab.folder, token=TOKEN, host=HOST, authority=authority) as elsewhere:
        server.redirect = f"https://127.0.0.1:{elsewhere.port}"
        gate_lab.start()
        done = Repo(gate_lab.folder, gate_lab.env).run("clone", gate_lab.url, "work")
        assert done.returncode != 0
        assert elsewhere.seen == []


def test_a_certificate_of_nobodys_is_refused(gate_lab: GitLab, server: GitHttps) -> None:
    gate_lab.ca_pem = Authority("somebody else").pem
    gate_lab.start()
    done = Repo(gate_lab.folder, gate_lab.env).run("clone", gate_lab.url, "work")
    assert done.returncode != 0
    assert "cannot be reached" in done.stderr
    assert server.seen == []
