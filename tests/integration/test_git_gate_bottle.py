"""The gate as a bottle sees it: git inside finds it by itself, works through it, and holds no key."""

from __future__ import annotations

import json
import pwd
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bot_bottle.sidecar.listeners import GIT_PORT
from tests.support.engine import engine_api
from tests.support.family import wait_until
from tests.support.git_lab import Repo
from tests.support.ssh_server import NoSshError, make_privsep, ssh_server_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.lab import Lab, RunningBottle

pytestmark = pytest.mark.integration

PORT = 2022
#: Where git.test is pinned to: any address does, since all of them are the scripted outside's.
ADDRESS = "203.0.113.22"
KEY = "AKIA" + "QYLPMN5HHHFPZAM2"


class Upstream:
    """A bare repository behind a real sshd in the scripted outside."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.folder = folder
        env = {"PATH": lab.env["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
        env |= {
            f"GIT_{who}_{what}": "x@git.test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        self.repo = Repo(folder / "project.git", env)
        self.repo.path.mkdir()
        self.repo.git("init", "-q", "--bare", "-b", "main")
        seed = Repo(folder / "seed", env)
        seed.path.mkdir()
        seed.git("init", "-q", "-b", "main")
        seed.commit({"README.md": "hello\n"})
        seed.git("push", "-q", str(self.repo.path), "main")
        self.private = (folder / "user").read_text()

    @property
    def url(self) -> str:
        return f"root@git.test:{self.repo.path}"


@contextmanager
def upstream(lab: Lab, tmp_path: Path) -> Iterator[Upstream]:
    """Run the upstream and declare a bottle and an agent ``gated`` that have it."""
    if lab.backend != "docker":  # the sidecar is a process of the launching account
        try:
            pwd.getpwuid(lab.account.uid)
        except KeyError:
            pytest.skip("ssh runs for accounts that have a name, and this one has none")
    folder = tmp_path / "upstream"
    folder.mkdir()
    try:
        command = ssh_server_command(folder, {"GIT_CONFIG_GLOBAL": "/dev/null"}, PORT, address="0.0.0.0")
    except NoSshError as error:
        pytest.skip(str(error))
    log = tmp_path / "sshd.log"
    make_privsep()
    pid = lab.world.call("spawn", argv=command, env={"PATH": lab.env["PATH"]}, cwd="/", uid=0, log=str(log))
    wait_until(lambda: b"listening on" in log.read_bytes(), "sshd does not listen")
    made = Upstream(lab, folder)
    key = lab.user_home / "gate-key"
    key.write_text(made.private)
    key.chmod(0o600)
    config = lab.home / "config.toml"
    before = config.read_text()
    # Other tests of this installation may have left pins of their own.
    lab.write("config.toml", f'{before.partition("[pins]")[0]}[pins]\n"git.test" = "{ADDRESS}:{PORT}"\n')
    host_key = " ".join((folder / "host.pub").read_text().split()[:2])
    lab.declare(
        "gated",
        "agent_provider: {template: command, argv: [/bin/sh]}\nsupervise: true\n"
        "git:\n  user: {name: Some Bot, email: bot@git.test}\n  remotes:\n    git.test:\n"
        f"      Name: project\n      Upstream: ssh://root@git.test{made.repo.path}\n"
        f"      IdentityFile: {key}\n      KnownHostKey: {host_key}\n",
    )
    try:
        yield made
    finally:
        lab.write("config.toml", before)
        lab.world.call("kill", pid=pid, number=15)
        lab.world.call("wait", pid=pid, timeout=20)


def test_an_agent_clones_and_pushes_and_holds_no_key(lab: Lab, tmp_path: Path) -> None:
    with upstream(lab, tmp_path) as up, lab.launch("gated") as bottle:
        cloned = bottle.sh(f"cd /tmp && git clone {up.url} work && cat work/README.md", timeout=90)
        assert cloned.returncode == 0, cloned.err
        assert cloned.out.endswith("hello\n")
        work = "cd /tmp/work &&"
        planted = bottle.sh(
            f"{work} git checkout -q -b bottle/x && echo key {KEY} > conf &&"
            " git add . && git commit -q -m more && git push origin bottle/x",
            timeout=110,
        )
        assert planted.returncode != 0
        assert "conf:1" in planted.err
        assert KEY not in planted.err
        assert list(up.repo.refs()) == ["refs/heads/main"]
        cleaned = bottle.sh(
            f"{work} echo none > conf && git commit -q -a --amend -m clean && git push origin bottle/x",
            timeout=90,
        )
        assert cleaned.returncode == 0, cleaned.err
        assert (
            up.repo.git("log", "-1", "--format=%an <%ae> %s", "bottle/x") == "Some Bot <bot@git.test> clean"
        )
        assert [line["decision"] for line in bottle.audit() if line["event"] == "git_push"] == [
            "deny",
            "allow",
        ]
        _no_key_in(bottle, lab, up)
        _push_what_a_human_allows(bottle, lab, up)


def _push_what_a_human_allows(bottle: RunningBottle, lab: Lab, up: Upstream) -> None:
    """Ask for branches that the gate refuses and get one of them for one push; all else stays closed."""
    push = "cd /tmp/work && git push origin bottle/x:"
    assert "branch_denied" in bottle.sh(f"{push}fix-12", timeout=90).err
    arguments = {"remote": "project", "refs": ["refs/heads/fix-*"], "reason": "the name of the ticket"}
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "request_git", "arguments": arguments},
    }
    headers = "-H 'Accept: application/json, text/event-stream' -H 'Content-Type: application/json'"
    script = f"curl -sS -m 60 {headers} -d '{json.dumps(call)}' $BOT_BOTTLE_SUPERVISE_URL"
    asking = threading.Thread(target=bottle.sh, args=(script,), kwargs={"timeout": 60})
    asking.start()
    wait_until(lambda: bool(lab.cli("requests", bottle.identity, "--json").json()), "a request")
    (request,) = lab.cli("requests", bottle.identity, "--json").json()
    said = lab.cli("approve", request["request"], "--yes", "--for", "once", "--branch", "fix-12")
    assert said.returncode == 0, said.err
    assert "this opens: pushes to project: branches fix-12, for one push" in said.err
    asking.join(60)
    (answered,) = lab.cli("requests", bottle.identity, "--all", "--json").json()
    assert answered["verdict"] == "changed"
    assert "branch_denied" in bottle.sh(f"{push}fix-13", timeout=90).err
    assert bottle.sh(f"{push}bottle/y", timeout=90).returncode == 0, "what needs no yes uses none up"
    allowed = bottle.sh(f"{push}fix-12", timeout=90)
    assert allowed.returncode == 0, allowed.err
    assert "refs/heads/fix-12" in up.repo.refs()
    again = "cd /tmp/work && git commit -q --allow-empty -m again && git push origin bottle/x:fix-12"
    assert "branch_denied" in bottle.sh(again, timeout=90).err
    used = [line for line in bottle.audit() if line["event"] == "used"]
    assert [line["request"] for line in used] == [request["request"]]


def test_a_bottle_starts_with_a_clone_of_its_remote(lab: Lab, tmp_path: Path) -> None:
    with upstream(lab, tmp_path) as up:
        argv = json.dumps(["/bin/sh", "-c", "cat README.md; git remote get-url origin"])
        bottle = lab.home / "bottles" / "gated.md"
        lab.write("bottles/gated.md", bottle.read_text().replace("[/bin/sh]", argv))
        done = lab.cli("start", "gated", "--repo", up.url, "--yes", "--headless", timeout=120)
        assert done.returncode == 0, done.err
        assert done.out.startswith("hello\n")
        assert "git gate" in done.err
        other = lab.cli("start", "gated", "--repo", "https://other.test/x.git", "--yes", "--headless")
        assert other.returncode == 2
        assert "is no remote of bottle gated" in other.err
        both = lab.cli("start", "gated", "--repo", up.url, "--cwd", "--yes", "--headless")
        assert (both.returncode, "give one of them" in both.err) == (2, True)
        assert lab.states("gated") == []


def _no_key_in(bottle: RunningBottle, lab: Lab, up: Upstream) -> None:
    line = up.private.splitlines()[2]
    found = bottle.sh(
        f"env; cat ~/.gitconfig ~/.config/bot-bottle/*; grep -rs {line[:40]} / --include='*' -l"
        " --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr; cat /proc/*/cmdline"
    )
    assert line[:40] not in found.out.replace(f"grep -rs {line[:40]}", "")
    for path in [*bottle.state_dir.rglob("*"), bottle.audit_path]:
        if path.is_file():
            assert line.encode() not in path.read_bytes(), path
    if lab.engine_host:
        _no_key_on_the_engine(bottle, lab, line)
        return
    mirror = bottle.state_dir / "git-gate"
    assert mirror.stat().st_mode & 0o777 == 0o700
    assert not bottle.sh("ls -d /home/agent/../git-gate /git-gate").out
    assert lab.account.uid == mirror.stat().st_uid


def _no_key_on_the_engine(bottle: RunningBottle, lab: Lab, line: str) -> None:
    """Look where an engine's operator would: the settings and volumes of both containers."""
    with engine_api(lab.engine_host) as api:
        found = api.containers(filters={"label": f"bot-bottle.identity={bottle.identity}"})
        assert {one["Labels"]["bot-bottle.role"] for one in found} == {"agent", "sidecar"}
        for one in found:
            told = api.inspect_container(one["Id"])
            assert line not in json.dumps(told)
            for mount in told["Mounts"]:
                for path in Path(mount["Source"]).rglob("*"):
                    if path.is_file() and not path.is_symlink():
                        assert line.encode() not in path.read_bytes(), path


def test_a_bottle_without_remotes_has_a_gate_that_says_so(lab: Lab) -> None:
    lab.declare("ungated", "agent_provider: {template: command, argv: [/bin/sh]}\n")
    with lab.launch("ungated") as bottle:
        said = bottle.sh(
            f"git clone http://127.0.0.1:{GIT_PORT}/x.git /tmp/x 2>&1; test ! -e ~/.config/bot-bottle"
        )
        assert said.returncode == 0
        assert "this bottle declares no git remote for /x.git" in said.out


def test_a_key_that_is_not_there_stops_the_launch_before_it_begins(lab: Lab) -> None:
    lab.declare(
        "keyless",
        "agent_provider: {template: command, argv: [/bin/true]}\ngit:\n  remotes:\n    git.test:\n"
        "      Name: p\n      Upstream: ssh://git@git.test/p.git\n      IdentityFile: ~/.ssh/none\n",
    )
    done = lab.cli("start", "keyless", "--yes", "--headless")
    assert done.returncode == 2
    assert "git.remotes.git.test: IdentityFile ~/.ssh/none" in done.err
