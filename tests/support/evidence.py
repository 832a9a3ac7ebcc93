"""Which tests stand for which way out, and what each run of them says on each backend.

A test whose name begins with lines (``test_a3_a4_...``) stands for these. The others are named here. Where
the variable ``BOT_BOTTLE_TEST_EVIDENCE`` names a file, a run appends what became of each test there, a JSON
object a line; ``python -m tests.tools.evidence`` makes docs/evidence.md of it.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

FILE = "BOT_BOTTLE_TEST_EVIDENCE"
_NAMED = re.compile(r"::test_((?:[a-h]\d+_)+)")


@dataclass(frozen=True, slots=True)
class Line:
    """One way out: what is tried, the tests that try it (``file::test`` of tests/), what is not prevented."""

    attack: str
    tests: tuple[str, ...] = ()
    open: str = ""


_CONTENT = "integration/test_egress_content.py::"
_GATE = "integration/test_git_gate_"
_ENGINE = "attacks/test_docker_engine.py::"
_LIFE = "integration/test_contract_life.py::"
_EXEC = "integration/test_contract_exec.py::"
_HOSTILE = "integration/test_retrieval_hostile.py::"
_COPY = "integration/test_workspace.py::"
_ASKS = "integration/test_supervise.py::"
_TENANTS = "A route to a host of many tenants opens strangers' accounts there too, unless paths narrow it."

LINES: dict[str, Line] = {
    "A1": Line("proxy variables unset, `NO_PROXY`, a proxy of its own"),
    "A2": Line("an address of the attacker under an allowed name"),
    "A3": Line("raw TCP, UDP, QUIC, ICMP, SCTP, IP", ("attacks/test_machine.py::test_no_datagram_leaves",)),
    "A4": Line("IPv6 literals, link-local addresses"),
    "A5": Line("DNS as a channel", ("attacks/test_machine.py::test_no_name*",)),
    "A6": Line(
        "the host's services, LAN, gateway and special names",
        (
            f"{_ENGINE}test_docker_the_hosts_services*",
            f"{_ENGINE}test_docker_the_sidecar_leads*",
            "attacks/test_machine.py::test_the_gateway*",
            "attacks/test_b_addresses_and_paths.py::test_b8_addresses*",
        ),
    ),
    "A7": Line("metadata services, by address, by name, behind an allowed name"),
    "A8": Line(
        "other bottles and their sidecars",
        (f"{_LIFE}test_two_bottles*", f"{_ENGINE}test_docker_other_bottles*"),
    ),
    "A9": Line(
        "the sidecar's own surface",
        ("integration/test_control_socket.py::*", "attacks/test_machine.py::test_nothing_but*"),
    ),
    "A10": Line(
        "sockets, descriptors and variables of the host", (f"{_ENGINE}test_docker_the_engines_socket*",)
    ),
    "A11": Line(
        "vsock, TSI and other socket families",
        ("attacks/test_machine.py::test_no_other_socket*", "attacks/test_machine.py::test_another_account*"),
    ),
    "A12": Line("the network reconfigured from inside, ports taken, PID 1 traced"),
    "A13": Line(
        "a dead sidecar, launcher or engine; policy after a restart; the moment before it holds",
        (
            f"{_LIFE}test_a_killed_sidecar*",
            "integration/test_docker_engine_ends.py::*",
            "integration/test_machine.py::test_a_kept_machine*",
        ),
    ),
    "A14": Line("connections opened before a rule was removed"),
    "A15": Line(
        "a sandbox that is silently not applied",
        (
            f"{_LIFE}test_a_launch_that_fails*",
            "unit/test_bubblewrap_program.py::*",
            "unit/test_preflight.py::*",
        ),
    ),
    "B1": Line("NUL, percent-encoding, userinfo, homoglyphs, SOCKS in names"),
    "B2": Line("domain fronting: authority, SNI and Host that differ"),
    "B3": Line("CONNECT to addresses, other ports, inside CONNECT"),
    "B4": Line(
        "two readings of one request: Host, smuggling, `:authority`, h2c",
        (
            "integration/test_egress_hostile.py::test_messages_with_two*",
            "integration/test_egress_http2.py::test_a_request_that_ends_short*",
            "integration/test_egress_corpus.py::*",
        ),
    ),
    "B5": Line("another host on a kept or pooled connection"),
    "B6": Line(
        "WebSockets and upgrades as opaque tunnels",
        (f"{_CONTENT}test_a_websocket*", "integration/test_egress_streams.py::test_other_upgrades*"),
    ),
    "B7": Line(
        "a redirect from an allowed host to another",
        ("attacks/test_c_credentials.py::test_c3_a_token_in_a_query*", f"{_GATE}https.py::test_no_redirect*"),
    ),
    "B8": Line(
        "allowed names at forbidden addresses, rebinding, odd spellings",
        ("integration/test_egress_hostile.py::test_rebinding*",),
    ),
    "B9": Line("plain HTTP: unfiltered, or with a credential in the clear"),
    "B10": Line(
        "paths and methods read in two ways", ("integration/test_egress_hostile.py::test_a_second_path*",)
    ),
    "B11": Line(
        "GraphQL: many operations on one path",
        open="What one path carries is one decision; narrow the route or leave it out.",
    ),
    "B12": Line("an attacker's account on an allowed host", open=_TENANTS),
    "B13": Line(
        "the model's provider itself: its files, its own fetching",
        open="What a provider does on its own side is not seen. Only the route's own credential reaches it.",
    ),
    "B14": Line(
        "hosts whose content is not scanned",
        (f"{_CONTENT}test_a_models_conversation*", f"{_CONTENT}test_the_bottles_own_secrets*"),
    ),
    "B15": Line(
        "code of the sidecar in a place that a bottle writes",
        (
            f"{_ENGINE}test_docker_the_sidecars_container*",
            "attacks/test_e_escape.py::test_e5_what_is_read_only*",
        ),
    ),
    "B16": Line(
        "floods, slow clients, endless headers, bombs",
        (
            "integration/test_egress_limits.py::*",
            "integration/test_egress_hostile.py::test_slow_and_silent*",
            "integration/test_egress_http2_hostile.py::*",
        ),
    ),
    "C1": Line("a placeholder sent to another host"),
    "C2": Line("a placeholder in any part of a request, in any form"),
    "C3": Line("servers that repeat a request"),
    "C4": Line("the agent's own credential headers beside ours"),
    "C5": Line("a credential added without TLS, or to another host"),
    "C6": Line(
        "the token in files, environments, arguments, memory, logs, engines' records",
        (
            f"{_ENGINE}test_docker_no_record*",
            "attacks/test_machine.py::test_no_value*",
            "integration/test_secrets_nowhere.py::*",
            "integration/test_claude_real.py::test_claude_works*",
            "integration/test_codex_real.py::test_codex_works_over*",
        ),
    ),
    "C7": Line("the CA's key; one CA for all"),
    "C8": Line(
        "credential files copied or mounted",
        (f"{_COPY}test_what_looks_like_credentials*", f"{_COPY}test_tracked_credentials*"),
    ),
    "C9": Line(
        "the operator's ssh agent",
        (f"{_GATE}fetch.py::test_an_agent_of_the_operators*", "attacks/test_a_control_plane.py::test_a10_*"),
    ),
    "C10": Line(
        "a refresh from inside that gets or breaks the host's login",
        ("integration/test_renewal.py::*", "unit/test_renewal.py::*"),
    ),
    "C11": Line(
        "a credential helper asked for another host",
        (f"{_GATE}https.py::test_another_token*", f"{_GATE}fetch.py::test_what_is_not_declared*"),
    ),
    "C12": Line("one approval that opens all later ones", (f"{_ASKS}test_a_grant_for*",)),
    "D1": Line("a secret in encodings"),
    "D2": Line(
        "a secret in host labels",
        (f"{_CONTENT}test_a_name_below_a_wildcard*", f"{_CONTENT}test_what_is_refused_by_its_name*"),
    ),
    "D3": Line(
        "a secret at any place of a request",
        (f"{_CONTENT}test_a_credential_leaves_in_no_part*", f"{_CONTENT}test_trailers*"),
    ),
    "D4": Line(
        "a secret in pieces",
        (f"{_CONTENT}test_a_value_is_seen_in_pieces*",),
        open="Slower than 8 KiB of a bottle's consecutive requests, pieces pass.",
    ),
    "D5": Line("compressed or encrypted bodies", open="What is encrypted is not read."),
    "D6": Line(
        "bodies that cannot be read",
        (f"{_CONTENT}test_a_scanner_that_breaks*", f"{_CONTENT}test_without_an_engine*"),
    ),
    "D7": Line(
        "work that is stopped for nothing",
        (
            "integration/test_pipelock_engine.py::test_real_work*",
            "integration/test_pipelock_engine.py::test_egress_cases*",
        ),
    ),
    "D8": Line(
        "instructions to the agent in what it reads",
        (f"{_CONTENT}test_an_answer_that_gives_orders*", "unit/test_egress_answers.py::*"),
        open="What an agent is told it may believe; the bottle holds whatever it then does.",
    ),
    "E1": Line(
        "the engine's socket, capabilities, kernel switches, devices",
        (f"{_ENGINE}test_docker_the_agents_container*", "attacks/test_machine.py::test_the_machines_disks*"),
    ),
    "E2": Line(
        "a machine's file server that leads out of its folder",
        ("attacks/test_machine.py::test_the_monitor*",),
        open="Tried only by a run that boots microVMs.",
    ),
    "E3": Line(
        "links and folders swapped while the host looks",
        (
            f"{_HOSTILE}test_a_bottle_that_swaps*",
            f"{_COPY}test_links_and_special*",
            f"{_EXEC}test_nothing_that_goes_in*",
        ),
    ),
    "E4": Line(
        "archives that climb, devices, set-id bits copied out", (f"{_EXEC}test_nothing_that_comes_out*",)
    ),
    "E5": Line("what is read-only, by another path to it"),
    "E6": Line(
        "a flaw in the hypervisor",
        open="A flaw in KVM or the engine's process ends in that process, confined as docs/security.md says.",
    ),
    "E7": Line("system calls around the filter"),
    "F1": Line(
        "settings and hooks of agents left in the workspace",
        (f"{_HOSTILE}test_g1_*",),
        open="`pull` names what would run later; it runs when you use it.",
    ),
    "F2": Line(
        "build files, editor settings left in the workspace",
        (f"{_HOSTILE}test_names_that_would_reach*",),
        open="They run when you use them; look first (`bot-bottle diff`).",
    ),
    "F3": Line("CI files pushed through the gate"),
    "F4": Line(
        "policy inside the repository",
        (
            "unit/test_manifest_trust.py::*",
            "unit/test_manifest_boundary.py::*",
            "attacks/test_a_control_plane.py::test_a13_what_the_agent_wrote*",
        ),
    ),
    "F5": Line(
        "a project's `.env` that moves the program's settings",
        (f"{_EXEC}test_the_agent_runs_with_the_plans_environment*",),
    ),
    "F6": Line(
        "shell files, caches and programs left for the next run",
        open="A kept home is the agent's, also in that bottle's next session; nothing of it is shared.",
    ),
    "F7": Line(
        "what a package that an allowed registry delivers does",
        open="It runs in the bottle, as everything there.",
    ),
    "G1": Line(
        "hooks, filters, drivers, helpers, includes that the host's git would run",
        (f"{_COPY}test_no_hook*", f"{_COPY}test_a_partial_clone*"),
    ),
    "G2": Line("a protected `.git/config` undone by renaming above it", (f"{_HOSTILE}test_g1_nothing*",)),
    "G3": Line("a push run on the host in the agent's folder", (f"{_HOSTILE}test_g1_*",)),
    "G4": Line("a push around the gate: HTTP by any client, ssh"),
    "G5": Line("force, deletion, tags, other refs, push options", (f"{_GATE}push.py::test_push_options*",)),
    "G6": Line("a secret anywhere in the history pushed"),
    "G7": Line("a scanner switched off from inside the tree"),
    "G8": Line(
        "the gate's credential in reach of scanner or repository",
        (
            f"{_GATE}fetch.py::test_the_key_is_in_no_file*",
            f"{_GATE}https.py::test_clone_and_push*",
            f"{_GATE}bottle.py::test_an_agent_clones*",
        ),
    ),
    "G9": Line("packs, trees and streams that unfold; torn requests", (f"{_GATE}hostile.py::*",)),
    "G10": Line(
        "worktrees and `.git` files that lead elsewhere",
        (f"{_COPY}test_a_worktree*", f"{_HOSTILE}test_alternates*"),
    ),
    "G11": Line(
        "the upstream's host key",
        (f"{_GATE}fetch.py::test_another_host_key*", f"{_GATE}https.py::test_a_certificate*"),
    ),
    "G12": Line(
        "a stale mirror served",
        (f"{_GATE}fetch.py::test_a_fetch_fails_closed*", f"{_GATE}hostile.py::test_after_a_sudden_death*"),
    ),
    "G13": Line("commits that claim another author", open="Authors are claims; the gate vouches for nobody."),
    "H1": Line(
        "floods, forged answers, escapes to the operator's terminal",
        (
            f"{_ASKS}test_a_flood*",
            f"{_ASKS}test_what_is_no*",
            "unit/test_supervise_request.py::*",
            f"{_HOSTILE}test_nothing_that_steers*",
        ),
    ),
    "H2": Line("a grant that outlives its end or reaches another", (f"{_ASKS}test_a_grant_for*",)),
    "H3": Line(
        "a wildcard approved unseen",
        ("unit/test_supervise_record.py::*",),
        open="A human can be talked into a yes; `approve` shows what it opens and what speaks against it.",
    ),
    "H4": Line(
        "the record written or cut by the agent",
        (
            f"{_LIFE}test_every_decision*",
            "unit/test_audit.py::*",
            "integration/test_egress_limits.py::test_who_fills_the_log*",
        ),
    ),
}


def lines_of(nodeid: str) -> frozenset[str]:
    """Give the lines that a test stands for."""
    from fnmatch import fnmatchcase  # noqa: PLC0415 - here alone

    name = nodeid.partition("[")[0].removeprefix("tests/")
    found = {
        line for line, about in LINES.items() if any(fnmatchcase(name, pattern) for pattern in about.tests)
    }
    named = _NAMED.search(nodeid)
    if named:
        found.update(part.upper() for part in named[1].split("_") if part)
    return frozenset(found & LINES.keys())


def note(item: pytest.Item, report: pytest.TestReport) -> None:
    """Append what became of a test, where a run was told to."""
    place = os.environ.get(FILE)
    # A test that passes says so once it was called; one that is skipped or broken says so whenever that is.
    if not place or (report.when != "call" and report.outcome == "passed"):
        return
    spec = getattr(item, "callspec", None)
    parameters = spec.params if spec is not None else {}
    record = {
        "test": item.nodeid,
        "outcome": report.outcome,
        "when": report.when,
        "backend": str(parameters.get("backend", "")),
        "account": str(getattr(parameters.get("account"), "name", "")),
    }
    with open(place, "a") as file:  # noqa: PTH123 - one write a line, which two runs can share
        file.write(json.dumps(record) + "\n")
