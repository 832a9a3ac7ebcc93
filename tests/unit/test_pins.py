"""What is pinned fits what pyproject.toml asks for, is complete, and names no package index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.tools.audit import report

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = sorted((ROOT / "requirements").glob("*.txt"))
FILES.append(ROOT / "bot_bottle" / "backend" / "docker" / "libraries.txt")
EXTRAS = PROJECT["project"]["optional-dependencies"]


def pins(file: Path) -> dict[str, list[Requirement]]:
    """Give a name's pins: more than one where Pythons or systems differ."""
    found: dict[str, list[Requirement]] = {}
    for line in file.read_text().replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line.split(" --hash=")[0].strip())
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_file_of_pins_is_versions_and_hashes_and_nothing_else(file: Path) -> None:
    line = r"([a-z0-9][a-z0-9.-]*==[^ ]+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?|# .*)"
    for number, text in enumerate(file.read_text().splitlines(), 1):
        assert re.fullmatch(line, text), f"{file.name}:{number}: {text}"
    for name, found in pins(file).items():
        assert all(len(list(one.specifier)) == 1 for one in found), name


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("run", [*PROJECT["project"]["dependencies"], *EXTRAS["docker"], *EXTRAS["dashboard"]]),
        ("run", PROJECT["build-system"]["requires"]),
        (
            "dev",
            [*PROJECT["project"]["dependencies"], *EXTRAS["dev"], *EXTRAS["docker"], *EXTRAS["dashboard"]],
        ),
        ("fuzz", EXTRAS["fuzz"]),
        ("machines", EXTRAS["smolmachines"]),
    ],
)
def test_what_the_project_asks_for_is_pinned_so_that_it_fits(file: str, wanted: list[str]) -> None:
    found = pins(ROOT / "requirements" / f"{file}.txt")
    here = {key: str(value) for key, value in default_environment().items()}
    for text in wanted:
        requirement = Requirement(text)
        versions = [
            next(iter(one.specifier)).version
            for one in found.get(canonicalize_name(requirement.name), [])
            if one.marker is None or one.marker.evaluate(here)
        ]
        fits = [requirement.specifier.contains(version, prereleases=True) for version in versions]
        assert fits == [True], f"{text}: python -m tests.tools.pins {requirement.name}"


def test_files_of_pins_agree() -> None:
    seen: dict[str, str] = {}
    for file in FILES:
        if file.stem == "audit":  # has a place of its own
            continue
        for name, found in pins(file).items():
            if len(found) == 1:
                version = str(found[0].specifier)
                assert seen.setdefault(name, version) == version, f"{file.name}: {name}"


def test_a_known_hole_is_a_line_and_a_code() -> None:
    hole = {"id": "X-2026-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}
    answer = {
        "dependencies": [
            {"name": "a", "version": "1.0", "vulns": [hole, {**hole, "id": "X-2", "fix_versions": []}]},
            {"name": "b", "version": "2.0", "vulns": []},
            {"name": "c", "skip_reason": "nobody knows it"},
        ]
    }
    assert report(answer) == (
        [
            "a 1.0: X-2026-1, mended in 1.1",
            "a 1.0: X-2, not mended yet",
            "not asked: 1 of 3 (nobody knows it)",
            "2 pinned packages asked after",
        ],
        1,
    )
    assert report({"dependencies": answer["dependencies"][1:]})[1] == 0
    nobody = "nothing was audited: the advisory database cannot be reached from here (nobody knows it)"
    assert report({"dependencies": answer["dependencies"][2:]}) == ([nobody], 0)
