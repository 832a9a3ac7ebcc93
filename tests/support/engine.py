"""A container engine of the tests' own, in the scripted world: what containers send ends at the sinkhole."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.base_image import NoBaseError, base_archive
from tests.support.outside import World, download_cache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import APIClient

#: What containers on the default bridge are numbered from; nothing that an attack reaches for lies in it.
BRIDGE_V4 = "10.213.47.1/24"
BRIDGE_V6 = "fd47:213::/64"

#: The image that bottles and sidecars of the tests are made from.
BASE_IMAGE = "bot-bottle-test-base:1"

#: The engine's runtimes for gVisor, where this machine has it: one that bottles can use, and one they cannot.
GVISOR, GVISOR_APART = "runsc-bottle", "runsc-apart"

_START_SECONDS = 60.0
#: How long the processes of an ended engine's containers may take to be gone, in seconds.
_END_SECONDS = 15.0
#: Folders and control groups are named so, followed by the number of the process that they belong to.
_NAME = "bot-bottle-engine-"
_CGROUPS = Path("/sys/fs/cgroup")
_SYSTEM_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


class NoEngineError(Exception):
    """This machine cannot run an engine for tests; the text says why."""


class Engine:
    """A running ``dockerd`` in a world's namespaces; its socket is open to every account.

    ``url`` is for ``DOCKER_HOST``. A unix socket on a path is reached from every network namespace, so both
    programs in the world and this process can speak to it.
    """

    def __init__(self, world: World) -> None:
        if os.getuid() != 0:
            raise NoEngineError("only root can start a container engine of the tests' own")
        program = shutil.which("dockerd", path=_SYSTEM_PATH)
        if program is None:
            raise NoEngineError("no container engine is installed; install it with: apt install docker.io")
        try:
            base = base_archive()
        except NoBaseError as error:
            raise NoEngineError(f"there is no base for images: {error}") from error
        place = place_on_disk()
        _remove_what_killed_runs_left(Path(place))
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_NAME}{os.getpid()}-", dir=place))
        self.folder.chmod(0o711)
        self._socket = self.folder / "engine.sock"
        self.url = f"unix://{self._socket}"
        self.data_root = self.folder / "data"
        self.log = self.folder / "dockerd.log"
        settings = {"runtimes": gvisor_runtimes()}  # not what stands in /etc
        (self.folder / "daemon.json").write_text(json.dumps(settings))
        self._world = world
        self._program = program
        self._cgroup = self.folder.name  # each engine its own: one may end while another works
        self._pid = -1
        try:
            self.start()
            with engine_api(self.url) as api:
                api.import_image_from_file(str(base), *BASE_IMAGE.split(":"))
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start it, for the first time or after :meth:`stop`; what it had it has again."""
        self._pid = self._world.call(
            "spawn",
            argv=[self._program, *self._options()],
            env={"PATH": _SYSTEM_PATH, "HOME": str(self.folder), "LANG": "C.UTF-8"},
            cwd=str(self.folder),
            uid=0,
            log=str(self.log),
        )
        self._await_answer()
        self._open_the_way_back()
        self._socket.chmod(0o666)

    def stop(self, number: int) -> None:
        """End it by a signal and wait for that, and for what it runs containers with."""
        helper = self.folder / "exec" / "containerd" / "containerd.pid"
        pid = int(helper.read_text()) if helper.exists() else 0
        self._world.call("kill", pid=self._pid, number=number)
        assert self._world.call("wait", pid=self._pid, timeout=60) is not None
        deadline = time.monotonic() + _START_SECONDS
        while pid and _is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        # Nobody may have asked for its end yet, and then an engine takes the dead one for running.
        helper.unlink(missing_ok=True)

    def close(self) -> None:
        """End the engine and every container in it; remove its files."""
        if self._world.call("wait", pid=self._pid, timeout=0) is None:
            with (
                contextlib.suppress(Exception),
                engine_api(self.url) as api,
            ):  # a broken engine is ended all the same
                for container in api.containers(all=True):
                    api.remove_container(container["Id"], force=True)
            self._world.call("kill", pid=self._pid, number=signal.SIGTERM)
            if self._world.call("wait", pid=self._pid, timeout=60) is None:
                self._world.call("kill", pid=self._pid, number=signal.SIGKILL)
                self._world.call("wait", pid=self._pid, timeout=60)
        _remove_groups(self._cgroup)
        shutil.rmtree(self.folder)

    def _options(self) -> list[str]:
        return [
            f"--host={self.url}",
            f"--data-root={self.data_root}",
            f"--exec-root={self.folder / 'exec'}",
            f"--pidfile={self.folder / 'pid'}",
            f"--cgroup-parent=/{self._cgroup}",
            f"--bip={BRIDGE_V4}",
            "--ipv6",
            f"--fixed-cidr-v6={BRIDGE_V6}",
            # Every address is the world's own: there is nothing to forward, to hide or to publish.
            "--iptables=false",
            "--ip-forward=false",
            "--userland-proxy=false",
            f"--config-file={self.folder / 'daemon.json'}",
        ]

    def _await_answer(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
                probe.settimeout(5)  # it listens before it serves
                probe.connect(str(self._socket))
                probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                if b" 200 " in probe.recv(4096):
                    return
            ended = self._world.call("wait", pid=self._pid, timeout=0.1)
            if ended is not None or time.monotonic() > deadline:
                raise NoEngineError(f"dockerd does not come up here: {self.log.read_text()[-1500:]}")

    def _open_the_way_back(self) -> None:
        """Lead answers to containers over the bridge.

        In the world every address is local and the local table is asked first, so without a narrower route
        there the sinkhole would answer a container on its own loopback.
        """
        for network in ("10.213.47.0/24", BRIDGE_V6):
            command = ["ip", "route", "replace", "table", "local", network, "dev", "docker0"]
            added = self._world.run(["env", f"PATH={_SYSTEM_PATH}", *command])
            if added.returncode != 0:
                raise NoEngineError(f"{' '.join(command)}: {added.err.strip()}")


def _is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and was not asked after does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}


