"""A gate in a thread, real upstreams over ssh and https, and a real git client that knows only the gate."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import uvloop

from bot_bottle.audit import AuditLog
from bot_bottle.egress.roads import Roads, system_resolver
from bot_bottle.git_gate.remote import GateConfig, GateRemote, SshKey
from bot_bottle.git_gate.service import GitGate
from bot_bottle.git_gate.spellings import gitconfig
from bot_bottle.secret import Secret
from bot_bottle.sidecar.config import Pin
from tests.support.git_https import GitHttps, git_https
from tests.support.ssh_server import ssh_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bot_bottle.demo.authority import Authority
    from bot_bottle.egress.roads import Resolver
    from bot_bottle.git_gate.policy import PushPolicy
    from bot_bottle.git_gate.scanning import ContentScanner
    from bot_bottle.sidecar.config import UpstreamProxy

HOST = "git.test"
NOBODY = {"GIT_AUTHOR_NAME": "A U Thor", "GIT_AUTHOR_EMAIL": "author@git.test"}
NOBODY |= {"GIT_COMMITTER_NAME": "C O Mitter", "GIT_COMMITTER_EMAIL": "committer@git.test"}


class GateThread:
    """One gate on a loopback port, on an event loop of its own as in a sidecar."""

    def __init__(
        self,
        config: GateConfig | None,
        *,
        audit: Path,
        scanner: Callable[[], ContentScanner],
        pins: dict[str, Pin],
        ca_pem: str = "",
        proxy: UpstreamProxy | None = None,
        resolver: Resolver = system_resolver,
    ) -> None:
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._sock.getsockname()[1]}"
        self._loop = uvloop.new_event_loop()
        self._started = threading.Event()
        self._stop: asyncio.Event | None = None

        async def serve() -> None:
            log = AuditLog.open(audit, redact=config.secrets().values() if config else ())
            roads = Roads(loop=self._loop, pins=pins, proxy=proxy, resolver=resolver)
            gate = GitGate(
                config,
                audit=log,
                scanner=scanner,
                pins=pins,
                upstream_ca_pem=ca_pem,
                roads=lambda host: roads if roads.around(host) else None,
            )
            server = await asyncio.get_running_loop().create_server(gate.protocol, sock=self._sock)
            self._stop = asyncio.Event()
            self._started.set()
            await self._stop.wait()
            server.close()
            await gate.aclose()
            log.close()

        def work() -> None:
            asyncio.set_event_loop(self._loop)
            try:
                self._loop.run_until_complete(serve())
            finally:
                self._started.set()
                self._loop.close()

        self._thread = threading.Thread(target=work)
        self._thread.start()
        self._started.wait(20)

    def close(self) -> None:
        if self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()


class Repo:
    """A folder that git is run in."""

    def __init__(self, path: Path, env: dict[str, str]) -> None:
        self.path, self.env = path, env

    def run(
        self, *arguments: str, given: bytes | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            env={**self.env, **env},
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            timeout=100,
            check=False,
        )
        out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def git(self, *arguments: str, given: bytes | None = None, **env: str) -> str:
        """Run git, which must succeed; gives its output without the last line end."""
        done = self.run(*arguments, given=given, **env)
        assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
        return done.stdout.rstrip("\n")

    def run_bytes(self, *arguments: str, given: bytes) -> bytes:
        """Run git, which must succeed; gives what it wrote as it is."""
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, env=self.env, input=given, capture_output=True, check=True
        )
        return done.stdout

    def commit(self, files: dict[str, str | bytes], message: str = "more") -> str:
        """Write files, commit them all; gives the commit."""
        for name, content in files.items():
            place = self.path / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "--all", "--force")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def refs(self) -> dict[str, str]:
        """Give all refs by name."""
        lines = (
            line.split(" ")
            for line in self.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        )
        return {line[0]: line[1] for line in lines}


class GitLab:
    """An upstream over ssh, the gate in front of it, and a client that only knows the gate."""

    def __init__(
        self, folder: Path, *, sshd: tuple[str, Path], scanner: Callable[[], ContentScanner]
    ) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.keys = sshd[1].parent
        port = int(sshd[0].rpartition(":")[2])
        self.upstream = self.bare("upstream.git")
        host_key = " ".join((self.keys / "host.pub").read_text().split()[:2])
        public = " ".join((self.keys / "user.pub").read_text().split()[:2])
        self.remote = GateRemote(
            host=HOST,
            name="project",
            scheme="ssh",
            user=getpass.getuser(),
            upstream_host=HOST,
            port=None,
            path=str(self.upstream.path),
            known_host_key=host_key,
            key=SshKey(public=public, private=Secret((self.keys / "user").read_text())),
        )
        self.pins = {HOST: Pin(address="127.0.0.1", port=port)}
        self.ca_pem = ""
        self.proxy: UpstreamProxy | None = None
        self.resolver: Resolver = system_resolver
        self.scanner = scanner
        self.gate_folder = folder / "gate"
        self.audit_path = folder / "audit.jsonl"
        self.gate: GateThread | None = None

    @property
    def env(self) -> dict[str, str]:
        """The client's environment."""
        fixed = {"PATH": os.environ["PATH"], "HOME": str(self.home), "GIT_CONFIG_NOSYSTEM": "1"}
        return {**fixed, **NOBODY, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}

    @property
    def url(self) -> str:
        """The upstream as the operator's people write it."""
        if self.remote.scheme == "https":
            return self.remote.upstream
        return f"{self.remote.user}@{HOST}:{self.remote.path}"

    def bare(self, name: str) -> Repo:
        """Make an upstream with one commit on main."""
        repo = Repo(self.folder / name, self.env)
        repo.path.mkdir()
        repo.git("init", "-q", "--bare", "-b", "main")
        seed = Repo(self.folder / f"seed-{name}", self.env)
        seed.path.mkdir()
        seed.git("init", "-q", "-b", "main")
        seed.commit({"README.md": "a project\n", "src/a.py": "print('a')\n"}, "first")
        seed.commit({"src/b.py": "print('b')\n"}, "second")
        seed.git("push", "-q", str(repo.path), "main")
        return repo

    def start(self, *remotes: GateRemote, policy: PushPolicy | None = None, **fields: Any) -> Self:
        """Bring the gate up and point the client's configuration at it."""
        if policy is not None:
            fields["policy"] = policy
        chosen = remotes or (replace(self.remote, **fields),)
        self.gate = GateThread(
            GateConfig(remotes=chosen, folder=str(self.gate_folder)),
            audit=self.audit_path,
            scanner=self.scanner,
            pins=self.pins,
            ca_pem=self.ca_pem,
            proxy=self.proxy,
            resolver=self.resolver,
        )
        (self.home / ".gitconfig").write_bytes(gitconfig(chosen, self.gate.url))
        return self

    @contextlib.contextmanager
    def over_https(self, authority: Authority, token: str) -> Iterator[GitHttps]:
        """Serve the upstream over https and turn to it, instead of ssh, while the body runs."""
        self.upstream.git("config", "http.receivepack", "true")
        with git_https(self.folder, token=token, host=HOST, authority=authority) as running:
            self.remote = GateRemote(
                host=HOST,
                name="project",
                scheme="https",
                user="",
                upstream_host=HOST,
                port=None,
                path="/upstream.git",
                token=Secret(token),
            )
            self.pins = {HOST: Pin(address="127.0.0.1", port=running.port)}
            self.ca_pem = authority.pem
            yield running

    def stop(self) -> None:
        """Take the gate down."""
        if self.gate is not None:
            self.gate.close()
            self.gate = None

    def clone(self, name: str = "work", *options: str) -> Repo:
        """Clone through the gate and stand on a branch that may be pushed."""
        Repo(self.folder, self.env).git("clone", "-q", *options, self.url, name)
        repo = Repo(self.folder / name, self.env)
        repo.git("checkout", "-q", "-b", "bottle/x")
        return repo

    @property
    def mirror(self) -> Repo:
        """The gate's own repository."""
        return Repo(self.gate_folder / "mirror-0.git", self.env)

    def left_over(self) -> list[str]:
        """Name what a push left in the gate's folder besides the mirror and public files."""
        return [path.name for path in self.gate_folder.iterdir() if path.name.startswith("incoming-")]


@contextlib.contextmanager
def git_lab(folder: Path, sshd: tuple[str, Path], scanner: Callable[[], ContentScanner]) -> Iterator[GitLab]:
    """Make a lab and take it down."""
    lab = GitLab(folder, sshd=sshd, scanner=scanner)
    try:
        yield lab
    finally:
        lab.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def throwaway_sshd(folder: Path) -> Iterator[tuple[str, Path]]:
    """Run sshd whose sessions see no configuration of this account's git."""
    with ssh_server(folder, {"GIT_CONFIG_GLOBAL": "/dev/null"}) as server:
        yield server
