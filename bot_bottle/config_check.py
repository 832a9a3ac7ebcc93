"""Every mistake in the operator's config file at once, each with its line."""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import TYPE_CHECKING

from bot_bottle.errors import ManifestError
from bot_bottle.manifest.problem import Problem, shown
from bot_bottle.operator_config import PROXY_KEYS, TABLES, load_operator_config, parse_operator_config

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

_HEADER = re.compile(r"""\s*\[\s*["']?([^\]"']+?)["']?\s*\]""")
_AT_LINE = re.compile(r"\(at line ([0-9]+), column ([0-9]+)\)")


def config_problems(path: Path, backends: Collection[str]) -> tuple[Problem, ...]:
    """Say all that is wrong with the config file ``path``; nothing where there is no such file.

    ``backends`` are the names that its ``backend`` may have.
    """
    found: dict[str, Problem] = {}
    try:
        load_operator_config(path)
    except ManifestError as error:
        found = dict(_all(path))
        if str(error) not in found:  # the file may not be read at all
            return (_whole(path, error),)
    known = (*found.values(), *_backend(path, backends))
    return tuple(sorted(known, key=lambda one: (one.line, one.column)))


def _backend(path: Path, backends: Collection[str]) -> Iterator[Problem]:
    """Find a backend that there is not."""
    text = path.read_text() if path.exists() else ""
    name = tomllib.loads(text).get("backend")
    if not isinstance(name, str) or not name or name in backends:
        return
    close = difflib.get_close_matches(name, backends, n=1)
    hint = f"did you mean {close[0]}?" if close else f"choose one of: {', '.join(backends)}"
    line, column = _place(text, "", "backend")
    message = f"there is no backend {shown(name)}; {hint}"
    yield Problem(file=str(path), line=line, column=column, key="backend", message=message)


def _whole(path: Path, error: ManifestError) -> Problem:
    """Give what concerns the file as a whole: who may write it, or what is no TOML."""
    at = _AT_LINE.search(str(error))
    if at is None:
        return Problem(file=str(path), line=0, column=0, key="", message=str(error))
    message = _AT_LINE.sub("", str(error).removeprefix(f"{path}: ")).rstrip()
    return Problem(file=str(path), line=int(at[1]), column=int(at[2]), key="", message=message)


def _all(path: Path) -> Iterator[tuple[str, Problem]]:
    """Read each setting by itself, so that one mistake hides no other; those of a proxy go together."""
    try:
        text = path.read_text()
        data = tomllib.loads(text)
    except (OSError, ValueError):
        return
    for table, key, part in _parts(data):
        try:
            parse_operator_config(part, path)
        except ManifestError as error:
            name, _, message = str(error).removeprefix(f"{path}: ").partition(": ")
            line, column = _place(text, table, key or name.rpartition(".")[2])
            yield str(error), Problem(file=str(path), line=line, column=column, key=name, message=message)


def _parts(data: Mapping[str, object]) -> Iterator[tuple[str, str, dict[str, object]]]:
    for table, value in data.items():
        if not isinstance(value, dict):
            yield "", table, {table: value}
            continue
        if table not in TABLES:
            yield "", table, {table: value}
            continue
        proxy = {key: one for key, one in value.items() if table == "egress" and key in PROXY_KEYS}
        if proxy:
            yield table, "", {table: proxy}
        for key, one in value.items():
            if key not in proxy:
                yield table, key, {table: {key: one}}


def _place(text: str, table: str, key: str) -> tuple[int, int]:
    """Find the line and column, from 1, of a setting, or of its table where it has no line of its own."""
    setting = re.compile(
        rf"""\s*(?P<table>{re.escape(table)}\s*\.\s*)?(?P<key>["']?{re.escape(key)}["']?)\s*="""
        if table
        else rf"""\s*(?P<key>["']?{re.escape(key)}["']?)\s*[=.]"""
    )
    inside, fallback = "", (1, 1)
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            inside = header[1].strip()
            if inside == (table or key):
                fallback = (number, line.index("[") + 1)
        elif found := setting.match(line):
            named = table and found["table"] and not inside
            if named or inside == table:
                return number, found.start("key") + 1
    return fallback
