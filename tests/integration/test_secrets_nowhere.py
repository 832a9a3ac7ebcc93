"""A run of everything with marked secrets; then the whole machine is searched for them, in any usual form.

Searched are every file that was made or changed meanwhile (the whole file system, an engine's data folder
included), the output of every command and, while the bottle lives, the arguments and environment of every
process.
"""

from __future__ import annotations

import base64
import json
import mmap
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.family import Family, wait_until
from tests.support.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.lab import RunningBottle
    from tests.support.outside import Completed, World

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

PLACEHOLDER = "placeholder-to-be-found"
#: Read as one piece; what is larger was not written by this run in its minute.
_LARGEST = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """The run's secrets by their variables, and what must be found, or the search proves nothing."""

    secrets: dict[str, str]
    control: str

    def forms(self) -> dict[str, bytes]:
        """Give every secret in every form, and the control, by a name that may be printed."""
        found = {"control": self.control.encode()}
        for name, value in self.secrets.items():
            found |= {f"{name}, {form}": needle for form, needle in _forms(value.encode()).items()}
        return found


def _forms(raw: bytes) -> dict[str, bytes]:
    """Give a value as it may lie somewhere: the middle of each form that depends on what stands around it."""
    shifted = {
        f"base64 at {offset}": base64.b64encode(bytes(offset) + raw)[4 if offset else 0 : -4]
        for offset in range(3)
    }
    text = raw.decode()
    return {
        "as it is": raw,
        "reversed": raw[::-1],
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "percent": "".join(f"%{byte:02X}" for byte in raw).encode(),
        "base32": base64.b32encode(raw)[:-8],
        "UTF-16": text.encode("utf-16-le"),
        "JSON escapes": "".join(f"\\u{byte:04x}" for byte in raw).encode(),
        **shifted,
    }


@pytest.fixture
def marked() -> Marked:
    values = {
        name: f"mk{secrets.token_hex(18)}" for name in ("API_KEY", "GIT_KEY", "QUERY_KEY", "GUARDED_VALUE")
    }
    return Marked(secrets=values, control=f"control-{secrets.token_hex(8)}")


@pytest.fixture
def own(lab: Lab, marked: Marked) -> Lab:
    """Install the product anew for this test, with its variables in the operator's environment."""
    made = Lab(
        world=lab.world,
        account=lab.account,
        backend=lab.backend,
        engine_host=lab.engine_host,
        machine_image=lab.machine_image,
        runtime=lab.runtime,
    )
    made.declare(
        "marked",
        f"""\
agent_provider:
  template: command
  argv: [/bin/sh, -c, {json.dumps(_work(marked))}]
env: {{API_TOKEN: {PLACEHOLDER}}}
guard: [GUARDED_VALUE]
egress:
  routes:
    - host: api.test
      auth: {{scheme: Bearer, token_ref: API_KEY, placeholder: {PLACEHOLDER}}}
    - host: echo.test
      auth: {{scheme: Basic, token_ref: API_KEY, name: someone}}
    - host: query.test
      auth: {{scheme: query, token_ref: QUERY_KEY, name: key}}
git:
  remotes:
    forge.test:
      Name: project
      Upstream: https://forge.test/some/project.git
      TokenRef: GIT_KEY
""",
    )
    return made


def _work(marked: Marked) -> str:
    """Write an agent that asks for what is allowed and what is not, gets it wrong, and fails at last."""
    return (
        f"echo {marked.control} | tee ~/note; "
        "curl -sS -m 5 -i https://echo.test/b https://query.test/c; "
        "for url in https://api.test/a https://echo.test/b https://query.test/c https://closed.test/d "
        f"http://api.test/e https://closed.test/{PLACEHOLDER} https://echo.test/x?a=$API_TOKEN; do "
        'curl -sS -m 5 -i -H "Authorization: Bearer $API_TOKEN" "$url"; done; '
        "git clone -q https://forge.test/some/project.git got; "
        "env; exit 7"
    )


