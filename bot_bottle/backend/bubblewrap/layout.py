"""What a bottle's file tree is made of, as a list of operations that can be read before anything is done.

The system comes read-only from the host; ``/etc`` is built from a list of what programs need and nothing
else of it is shown; home and workspace are the bottle's own. Nothing here starts a process.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from bot_bottle.agent_account import AGENT_HOME, AGENT_UID, AGENT_USER, AGENT_WORKSPACE
from bot_bottle.backend.limits import run_bytes, shared_memory_bytes, tmp_bytes
from bot_bottle.backend.util import AGENT_CA_BUNDLE, AGENT_CA_DIR

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """Show the host's ``source`` at ``dest``; without set-id bits, without devices."""

    source: str
    dest: str
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tmpfs:
    """An empty memory file system of at most ``size`` bytes."""

    dest: str
    size: int
    mode: int = 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of known content."""

    dest: str
    content: bytes
    mode: int = 0o444


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A symbolic link."""

    target: str
    dest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Arguments that bubblewrap has a word of its own for (``--proc /proc``)."""

    args: tuple[str, ...]


Op: TypeAlias = Bind | Tmpfs | File | Link | Raw

HOSTNAME = "bottle"
BIN_DIR = "/opt/bot-bottle/bin"
INIT_PATH = "/opt/bot-bottle/init.py"

_MIB = 1 << 20
_SYSTEM_DIRS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
#: Shown from the host with everything below them.
SYSTEM_ROOTS = ("/usr", *_SYSTEM_DIRS, "/nix/store")
# Places below /usr where machines keep settings of their own, passwords of services among them.
_HIDDEN = ("/usr/local/etc", "/usr/local/var", "/usr/etc", "/usr/home", "/usr/src")

# Small files of /etc that programs need; each is copied if everybody may read it. Left out on purpose is all
# that can hold a credential or a start-up script: profile*, environment, gitconfig, npmrc, pip.conf, wgetrc,
# ssh, machine-id, hosts, resolv.conf, passwd and their like.
_ETC_FILES = (
    "ca-certificates.conf", "debian_version", "ethertypes", "fedora-release", "gai.conf", "host.conf",
    "inputrc", "ld.so.cache", "ld.so.conf", "ld-musl-x86_64.path", "ld-musl-aarch64.path", "locale.alias",
    "localtime", "lsb-release", "magic", "magic.mime", "manpath.config", "mime.types", "networks",
    "os-release", "protocols", "redhat-release", "rpc", "services", "shells", "ssl/openssl.cnf",
    "pki/tls/openssl.cnf", "timezone",
)  # fmt: skip
_ETC_DIRS = ("alternatives", "crypto-policies", "fonts", "ld.so.conf.d", "OpenCL", "perl", "terminfo", "xml")
_ETC_DIR_PATTERNS = ("java-*", "python3*")
_MAX_ETC_FILE = 1 << 20

# Where other systems than Debian look for roots: all lead to the bottle's own bundle.
_BUNDLE_LINKS = (
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
)

_NSSWITCH = (
    "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n"
)
_HOSTS = f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost ip6-localhost ip6-loopback\n"
_RESOLV = "nameserver 127.0.0.1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class BottleFiles:
    """The host folders of one bottle, and its bound on memory in bytes."""

    home: Path
    workspace: Path
    trust: Path
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramFiles:
    """What the provider's program needs besides the system, all read-only, at the places it has on the host.

    ``links`` are (path, target) symbolic links that must exist as they do on the host; ``names`` are
    (name, path) commands to put on the agent's ``PATH``; ``env`` are variables the program cannot do without.
    """

    binds: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    env: tuple[tuple[str, str], ...] = ()


def bottle_ops(files: BottleFiles, program: ProgramFiles, init_source: bytes) -> tuple[Op, ...]:
    """Give the whole file tree of a bottle on this machine, parents before what lies in them."""
    return (
        *system_ops(),
        Tmpfs(dest="/tmp", size=tmp_bytes(files.memory), mode=0o1777),
        Tmpfs(dest="/dev/shm", size=shared_memory_bytes(files.memory), mode=0o1777),
        Tmpfs(dest="/run", size=run_bytes(files.memory)),
        Link(target="/tmp", dest="/var/tmp"),
        Link(target="/run", dest="/var/run"),
        *(Raw(args=("--dir", f"/var/{name}")) for name in ("cache", "lib", "log")),
        *etc_ops(),
        Bind(source=str(files.trust), dest=AGENT_CA_DIR),
        *(Link(target=AGENT_CA_BUNDLE, dest=path) for path in _BUNDLE_LINKS),
        Bind(source=str(files.home), dest=AGENT_HOME, writable=True),
        Bind(source=str(files.workspace), dest=AGENT_WORKSPACE, writable=True),
        *python_ops(),
        # After PID 1's interpreter: a program that runs on the same one may need what was installed into it.
        *program_ops(program),
        File(dest=INIT_PATH, content=init_source),
        Raw(args=("--remount-ro", "/dev", "--remount-ro", "/")),
    )


def system_ops() -> tuple[Op, ...]:
    """Give the read-only system, ``/proc`` and ``/dev``."""
    ops: list[Op] = [Bind(source="/usr", dest="/usr")]
    for path in _SYSTEM_DIRS:
        if os.path.islink(path):
            ops.append(Link(target=os.readlink(path), dest=path))
        elif os.path.isdir(path):
            ops.append(Bind(source=path, dest=path))
    if os.path.isdir("/nix/store"):
        ops.append(Bind(source="/nix/store", dest="/nix/store"))
    for path in _hidden_places():
        ops += _covered(path)
    ops.append(Raw(args=("--proc", "/proc", "--dev", "/dev")))
    return tuple(ops)


def etc_ops() -> tuple[Op, ...]:
    """Give ``/etc``: what the list above names, and the bottle's own files."""
    ops: list[Op] = []
    for name in _ETC_FILES:
        ops += _etc_file(f"/etc/{name}")
    for name in (
        *_ETC_DIRS,
        *(path[5:] for pattern in _ETC_DIR_PATTERNS for path in glob(f"/etc/{pattern}")),
    ):
        path = f"/etc/{name}"
        if os.path.isdir(path) and not os.path.islink(path) and _open_to_all(path):
            ops.append(Bind(source=path, dest=path))
    shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
    own = {
        "passwd": "root:x:0:0:root:/:/usr/sbin/nologin\n"
        f"{AGENT_USER}:x:{AGENT_UID}:{AGENT_UID}::{AGENT_HOME}:{shell}\n"
        "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
        "group": f"root:x:0:\ntty:x:5:\n{AGENT_USER}:x:{AGENT_UID}:\nnogroup:x:65534:\n",
        "nsswitch.conf": _NSSWITCH,
        "hosts": _HOSTS,
        "resolv.conf": _RESOLV,
        "hostname": f"{HOSTNAME}\n",
    }
    ops += [File(dest=f"/etc/{name}", content=text.encode()) for name, text in own.items()]
    ops.append(Link(target="/proc/self/mounts", dest="/etc/mtab"))
    return tuple(ops)


