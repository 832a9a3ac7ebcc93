"""The bill of materials: all that is needed, named once; and files that are not as they were installed."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from bot_bottle import sbom
from bot_bottle.cli.sbom import command

if TYPE_CHECKING:
    from pathlib import Path


def _install(site: Path, name: str, *, needs: tuple[str, ...] = (), about: str = "") -> Path:
    """Lay a distribution down as an installer does; gives its one module."""
    folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir()
    module = site / f"{name.replace('-', '_')}.py"
    module.write_bytes(b"pass\n")
    required = "".join(f"Requires-Dist: {text}\n" for text in needs)
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{about}{required}\n"
    )
    digest = sbom.record_digest(module)
    (folder / "RECORD").write_text(f"{module.name},sha256={digest},5\n{folder.name}/RECORD,,\n")
    return module


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


def test_all_that_is_needed_is_named_once(site: Path) -> None:
    _install(site, "top-one", needs=("Left.Two>=1", "right_two ; extra == 'x'", "absent-two"))
    _install(site, "left-two", needs=("shared-three (>2)",), about="License-Expression: MIT\n")
    _install(site, "right-two", needs=("shared-three", "top-one"))
    _install(site, "shared-three", about="Classifier: License :: OSI Approved :: BSD License\n")
    found = sbom.packages("top-one")
    assert [package.name for package in found] == ["top-one", "left-two", "right-two", "shared-three"]
    document = sbom.bill(found, now=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", document["serialNumber"])
    assert document["metadata"]["timestamp"] == "2026-01-02T03:04:05Z"
    assert document["metadata"]["component"]["purl"] == "pkg:pypi/top-one@1.0"
    left, _right, shared = document["components"]
    assert left["licenses"] == [{"license": {"name": "MIT"}}]
    assert shared["licenses"] == [{"license": {"name": "BSD License"}}]
    depends = {one["ref"]: one["dependsOn"] for one in document["dependencies"]}
    assert depends["pkg:pypi/top-one@1.0"] == ["pkg:pypi/left-two@1.0", "pkg:pypi/right-two@1.0"]
    assert json.loads(json.dumps(document)) == document


def test_what_was_changed_or_is_gone_is_named(site: Path) -> None:
    changed, gone = _install(site, "top-one", needs=("left-two",)), _install(site, "left-two")
    found = sbom.packages("top-one")
    assert list(sbom.changed_files(found)) == []
    changed.write_bytes(b"evil\n")
    gone.unlink()
    assert {(one.package, one.how) for one in sbom.changed_files(found)} == {
        ("top-one", "changed"),
        ("left-two", "missing"),
    }


def test_the_command_describes_this_very_installation() -> None:
    done = CliRunner().invoke(command, [], standalone_mode=False)
    document = json.loads(done.output)
    names = {one["name"] for one in document["components"]}
    assert document["metadata"]["component"]["name"] == "bot-bottle"
    assert {"click", "cryptography", "pydantic"} <= names
    refs = {one["ref"] for one in document["dependencies"]}
    assert all(set(one["dependsOn"]) <= refs for one in document["dependencies"])


def test_the_check_says_what_is_wrong_and_ends_with_1(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = _install(site, "top-one")
    monkeypatch.setattr(sbom, "ROOT", "top-one")
    monkeypatch.setattr(sbom.packages, "__defaults__", ("top-one",))
    good = CliRunner().invoke(command, ["--check"], standalone_mode=False)
    assert (good.return_value, "1 package:" in good.output) == (0, True)
    module.write_bytes(b"evil\n")
    bad = CliRunner().invoke(command, ["--check", "--json"], standalone_mode=False)
    assert bad.return_value == 1
    assert json.loads(bad.output) == [{"package": "top-one", "file": "top_one.py", "how": "changed"}]
