"""A route for fetching, with the real git: clone and fetch work, a push and everything else does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from bot_bottle.egress.routes import RouteAuth
from bot_bottle.secret import Secret
from bot_bottle.sidecar.config import Pin
from tests.integration.egress_lab import AUTHORITY, Sidecar, config, route
from tests.support.git_https import GitHttps

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]

HOST, TOKEN = "code.test", "forge-token-55d1"


def git(folder: Path, *words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run git as a bottle's program would, with nothing of this account's settings."""
    return subprocess.run(
        ["git", *words], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60
    )


def test_git_fetches_and_does_nothing_else(tmp_path: Path) -> None:
    plain = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    for who in ("AUTHOR", "COMMITTER"):
        plain |= {f"GIT_{who}_NAME": "N", f"GIT_{who}_EMAIL": "n@n.test"}
    source, served = tmp_path / "source", tmp_path / "served"
    for folder in (source, served):
        folder.mkdir()
    assert git(source, "init", "-q", "-b", "main", env=plain).returncode == 0
    (source / "README").write_text("hello\n")
    for words in (("add", "README"), ("commit", "-q", "-m", "one")):
        assert git(source, *words, env=plain).returncode == 0
    bare = served / "project.git"
    assert git(tmp_path, "clone", "-q", "--bare", str(source), str(bare), env=plain).returncode == 0
    git(bare, "config", "http.receivepack", "true", env=plain)
    server = GitHttps(served, token=TOKEN, host=HOST, authority=AUTHORITY)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    auth = RouteAuth(scheme="Basic", token_ref="FORGE", name="me")
    settings = config(
        tmp_path,
        [route(HOST, auth=auth, git_read=True, methods=("GET", "POST"))],
        pins={HOST: Pin(address="127.0.0.1", port=server.port)},
        secrets={"FORGE": Secret(TOKEN)},
    )
    try:
        with Sidecar(tmp_path, settings) as sidecar:
            proxy = f"http://127.0.0.1:{sidecar.ports['proxy']}"
            env = {**plain, "https_proxy": proxy, "GIT_SSL_CAINFO": str(sidecar.ca_file)}
            env["GIT_TERMINAL_PROMPT"] = "0"
            cloned = git(tmp_path, "clone", "-q", f"https://{HOST}/project.git", "work", env=env)
            assert cloned.returncode == 0, cloned.stderr
            work = tmp_path / "work"
            assert (work / "README").read_text() == "hello\n"
            assert git(work, "fetch", "-q", "--depth", "1", env=env).returncode == 0
            assert git(work, "ls-remote", env=env).stdout.count("refs/heads/main") == 1
            heard = len(server.seen)
            git(work, "commit", "-q", "--allow-empty", "-m", "two", env=env)
            pushed = git(work, "push", "origin", "main", env=env)
            assert pushed.returncode != 0
            with sidecar.tunnel(HOST) as stream:
                reasons = [stream.get(HOST, path).reason for path in ("/api/v4/user", "/project.git/HEAD")]
            assert reasons == ["git_read_only", "git_read_only"]
            denied = {record["reason"] for record in sidecar.records() if record["decision"] == "deny"}
            assert denied == {"git_push_denied", "git_read_only"}
            assert len(server.seen) == heard
    finally:
        server.shutdown()
        server.server_close()
