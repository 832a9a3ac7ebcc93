"""The root file system that machines of the tests start from.

It is the small Debian that containers use too, with the providers' programs that the cache holds, or without.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from tests.support.base_image import NoBaseError, base_archive
from tests.support.outside import download_cache
from tests.tools.kvmbox import make_disk

#: Left out of a machine's root, where each file that is looked at takes its time: what only installing needs,
#: and libraries of programs that no test runs.
_LITTER = ("var/lib/dpkg/info", "usr/share/zoneinfo", "usr/share/perl", "usr/share/bash-completion")

#: Names a folder that holds it already, as in an emulated machine.
VARIABLE = "BOT_BOTTLE_TEST_IMAGE"


class NoImageError(Exception):
    """There is no image, and none can be made here; the text says why."""


def machine_image(*, programs: bool = True) -> str:
    """Give the folder, unpacked once and kept in the cache; raises ``NoImageError``."""
    given = os.environ.get(VARIABLE)
    if given:
        return given
    wanted = _programs() if programs else []
    folder = _place(wanted)
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o755)
        subprocess.run(["tar", "--numeric-owner", "-C", str(unfinished), "-xf", str(_archive())], check=True)
        for litter in _LITTER:
            shutil.rmtree(unfinished / litter, ignore_errors=True)
        for program in wanted:
            target = unfinished / "usr" / "local" / "bin" / program.name
            shutil.copyfile(program, target)
            target.chmod(0o755)
        unfinished.rename(folder)
    return str(folder)


def machine_disk(*, programs: bool = True) -> Path:
    """Give the same as a disk for an emulated machine; raises ``NoImageError`` or ``NoBoxError``."""
    folder = Path(machine_image(programs=programs))
    disk = folder.with_suffix(".ext4")
    if not disk.exists():
        make_disk(folder, disk)
    return disk


def busybox_archive(place: Path) -> Path | None:
    """Write an image as ``docker save`` does, of busybox alone; None where this machine has no static one."""
    program = shutil.which("busybox")
    if program is None or not _is_static(program):
        return None
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for folder in ("bin", "etc", "dev", "proc", "sys", "run", "tmp", "root", "home"):
            _add(archive, folder, mode=0o755, type=tarfile.DIRTYPE)
        _add(archive, "bin/busybox", Path(program).read_bytes(), mode=0o755)
        _add(archive, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        _add(archive, "etc/group", b"root:x:0:\n")
        for applet in listed:
            if applet != "busybox":
                _add(archive, f"bin/{applet}", mode=0o777, type=tarfile.SYMTYPE, linkname="busybox")
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    config = json.dumps(
        {
            "architecture": machine,
            "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": ["busybox:test"], "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(place, mode="w") as archive:
        _add(archive, name, config)
        _add(archive, f"{digest}/layer.tar", layer.getvalue())
        _add(archive, "manifest.json", json.dumps(manifest).encode())
    return place


def _is_static(program: str) -> bool:
    """Ask ldd(1), which finds nothing to load for a program that is whole by itself."""
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False, env=env)
    return "not a dynamic executable" in done.stdout + done.stderr or "statically linked" in done.stdout


def _add(archive: tarfile.TarFile, name: str, content: bytes = b"", mode: int = 0o644, **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(content))


def _place(programs: list[Path]) -> Path:
    """Name the folder after all that goes into it."""
    parts = [f"{program} {program.stat().st_size}" for program in programs]
    key = hashlib.sha256("\n".join((_archive().name, *_LITTER, *parts)).encode()).hexdigest()[:12]
    return download_cache() / f"machine-{key}"


def _programs() -> list[Path]:
    """Give the programs of providers that are files of their own; a program's helpers stand beside it."""
    modules = {name: download_cache() / name / "node_modules" for name in ("claude", "codex")}
    native = modules["codex"].glob("@openai/codex-linux-*/vendor/*/bin/codex*")
    found = (modules["claude"] / ".bin" / "claude", *sorted(native))
    return [path for path in found if path.exists()]


def _archive() -> Path:
    if os.getuid() != 0:
        raise NoImageError(f"only root can make one; name a folder in {VARIABLE}")
    try:
        return base_archive()
    except NoBaseError as error:
        raise NoImageError(str(error)) from error
