"""Which tests in containers run for which account, and in which of CI's two parts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from tests.support import container_tests
from tests.support.outside import REPO, Account

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT, USER = Account(name="root", uid=0), Account(name="user", uid=1000)


def item(nodeid: str, **params: object) -> pytest.Item:
    return cast("pytest.Item", SimpleNamespace(nodeid=nodeid, callspec=SimpleNamespace(params=params)))


@pytest.mark.parametrize(
    ("nodeid", "kind", "runs_as"),
    [
        ("tests/attacks/test_e_escape.py::test_e1[docker-x]", "docker", ["root"]),
        ("tests/attacks/test_a_no_route.py::test_a1[gvisor-x]", "gvisor", ["root"]),
        ("tests/integration/test_contract_exec.py::test_x[docker-x]", "docker", ["user"]),
        ("tests/integration/test_contract_work.py::test_work[docker-x]", "docker", ["root", "user"]),
        (
            "tests/integration/test_contract_life.py::test_work_is_kept_and_resume_goes_on_with_it[docker-x]",
            "docker",
            ["root", "user"],
        ),
        ("tests/attacks/test_e_escape.py::test_e1[bubblewrap-x]", "bubblewrap", ["root", "user"]),
    ],
)
def test_what_an_account_changes_runs_for_both(
    monkeypatch: pytest.MonkeyPatch, nodeid: str, kind: str, runs_as: Sequence[str]
) -> None:
    monkeypatch.setattr(container_tests, "accounts", lambda: (ROOT, USER))
    kept = [
        account.name
        for account in (ROOT, USER)
        if not container_tests.is_left_out(item(nodeid, backend=kind, account=account))
    ]
    assert kept == list(runs_as)


def test_one_account_runs_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_tests, "accounts", lambda: (USER,))
    attack = item("tests/attacks/test_e_escape.py::test_e1[docker-user]", backend="docker", account=USER)
    assert not container_tests.is_left_out(attack)


@pytest.mark.parametrize(
    ("nodeid", "params", "part"),
    [
        ("tests/attacks/test_e_escape.py::test_e1[docker-root]", {"backend": "docker"}, "containers"),
        ("tests/attacks/test_a_no_route.py::test_a1[gvisor-root]", {"backend": "gvisor"}, "containers"),
        ("tests/integration/test_docker_images.py::test_x", {}, "containers"),
        ("tests/attacks/test_e_escape.py::test_e1[bubblewrap-root]", {"backend": "bubblewrap"}, "others"),
        ("tests/unit/test_docker_images.py::test_x", {}, "others"),
    ],
)
def test_every_test_is_in_one_part(
    monkeypatch: pytest.MonkeyPatch, nodeid: str, params: dict[str, object], part: str
) -> None:
    monkeypatch.delenv(container_tests.SHARED, raising=False)
    ran = []
    for name in ("containers", "others"):
        monkeypatch.setenv(container_tests.PART, name)
        if not container_tests.is_of_other_part(item(nodeid, **params)):
            ran.append(name)
    assert ran == [part]
    monkeypatch.delenv(container_tests.PART)
    assert not container_tests.is_of_other_part(item(nodeid, **params))


def test_an_unknown_part_is_no_reason_to_run_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(container_tests.PART, "container")
    with pytest.raises(pytest.UsageError, match="write containers or others"):
        container_tests.is_of_other_part(item("tests/unit/test_env.py::test_x"))


def test_what_is_named_is_there() -> None:
    """A file or test that was renamed would otherwise run for one account, and nobody would notice."""
    for file in container_tests.FOR_BOTH:
        assert (REPO / file).is_file()
    text = "".join(path.read_text() for path in (REPO / "tests/integration").glob("test_contract_*.py"))
    for name in container_tests.FOR_BOTH_TESTS:
        assert f"def {name}(" in text
