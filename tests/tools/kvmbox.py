"""Run a command in an emulated machine in which ``/dev/kvm`` works, whatever this machine's own can do.

``python -m tests.tools.kvmbox [OPTIONS] -- COMMAND...`` starts QEMU without acceleration: a processor with
emulated AMD SVM, Debian's own kernel, and this machine's ``/`` as a read-only lower layer below memory. So
the command finds the same files at the same paths, changes none of them, and has no network. Its exit code is
this program's; 125 says that it never came to an end.

Its clocks go slower than the world's (:data:`SLOWER`): what waits half a minute in there, as the engine does
for a sign of life, is then not told by them how slow its processor is, or what else this one has to do.

Neither root nor ``/dev/kvm`` is needed. Code runs some 20 times slower than outside: say so beside every time
that is measured in here. One processor on purpose: with two, QEMU 7.2's nested SVM hangs. What asks for two
(``--processors 2``: benchmarks, in which two things go on at once) takes a QEMU of :data:`_FOR_TWO` or later.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import lzma
import os
import re
import select
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: The exit code where the command did not end by itself.
NO_VERDICT = 125
#: Set in the environment of the command.
MARK = "BOT_BOTTLE_KVMBOX"

#: Booted machines in a box of two processors without a hang; 7.2 does not get through ten.
_FOR_TWO = 10

#: It is one thread, and what runs in it has clocks: beside other work it goes first where that is permitted.
_PRIORITY = -10

#: How many of our seconds one of the box's takes. The kernel counts a processor's ticks (TSC), which are
#: those of ours, and is told that there are so many times more of them in a second.
SLOWER = 3

_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_blk", "ext4")
#: Every write goes to memory; this folder of the box, which ``--out`` names outside, is the one way back.
OUT = "/mnt/kvmbox"
#: Temporary files of its own: those outside come and go under its feet.
_TEMPORARY = "/mnt/tmp"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_INIT = """#!/bin/busybox sh
B=/bin/busybox
fail() { echo "kvmbox: $1"; $B poweroff -f; }
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for module in $($B cat /modules/order); do $B insmod /modules/$module || echo "kvmbox: no $module"; done
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro root /lower || fail "no root"
$B mount -t tmpfs -o size=75%,mode=755 tmpfs /upper; $B mkdir /upper/new /upper/work
$B mount -t overlay -o lowerdir=/lower,upperdir=/upper/new,workdir=/upper/work over /root || fail "no overlay"
$B cp /start /root/.kvmbox-start; $B umount /proc; $B umount /sys; $B umount /dev
exec $B switch_root /root /bin/sh /.kvmbox-start
"""

_START = """export PATH={path} HOME=/root LANG=C.UTF-8 TERM=dumb TMPDIR={temporary} {mark}=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm {out} {temporary} {points}
mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /dev/shm; mount -t tmpfs tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs {temporary}
mount -t cgroup2 none /sys/fs/cgroup; ln -sfn /proc/self/fd /dev/fd
ip link set lo up; hostname kvmbox
{disks}
modprobe kvm_amd nested=0
# Root's machine monitor becomes an account of its own before it opens the device.
chmod 666 /dev/kvm
# As elsewhere; the kernel's own bound on open files is low.
ulimit -Hn 524288
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 out {out}
dmesg -n 1; cd {cwd} || cd /
{command} </dev/null
echo $? >{out}/exit-code
sync; echo o >/proc/sysrq-trigger; while :; do :; done
"""


class NoBoxError(Exception):
    """This machine cannot emulate another; the text says what is missing and how to get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """An ext4 image, shown read-only at ``point`` in the box. Small files are slow through 9p, not here."""

    image: Path
    point: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a box is made of."""

    qemu: str
    kernel: Path
    modules: Path
    busybox: Path


def find_parts() -> Parts:
    """Find the newest kernel with its modules, QEMU and a static busybox; raises :class:`NoBoxError`."""
    place = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    qemu = shutil.which("qemu-system-x86_64", path=place)
    busybox = shutil.which("busybox", path=place)
    kernels = [
        (kernel, modules)
        for kernel in Path("/boot").glob("vmlinuz-*")
        if (modules := Path("/lib/modules", kernel.name.removeprefix("vmlinuz-"))).is_dir()
        and os.access(kernel, os.R_OK)
    ]
    if os.uname().machine != "x86_64" or not (qemu and busybox and kernels):
        raise NoBoxError(
            "no emulated machine can be made here; on x86-64 Debian install its parts with: "
            "apt install --no-install-recommends qemu-system-x86 linux-image-amd64 busybox-static"
        )
    kernel, modules = max(kernels, key=lambda pair: pair[0].stat().st_mtime)
    return Parts(qemu=qemu, kernel=kernel, modules=modules, busybox=Path(busybox))


def run(
    argv: Sequence[str],
    *,
    out: Path,
    seconds: float = 900.0,
    silence: float = 0.0,
    memory: str = "8G",
    disks: Sequence[Disk] = (),
    env: Sequence[str] = (),
    processors: int = 1,
) -> int:
    """Run ``argv`` in a box in the current folder and give its exit code, :data:`NO_VERDICT` for none.

    ``out`` is an existing folder that the command finds at ``$KVMBOX_OUT`` (:data:`OUT`) and may write to;
    ``env`` names the variables of this process that it gets. What it prints, this process prints. The box is
    ended after ``seconds``, and where it printed nothing for ``silence`` seconds, if that is more than 0.

    Raises :class:`NoBoxError`.
    """
    parts = find_parts()
    verdict = out / "exit-code"
    verdict.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="kvmbox-") as scratch:
        initrd = Path(scratch, "initrd.gz")
        initrd.write_bytes(gzip.compress(_initrd(parts, _start(argv, disks, env)), 1))
        command = _qemu(parts, initrd, out, memory, disks, processors)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        _put_first(process.pid)
        try:
            if why := _follow(process, seconds, silence):
                print(f"kvmbox: ended: {why}", file=sys.stderr)
        finally:
            process.kill()
            process.communicate()
    try:
        return int(verdict.read_text())
    except (FileNotFoundError, ValueError):
        return NO_VERDICT


def _put_first(pid: int) -> None:
    """Let a session's leader go before other work; only root may.

    Where sessions are scheduled as groups, the numbers of processes count among those of one session alone
    (sched(7), "The autogroup feature").
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, _PRIORITY)
        Path(f"/proc/{pid}/autogroup").write_text(str(_PRIORITY), "ascii")


