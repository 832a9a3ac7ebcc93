"""The system-call filter of a bottle as a BPF program, built with libseccomp.

What it refuses stands in :mod:`bot_bottle.backend.syscalls`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from functools import cache
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.backend import syscalls
from bot_bottle.errors import UnavailableError

if TYPE_CHECKING:
    from typing import Any

    from bot_bottle.backend.syscalls import Condition

_LIBRARY_PLACES = ("/lib*/libseccomp.so.2*", "/usr/lib*/libseccomp.so.2*", "/usr/lib/*/libseccomp.so.2*")
_FORMAT = 1


def filter_program(cache_dir: Path | None = None) -> bytes:
    """Give the filter as the bytes of a classic BPF program for this machine's architecture.

    Building takes tens of milliseconds, most of it finding and loading libseccomp, so the result is kept in
    ``cache_dir`` under a name made from this file's rules, the architecture and the installed libseccomp.

    Raises ``UnavailableError`` where libseccomp or its Python binding is missing.
    """
    if cache_dir is None:
        return _build()
    path = cache_dir / f"seccomp-{_cache_key()}.bpf"
    try:
        cached = path.read_bytes()
    except OSError:
        cached = b""
    if len(cached) > 32 and hashlib.sha256(cached[32:]).digest() == cached[:32]:
        return cached[32:]
    program = _build()
    _keep(path, hashlib.sha256(program).digest() + program)
    return program


@cache
def _cache_key() -> str:
    digest = hashlib.sha256(f"{_FORMAT} {os.uname().machine}".encode())
    # The modules' own bytes stand for the rules: whatever changes them changes the key.
    for module in (__file__, syscalls.__file__):
        digest.update(Path(module).read_bytes())
    for pattern in _LIBRARY_PLACES:
        for name in sorted(glob(pattern)):  # noqa: PTH207 - absolute patterns
            stat = Path(name).stat()
            digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def _keep(path: Path, data: bytes) -> None:
    """Write the cache file so that a reader sees all of it or none; not being able to is no error."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _build() -> bytes:
    try:
        import pyseccomp  # noqa: PLC0415 - loading libseccomp takes 30 ms; most launches have the result kept
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise UnavailableError(
            "libseccomp is missing, so no bottle can have its system-call filter; "
            "install it with: sudo apt-get install libseccomp2 (or your distribution's libseccomp)"
        ) from error
    program = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    # 32-bit and x32 calls have other numbers and argument widths than the rules below: none is let through.
    program.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.ERRNO(errno.EPERM))
    for rule in syscalls.RULES:
        arguments = [_argument(pyseccomp, condition) for condition in rule.conditions]
        for name in rule.names:
            _add(pyseccomp, program, pyseccomp.ERRNO(rule.errno), name, *arguments)
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        program.export_bpf(file)
        os.lseek(fd, 0, os.SEEK_SET)
        return file.read()


def _argument(lib: Any, condition: Condition) -> Any:
    if condition.test == "masked":
        return lib.Arg(condition.index, lib.MASKED_EQ, condition.mask, condition.value)
    test = {"eq": lib.EQ, "ne": lib.NE, "ge": lib.GE}[condition.test]
    return lib.Arg(condition.index, test, condition.value)


def _add(lib: Any, program: Any, action: int, name: str, *args: Any) -> None:
    try:
        number = lib.resolve_syscall(lib.Arch.NATIVE, name)
    except (OSError, ValueError):
        number = -1
    if number < 0:
        # A pseudo number means: this libseccomp or this architecture has no such call.
        if name not in syscalls.NUMBERS:
            return
        number = syscalls.NUMBERS[name]
    program.add_rule(action, number, *args)
