"""Secrets that are known by the file they stand in; the git gate's part of the rules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bot_bottle.pipelock.numbers import entropy
from bot_bottle.pipelock.rule import is_placeholder

if TYPE_CHECKING:
    from collections.abc import Iterator

_YAML = re.compile(r"(?i)\.ya?ml$")
_HCL = re.compile(r"(?i)\.(?:tf|tfvars|hcl)$")
_KEY_STORE = re.compile(r"(?i)\.(?:p12|pfx|jks|keystore|kdbx)$")
_PHP = re.compile(r"(?i)\.php\d?$")

_KINDS = (("key store", _KEY_STORE), ("yaml", _YAML), ("hcl", _HCL), ("php", _PHP))

_KIND_SECRET = re.compile(rb"(?im)^[ \t]*kind:[ \t]*[\"']?secret[\"']?[ \t]*\r?$")
_DATA_ENTRY = re.compile(rb"(?im)^([ \t]*)(?:string)?data:[ \t]*\r?\n((?:\1[ \t]+.*(?:\n|$)|[ \t]*\r?\n)+)")
_ENCODED_VALUE = re.compile(
    rb"[\w.-]+:\s*(?:[|>][-+]?\s+)?[\"']?([A-Za-z0-9+/]{10,}={0,3})[\"']?[ \t\r]*(?:\n|$)"
)
_HCL_PASSWORD = re.compile(rb"(?i)\b(?:administrator_login_)?password[ \t]*=[ \t]*\"([^\"$\n]{8,64})\"")
_PHP_KEY = re.compile(rb"(?i)[\"']secret_key[\"']\s*=>\s*[\"'](sk_[^\"'\s]{29})[\"']")


def file_kind(path: str) -> str:
    """Name what the file at ``path`` is to these rules, ``""`` for nothing; one kind is judged alike."""
    return next((name for name, files in _KINDS if files.search(path)), "")


def file_secrets(path: str, data: bytes) -> Iterator[tuple[str, bytes, int]]:
    """Give (rule, value, offset) for what the file at ``path`` holds that only its kind makes a secret."""
    if _KEY_STORE.search(path):
        yield "key-store-file", path.encode("utf-8", "surrogateescape"), 0
    if _YAML.search(path):
        yield from _kubernetes(data)
    for name, files, pattern in (
        ("terraform-password", _HCL, _HCL_PASSWORD),
        ("php-secret-key", _PHP, _PHP_KEY),
    ):
        if files.search(path):
            for match in pattern.finditer(data):
                if entropy(match[1]) >= 1.0 and not is_masked(match[1]):
                    yield name, match[1], match.start(1)


def _kubernetes(data: bytes) -> Iterator[tuple[str, bytes, int]]:
    """A manifest of ``kind: Secret``; its values are encoded, not protected."""
    start = 0
    for document in re.split(rb"(?m)^---.*$", data):
        if _KIND_SECRET.search(document):
            for block in _DATA_ENTRY.finditer(document):
                for value in _ENCODED_VALUE.finditer(block[2]):
                    if not is_placeholder(value[1]):
                        yield "kubernetes-secret", value[1], start + block.start(2) + value.start(1)
        start += len(document)


def is_masked(value: bytes) -> bool:
    """Tell a value that stands for another: ``XXXX``, ``****``, ``<password>``, ``{{ password }}``."""
    return len(set(value.lower())) < 3 or re.match(rb"[<{\[(]|var\.|data\.|module\.", value) is not None
