"""Which tests of real programs in a sandbox run for one account."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from tests.support import once
from tests.support.outside import REPO, Account

ROOT, USER = Account(name="root", uid=0), Account(name="user", uid=1000)


def runs_as(nodeid: str, backend: str) -> list[str]:
    items = [
        cast(
            "pytest.Item",
            SimpleNamespace(
                nodeid=f"{nodeid}[{backend}-{account.name}]",
                callspec=SimpleNamespace(params={"backend": backend, "account": account}),
            ),
        )
        for account in (ROOT, USER)
    ]
    return [
        account.name for account, item in zip((ROOT, USER), items, strict=True) if not once.is_left_out(item)
    ]


@pytest.mark.parametrize(
    ("nodeid", "backend", "expected"),
    [
        ("tests/integration/test_added_providers.py::test_aider", "bubblewrap", ["user"]),
        (
            "tests/integration/test_codex_real.py::test_a_skill_is_offered_to_the_model",
            "bubblewrap",
            ["user"],
        ),
        (
            "tests/integration/test_codex_real.py::test_a_skill_is_offered_to_the_model",
            "docker",
            ["root", "user"],
        ),
        (
            "tests/integration/test_codex_real.py::test_codex_works_over_its_websocket",
            "bubblewrap",
            ["root", "user"],
        ),
        ("tests/integration/test_contract_exec.py::test_x", "bubblewrap", ["root", "user"]),
        ("tests/attacks/test_e_escape.py::test_e1", "bubblewrap", ["root", "user"]),
        ("tests/integration/test_added_providers.py::test_aider", "smolmachines", ["root", "user"]),
    ],
)
def test_what_no_account_changes_runs_once(
    monkeypatch: pytest.MonkeyPatch, nodeid: str, backend: str, expected: list[str]
) -> None:
    monkeypatch.setattr(once, "accounts", lambda: (ROOT, USER))
    assert runs_as(nodeid, backend) == expected


def test_one_account_runs_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "accounts", lambda: (ROOT,))
    assert runs_as("tests/integration/test_added_providers.py::test_aider", "bubblewrap") == ["root", "user"]


def test_what_is_named_is_there_and_is_no_attack() -> None:
    """A test that was renamed would run twice, and nobody would notice; an attack is made for everybody."""
    for file in once.FILES:
        assert "pytest.mark.attack" not in (REPO / file).read_text()
    for test in once.TESTS:
        file, _, name = test.partition("::")
        text = (REPO / file).read_text()
        assert f"def {name}(" in text
        assert "pytest.mark.attack" not in text
