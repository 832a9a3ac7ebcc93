"""E1, A12: from the agent's account to root, by every way that a Linux offers; and what that root could do.

No backend gives an agent root. Should a user namespace give it one of its own making (user_namespaces(7)),
the network attacks are made as that root too.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from bot_bottle.verify import inside
from bot_bottle.verify.case import Case, Finding, broken, held

if TYPE_CHECKING:
    from bot_bottle.verify.stage import Stage

#: What a script calls an end by which it is root.
ROOT = "ROOT"
#: Root of a user namespace, by a program; what that is worth is tried by the script itself.
NAMESPACE = "NAMESPACE"

# A program's credentials stand in /proc from the moment that it was started, also when it has ended already
# and nobody waited for it yet (proc_pid_status(5)): nothing here depends on how long one runs.
BECOME = """
import platform, shutil, stat, subprocess

def status(pid="self"):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\\n").split(":\\t", 1) for line in file if ":\\t" in line)

own = status()
effective = lambda of: (of["Uid"].split()[1], of["Gid"].split()[1], of.get("CapEff", ""))
account = {"uid": os.getuid(), **{name: int(own.get(name, "0"), 16) for name in ("CapEff", "CapPrm")}}

changes = {
    "setuid": lambda: os.setuid(0), "setgid": lambda: os.setgid(0), "setgroups": lambda: os.setgroups([0]),
    "setresuid": lambda: os.setresuid(0, 0, 0), "setreuid": lambda: os.setreuid(0, 0),
    "setresgid": lambda: os.setresgid(0, 0, 0),
}
told = {}
for name, change in changes.items():
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            change()
            end = "ROOT"
        except OSError as error:
            end = errno.errorcode[error.errno]
        os.write(writing, end.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    told[name] = os.read(reading, 100).decode() or "ended"
    os.close(reading)

def gives_more(path):
    mode = os.lstat(path).st_mode
    if not stat.S_ISREG(mode):
        return False
    try:
        capable = bool(os.getxattr(path, "security.capability"))
    except OSError:
        capable = False
    return bool(mode & (stat.S_ISUID | stat.S_ISGID)) or capable

def look(folder, depth):
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        path = os.path.join(folder, name)
        try:
            if os.path.isdir(path) and not os.path.islink(path):
                if depth:
                    yield from look(path, depth - 1)
            elif gives_more(path):
                yield path
        except OSError:
            pass

folders = {os.path.realpath(one): depth for one, depth in (
    ("/bin", 0), ("/sbin", 0), ("/usr/bin", 0), ("/usr/sbin", 0), ("/usr/local/bin", 0),
    ("/usr/local/sbin", 0), ("/opt", 1), ("/usr/lib", 1), ("/usr/libexec", 1))}
programs = [path for folder, depth in folders.items() for path in look(folder, depth)]
for path in programs:
    try:
        started = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        told[path] = errno.errorcode[error.errno]
        continue
    got = effective(status(started.pid))
    started.kill()
    started.communicate()
    told[path] = "gives nothing" if got == effective(own) else "ROOT"

ways = {
    "su": ["su", "-c", "id -u", "root"], "sudo": ["sudo", "-n", "id", "-u"],
    "doas": ["doas", "-n", "id", "-u"],
    "pkexec": ["pkexec", "id", "-u"], "runuser": ["runuser", "-u", "root", "--", "id", "-u"],
    "setpriv": ["setpriv", "--reuid", "0", "id", "-u"], "unshare -r": ["unshare", "-r", "id", "-u"],
}
for name, argv in ways.items():
    if not shutil.which(argv[0]):
        told[name] = "no such program"
        continue
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
                              start_new_session=True)
        # What becomes root of a user namespace alone is that: what it can do there is tried below.
        got = "NAMESPACE" if name == "unshare -r" else "ROOT"
        told[name] = got if done.stdout.strip() == b"0" else "refused"
    except (OSError, subprocess.TimeoutExpired) as error:
        told[name] = type(error).__name__

