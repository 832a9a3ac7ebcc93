"""Which libraries go into the sidecar's image: in which versions, and held against which hashes."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bot_bottle import process
from bot_bottle.backend.docker import libraries
from bot_bottle.backend.docker.progress import Progress
from bot_bottle.errors import UnavailableError

BASE = libraries.BaseFacts(python=(3, 12), machine="x86_64", glibc=(2, 36))


def pinned() -> dict[str, libraries.Pinned]:
    return libraries.read_pinned(Path(libraries.__file__).with_name("libraries.txt").read_text())


class Pip:
    """Stands for pip: keeps what it was asked for, and lays one file down as it would."""

    def __init__(self) -> None:
        self.argv: list[str] = []
        self.requirements = ""

    def __call__(self, argv: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        self.argv = argv
        self.requirements = Path(argv[argv.index("--requirement") + 1]).read_text()
        Path(argv[argv.index("--target") + 1], "fetched.py").write_text("")
        return subprocess.CompletedProcess(argv, 0, b"", b"")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Pip:
    pip = Pip()
    monkeypatch.setattr(process, "run", pip)
    return pip


def entries(pins: dict[str, str], folder: Path) -> list[str]:
    facts = replace(
        BASE, python=(sys.version_info[0], sys.version_info[1] + 1)
    )  # what is compiled never fits
    found = libraries.library_entries(pins, facts, folder, Progress(None), under="lib")
    return [entry.name for entry in found]


def test_what_pip_fetches_is_held_against_the_hashes_that_come_with_us(tmp_path: Path, pip: Pip) -> None:
    pins = {name: pinned()[name].version for name in ("uvloop", "h2")}
    if pins != {name: importlib.metadata.version(name) for name in pins}:
        pytest.skip("this installation runs on other versions than the pinned ones (PINS=no)")
    names = entries(pins, tmp_path)
    assert {"--require-hashes", "--only-binary=:all:", "--no-deps"} < set(pip.argv)
    assert pip.argv[1:4] == ["-P", "-m", "pip"]
    assert pip.argv.count("--platform") == len(BASE.platforms()) == 21
    # What fits every Python was copied from here.
    (line,) = pip.requirements.splitlines()
    assert re.fullmatch(rf"uvloop=={re.escape(pins['uvloop'])}( --hash=sha256:[0-9a-f]{{64}})+", line)
    assert {"lib/fetched.py", "lib/h2/__init__.py"} < set(names)


def test_where_this_installation_runs_on_another_version_all_are_fetched_as_they_were_tried(
    tmp_path: Path, pip: Pip
) -> None:
    assert entries({"uvloop": "0.0.1", "h2": importlib.metadata.version("h2")}, tmp_path) == [
        "lib/fetched.py"
    ]
    asked = {line.split(" ")[0] for line in pip.requirements.splitlines()}
    assert asked == {f"{name}=={pinned()[name].version}" for name in libraries._LIBRARIES}
    assert all(" --hash=sha256:" in line for line in pip.requirements.splitlines())


def test_every_library_is_pinned_and_nothing_else_that_runs_there() -> None:
    for_others = {"pywin32", "httpx2-jsfetch"}
    assert set(pinned()) - for_others - {"pycparser"} == set(libraries._LIBRARIES)
    assert all(one.hashes for one in pinned().values())


def test_a_library_that_was_changed_after_its_installation_is_not_built_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "h2-1.0.dist-info"
    info.mkdir()
    (tmp_path / "h2.py").write_text("changed\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: h2\nVersion: 1.0\n")
    (info / "WHEEL").write_text("Tag: py3-none-any\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"as installed\n").digest()).rstrip(b"=").decode()
    (info / "RECORD").write_text(f"h2.py,sha256={digest},13\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    with pytest.raises(UnavailableError, match=r"h2\.py is not as it was installed.*sbom --check"):
        entries({"h2": "1.0"}, tmp_path)
    (tmp_path / "h2.py").write_text("as installed\n")
    assert entries({"h2": "1.0"}, tmp_path / "h2-1.0.dist-info") == ["lib/h2.py"]
