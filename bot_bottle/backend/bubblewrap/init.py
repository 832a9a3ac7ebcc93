"""PID 1 of a bottle: starts processes when the launcher asks, reaps, and reports how they ended.

This one file is shown inside the bottle and run there by the host's Python with ``-I -S``; it imports the
standard library only and nothing of the product. No process of the host ever enters the bottle's
namespaces, so nothing inside can take one over through ``/proc`` (CVE-2019-5736 and its kin): the launcher
asks over an inherited socket, and what is asked for is born inside.

A request is one message on the channel: a fixed text, with descriptors [request, status] and, without a
terminal, [stdin, stdout, stderr]. ``request`` is a memory file with a JSON object: ``argv``, ``env``,
``cwd``, ``tty`` (null or [rows, columns]). All that concerns the process then goes over its own ``status``
socket: ``started`` (with the terminal's master descriptor), ``exit``, ``failed``; anything the launcher
sends there, or its end being closed, kills the process and its session. When the channel ends, so does
PID 1, and the kernel kills everything else in the bottle: that is how a bottle ends whose launcher was
killed, so nothing that the agent does may keep PID 1 from hearing it.
"""

import array
import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

SPAWN = b"spawn"
READY = b"ready"
MAX_FDS = 5
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_KILL_ROUNDS = 50
#: So many ended processes are looked after before the channel is looked at again.
_REAP_AT_ONCE = 256


def main(channel_fd: int) -> int:
    """Serve requests from ``channel_fd`` until it ends; gives the exit code of PID 1."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Not dumpable: no process of the same account can open /proc/1/fd, /proc/1/mem or trace PID 1. And
    # whoever kills bubblewrap's own process, this one's parent, kills the bottle.
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_PDEATHSIG, signal.SIGKILL)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            return 1
    _keep_only(channel_fd)
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    # The kernel shields PID 1 from signals sent inside its namespace, but only those without a handler.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    channel = socket.socket(fileno=channel_fd)
    channel.send(READY)
    children: dict[int, socket.socket] = {}
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    poller.register(wake_read, select.POLLIN)
    while True:
        for fd, _events in poller.poll():
            if fd == wake_read:
                os.read(wake_read, 4096)
                if not _reap(children, poller):
                    with contextlib.suppress(BlockingIOError):  # full, and so awake as well
                        os.write(wake_write, b"\0")
            elif fd == channel_fd:
                message, fds = _receive(channel)
                if message != SPAWN:
                    os._exit(0)  # at once: in a bottle full of processes every step more takes its time
                _serve(fds, children, poller)
            else:
                for pid, status in [item for item in children.items() if item[1].fileno() == fd]:
                    if not status.recv(64):
                        poller.unregister(fd)
                    _kill_session(pid)


def _keep_only(channel_fd: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, channel_fd)
    os.closerange(channel_fd + 1, 1 << 16)
    os.set_inheritable(channel_fd, False)  # noqa: FBT003


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    space = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
    message, ancillary, _flags, _address = channel.recvmsg(64, space, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return message, list(fds)


def _serve(fds: list[int], children: dict[int, socket.socket], poller: select.poll) -> None:
    request_fd, status_fd, *stdio = fds
    status = socket.socket(fileno=status_fd)
    try:
        with os.fdopen(request_fd, "rb") as file:
            file.seek(0)
            request = json.load(file)
        if request["tty"] is None:
            pid, master = _spawn(request, stdio), None
        else:
            pid, master = _spawn_on_terminal(request)
    except OSError as error:
        _tell(status, {"event": "failed", "errno": error.errno, "message": error.strerror})
        status.close()
        return
    finally:
        for fd in stdio:
            os.close(fd)
    _tell(status, {"event": "started", "pid": pid}, [] if master is None else [master])
    if master is not None:
        os.close(master)  # the launcher's is the only one: when it goes, the terminal hangs up
    children[pid] = status
    poller.register(status, select.POLLIN)


def _spawn_on_terminal(request: "dict[str, Any]") -> tuple[int, int]:
    master, slave = os.openpty()
    try:
        rows, columns = request["tty"]
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        return _spawn(request, [slave, slave, slave], terminal=True), master
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)


def _spawn(request: "dict[str, Any]", stdio: list[int], *, terminal: bool = False) -> int:
    """Start one process in a session of its own; raises ``OSError`` where the program cannot be run."""
    report_read, report_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            _become(request, stdio, terminal)
        except OSError as error:
            os.write(report_write, struct.pack("i", error.errno or 1))
        finally:
            os._exit(127)
    os.close(report_write)
    with os.fdopen(report_read, "rb") as report:
        failure = report.read(4)
    if failure:
        os.waitpid(pid, 0)
        number = struct.unpack("i", failure)[0]
        raise OSError(number, os.strerror(number))
    return pid


def _become(request: "dict[str, Any]", stdio: list[int], terminal: bool) -> None:  # noqa: FBT001
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if number not in {signal.SIGKILL, signal.SIGSTOP}:
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                continue  # the C library keeps a few real-time signals for itself
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()
    if terminal:
        fcntl.ioctl(stdio[0], termios.TIOCSCTTY, 0)
    # Received descriptors are numbered from 3 up, so none of the three can overwrite another.
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)
    os.umask(0o022)
    os.chdir(request["cwd"])
    os.execvpe(request["argv"][0], request["argv"], request["env"])  # noqa: S606


def _reap(children: dict[int, socket.socket], poller: select.poll) -> bool:
    """Take leave of processes that have ended; False where there may be more of them."""
    for _ in range(_REAP_AT_ONCE):
        try:
            pid, wait_status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == 0:
            return True
        status = children.pop(pid, None)
        if status is None:
            continue  # an orphan of some process; reaping it was all there was to do
        code = os.waitstatus_to_exitcode(wait_status)
        with contextlib.suppress(KeyError):
            poller.unregister(status)
        _tell(status, {"event": "exit", "code": 128 - code if code < 0 else code})
        # A request to kill that crossed this answer must not stay unread: the kernel would answer the
        # launcher with a reset in place of the exit code.
        status.shutdown(socket.SHUT_RD)
        status.setblocking(False)  # noqa: FBT003
        with contextlib.suppress(OSError):
            while status.recv(64):
                pass
        status.close()
    return False


def _kill_session(leader: int) -> None:
    """Kill every process of the session ``leader`` began, until a look finds none."""
    for _ in range(_KILL_ROUNDS):
        members = [pid for pid in _all_pids() if _session(pid) == leader]
        if not members:
            return
        for pid in members:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]


def _session(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == b"Z" else int(fields[3])


def _tell(status: socket.socket, event: "dict[str, object]", fds: list[int] | None = None) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        status.sendmsg([json.dumps(event).encode()], rights)
    except OSError:
        return  # the launcher has lost interest; the process goes on until the session is killed


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
