"""The host's Codex renews its own login for a bottle: once, whole, and never so that the login breaks."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle.agent_provider import codex_renewal
from bot_bottle.agent_provider.codex import _renewal
from bot_bottle.agent_provider.codex_auth import read_host_login
from tests.support.codex_login import CodexLogin
from tests.support.family import wait_until
from tests.support.npm import installed

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

#: Stands for the program: notes each run, waits to be let on, writes the new login, ends with its input.
_PROGRAM = """#!{python} -I
import json, os, sys, time
open("runs", "a").write("x")
for line in sys.stdin:
    if json.loads(line).get("method") == "account/read":
        while os.path.exists("hold"):
            time.sleep(0.02)
        os.replace("next.json", "auth.json")
        print(json.dumps({{"id": 2, "error": {{}}}}), flush=True)
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "bottles"))
    return {"HOME": str(tmp_path), "CODEX_HOME": str(tmp_path / "codex"), "PATH": f"{tmp_path}:/usr/bin:/bin"}


def logins(tmp_path: Path, lasts: int) -> tuple[CodexLogin, CodexLogin]:
    """Log in with a login that lasts so long, and lay the next one ready for the scripted program."""
    old = CodexLogin(lasts=lasts)
    new = CodexLogin(account=old.account)
    old.write(tmp_path / "codex")
    (tmp_path / "codex" / "next.json").write_text(json.dumps(new.auth_json()))
    (tmp_path / "codex" / "next.json").chmod(0o600)
    program = tmp_path / "codex-program"
    program.write_text(_PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "codex").symlink_to(program)
    return old, new


def scripted(host: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return {**host, "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}


def read(env: dict[str, str]) -> str:
    return _renewal(read_host_login(env, 0.0), env).read().value.reveal()


def runs(tmp_path: Path) -> int:
    place = tmp_path / "codex" / "runs"
    return len(place.read_text()) if place.exists() else 0


def test_a_login_near_its_end_is_renewed_once_and_one_that_is_not_is_left_alone(
    tmp_path: Path, host: dict[str, str]
) -> None:
    old, new = logins(tmp_path, 400)
    env = scripted(host, tmp_path)
    assert read(env) == new.access_token
    assert read(env) == new.access_token
    assert runs(tmp_path) == 1
    assert old.access_token != new.access_token


def test_without_the_program_the_login_is_read_as_it_is(tmp_path: Path, host: dict[str, str]) -> None:
    old = CodexLogin(lasts=400)
    old.write(tmp_path / "codex")
    assert read(host) == old.access_token


def test_a_run_that_takes_long_is_neither_ended_nor_joined_by_another(
    tmp_path: Path, host: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = logins(tmp_path, 400)
    env = scripted(host, tmp_path)
    hold = tmp_path / "codex" / "hold"
    hold.touch()

    def due() -> bool:
        return read_host_login(env, 0.0).access_token.reveal() == old.access_token

    first = threading.Thread(target=codex_renewal.renew, args=(env, due))
    first.start()
    try:
        wait_until(lambda: runs(tmp_path) == 1, "the program")
        codex_renewal.renew(env, due)  # as another bottle's launcher would
        codex_renewal.renew(env, due, seconds=0.0)
        assert runs(tmp_path) == 1
        assert due()
    finally:
        hold.unlink()
        first.join(60)
    wait_until(lambda: not due(), "the program's end")
    assert read(env) == new.access_token
    assert runs(tmp_path) == 1


def test_a_launcher_that_no_longer_waits_leaves_the_lock_with_the_program(
    tmp_path: Path, host: dict[str, str]
) -> None:
    logins(tmp_path, 400)
    env = scripted(host, tmp_path)
    hold = tmp_path / "codex" / "hold"
    hold.touch()
    codex_renewal.renew(env, lambda: True, seconds=0.0)
    try:
        wait_until(lambda: runs(tmp_path) == 1, "the program")
        codex_renewal.renew(env, lambda: True, seconds=0.0)
        assert runs(tmp_path) == 1
    finally:
        hold.unlink()
    wait_until(lambda: not (tmp_path / "codex" / "next.json").exists(), "the login that was got")


class _Endpoint(BaseHTTPRequestHandler):
    """A token endpoint (RFC 6749, 6) that gives the server's ``login`` for a refresh token."""

    server: Any

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""

    def do_POST(self) -> None:
        self.server.asked.append(self.rfile.read(int(self.headers["Content-Length"])))
        new = self.server.login
        names = ("access_token", "id_token", "refresh_token")
        body = json.dumps({name: getattr(new, name) for name in names}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_the_real_program_renews_its_own_login(tmp_path: Path, host: dict[str, str]) -> None:
    program = installed("@openai/codex", "codex")
    old = CodexLogin(lasts=400)
    auth = old.write(tmp_path / "codex")
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint)
    server.login, server.asked = CodexLogin(account=old.account), []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        env = {
            **host,
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "CODEX_REFRESH_TOKEN_URL_OVERRIDE": f"http://127.0.0.1:{server.server_port}/oauth/token",
            "HTTPS_PROXY": "http://127.0.0.1:9",  # everything else it would ask is nowhere
            "NO_PROXY": "127.0.0.1",
        }
        assert read(env) == server.login.access_token
        assert read(env) == server.login.access_token
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    (asked,) = server.asked
    assert old.refresh_token.encode() in asked
    # The operator's own login goes on: with the refresh token that is good now, and still theirs alone.
    assert json.loads(auth.read_text())["tokens"]["refresh_token"] == server.login.refresh_token
    assert stat.S_IMODE(auth.stat().st_mode) == 0o600
    assert read_host_login(env, time.time()).ends_at == server.login.ends
