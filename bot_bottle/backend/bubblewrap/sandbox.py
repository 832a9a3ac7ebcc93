"""Start bubblewrap: as the operator, or, when the operator is root, as an account that owns nothing.

Kernel account 0 would stay powerful in a bottle even without capabilities (it owns the system's files and
passes for the owner of ``/proc/sys``), so root's bottles run as an unprivileged account made up for each.
Such an account cannot reach what lies in root's folders; what the bottle is to see of them is mounted
beforehand in a private mount namespace that vanishes with the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bot_bottle.backend.bubblewrap import libc
from bot_bottle.backend.bubblewrap.bwrap import Bwrap, init_command, isolation_args, render
from bot_bottle.backend.bubblewrap.channel import BottleInit
from bot_bottle.backend.bubblewrap.fork import fork_quietly, reap
from bot_bottle.backend.bubblewrap.layout import SYSTEM_ROOTS, Bind, is_below
from bot_bottle.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bot_bottle.backend.bubblewrap.layout import Op

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_MAX_INFO = 1 << 16
_MAX_WORDS = 4000
# Mounted over in the private namespace; it exists everywhere, bubblewrap itself works there.
_STAGE = "/tmp"
#: Readable by every account: bubblewrap takes these where they are.
_OPEN_ROOTS = (*SYSTEM_ROOTS, "/etc")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRequest:
    """What to start: PID 1, or ``command`` alone where one is given.

    ``account`` is the kernel uid of a root operator's bottle, None for an ordinary user's. ``rlimits`` are
    (resource, value) pairs set before bubblewrap runs; ``cgroup_procs`` files that the new process enters
    itself into first, so that its cgroup namespace starts there; ``enter_cgroup`` puts it there from outside.
    """

    bwrap: Bwrap
    ops: tuple[Op, ...]
    seccomp: bytes
    python: str
    account: int | None
    rlimits: tuple[tuple[int, int], ...] = ()
    cgroup_procs: tuple[str, ...] = ()
    enter_cgroup: Callable[[int], None] | None = None
    command: tuple[str, ...] = ()


class Sandbox:
    """A bottle's processes, blocked before their first instruction until :meth:`release`."""

    def __init__(self, monitor: int, block: int, errors: int, channel: socket.socket) -> None:
        self.monitor = monitor
        self.pid = 0
        self.init = BottleInit(channel)
        self._block = block
        self._errors = errors
        self._pidfd = -1
        self._stopped = False
        self._reaped = False

    def adopt(self, info: bytes) -> None:
        """Take over the process that bubblewrap's info names."""
        try:
            self.pid = int(json.loads(info)["child-pid"])
        except (ValueError, KeyError, TypeError) as error:
            raise LaunchError(self.words() or "bubblewrap ended before it made a bottle") from error
        self._pidfd = os.pidfd_open(self.pid)

    def release(self) -> None:
        """Let the bottle run."""
        os.write(self._block, b"\n")
        os.close(self._block)
        self._block = -1

    def await_ready(self) -> None:
        """Wait for PID 1; raises ``LaunchError`` with bubblewrap's own words where it does not come."""
        try:
            if self.init.ready(_START_SECONDS):
                return
        except LaunchError as error:
            raise LaunchError(self.words() or str(error)) from error
        raise LaunchError(self.words() or "the bottle's first process did not start in time")

    def await_end(self) -> None:
        """Wait for a sandbox with a command of its own; raises ``LaunchError`` unless it ended well."""
        code = _reap_within(self.monitor, _START_SECONDS)
        self._reaped = True
        if code != 0:
            raise LaunchError(self.words() or f"bubblewrap ended with exit code {code}")

    def words(self) -> str:
        """Give what bubblewrap wrote to its standard error, once it has ended or said something."""
        poller = select.poll()
        poller.register(self._errors, select.POLLIN)
        text = b""
        while len(text) < _MAX_WORDS and poller.poll(200):
            part = os.read(self._errors, _MAX_WORDS)
            if not part:
                break
            text += part
        lines = text.decode("utf-8", "replace").strip().splitlines()
        return " / ".join("".join(char if char.isprintable() else "?" for char in line) for line in lines)

    def stop(self) -> None:
        """Kill everything in the bottle and wait until it is gone; safe to call again."""
        if self._stopped:
            return
        self._stopped = True
        if self._pidfd >= 0:
            # Killing PID 1 kills its namespace; the descriptor is readable only when all of it is gone.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            poller = select.poll()
            poller.register(self._pidfd, select.POLLIN)
            poller.poll(int(_STOP_SECONDS * 1000))
            os.close(self._pidfd)
        else:
            _kill_with_children(self.monitor)
        if self._block >= 0:
            os.close(self._block)
        self.init.close()
        if not self._reaped:
            _reap_within(self.monitor, _STOP_SECONDS)
        os.close(self._errors)


