"""Which tests in containers run for both accounts, and which of all tests CI runs beside the others.

What an engine makes does not depend on who asks it: nothing of the launcher's account is in a container's
options, so an attack from inside meets the very same bottle whoever launched it. What depends on the account
is the launcher's own side: its files, its control socket, its terminal, the operator's repository and
credentials. The tests of that run for both; each other one runs for the account that it is the harder for.
Where tests do not run as root there is one account, and it runs everything.
"""

from __future__ import annotations

import os

import pytest

from tests.support.outside import accounts

#: How docker with gVisor's kernel is named among the backends.
GVISOR = "gvisor"
_IN_CONTAINERS = frozenset({"docker", GVISOR})

#: To root nothing on this machine is closed: what keeps an attack from it is the bottle alone.
_ATTACKS_AS = "root"
#: An ordinary account lacks rights, and so is refused where root gets by.
_WORK_AS = "user"

#: Tests of the launcher's own side, in containers too for both accounts; whole files, and single tests.
FOR_BOTH = frozenset(
    {
        "tests/integration/test_contract_orders.py",
        "tests/integration/test_contract_terminal.py",
        "tests/integration/test_contract_work.py",
    }
)
FOR_BOTH_TESTS = frozenset(
    {
        "test_a_headless_session_passes_everything_on_and_leaves_nothing",
        "test_work_is_kept_and_resume_goes_on_with_it",
        "test_the_working_folder_comes_in_as_a_copy",
        "test_a_killed_launcher_leaves_nothing_running_and_keeps_work_and_record",
        "test_streams_pass_files_through",
    }
)

#: Set to run one of two parts that together are everything: ``containers`` or ``others``.
PART = "BOT_BOTTLE_TEST_PART"
CONTAINERS = "containers"
_PARTS = (CONTAINERS, "others")
#: Set for runs that share the part ``others`` (tests.support.sharing).
SHARED = "BOT_BOTTLE_TEST_SHARED"


def is_left_out(item: pytest.Item) -> bool:
    """Tell whether another account's run of a test says the same of containers."""
    if len(accounts()) == 1 or parameter(item, "backend") not in _IN_CONTAINERS:
        return False
    file, _, name = item.nodeid.partition("::")
    if file in FOR_BOTH or name.partition("[")[0] in FOR_BOTH_TESTS:
        return False
    chosen = _ATTACKS_AS if file.startswith("tests/attacks/") else _WORK_AS
    return parameter(item, "account") not in {"", chosen}


def is_of_other_part(item: pytest.Item) -> bool:
    """Tell whether a test belongs to the part that this run was told to leave to another.

    Raises ``pytest.UsageError`` where it was told something else.
    """
    part = os.environ.get(PART, "")
    if not part:
        return False
    if part not in _PARTS:
        raise pytest.UsageError(f"{PART}={part}: write {' or '.join(_PARTS)}, or leave it out for everything")
    if part == CONTAINERS and os.environ.get(SHARED):
        return False  # when its own are done it helps the other runs
    return is_in_containers(item) != (part == CONTAINERS)


def is_in_containers(item: pytest.Item) -> bool:
    """Tell whether a test needs the tests' own engine."""
    own_file = item.nodeid.startswith("tests/integration/test_docker_")
    return own_file or parameter(item, "backend") in _IN_CONTAINERS


def parameter(item: pytest.Item, name: str) -> str:
    """Name what a test was given of this kind; empty where it takes none."""
    spec = getattr(item, "callspec", None)
    value = spec.params.get(name, "") if spec is not None else ""
    return str(getattr(value, "name", value))