def _follow(process: subprocess.Popen[bytes], seconds: float, silence: float) -> str:
    """Print what a box says until it ends; says why it has to be ended, nothing where it did so itself."""
    if process.stdout is None:
        raise ValueError("the box's console leads nowhere")
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        patience = min(left, silence) if silence else left
        if select.select([process.stdout], [], [], patience)[0]:
            said = os.read(process.stdout.fileno(), 1 << 16)
            if not said:
                process.wait()
                return ""
            sys.stdout.buffer.write(said)
            sys.stdout.buffer.flush()
        elif patience < left:
            return f"it said nothing for {silence:.0f} s"
    return f"its {seconds:.0f} s are over"


def make_disk(root: Path, image: Path) -> None:
    """Make an ext4 image of the folder ``root``; raises :class:`NoBoxError`."""
    program = shutil.which("mke2fs", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if program is None:
        raise NoBoxError("mke2fs is not installed; install it with: apt install e2fsprogs")
    sizes = [path.lstat().st_size for path in root.rglob("*")]
    mebibytes = (sum(sizes) + 4096 * len(sizes)) * 5 // 4 // (1 << 20) + 32
    unfinished = image.with_name(f".{image.name}.partial")
    unfinished.unlink(missing_ok=True)
    made = subprocess.run(
        [
            program,
            "-q",
            "-t",
            "ext4",
            "-O",
            "^has_journal",
            "-d",
            str(root),
            str(unfinished),
            f"{mebibytes}M",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise NoBoxError(f"mke2fs failed: {made.stderr.strip()}")
    unfinished.replace(image)


def _start(argv: Sequence[str], disks: Sequence[Disk], env: Sequence[str]) -> str:
    passed = [f"{name}={os.environ[name]}" for name in env if name in os.environ]
    mounts = [
        f"mount -t ext4 -o ro,noload /dev/vd{'abcdefgh'[number]} {shlex.quote(disk.point)}"
        for number, disk in enumerate(disks)
    ]
    return _START.format(
        path=_SYSTEM_PATH,
        mark=MARK,
        out=OUT,
        temporary=_TEMPORARY,
        points=" ".join(shlex.quote(disk.point) for disk in disks),
        disks="\n".join(mounts),
        cwd=shlex.quote(str(Path.cwd())),
        command=shlex.join(["env", f"KVMBOX_OUT={OUT}", *passed, *argv]),
    )


def can_have_two(parts: Parts) -> bool:
    """Tell whether a box may have two processors, and this machine has as many for it."""
    said = subprocess.run([parts.qemu, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version ([0-9]+)", said)
    return found is not None and int(found[1]) >= _FOR_TWO and len(os.sched_getaffinity(0)) > 1


def _qemu(
    parts: Parts, initrd: Path, out: Path, memory: str, disks: Sequence[Disk], processors: int
) -> list[str]:
    # Without erms and fsrm nothing is copied by single-byte string operations, each a step in emulation.
    # nokaslr, mitigations=off and the clock options spare a slow processor what nobody attacks here.
    arguments = "console=ttyS0 quiet mitigations=off nokaslr audit=0 tsc=reliable no_timer_check panic=5"
    arguments += _clock(Path("/proc/cpuinfo").read_text("ascii", "replace"))
    command = [
        parts.qemu,
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-vga", "none"),
        *(
            "-machine",
            "q35,smm=off",
            "-accel",
            "tcg,tb-size=1024",
            "-cpu",
            "max,la57=off,-erms,-fsrm",
            "-smp",
            str(processors),
        ),
        *("-m", memory, "-serial", "stdio", "-monitor", "none", "-device", "virtio-rng-pci"),
        *("-kernel", str(parts.kernel), "-initrd", str(initrd), "-append", arguments),
        *("-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"),
        *("-virtfs", f"local,path={out},mount_tag=out,security_model=none"),
    ]
    for disk in disks:
        command += ["-drive", f"if=virtio,format=raw,readonly=on,file={disk.image}"]
    return command


def _clock(cpuinfo: str) -> str:
    """Give the kernel's argument that slows its clocks; none where this processor's speed is not known."""
    found = re.search(r"^cpu MHz\s*: *([0-9.]+)$", cpuinfo, re.MULTILINE)
    return f" tsc_early_khz={round(float(found[1]) * 1000) * SLOWER}" if found else ""


def _initrd(parts: Parts, start: str) -> bytes:
    order: list[str] = []
    entries: list[tuple[str, int, bytes]] = [
        (name, stat.S_IFDIR | 0o755, b"")
        for name in ("bin", "modules", "proc", "sys", "dev", "lower", "upper", "root")
    ]
    for path in _with_needs(parts.modules, _MODULES):
        name = path.name.partition(".ko")[0] + ".ko"
        order.append(name)
        entries.append((f"modules/{name}", stat.S_IFREG | 0o644, _unpacked(path)))
    entries += [
        ("bin/busybox", stat.S_IFREG | 0o755, parts.busybox.read_bytes()),
        ("modules/order", stat.S_IFREG | 0o644, "\n".join(order).encode()),
        ("start", stat.S_IFREG | 0o644, start.encode()),
        ("init", stat.S_IFREG | 0o755, _INIT.encode()),
    ]
    return _cpio(entries)


def _with_needs(modules: Path, names: Iterable[str]) -> list[Path]:
    """List modules, each behind those it needs; what is built into the kernel is left out."""
    needs: dict[str, list[str]] = {}
    places: dict[str, str] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        place, _, rest = line.partition(":")
        places[_module(place)] = place
        # The file lists a module's needs so that the last one comes first.
        needs[_module(place)] = [_module(one) for one in reversed(rest.split())]
    found: dict[str, None] = {}
    for name in names:
        if name in needs:
            found.update(dict.fromkeys((*needs[name], name)))
    return [modules / places[name] for name in found]


def _module(place: str) -> str:
    return place.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-qdc"], input=data, capture_output=True, check=True).stdout
    return data


def _cpio(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """Pack an initial root in the kernel's format (Documentation/driver-api/early-userspace, "newc")."""
    packed = bytearray()
    for number, (name, mode, data) in enumerate((*entries, ("TRAILER!!!", 0, b"")), 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        packed += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        packed += bytes(-len(packed) % 4) + data
        packed += bytes(-len(packed) % 4)
    return bytes(packed)


def _disk(text: str) -> Disk:
    image, _, point = text.rpartition(":")
    return Disk(image=Path(image).absolute(), point=point)


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="kvmbox", description="Run COMMAND in an emulated machine with KVM."
    )
    parser.add_argument("--out", type=Path, help="a folder the command may write to, as $KVMBOX_OUT")
    parser.add_argument("--seconds", type=float, default=900.0, help="end it after so long")
    parser.add_argument("--memory", default="8G")
    parser.add_argument("--processors", type=int, default=1)
    parser.add_argument("--disk", type=_disk, action="append", default=[], metavar="IMAGE:PATH")
    parser.add_argument("--env", action="append", default=[], metavar="NAME", help="pass a variable on")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kvmbox-out-") as scratch:
        out = chosen.out or Path(scratch)
        out.mkdir(exist_ok=True)
        try:
            return run(
                chosen.command,
                out=out.absolute(),
                seconds=chosen.seconds,
                memory=chosen.memory,
                processors=chosen.processors,
                disks=chosen.disk,
                env=chosen.env,
            )
        except NoBoxError as error:
            print(f"kvmbox: {error}", file=sys.stderr)
            return 3


if __name__ == "__main__":
    sys.exit(main())
