"""What this installation is made of: a bill of materials, and whether its files are as they were installed.

The form is CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/), package URLs those of
https://github.com/package-url/purl-spec. Everything is read from the metadata that installers leave
("Recording installed projects", Python Packaging User Guide); nothing is asked of any network.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

#: The distribution that all others are here for.
ROOT = "bot-bottle"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SEPARATORS = re.compile(r"[-_.]+")
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One installed distribution; ``needs`` are names of those it requires that are installed here."""

    name: str
    version: str
    licence: str
    summary: str
    record_sha256: str
    needs: tuple[str, ...]

    @property
    def purl(self) -> str:
        """Give its package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A file of a distribution that is not as it was installed; ``how`` is ``changed`` or ``missing``."""

    package: str
    file: str
    how: str


def packages(root: str = ROOT) -> tuple[Package, ...]:
    """List ``root`` and all it needs, directly or not, by name; extras count where they are installed.

    Raises ``importlib.metadata.PackageNotFoundError`` where ``root`` itself is no installed distribution.
    """
    importlib.metadata.distribution(root)
    found: dict[str, Package] = {}
    waiting = [root]
    while waiting:
        name = _normal(waiting.pop())
        if name in found:
            continue
        package = _read(name)
        if package is not None:
            found[name] = package
            waiting += package.needs
    return tuple(found[name] for name in sorted(found, key=lambda name: (name != _normal(root), name)))


def bill(found: Iterable[Package], *, now: datetime | None = None) -> dict[str, Any]:
    """Write a CycloneDX document of what :func:`packages` gave; its first entry is what the bill is for."""
    first, *others = found
    moment = now or datetime.now(UTC)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": _component(first, kind="application"),
        },
        "components": [_component(package, kind="library") for package in others],
        "dependencies": _dependencies((first, *others)),
    }


def changed_files(found: Iterable[Package]) -> Iterator[Changed]:
    """Compare each file that an installer noted with a hash with what lies there now.

    What is not noted so is passed over: compiled forms, and RECORD itself. An installation that is a folder
    of sources (editable) has few files of that kind.
    """
    for package in found:
        for file in importlib.metadata.distribution(package.name).files or ():
            if file.hash is None or file.hash.mode != "sha256":
                continue
            try:
                same = record_digest(file.locate()) == file.hash.value
            except FileNotFoundError:
                yield Changed(package=package.name, file=file.as_posix(), how="missing")
                continue
            if not same:
                yield Changed(package=package.name, file=file.as_posix(), how="changed")


def record_digest(path: Path | Any) -> str:
    """Give a file's SHA-256 as installers note it in RECORD (PEP 376, urlsafe base64 without padding)."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()


def _read(name: str) -> Package | None:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None  # asked for by an extra, or on another system
    about: Any = distribution.metadata
    record = (distribution.read_text("RECORD") or "").encode()
    needs = {_normal(match[0]) for text in distribution.requires or () if (match := _NAME.match(text))}
    return Package(
        name=name,
        version=distribution.version,
        licence=_licence(about),
        summary=" ".join((about.get("Summary") or "").split()),
        record_sha256=hashlib.sha256(record).hexdigest() if record else "",
        needs=tuple(sorted(one for one in needs if _is_installed(one))),
    )


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _licence(about: Any) -> str:
    """Give the SPDX expression, or the words that older metadata has in its place."""
    if expression := about.get("License-Expression"):
        return str(expression)
    classifiers = [text for text in about.get_all("Classifier") or () if text.startswith("License ::")]
    if classifiers:
        return str(classifiers[0].rpartition(" :: ")[2])
    words = str(about.get("License") or "").strip().splitlines()
    return words[0][:100] if words else ""


def _component(package: Package, *, kind: str) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": kind,
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
    }
    if package.summary:
        component["description"] = package.summary
    if package.licence:
        component["licenses"] = [{"license": {"name": package.licence}}]
    if package.record_sha256:
        value = f"sha256:{package.record_sha256}"
        component["properties"] = [{"name": "bot-bottle:record", "value": value}]
    return component


def _dependencies(found: tuple[Package, ...]) -> list[dict[str, Any]]:
    urls = {package.name: package.purl for package in found}
    return [
        {"ref": package.purl, "dependsOn": [urls[name] for name in package.needs if name in urls]}
        for package in found
    ]


def _normal(name: str) -> str:
    """Spell a name in the one way that all its spellings share (PEP 503)."""
    return _SEPARATORS.sub("-", name).lower()
