"""Which tests in a sandbox run for one account: what a real program does there, or a sidecar.

Whether a bottle is the same for whoever launches it, and what an account changes on the launcher's side, is
asked for both accounts by the contract's tests, the attacks, and those of the programs that ask after the
operator's own files. What a program then does in such a bottle, and what it says to its model, is asked once:
as an ordinary user, who is refused where root gets by. Tests in containers have a rule of their own
(tests.support.container_tests), and so have those in emulated machines (tests.support.machine_tests).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.container_tests import parameter
from tests.support.outside import accounts

if TYPE_CHECKING:
    import pytest

_PLACE = "tests/integration/"
#: Whole files, and single tests of others.
FILES = frozenset(
    f"{_PLACE}{name}"
    for name in ("test_added_providers.py", "test_clients.py", "test_renewal.py", "test_tutorial.py")
)
TESTS = frozenset(
    f"{_PLACE}{name}"
    for name in (
        "test_claude_login.py::test_claude_knows_its_plan_wherever_its_settings_are",
        "test_claude_login.py::test_claude_on_a_terminal_asks_nothing_and_streams",
        "test_claude_real.py::test_a_claude_session_is_on_record_and_leaves_no_state",
        "test_codex_real.py::test_a_skill_is_offered_to_the_model",
        "test_codex_real.py::test_codex_falls_back_to_streamed_http",
        "test_codex_real.py::test_codex_on_a_terminal_asks_nothing_and_streams",
        "test_codex_real.py::test_codex_works_with_an_api_key",
        "test_codex_real.py::test_the_example_passes_check_and_launches",
    )
)


def is_left_out(item: pytest.Item) -> bool:
    """Tell whether the ordinary user's run of a test in a sandbox says the same."""
    if len(accounts()) == 1 or parameter(item, "backend") != "bubblewrap":
        return False
    name = item.nodeid.partition("[")[0]
    listed = name.partition("::")[0] in FILES or name in TESTS
    return listed and parameter(item, "account") == "root"
