"""Several runs that share one set of tests: each is run once, and what shares a bottle stays together."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from tests.support import container_tests, sharing
from tests.support.outside import REPO, Account

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ROOT, USER = Account(name="root", uid=0), Account(name="user", uid=1000)
FILES = ("tests/attacks/test_a.py", "tests/integration/test_b.py")


def item(nodeid: str, **params: object) -> pytest.Item:
    return cast("pytest.Item", SimpleNamespace(nodeid=nodeid, callspec=SimpleNamespace(params=params)))


def everything() -> list[pytest.Item]:
    """List tests as pytest does: one account after the other, and last those that take none."""
    kinds = [("bubblewrap", ROOT), ("bubblewrap", USER), ("docker", USER)]
    tests = [
        item(f"{file}::test_{n}[{backend}-{account.name}]", backend=backend, account=account)
        for backend, account in kinds
        for file in FILES
        for n in range(3)
    ]
    tests.append(item("tests/integration/test_docker_own.py::test_x"))
    return [*tests, *(item(f"tests/unit/test_{name}.py::test_{n}") for name in "cde" for n in range(2))]


def names(tests: Iterable[pytest.Item]) -> list[str]:
    return [test.nodeid for test in tests]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(container_tests.SHARED, str(tmp_path))
    return tmp_path


def for_part(monkeypatch: pytest.MonkeyPatch, part: str) -> list[pytest.Item]:
    monkeypatch.setenv(container_tests.PART, part)
    return [one for one in everything() if not container_tests.is_of_other_part(one)]


@pytest.mark.usefixtures("shared")
def test_containers_own_come_first_and_then_others_from_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    others = for_part(monkeypatch, "others")
    helper = names(sharing.taken(for_part(monkeypatch, "containers")))
    assert helper[:7] == [name for name in names(everything()) if "docker" in name]
    assert helper[7:9] == ["tests/unit/test_e.py::test_0", "tests/unit/test_e.py::test_1"]
    assert sorted(helper) == sorted(names(everything()))
    assert names(sharing.taken(others)) == []


@pytest.mark.usefixtures("shared")
def test_two_runs_that_meet_run_each_test_once_and_no_group_in_two_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = for_part(monkeypatch, "others")
    helper, first, second = (
        sharing.taken(for_part(monkeypatch, "containers")),
        sharing.taken(others),
        sharing.taken(others),
    )
    monkeypatch.setenv(container_tests.PART, "containers")
    ran: dict[str, list[str]] = {"helper": [next(helper).nodeid]}  # which way it goes is decided now
    monkeypatch.setenv(container_tests.PART, "others")
    lanes = {"helper": helper, "first": first, "second": second}
    while lanes:
        for lane, tests in list(lanes.items()):
            one = next(tests, None)
            if one is None:
                del lanes[lane]
            else:
                ran.setdefault(lane, []).append(one.nodeid)
    assert sorted(itertools.chain.from_iterable(ran.values())) == sorted(names(everything()))
    assert len(ran) == 3
    for file in FILES:
        for kind in ("bubblewrap-root", "bubblewrap-user"):
            places = [
                lane for lane, done in ran.items() if any(file in name and kind in name for name in done)
            ]
            assert len(places) == 1, (file, kind, places)


def test_many_at_the_same_time_get_each_group_once(monkeypatch: pytest.MonkeyPatch, shared: Path) -> None:
    tests = [item(f"tests/unit/test_{n}.py::test_x") for n in range(300)]
    monkeypatch.setenv(container_tests.PART, "others")
    together = threading.Barrier(4)
    ran: list[str] = []

    def run() -> None:
        together.wait()
        for test in sharing.taken(tests):
            ran.append(test.nodeid)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ran) == sorted(names(tests))
    assert len(list(shared.iterdir())) == 300


@pytest.mark.usefixtures("shared")
def test_what_is_drawn_anew_in_each_run_does_not_part_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(container_tests.PART, "others")
    drawn = [
        [
            item(
                f"tests/attacks/test_d.py::test_x[bubblewrap-root-{value}]",
                backend="bubblewrap",
                account=ROOT,
            )
        ]
        for value in ("3f9c", "a07b")
    ]
    assert [len(names(sharing.taken(tests))) for tests in drawn] == [1, 0]


def test_who_shares_nothing_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(container_tests.SHARED, raising=False)
    assert not sharing.is_shared()
    assert names(for_part(monkeypatch, "containers")) == [n for n in names(everything()) if "docker" in n]


def test_pytest_runs_what_is_taken_and_what_the_last_one_needed_is_taken_down(
    tmp_path: Path,
) -> None:
    """Two runs of real tests beside each other: a test each once, a session's end in each."""
    folder = tmp_path / "taken"
    folder.mkdir()
    place = tmp_path / "place"
    place.mkdir()
    notes = tmp_path / "notes"
    (place / "pytest.ini").write_text("[pytest]\n")
    (place / "conftest.py").write_text(
        "import pytest\n"
        "from tests.conftest import pytest_runtestloop\n"
        f"NOTES = {str(notes)!r}\n"
        "def note(text):\n"
        "    with open(NOTES, 'a') as file: file.write(text + '\\n')\n"
        "@pytest.fixture(scope='session')\n"
        "def room():\n"
        "    yield 'room'\n"
        "    note('down')\n"
        "@pytest.fixture(scope='module')\n"
        "def shelf(room):\n"
        "    yield\n"
        "    note('shelf down')\n"
    )
    for name in "abcdefgh":
        (place / f"test_{name}.py").write_text(
            "from conftest import note\n"
            f"def test_one(shelf): note('{name} one')\n"
            f"def test_two(shelf): note('{name} two')\n"
        )
    env = {**os.environ, container_tests.SHARED: str(folder), container_tests.PART: "others"}
    env |= {"PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(place)]
    runs = [subprocess.Popen(argv, cwd=place, env=env, stdout=subprocess.PIPE) for _ in range(2)]
    said = [run.communicate()[0].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(said)
    lines = notes.read_text().splitlines()
    ran = sorted(line for line in lines if "down" not in line)
    assert ran == sorted(f"{name} {which}" for name in "abcdefgh" for which in ("one", "two"))
    assert lines.count("shelf down") == 8
    assert 1 <= lines.count("down") <= 2
