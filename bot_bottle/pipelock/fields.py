"""Content taken apart into its fields, so that a value divided over several of them can be put together."""

from __future__ import annotations

import json
import re
from itertools import repeat
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: (name, value)
Field: TypeAlias = tuple[bytes, bytes]

_BOUNDARY = re.compile(r"(?i)boundary=(?:\"([^\"]{1,70})\"|([^\s;,]{1,70}))")
_PART_NAME = re.compile(rb"(?i)\bname=(?:\"([^\"\r\n]*)\"|([^\s;]+))")


def query_fields(query: bytes) -> list[Field]:
    """Split a query string or a form's body; percent signs and plus signs are undone."""
    fields: list[Field] = []
    for pair in query.replace(b";", b"&").split(b"&"):
        name, _equals, value = pair.partition(b"=")
        fields.append(
            (name, unquote_to_bytes(value.replace(b"+", b" ")) if b"%" in value or b"+" in value else value)
        )
    return fields


def body_fields(data: bytes, content_type: str) -> list[Field]:
    """Split a body by its type: form, multipart, JSON or lines of JSON; none for others or broken ones."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return query_fields(data)
    if kind.startswith("multipart/"):
        return list(_parts(data, content_type))
    if kind.endswith("json") or kind in {"application/x-ndjson", "application/jsonl", ""}:
        return _json_fields(data)
    return []


def _json_fields(data: bytes) -> list[Field]:
    try:
        return _leaves(json.loads(data))
    except (ValueError, RecursionError):
        pass
    try:  # lines of JSON, in one go: a text each is not worth its own parser
        lines = [line for line in data.splitlines() if line and not line.isspace()]
        return _leaves(json.loads(b"[" + b",".join(lines) + b"]"))
    except (ValueError, RecursionError):
        return []


def _leaves(whole: object) -> list[Field]:
    """Give the strings and numbers of a JSON value in the order in which they stand."""
    fields: list[Field] = []
    # Iterators over what is open, the innermost last: as deep as it likes, and a leaf costs no call.
    opened: list[Iterator[tuple[str, object]]] = [iter((("", whole),))]
    while opened:
        for name, value in opened[-1]:
            kind = type(value)
            if isinstance(value, str):
                fields.append((name.encode("utf-8", "surrogatepass"), value.encode("utf-8", "surrogatepass")))
            elif kind is int or kind is float:
                fields.append((name.encode("utf-8", "surrogatepass"), b"%r" % value))
            elif isinstance(value, dict):
                opened.append(iter(value.items()))
                break
            elif isinstance(value, list):
                opened.append(zip(repeat(name), value, strict=False))
                break
        else:
            opened.pop()
    return fields


def _parts(data: bytes, content_type: str) -> Iterator[Field]:
    match = _BOUNDARY.search(content_type)
    if match is None:
        return
    boundary = b"--" + (match[1] or match[2]).encode("latin-1")
    for part in data.split(boundary)[1:]:
        head, _blank, value = part.partition(b"\r\n\r\n")
        name = _PART_NAME.search(head)
        yield (name[1] or name[2] or b"") if name else b"", value.removesuffix(b"\r\n")


def joined(fields: Sequence[Field]) -> bytes:
    """Put all values together in their order; empty where there is nothing to put together."""
    return b"".join([value for _name, value in fields]) if len(fields) > 1 else b""
