"""The product, installed for one account in the scripted world: its manifests, its bottles, its CLI."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bot_bottle.agent_account import AGENT_USER
from bot_bottle.audit_events import deviations
from bot_bottle.backend.registry import get_bottle_backend
from tests.support.engine import BASE_IMAGE, image_with
from tests.support.outside import BASE_PYTHON, PACE, REPO, Account, Completed, World
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_START_SECONDS = 60.0 * PACE
_CURLS_PATIENCE = re.compile(r"(?<= -m )\d+\b")
_counter = itertools.count(1)


@dataclass(slots=True, kw_only=True)
class Lab:
    """One account's installation in the world: its manifests, its config, its tokens."""

    world: World
    account: Account
    backend: str
    engine_host: str = ""
    machine_image: str = ""
    runtime: str = "runc"
    home: Path = field(init=False)
    user_home: Path = field(init=False)
    env: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        base = self.world.folder / f"{self.account.name}-{next(_counter)}"
        self.user_home = base
        self.home = base / ".bot-bottle"
        for folder in (base, self.home, self.home / "bottles", self.home / "agents", base / "project"):
            folder.mkdir(mode=0o700)
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.user_home),
            "BOT_BOTTLE_HOME": str(self.home),
            "LANG": "C.UTF-8",
        }
        config = f'backend = "{self.backend}"\n[egress]\nupstream_ca = "{self.world.ca_file}"\n'
        if self.engine_host:
            self.env["DOCKER_HOST"] = self.engine_host
            config += f'[docker]\nbase_image = "{BASE_IMAGE}"\nsidecar_base_image = "{BASE_IMAGE}"\n'
            config += f'runtime = "{self.runtime}"\n'
        if self.machine_image:
            config += f'[smolmachines]\nimage = "{self.machine_image}"\n'
        self.write("config.toml", config)

    @property
    def inside_python(self) -> str:
        """The interpreter as it is found in this backend's bottles."""
        return "python3" if self.engine_host or self.machine_image else BASE_PYTHON

    @property
    def sidecar_address(self) -> str:
        """Where this backend's bottles find their sidecar."""
        return get_bottle_backend(self.backend).sidecar_address

    @property
    def project(self) -> Path:
        """The operator's working folder."""
        return self.user_home / "project"

    def write(self, name: str, text: str) -> Path:
        """Write a file below the account's bot-bottle folder."""
        path = self.home / name
        path.write_text(text)
        path.chmod(0o600)
        self.own()
        return path

    def own(self) -> None:
        """Make everything in this installation the account's own."""
        if os.getuid() == 0:
            state = self.home / "state"  # a bottle's home there belongs to the bottle's own account
            for path in (self.user_home, *self.user_home.rglob("*")):
                if not path.is_relative_to(state):
                    os.chown(path, self.account.uid, self.account.uid, follow_symlinks=False)

    @contextlib.contextmanager
    def program(self, program: Path, *helpers: Path) -> Iterator[dict[str, str]]:
        """Let bottles have a program of this machine's that is one file; gives the environment to launch in.

        ``helpers`` are what it starts itself and looks for beside it. A backend that takes programs from
        images gets an image with them for that time.
        """
        if self.machine_image:  # made with the programs that there are (tests.support.machine_image)
            yield {}
            return
        if not self.engine_host:
            yield {"PATH": f"{program.parent}:{self.env['PATH']}"}
            return
        config = self.home / "config.toml"
        before = config.read_text()
        image = image_with(self.engine_host, program, *helpers)
        self.write(
            "config.toml", before.replace(f'\nbase_image = "{BASE_IMAGE}"', f'\nbase_image = "{image}"')
        )
        try:
            yield {}
        finally:
            self.write("config.toml", before)

    def declare(self, name: str, frontmatter: str, prompt: str = "") -> None:
        """Declare a bottle and an agent of the same name in it."""
        self.write(f"bottles/{name}.md", f"---\n{frontmatter}---\n")
        self.write(f"agents/{name}.md", f"---\nbottle: {name}\n---\n{prompt}\n")

    def cli(
        self, *args: str, env: Mapping[str, str] | None = None, stdin: bytes = b"", timeout: float = 60
    ) -> Completed:
        """Run ``bot-bottle ARGS`` as this account, in its project folder."""
        return self.world.run(
            [sys.executable, "-m", "bot_bottle", *args],
            account=self.account,
            env={**self.env, **(env or {})},
            cwd=self.project,
            stdin=stdin,
            timeout=timeout,
        )

    def spawn(self, *args: str, log: Path, env: Mapping[str, str] | None = None) -> int:
        """Start ``bot-bottle ARGS`` as this account with its output in ``log``; gives its process id."""
        self.own()
        pid: int = self.world.call(
            "spawn",
            argv=[sys.executable, "-m", "bot_bottle", *args],
            env={**self.env, **(env or {})},
            cwd=str(self.project),
            uid=self.account.uid,
            log=str(log),
        )
        return pid

    def terminal(self, *args: str, env: Mapping[str, str] | None = None) -> Terminal:
        """Run ``bot-bottle ARGS`` as this account on a terminal."""
        return Terminal(
            self.world,
            [sys.executable, "-m", "bot_bottle", *args],
            account=self.account,
            env={**self.env, **(env or {})},
            cwd=self.project,
        )

    def states(self, agent: str) -> list[dict[str, Any]]:
        """Give what ``bot-bottle list`` says of one agent's bottles."""
        listed = self.cli("list", "--json").json()
        return [state for state in listed if state["agent"] == agent]

    def launch(
        self, agent: str, *, env: Mapping[str, str] | None = None, identity: str = "", copy_cwd: bool = False
    ) -> RunningBottle:
        """Launch an agent's bottle by the product's API."""
        return RunningBottle(self, agent, env=dict(env or {}), identity=identity, copy_cwd=copy_cwd)


