"""Which tests run in microVMs, and which of those also where the processor is emulated.

What a test asserts about a shared kernel means nothing in a machine with its own; each such test names what
takes its place. In emulation (tests.tools.kvmbox) a start takes half a minute and a command two seconds, so
there a choice is run: what needs one bottle, as root, and of what needs bottles of its own each kind once, as
root or as an ordinary user. Every run of CI makes the core of that choice, in three bottles.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.support.outside import PACE

if TYPE_CHECKING:
    import pytest

BACKEND = "smolmachines"
#: Set for a run of all tests beside which another runs those of microVMs.
APART = "BOT_BOTTLE_TEST_MACHINES_APART"
#: Set to :data:`CORE` where an emulated machine is to run the core alone.
PART = "BOT_BOTTLE_TEST_MACHINES"
CORE = "core"

#: Tests about this backend alone.
_OWN = frozenset({"tests/attacks/test_machine.py", "tests/integration/test_machine.py"})

_NETWORK = "a machine has a network card; where it leads is told by tests/attacks/test_machine.py"
_RESOLVER = "nothing in a machine resolves names; that is told by tests/attacks/test_machine.py"
_LOOPBACK = "nothing of the sidecar's is on a machine's own loopback; see tests/attacks/test_machine.py"

#: Test -> why it says nothing about a machine.
OTHERWISE = {
    "test_a4_only_loopback_exists": _NETWORK,
    "test_a5_no_other_resolver_is_reached": _RESOLVER,
    "test_a5_the_bottles_own_resolver_forwards_nothing": _RESOLVER,
    "test_a5_other_types_get_an_empty_answer": _RESOLVER,
    "test_a9_only_the_declared_ports_listen": _LOOPBACK,
    "test_a12_the_sidecars_ports_cannot_be_taken": _LOOPBACK,
    "test_e1_every_namespace_is_the_bottles_own": "another kernel numbers its namespaces for itself",
    "test_e1_no_other_network_device_is_seen": _NETWORK,
}

#: In emulation, whole files of tests, and single ones of others.
_EMULATED_FILES = frozenset(
    {
        "tests/attacks/test_machine.py",
        "tests/attacks/test_a_no_route.py",
        "tests/attacks/test_a_control_plane.py",
        "tests/attacks/test_c_credentials.py",
        "tests/attacks/test_e_escape.py",
        "tests/integration/test_contract_exec.py",
        "tests/integration/test_machine.py",
    }
)
#: Test -> as whom it runs in emulation; each needs bottles of its own, and a start takes half a minute there.
_EMULATED_TESTS = {
    f"tests/integration/{test}": account
    for test, account in {
        "test_codex_real.py::test_codex_works_over_its_websocket_and_never_holds_the_token": "root",
        "test_demo.py::test_demo_passes_and_leaves_nothing": "root",
        "test_machine.py::"
        "test_a_detached_machine_is_seen_held_still_killed_and_taken_up_with_other_limits": "user",
        # For root the engine needs a file system for an archive that can show files as another account's.
        "test_machine.py::test_a_resumed_bottle_goes_on_in_an_archive_with_nothing_but_busybox": "user",
        "test_claude_real.py::test_claude_works_in_a_bottle_and_never_holds_the_token": "user",
        "test_contract_terminal.py::test_the_terminal_passes_size_keys_and_code_through": "root",
        "test_contract_work.py::test_work_comes_home_running_or_kept": "root",
        "test_verify.py::test_every_attack_is_held_and_nothing_is_left": "root",
    }.items()
}
#: The files that hold what an emulated machine runs; to list what others hold would take it a minute.
EMULATED_PLACES = tuple(sorted({*_EMULATED_FILES, *(test.partition("::")[0] for test in _EMULATED_TESTS)}))
_DATA = "it moves more data than an emulated machine can in the time there is; where KVM boots it runs"
_STARTS = "it starts bottles of its own, half a minute each in emulation; where KVM boots it runs"
#: Test -> why an emulated machine leaves it out, though the file that it is in is run there.
_NOT_EMULATED = {
    "test_much_input_and_output_at_the_same_time": _DATA,
    "test_output_beyond_the_bound_ends_the_script": _DATA,
    "test_streams_pass_files_through": _DATA,
    "test_input_that_nobody_reads_does_no_harm": _DATA,
    "test_c6_the_token_is_in_no_memory_the_agent_can_read": "it reads all memory, which takes an emulated "
    "machine minutes; where KVM boots it runs",
    "test_c7_the_ca_key_is_nowhere_and_each_bottle_has_its_own_ca": _STARTS,
    "test_a10_no_descriptor_is_inherited": _STARTS,
    "test_a13_a_dead_sidecar_means_no_way_out": _STARTS,  # tests/integration/test_machine.py kills one too
    "test_a13_a_route_the_operator_removed_is_gone_after_resume": _STARTS,
    "test_a13_what_the_agent_wrote_changes_nothing_after_resume": _STARTS,
    "test_a13_nothing_lives_on_after_the_launcher": _STARTS,
    "test_a14_a_connection_opened_before_a_route_was_removed_ends_with_it": _STARTS,
    "test_e5_a_link_in_the_home_leads_nowhere_on_the_host": _STARTS,
}
#: The core, as root: each hole that an engine's own way to allow something leaves, where credentials may lie,
#: what every command needs of a bottle, and that nothing leaves or starts without the sidecar.
_CORE_FILES = frozenset({"tests/attacks/test_machine.py", "tests/integration/test_contract_exec.py"})
_CORE_TESTS = frozenset(
    {
        "tests/attacks/test_a_no_route.py::test_a1_an_allowed_host_works_for_clients_of_both_kinds",
        "tests/attacks/test_a_no_route.py::test_a1_both_kinds_of_client_read_the_same_refusal",
        "tests/attacks/test_c_credentials.py::test_c4_only_the_routes_own_credential_leaves",
        "tests/attacks/test_c_credentials.py::test_c6_the_token_is_nowhere_inside",
        "tests/integration/test_machine.py::test_a_kept_machine_is_ours_and_nothing_without_its_sidecar",
    }
)
CORE_PLACES = tuple(sorted({*_CORE_FILES, *(test.partition("::")[0] for test in _CORE_TESTS)}))
CORE_CHOICE = """\
Here the processor is emulated, some twenty times slower, so the core of these tests is run: each way out that
a machine's engine could leave, where credentials may lie, and what every command needs of a bottle, as root.
All that an emulated machine can carry: python -m tests.tools.machines
"""
#: What is said of all others.
CHOICE = """\
Here the processor is emulated, some twenty times slower, so a choice of the tests is run: the attacks, the
contract's commands and this backend's own as root; of what needs bottles of its own each kind once, as root
or as an ordinary user. What is left out of these files says why; all others run where KVM boots by itself.
"""


def is_left_out(item: pytest.Item) -> bool:
    """Tell whether a test is none for its backend, or none for an emulated machine."""
    backend = _backend(item)
    file, name = item.nodeid.partition("::")[0], _name(item)
    if file in _OWN and backend not in {"", BACKEND}:
        return True
    if PACE == 1:
        return False
    if backend != BACKEND:
        return True
    account = _parameter(item, "account")
    if os.environ.get(PART) == CORE:
        return account != "root" or (file not in _CORE_FILES and f"{file}::{name}" not in _CORE_TESTS)
    if (chosen := _EMULATED_TESTS.get(f"{file}::{name}")) is not None:
        return account != chosen
    return account != "root" or file not in _EMULATED_FILES


def reason_otherwise(item: pytest.Item) -> str:
    """Say why a test is skipped in a machine; empty where it is not."""
    if _backend(item) != BACKEND:
        return ""
    emulated = _NOT_EMULATED.get(_name(item), "") if PACE > 1 else ""
    return OTHERWISE.get(_name(item), emulated)


def _backend(item: pytest.Item) -> str:
    return _parameter(item, "backend")


def _parameter(item: pytest.Item, name: str) -> str:
    spec = getattr(item, "callspec", None)
    value = spec.params.get(name, "") if spec is not None else ""
    return str(getattr(value, "name", value))


def _name(item: pytest.Item) -> str:
    return item.name.partition("[")[0]