def as_root(writing):
    "In a child: become the root of a user namespace, and of a network of its own where that is given, too."
    ends = {"unshare": syscall({"x86_64": 272, "aarch64": 97}[platform.machine()], 0x10000000)}
    if ends["unshare"] == "ok":
        try:
            open("/proc/self/setgroups", "w").write("deny")
        except OSError:
            pass  # gVisor has none to write, and a map of users needs none
        try:
            open("/proc/self/uid_map", "w").write(f"0 {account['uid']} 1")
            ends["unshare"] = "ROOT" if os.getuid() == 0 else "without a map"
        except OSError as error:
            ends["unshare"] = errno.errorcode[error.errno]
    if ends["unshare"] == "ROOT":
        for name, (family, kind, protocol, address, port) in packets.items():
            try:
                with socket.socket(getattr(socket, family), getattr(socket, kind), protocol) as sock:
                    sock.settimeout(2)
                    sock.connect((address, port))
                    sock.send(b"data of root")
                ends[name] = "sent"
            except OSError as error:
                ends[name] = errno.errorcode.get(error.errno, str(error))
        for name, act in {
            "a raw packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300).close(),
            "the host's name": lambda: socket.sethostname("taken"),
            "a kernel switch": lambda: open("/proc/sys/kernel/core_pattern", "w").write("|/tmp/x"),
            "a system file": lambda: open("/etc/passwd", "a").write("x"),
        }.items():
            try:
                act()
                ends[name] = "DONE"
            except OSError as error:
                ends[name] = errno.errorcode.get(error.errno, str(error))
    os.write(writing, json.dumps(ends).encode())

reading, writing = os.pipe()
child = os.fork()
if child == 0:
    try:
        as_root(writing)
    finally:
        os._exit(0)
os.close(writing)
with open(reading, "rb") as pipe:
    said = pipe.read()
os.waitpid(child, 0)
namespace = json.loads(said or '{"unshare": "ended"}')
tell(account=account, told=told, namespace=namespace, programs=len(programs))
"""

_numbers = itertools.count(2)


def packets() -> dict[str, tuple[str, str, int, str, int]]:
    """Give what a root would send, each to an address that nothing else is sent to."""
    number = next(_numbers)
    four, six = f"45.33.3.{number}", f"2606:4700:beef::{number:x}"
    return {
        "TCP": ("AF_INET", "SOCK_STREAM", 0, four, 443),
        "UDP": ("AF_INET", "SOCK_DGRAM", 0, four, 9999),
        "ICMP": ("AF_INET", "SOCK_RAW", 1, four, 0),
        "UDP by IPv6": ("AF_INET6", "SOCK_DGRAM", 0, six, 9999),
        "ICMP by IPv6": ("AF_INET6", "SOCK_RAW", 58, six, 0),
    }


def _become(stage: Stage) -> Finding:
    sent = packets()
    seen = inside.run(stage.bottle, BECOME, packets=sent)
    arrived = sorted({address for *_, address, _ in sent.values() if stage.outside.packets_to(address)})
    if wrong := _wrong(seen, arrived, whole=stage.outside.whole):
        return broken(wrong)
    namespace = seen["namespace"]
    end = f"a user namespace: {namespace['unshare']}"
    if namespace["unshare"] == ROOT:
        end = f"a user namespace's own root got nothing by {len(namespace) - 1} tries"
    return held(
        f"uid {seen['account']['uid']} without a capability; {len(seen['told'])} ways, among them "
        f"{seen['programs']} set-id programs, gave none; {end}"
    )


def _wrong(seen: dict[str, Any], arrived: list[str], *, whole: bool) -> str:
    account, namespace = seen["account"], seen["namespace"]
    if account["uid"] == 0 or account["CapEff"] or account["CapPrm"]:
        return f"the agent starts as more than an ordinary account: {account}"
    if got := [name for name, end in seen["told"].items() if end == ROOT]:
        return f"root, or more rights than before, by: {', '.join(got)}"
    if NAMESPACE in seen["told"].values() and namespace["unshare"] != ROOT:
        return (
            f"root of a user namespace by unshare -r, whose rights could not be tried: {namespace['unshare']}"
        )
    if arrived:
        return f"packets of a user namespace's root left: {', '.join(arrived)}"
    # A machine's card takes what leads nowhere behind it; where packets can be seen, none is proof.
    done = [name for name, end in namespace.items() if end == "DONE" or (end == "sent" and not whole)]
    return f"a user namespace's root got: {', '.join(done)}" if done else ""


CASES = (
    Case(
        id="E1 A12",
        title="becoming root: ids, su, sudo, set-id programs, a user namespace",
        expected="stays an ordinary account; a namespace's root gets nothing",
        run=_become,
    ),
)