def start_sandbox(request: SandboxRequest) -> Sandbox:
    """Start bubblewrap and wait until the bottle's namespaces exist; the bottle itself is still blocked.

    Raises ``LaunchError`` with bubblewrap's own words; nothing is left running then.
    """
    info_read, info_write = os.pipe2(os.O_CLOEXEC)
    block_read, block_write = os.pipe2(os.O_CLOEXEC)
    errors_read, errors_write = os.pipe2(os.O_CLOEXEC)
    gate_read, gate_write = os.pipe2(os.O_CLOEXEC)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    memory: list[int] = []

    def content(data: bytes) -> int:
        fd = os.memfd_create("bottle", os.MFD_CLOEXEC)
        memory.append(fd)
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    staged = _staged_sources(request)
    args = (
        *isolation_args(),
        *render(request.ops, lambda path: staged.get(path, path), content),
        *("--seccomp", str(content(request.seccomp))),
        *("--info-fd", str(info_write), "--block-fd", str(block_read)),
    )
    command = ("--", *request.command) if request.command else init_command(request.python, theirs.fileno())
    argv = ["bwrap", "--args", str(content(b"".join(os.fsencode(arg) + b"\0" for arg in args))), *command]
    # The reading end too: bubblewrap must not die of words that nobody hears any more before it has told its
    # child to go on (see isolation_args).
    keep = [*memory, info_read, info_write, block_read, theirs.fileno()]
    libc.load()
    try:
        monitor = fork_quietly()
        if monitor == 0:
            os.close(gate_write)
            _become_bwrap(request, staged, argv, keep, errors_write, gate_read)
    finally:
        for fd in (info_write, block_read, errors_write, gate_read, *memory):
            os.close(fd)
        theirs.close()
    sandbox = Sandbox(monitor, block_write, errors_read, ours)
    try:
        try:
            if request.enter_cgroup is not None:
                request.enter_cgroup(monitor)
            os.write(gate_write, b"\n")
        finally:
            os.close(gate_write)
        sandbox.adopt(_read_info(info_read))
    except BaseException:
        sandbox.stop()
        raise
    finally:
        os.close(info_read)
    return sandbox


def _staged_sources(request: SandboxRequest) -> dict[str, str]:
    """Choose a place in the staging folder for every source that the bottle's account could not reach."""
    if request.account is None:
        return {}
    sources = dict.fromkeys(op.source for op in request.ops if isinstance(op, Bind))
    outside = [path for path in sources if not is_below(path, _OPEN_ROOTS)]
    return {path: f"{_STAGE}/{number}" for number, path in enumerate(outside)}


def _become_bwrap(
    request: SandboxRequest,
    staged: dict[str, str],
    argv: Sequence[str],
    keep: Iterable[int],
    errors: int,
    gate: int,
) -> NoReturn:
    """In the child: enter cgroups, set limits, give up root, and turn into bubblewrap."""
    try:
        # A group and session of its own: the terminal's signals are the launcher's to judge.
        os.setsid()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if not os.read(gate, 1):
            os._exit(126)  # the launcher gave up, or is gone
        for procs in request.cgroup_procs:
            with open(procs, "wb", buffering=0) as file:
                file.write(b"0")
        for kind, value in request.rlimits:
            _limit(kind, value)
        program = request.bwrap.path
        if request.account is not None:
            program = _stage(request.bwrap, staged)
            os.setgroups([])
            os.setresgid(request.account, request.account, request.account)
            os.setresuid(request.account, request.account, request.account)
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(errors, 2)
        _close_all_but({0, 1, 2, *keep})
        for fd in keep:
            os.set_inheritable(fd, True)  # noqa: FBT003
        os.execve(program, list(argv), {"PATH": "/usr/bin:/bin"})  # noqa: S606
    except BaseException as error:  # noqa: BLE001 - this process has no other way to report than these words
        os.write(errors, f"before bubblewrap: {error}\n".encode())
    finally:
        os._exit(126)


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _stage(bwrap: Bwrap, staged: dict[str, str]) -> str:
    """Mount the sources where the bottle's account can reach them; gives the path of bubblewrap there."""
    libc.unshare(libc.CLONE_NEWNS)
    # Nothing mounted here may be seen on the host.
    libc.mount("none", "/", flags=libc.MS_REC | libc.MS_SLAVE)
    # Opened before the staging folder covers anything, and mounted through the descriptors afterwards.
    sources = [(os.open(path, os.O_PATH | os.O_CLOEXEC), place) for path, place in staged.items()]
    program = {path: Path(path).read_bytes() for path in _program_files(bwrap)}
    libc.mount("tmpfs", _STAGE, "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, "mode=0755,size=16m")
    for fd, place in sources:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.mkdir(place)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
        libc.mount(f"/proc/self/fd/{fd}", place, flags=libc.MS_BIND)
        os.close(fd)
    if not program:
        return bwrap.path
    base = Path(bwrap.path).parent.parent.parent
    for path, data in program.items():
        copy = Path(_STAGE) / "program" / Path(path).relative_to(base)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(data)
        copy.chmod(0o755)
    for folder in (Path(_STAGE) / "program", *(Path(_STAGE) / "program").rglob("*")):
        folder.chmod(0o755)
    return str(Path(_STAGE) / "program" / Path(bwrap.path).relative_to(base))


def _program_files(bwrap: Bwrap) -> list[str]:
    """List the files of a bubblewrap that the bottle's account may not reach; none for the system's."""
    if bwrap.origin == "system" and is_below(bwrap.path, _OPEN_ROOTS):
        return []
    return [
        bwrap.path,
        *(str(path) for folder in bwrap.libs for path in Path(folder).iterdir() if path.is_file()),
    ]


def _close_all_but(keep: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _read_info(fd: int) -> bytes:
    """Read bubblewrap's info; it comes in pieces and is whole when it parses or the pipe ends."""
    deadline = time.monotonic() + _START_SECONDS
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    data = b""
    while len(data) < _MAX_INFO and poller.poll(max(0, int((deadline - time.monotonic()) * 1000))):
        part = os.read(fd, 4096)
        if not part:
            break
        data += part
        with contextlib.suppress(ValueError):
            json.loads(data)
            break
    return data


def _kill_with_children(pid: int) -> None:
    """Kill a child of ours that has told of nothing yet, and what it may have started."""
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGSTOP)  # from here on it starts nothing more
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _reap_within(pid: int, seconds: float) -> int:
    """Wait for a child, at last by killing it; gives its exit code, negative for a signal."""
    pidfd = -1
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
    if pidfd >= 0:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        if not poller.poll(int(seconds * 1000)):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
    return reap(pid)