def gvisor_runtimes() -> dict[str, dict[str, object]]:
    """Give gVisor's runtimes as an engine's settings name them; none where it is not installed."""
    program = shutil.which("runsc", path=_SYSTEM_PATH)
    if program is None:
        return {}
    # The one platform that needs neither KVM nor more rights than a virtual machine's root has.
    args = ["--platform=ptrace"]
    return {
        GVISOR: {"path": program, "runtimeArgs": [*args, "--network=host"]},
        GVISOR_APART: {"path": program, "runtimeArgs": args},
    }


@contextlib.contextmanager
def engine_api(url: str) -> Iterator[APIClient]:
    """Speak to an engine."""
    from docker import APIClient  # noqa: PLC0415 - most tests need no engine

    client = APIClient(base_url=url, version="auto", timeout=120)
    try:
        yield client
    finally:
        client.close()


@functools.cache
def gvisor_trouble(url: str) -> str:
    """Say why the engine at ``url`` has no bottles in gVisor; empty where a container comes up in it."""
    if not gvisor_runtimes():
        return "gVisor is not installed; install it with: apt install runsc"
    from docker import errors  # noqa: PLC0415 - most tests need no engine

    with engine_api(url) as api:
        host = api.create_host_config(runtime=GVISOR, network_mode="none")
        container = api.create_container(BASE_IMAGE, ["uname", "-r"], host_config=host)["Id"]
        try:
            api.start(container)
            api.wait(container)
            kernel = str(api.logs(container).decode()).strip()
        except errors.APIError as error:
            return f"gVisor does not start here: {error.explanation}"
        finally:
            api.remove_container(container, force=True)
    return "" if kernel not in {"", os.uname().release} else f"gVisor is not what started: {kernel}"


def image_with(url: str, program: Path, *helpers: Path) -> str:
    """Give an image that is the base, one more program of a single file, and what that starts itself."""
    files = {one.name: one.resolve(strict=True) for one in (program, *helpers)}
    facts = [f"{name} {found} {found.stat().st_mtime_ns}" for name, found in files.items()]
    stamp = hashlib.sha256(" ".join(facts).encode()).hexdigest()[:12]
    tag = f"bot-bottle-test-{program.name}:{stamp}"
    with engine_api(url) as api, tempfile.TemporaryFile() as context:
        if api.images(tag, quiet=True):
            return tag
        recipe = f"FROM {BASE_IMAGE}\nCOPY {' '.join(files)} /usr/local/bin/\n".encode()
        with tarfile.open(fileobj=context, mode="w") as archive:
            member = tarfile.TarInfo("Dockerfile")
            member.size = len(recipe)
            archive.addfile(member, io.BytesIO(recipe))
            for name, found in files.items():
                member = archive.gettarinfo(str(found), name)
                member.mode = 0o755
                with found.open("rb") as file:
                    archive.addfile(member, file)
        context.seek(0)
        for line in api.build(fileobj=context, custom_context=True, tag=tag, decode=True):
            if "error" in line:
                raise NoEngineError(f"{tag} could not be built: {line['error']}")
    return tag


def _remove_what_killed_runs_left(place: Path) -> None:
    """Remove files and control groups of killed runs; their engines ended with their worlds."""
    left = [*place.glob(f"{_NAME}*"), *_CGROUPS.glob(f"{_NAME}*"), *_CGROUPS.glob(f"*/{_NAME}*")]
    for found in left:
        owner = found.name.removeprefix(_NAME).partition("-")[0]
        if not Path("/proc", owner).exists():
            if found.is_relative_to(_CGROUPS):
                with contextlib.suppress(OSError):  # a container that outlived its engine
                    _remove_groups(found.name)
            else:
                shutil.rmtree(found, ignore_errors=True)


def _remove_groups(name: str) -> None:
    """Remove an engine's control groups; what ran in them may be gone a moment after it."""
    deadline = time.monotonic() + _END_SECONDS
    for top in (*_CGROUPS.glob(name), *_CGROUPS.glob(f"*/{name}")):
        below = sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True)
        for group in (*below, top):
            while True:
                try:
                    group.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
                else:
                    break


def place_on_disk() -> str:
    """Give a folder on a file system that images can be layered on; memory and overlays are no such."""
    kinds = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        kinds[place] = kind
    candidates = (tempfile.gettempdir(), "/var/tmp", str(download_cache()))
    for candidate in candidates:
        path = Path(candidate).resolve()
        kind = next(kinds[str(place)] for place in (path, *path.parents) if str(place) in kinds)
        if kind not in {"tmpfs", "overlay"}:
            return candidate
    return candidates[0]


def main() -> int:
    """Say what of containers this machine can test, and make the base image.

    Gives 0 where all of it can be, 1 where no engine can be run, 2 where one can and gVisor in it cannot.
    """
    try:
        world = World()
        try:
            engine = Engine(world)
            try:
                trouble = gvisor_trouble(engine.url)
            finally:
                engine.close()
        finally:
            world.close()
    except (NoEngineError, RuntimeError) as error:
        print(error)
        return 1
    print("a container engine works here")
    print(trouble or "gVisor works in it")
    return 2 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