def program_ops(program: ProgramFiles) -> tuple[Op, ...]:
    """Give the provider's program: its files, the links on the way to them, its names on the ``PATH``."""
    binds = [Bind(source=source, dest=dest) for source, dest in _outermost(program.binds)]
    covered = tuple(bind.dest for bind in binds)
    links = [Link(target=target, dest=path) for path, target in program.links if not is_below(path, covered)]
    names = [Link(target=path, dest=f"{BIN_DIR}/{name}") for name, path in program.names]
    return (*binds, *links, *names)


def python_ops() -> tuple[Op, ...]:
    """Give the interpreter of PID 1, without what was installed into it; nothing if the system has it."""
    interpreter = python_path()
    if is_below(interpreter, SYSTEM_ROOTS):
        return ()
    prefix = Path(sys.base_prefix)
    library = Path(os.__file__).parent
    sources = [interpreter, str(library), *map(str, sorted(prefix.glob("lib/libpython3*.so*")))]
    ops: list[Op] = [Bind(source=path, dest=path) for path in sources]
    for path in (library / "site-packages", library / "dist-packages"):
        if path.is_dir():
            ops += _covered(str(path))
    return tuple(ops)


def python_path() -> str:
    """Give the real path of the interpreter this process runs on, outside any virtual environment."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (Path(sys.base_prefix) / "bin" / version, Path(sys.executable)):
        if candidate.exists():
            return os.path.realpath(candidate)
    return os.path.realpath(sys.executable)


def is_below(path: str, roots: Iterable[str]) -> bool:
    """Tell whether ``path`` is one of ``roots`` or lies under one; both are absolute and normalised."""
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def _covered(path: str) -> list[Op]:
    """Give an empty, read-only folder in place of ``path``."""
    return [Tmpfs(dest=path, size=_MIB), Raw(args=("--remount-ro", path))]


def _outermost(binds: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Drop what lies in a folder that is shown anyway, at the same place."""
    kept: list[tuple[str, str]] = []
    for source, dest in sorted(set(binds), key=lambda pair: (len(pair[1]), pair)):
        inside = any(
            is_below(dest, (folder,))
            and source[len(origin) :] == dest[len(folder) :]
            and is_below(source, (origin,))
            for origin, folder in kept
        )
        if not inside:
            kept.append((source, dest))
    return kept


def _hidden_places() -> list[str]:
    """List what to cover below ``/usr``: settings of services, and a home or state folder that lies there."""
    homes = [
        path
        for path in (str(Path.home()), os.environ.get("BOT_BOTTLE_HOME", ""))
        if is_below(path, ("/usr",))
    ]
    candidates = [path for path in (*_HIDDEN, *homes) if path != "/usr" and os.path.isdir(path)]
    return [path for path in candidates if os.path.realpath(path) == path]


def _etc_file(path: str) -> list[Op]:
    if os.path.islink(path):
        target = os.path.realpath(path)
        if is_below(target, SYSTEM_ROOTS):
            return [Link(target=target, dest=path)]
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return []
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or not info.st_mode & stat.S_IROTH or info.st_size > _MAX_ETC_FILE:
            return []
        return [File(dest=path, content=file.read())]


def _open_to_all(path: str) -> bool:
    return stat.S_IMODE(os.stat(path).st_mode) & 0o005 == 0o005
