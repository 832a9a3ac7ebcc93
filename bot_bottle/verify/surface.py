"""A9-A12: the sidecar's own surface, what the host left open, and changing the network from inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bot_bottle.verify import inside
from bot_bottle.verify.case import Case, Finding, broken, held, not_run, requests, through

if TYPE_CHECKING:
    from bot_bottle.verify.stage import Stage

_PORTS = [53, 80, 443, 9099, 9100, 9420]

_ITSELF = """
for host in ("mitm.it", "localhost", "127.0.0.1", "127.0.0.1:9099", "[::1]", "_egress.local.evil.test"):
    told[host] = reason(attempt(plain, host, f"/{mark}"))
for method in ("POST", "PUT", "PATCH", "DELETE"):
    for path in ("/allowlist", "/routes", "/reload", "/shutdown", "/config", "/"):
        answer = ask(proxy(), f"{method} http://_egress.local{path} HTTP/1.1\\r\\nHost: _egress.local\\r\\n"
                     "Content-Length: 0\\r\\n\\r\\n")
        told[f"{method} {path}"] = "refused" if answer.split(" ")[1][0] == "4" else answer.split("\\r\\n")[0]
told[f"control host {mark}"] = reason(attempt(request, "evil.test", f"/{mark}"))
"""

_SCAN = """
found = []
for port in range(1, 65536):
    with socket.socket() as sock:
        # A free port in the ephemeral range can connect to itself (RFC 9293, simultaneous open).
        if sock.connect_ex(("127.0.0.1", port)) == 0 and sock.getsockname() != sock.getpeername():
            found.append(port)
tell(found=found)
"""


def _ports(stage: Stage) -> Finding:
    if stage.backend.sidecar_address != "127.0.0.1":
        return not_run("the sidecar does not listen inside this backend's bottles")
    found = inside.run(stage.bottle, _SCAN)["found"]
    return held(f"open: {found}") if found == _PORTS else broken(f"open: {found}; expected: {_PORTS}")


_SOCKETS = """
import glob, stat
found = []
for folder in ("/tmp", "/run", "/var/run", "/home", "/dev", "/etc"):
    for place, folders, files in os.walk(folder):
        for name in files:
            path = os.path.join(place, name)
            try:
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    found.append(path)
            except OSError:
                pass
powers = ("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "DOCKER_HOST", "GPG_AGENT_INFO")
names = [name for name in powers if name in os.environ]
lines = [line.split() for line in open("/proc/net/unix").read().splitlines()[1:]]
abstract = [words[7] for words in lines if len(words) > 7]
descriptors = {}
for name in os.listdir("/proc/self/fd"):
    try:
        descriptors[name] = os.readlink("/proc/self/fd/" + name)
    except OSError:
        pass
usual = ("pipe:", "socket:", "/dev/null", "/dev/pts", "/proc/")
if user_space_kernel:  # which calls its standard streams so, that the engine gave it
    streams = [descriptors.get(name, "") for name in ("0", "1", "2")]
    usual += tuple(where for where in streams if where.startswith("host:["))
odd = [where for where in descriptors.values() if not where.startswith(usual)]
tell(found=found, names=names, abstract=abstract, odd=odd)
"""


def _sockets(stage: Stage) -> Finding:
    told = inside.run(stage.bottle, _SOCKETS, user_space_kernel=stage.bottle.user_space_kernel)
    wrong = {name: what for name, what in told.items() if what}
    return (
        broken(f"there is: {wrong}")
        if wrong
        else held("no socket, no descriptor and no variable of the host's")
    )


_FAMILIES = {
    "AF_VSOCK": (40, 1), "AF_PACKET": (17, 3), "AF_ALG": (38, 5), "AF_KEY": (15, 3),
    "AF_BLUETOOTH": (31, 3), "AF_RDS": (21, 5), "AF_CAN": (29, 3), "AF_XDP": (44, 3),
}  # fmt: skip

_OPEN_FAMILIES = """
for name, (family, kind) in families.items():
    try:
        socket.socket(family, kind, 0)
        told[name] = "OPEN"
    except OSError as error:
        told[name] = errno.errorcode[error.errno]
"""

_NETLINK = """
def change(kind, payload):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.bind((0, 0))
        sock.send(struct.pack("=IHHII", 16 + len(payload), kind, 5, 1, 0) + payload)
        number = -struct.unpack_from("=i", sock.recv(4096), 16)[0]
        return errno.errorcode[number] if number else "DONE"
lo = socket.if_nametoindex("lo")
address = struct.pack("=BBBBI", 2, 24, 0, 0, lo) + struct.pack("=HH4s", 8, 2, bytes([10, 9, 8, 7]))
link = struct.pack("=BxHiII", 0, 0, lo, 0, 1)
route = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0) + struct.pack("=HHi", 8, 4, lo)
for name, kind, payload in (("address", 20, address), ("link", 16, link), ("route", 24, route)):
    told[name] = attempt(change, kind, payload)
"""

_CAPABILITIES = """
fields = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
    told[name] = "NOT TOLD" if name not in fields else "none" if int(fields[name], 16) == 0 else "HELD"
for name, value, good, bad in (("NoNewPrivs", "1", "set", "NOT SET"), ("Seccomp", "2", "filter", "NONE")):
    told[name] = "NOT TOLD" if name not in fields else good if fields[name].strip() == value else bad
told["uid 0"] = "no" if "0" not in fields["Uid"].split() else "YES"
"""


def _powers(stage: Stage, told: dict[str, Any]) -> str:
    """A kernel in user space has no filter of ours and tells less of proc(5): what it tells counts."""
    if stage.bottle.user_space_kernel:
        told = {name: end for name, end in told.items() if name != "Seccomp" and end != "NOT TOLD"}
    return through(stage, told)


def _root(stage: Stage) -> Finding:
    from bot_bottle.errors import UsageError  # noqa: PLC0415 - here alone

    try:
        stage.bottle.exec("id -u", user="root", timeout=inside.PATIENCE)
    except UsageError:
        return held("this backend's bottles have no root to be: a command as root is refused")
    return broken("a command ran as root inside")


CASES = (
    Case(id="A9", title="ports open inside", expected="the sidecar's own alone", run=_ports),
    Case(
        id="A9",
        title="the proxy turned on itself; changing its settings",
        expected="refused",
        run=requests(_ITSELF, reasons=("host_not_allowed", "bad_authority", "refused")),
    ),
    Case(id="A10 C9", title="sockets, descriptors and variables of the host", expected="none", run=_sockets),
    Case(
        id="A11",
        title="vsock and other socket families",
        expected="refused by the filter",
        run=requests(_OPEN_FAMILIES, wrong=through, families=_FAMILIES),
    ),
    Case(
        id="A12",
        title="reconfiguring the network",
        expected="refused",
        run=requests(_NETLINK, wrong=through),
    ),
    Case(
        id="A12",
        title="capabilities, new privileges, filter, uid",
        expected="none, forbidden, on, not 0",
        run=requests(_CAPABILITIES, wrong=_powers),
    ),
    Case(id="A12", title="being root inside", expected="no such thing", run=_root),
)
