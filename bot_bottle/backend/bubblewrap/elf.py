"""Read from an ELF program which shared libraries it brings along itself (RPATH, RUNPATH, ``$ORIGIN``)."""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass

MAGIC = b"\x7fELF"
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 1, 5, 15, 29
_MAX_LIBRARIES = 200
_MAX_ENTRIES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dynamic:
    needed: tuple[str, ...]
    folders: tuple[str, ...]


def libraries(path: str) -> tuple[str, ...]:
    """List the libraries that ``path`` (real) and those libraries find through their own search folders.

    Libraries that only the system's loader finds are not listed; a file that is no 64-bit little-endian ELF
    program, or is damaged, has none.
    """
    found: dict[str, None] = {}
    queue: list[tuple[str, tuple[str, ...]]] = [(path, ())]
    while queue and len(found) < _MAX_LIBRARIES:
        current, inherited = queue.pop()
        dynamic = _read(current)
        folders = (*dynamic.folders, *inherited)
        for name in dynamic.needed:
            library = next((f"{one}/{name}" for one in folders if os.path.isfile(f"{one}/{name}")), None)
            if library and library not in found:
                found[library] = None
                queue.append((os.path.realpath(library), folders))
    return tuple(found)


def _read(path: str) -> _Dynamic:
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(data, os.path.dirname(path))
    except (OSError, ValueError, struct.error, IndexError):
        return _Dynamic(needed=(), folders=())


def _parse(data: mmap.mmap, origin: str) -> _Dynamic:
    nothing = _Dynamic(needed=(), folders=())
    if data[:6] != MAGIC + b"\x02\x01":
        return nothing
    offset, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", data, offset + size * index) for index in range(count)]
    loads = [
        (address, start, length)
        for kind, _f, start, address, _p, length, _m, _a in headers
        if kind == _PT_LOAD
    ]
    entries: list[tuple[int, int]] = []
    for kind, _flags, start, _address, _physical, length, _memory, _align in headers:
        if kind == _PT_DYNAMIC:
            entries = [
                struct.unpack_from("<qQ", data, start + 16 * index)
                for index in range(min(length // 16, _MAX_ENTRIES))
            ]
    strings = next((_to_offset(value, loads) for tag, value in entries if tag == _DT_STRTAB), None)
    if strings is None:
        return nothing
    needed = [_text(data, strings + value) for tag, value in entries if tag == _DT_NEEDED]
    paths = [_text(data, strings + value) for tag, value in entries if tag in {_DT_RPATH, _DT_RUNPATH}]
    folders = [
        os.path.normpath(folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin))
        for path in paths
        for folder in path.split(":")
        if folder
    ]
    return _Dynamic(needed=tuple(needed), folders=tuple(one for one in folders if one.startswith("/")))


def _to_offset(address: int, loads: list[tuple[int, int, int]]) -> int | None:
    return next(
        (start + address - base for base, start, length in loads if base <= address < base + length), None
    )


def _text(data: mmap.mmap, offset: int) -> str:
    return os.fsdecode(data[offset : data.find(b"\0", offset)])