def test_marked_secrets_are_nowhere_after_a_run_of_everything(
    own: Lab, world: World, marked: Marked, tmp_path: Path
) -> None:
    began = time.time()
    ended = own.cli(
        "start", "marked", "--headless", "--no-cwd", "--yes", "--json", env=marked.secrets, timeout=180
    )
    assert ended.returncode == 7, ended.err
    (kept,) = own.states("marked")
    identity = kept["identity"]
    # What is searched for did leave, where it had to.
    assert world.reached(marked.secrets["API_KEY"])
    assert world.reached(marked.secrets["QUERY_KEY"])

    said = [ended, *(_asked_after(own, identity, marked))]
    with own.launch("marked", env=marked.secrets) as running:
        running.sh("curl -sS -m 5 https://api.test/live; curl -sS -m 5 https://echo.test/live")
        assert _in_processes(running, own, marked) == []
    _die_badly(own, marked)
    said.append(own.cli("rm", identity, "--yes"))
    said.append(own.cli("cleanup", "--yes", timeout=120))

    forms = marked.forms()
    printed = b"".join(one.stdout + one.stderr for one in said)
    assert _named(printed, forms) == ["control"]
    searched = _files_since(began, own)
    by_file = {path: names for path in searched if (names := _in_file(path, forms))}
    assert any("control" in names for names in by_file.values()), (
        "the search finds nothing, so it proves nothing"
    )
    assert {path: names for path, names in by_file.items() if names != ["control"]} == {}


def _asked_after(own: Lab, identity: str, marked: Marked) -> Iterator[Completed]:
    """Ask everything there is to ask about what was kept; go on with it once."""
    for arguments in (
        ("list", "--all", "--json"),
        ("info", "marked", "--json"),
        ("info", identity),
        ("logs", identity, "--json"),
        ("audit", identity),
        ("audit", "verify", identity),
        ("diff", identity),
        ("requests", "--json"),
        ("start", "marked", "--no-cwd", "--dry-run"),
        ("resume", identity, "--headless", "--yes"),
        ("check", "--json"),
        ("doctor",),
        ("panic", "--lift"),
    ):
        yield own.cli(*arguments, env=marked.secrets, timeout=180)


def _die_badly(own: Lab, marked: Marked) -> None:
    """Let a launcher die as from a mistake of its own, where a core dump would be written to its folder."""
    log = own.user_home / "died.log"
    log.touch()
    own.declare("sleeps", "agent_provider: {template: command, argv: [/bin/sleep, '600']}\n")
    own.own()
    pid = own.world.call(
        "spawn",
        argv=["/bin/sh", "-c", 'ulimit -c unlimited && exec "$@"', "sh", *_python("start", "sleeps")],
        env={**own.env, **marked.secrets},
        cwd=str(own.project),
        uid=own.account.uid,
        log=str(log),
    )
    wait_until(lambda: [one["status"] for one in own.states("sleeps")] == ["running"], "it is not running")
    (state,) = own.states("sleeps")
    with Family(own, pid, state["identity"]) as family:
        own.world.call("kill", pid=pid, number=signal.SIGQUIT)
        assert own.world.call("wait", pid=pid, timeout=60) is not None
        family.wait_until_gone()


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bot_bottle", *arguments, "--no-cwd", "--yes", "--headless"]


def _in_processes(running: RunningBottle, own: Lab, marked: Marked) -> list[str]:
    """Search every process of the machine; the launcher's environment is the operator's own."""
    forms = marked.forms()
    with Family(own, running.launcher_pid, running.identity) as family:
        assert len(family.pids) >= 3
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        for name in ("cmdline", "environ"):
            if name == "environ" and int(folder.name) == running.launcher_pid:
                continue
            try:
                data = (folder / name).read_bytes()
            except OSError:  # ended meanwhile, or nothing that this account could read
                continue
            found += [f"{data[:80]!r}: {one}" for one in _named(data, forms) if one != "control"]
    return found


def _files_since(began: float, own: Lab) -> list[Path]:
    """List every regular file of the machine whose content or metadata is younger than ``began``."""
    stamp = own.user_home / "stamp"
    stamp.write_text("")
    os.utime(stamp, (began, began))
    listed = subprocess.run(
        ["find", "/", "-xdev", "-ignore_readdir_race", "-type", "f", "-newercm", str(stamp), "-print0"],
        capture_output=True,
        check=False,
        timeout=200,
    )
    return [Path(os.fsdecode(name)) for name in listed.stdout.split(b"\0") if name]


def _in_file(path: Path, forms: dict[str, bytes]) -> list[str]:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not 0 < size <= _LARGEST:
                return []
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
                return [name for name, needle in forms.items() if data.find(needle) != -1]
    except (OSError, ValueError):  # gone, or not for this account to read
        return []


def _named(data: bytes, forms: dict[str, bytes]) -> list[str]:
    return [name for name, needle in forms.items() if needle in data]