class RunningBottle:
    """A bottle some account launched in the world; close it to end the session."""

    def __init__(self, lab: Lab, agent: str, *, env: dict[str, str], identity: str, copy_cwd: bool) -> None:
        self._lab = lab
        number = next(_counter)
        path = lab.user_home / f"runner-{number}"
        self.log = lab.user_home / f"runner-{number}.log"
        self.log.touch()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            lab.own()
            listener.listen(1)
            listener.settimeout(_START_SECONDS)
            self.launcher_pid: int = lab.world.call(
                "spawn",
                argv=[sys.executable, "-m", "tests.support.runner", str(path)],
                env={**lab.env, **env},
                cwd=str(REPO),
                uid=lab.account.uid,
                log=str(self.log),
            )
            try:
                self._connection, _ = listener.accept()
            except TimeoutError:
                raise AssertionError(f"the runner never came:\n{self.log.read_text()}") from None
        self._connection.settimeout(120 * PACE)
        self._answers = self._connection.makefile("rb")
        try:
            launched = self._call(
                agent=agent, cwd=str(lab.project), backend=lab.backend, identity=identity, copy_cwd=copy_cwd
            )
        except BaseException:
            self._hang_up()
            raise
        self.identity: str = launched["identity"]
        self.state_dir = Path(launched["state_dir"])
        self.audit_path = Path(launched["audit_path"])
        self.guest_env: dict[str, str] = launched["guest_env"]
        self.children: list[int] = launched["children"]

    def sh(
        self, script: str, *, stdin: bytes = b"", timeout: float | None = 30, user: str = AGENT_USER
    ) -> Completed:
        """Run a POSIX shell script inside, as the agent; curl waits for as long as the pace here asks."""
        script = _CURLS_PATIENCE.sub(lambda found: str(int(found[0]) * PACE), script)
        data = base64.b64encode(stdin).decode()
        timeout = None if timeout is None else timeout * PACE
        return _completed(self._call(op="exec", script=script, stdin=data, timeout=timeout, user=user))

    def py(self, code: str, *, timeout: float = 30) -> Completed:
        """Run Python code inside, as the agent, with nothing but the standard library."""
        return self.sh(f"exec {self._lab.inside_python} -I -S -", stdin=code.encode(), timeout=timeout)

    def stream(self, script: str, *, source: Path | None = None, sink: Path | None = None) -> Completed:
        """Run a script inside with its streams from and to files of the launcher's account."""
        self._lab.own()
        return _completed(
            self._call(op="exec_stream", script=script, source=str(source or ""), sink=str(sink or ""))
        )

    def agent(self, *argv: str, stdin: bytes = b"", tty: bool = False) -> Completed:
        """Run a program as the agent, on the launcher's own streams."""
        return _completed(self._call(op="agent", argv=argv, stdin=base64.b64encode(stdin).decode(), tty=tty))

    def cp_in(self, host: Path, guest: str) -> None:
        """Copy into the bottle."""
        self._lab.own()
        self._call(op="cp_in", host=str(host), guest=guest)

    def cp_out(self, guest: str, host: Path) -> None:
        """Copy out of the bottle."""
        self._lab.own()
        self._call(op="cp_out", guest=guest, host=str(host))

    def close_bottle(self) -> None:
        """Close the bottle while its session goes on."""
        self._call(op="close")

    def interrupt(self) -> str:
        """Raise ``KeyboardInterrupt`` in the session; gives the launcher's last words."""
        self._connection.sendall(b'{"op": "interrupt"}\n')
        self._answers.read()
        self._hang_up()
        self.wait()
        return self.log.read_text()

    def audit(self) -> list[dict[str, Any]]:
        """Read the bottle's audit log as it is now; each record has to be as docs/audit.md says."""
        records = [json.loads(line) for line in self.audit_path.read_text().splitlines()]
        assert [one for record in records for one in deviations(record)] == []
        return records

    def decisions(self, marker: str) -> list[dict[str, Any]]:
        """Give the audit lines that mention ``marker``, in whatever case."""
        return [line for line in self.audit() if marker.lower() in json.dumps(line).lower()]

    def denied(self, marker: str) -> list[dict[str, Any]]:
        """Give the denials on record that mention ``marker``."""
        return [line for line in self.decisions(marker) if line.get("decision") == "deny"]

    def kill(self, number: int) -> None:
        """Send the launcher a signal."""
        self._lab.world.call("kill", pid=self.launcher_pid, number=number)

    def wait(self, timeout: float = 30) -> int | None:
        """Wait for the launcher to end and give its exit code."""
        code: int | None = self._lab.world.call("wait", pid=self.launcher_pid, timeout=timeout)
        return code

    def close(self, exit_code: int = 0) -> None:
        """End the session as if the agent had ended with ``exit_code``."""
        if self._connection.fileno() != -1:
            try:
                self._call(op="end", exit_code=exit_code)
            finally:
                self._hang_up()
            assert self.wait() == 0, self.log.read_text()

    def abandon(self) -> None:
        """Close this side of the connection, whatever became of the launcher."""
        self._hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hang_up(self) -> None:
        self._answers.close()
        self._connection.close()

    def _call(self, **call: object) -> dict[str, Any]:
        self._connection.sendall(json.dumps(call).encode() + b"\n")
        line = self._answers.readline()
        if not line:
            raise AssertionError(f"the launcher is gone:\n{self.log.read_text()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise AssertionError(answer["error"])
        if "raised" in answer:
            raise RaisedError(answer["raised"], answer["message"])
        return answer


class RaisedError(Exception):
    """What the product raised in the launcher: the exception's name, then its words."""


def _completed(answer: dict[str, Any]) -> Completed:
    return Completed(
        returncode=answer["returncode"],
        stdout=base64.b64decode(answer["stdout"]),
        stderr=base64.b64decode(answer["stderr"]),
    )
