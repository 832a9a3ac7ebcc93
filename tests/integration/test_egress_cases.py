"""Cases of others: what leaves through ``bot-bottle proxy``, told by a sinkhole that answers everything.

*policy* opens the hosts of the harmless cases alone. *scan* opens every host, so that only content scanning
and the address guard can stop anything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.outside import REPO

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.integration

CORPORA = Path(os.environ.get("BOT_BOTTLE_CORPORA", Path(__file__).parents[3] / "shared" / "corpora"))
FOLDER = CORPORA / "egress-cases" / "cases"

#: Cases of an agent's own pipes and cards, which pass by no proxy.
_ELSEWHERE = frozenset({"mcp_stdio", "a2a"})
_HOST_RULES = frozenset({"host-opaque-label", "host-encoded-label", "host-too-long"})


def _cases() -> dict[str, Any]:
    read = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*/*.json"))]
    return {case["id"]: case for case in read if case["transport"] not in _ELSEWHERE}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    if not FOLDER.is_dir():
        pytest.skip(f"the corpus egress-cases is not at BOT_BOTTLE_CORPORA ({CORPORA})")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.egress_cases",
            str(FOLDER),
            str(tmp_path_factory.mktemp("cases")),
        ],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _said(case: Mapping[str, Any]) -> tuple[str, ...]:
    """Give what a case must not bring across: the values of its headers, or its messages."""
    payload = case["payload"]
    if "frames" in payload:
        return tuple(frame["payload"] for frame in payload["frames"])
    return tuple(value.split(" ", 1)[-1] for value in payload.get("headers", {}).values())


def _is_contained(case: Mapping[str, Any], outcome: Mapping[str, Any]) -> bool:
    """Tell by what arrived; a request may arrive without what it was sent for."""
    if "response_body" in case["payload"]:
        return case["payload"]["response_body"] not in outcome["heard"]
    if "frames" in case["payload"]:
        return not any(outcome["messages"])
    if not outcome["requests"]:
        return True
    return "headers" in case["payload"] and not any(value in outcome["arrived"] for value in _said(case))


def _agrees(tags: set[str], outcome: Mapping[str, Any]) -> bool:
    """Tell whether the reported rule is of the kind that a case's tags speak of."""
    rule, reason = outcome["rule"].removeprefix("pipelock."), outcome["reason"]
    wanted = {
        "ssrf_bypass": reason == "address_denied",
        "response_injection": reason == "answer_gives_orders",
        "crypto_dlp": reason == "financial_data_found",
        "hostname_exfil": rule in _HOST_RULES,
        "entropy": rule in _HOST_RULES,
        "websocket_dlp": reason in {"credential_found", "websocket_protocol"},
    }
    known = [wanted[tag] for tag in tags & wanted.keys()]
    return all(known) if known else reason == "credential_found"


def _report(mode: str, outcomes: list[dict[str, Any]]) -> tuple[list[str], list[str], list[str]]:
    """Print the rates of one mode; gives what got through, what was stopped wrongly and what is odd."""
    cases = _cases()
    mine = [one for one in outcomes if one["mode"] == mode and one["id"] in cases]
    assert len(mine) == len(cases)
    through, stopped, odd, taken_out = [], [], [], []
    blocked = 0
    for one in mine:
        case = cases[one["id"]]
        if case["expected_verdict"] == "allow":
            heard = case["payload"].get("response_body", "{}")
            if one["requests"] != 1 or one["heard"] != heard:
                stopped.append(f"{one['id']}: {one['reason']} {one['rule']}")
            continue
        blocked += 1
        if not _is_contained(case, one):
            through.append(one["id"])
        elif one["requests"] and "headers" in case["payload"]:
            taken_out.append(one["id"])
            # It goes on without the credential, and what was in the header is told all the same.
            if mode == "scan" and not _agrees(set(case["capability_tags"]), one):
                odd.append(f"{one['id']}: {one['rule']} for {case['capability_tags']}")
        else:
            meets_server = "response_body" in case["payload"] or "frames" in case["payload"]
            if one["names"] and not meets_server:
                odd.append(f"{one['id']}: {one['names']} was looked up")
            if mode == "scan" and not _agrees(set(case["capability_tags"]), one):
                odd.append(f"{one['id']}: {one['rule']} for {case['capability_tags']}")
        host = urllib.parse.urlsplit(case["payload"].get("url", "")).hostname
        if mode == "policy" and host in one["names"]:
            odd.append(f"{one['id']}: {host} was looked up")
    print(
        f"\n{mode}: {blocked - len(through)} of {blocked} contained, {len(stopped)} of {len(mine) - blocked} "
        f"harmless ones stopped; {len(taken_out)} arrived without the credential in a header: {taken_out}; "
        f"not contained: {through}"
    )
    return through, stopped, odd


def test_with_an_allowlist_all_is_contained(outcomes: list[dict[str, Any]]) -> None:
    assert _report("policy", outcomes) == ([], [], [])


def test_by_scanning_alone_nearly_all_is_contained(outcomes: list[dict[str, Any]]) -> None:
    through, stopped, odd = _report("scan", outcomes)
    blocked = sum(case["expected_verdict"] == "block" for case in _cases().values())
    assert len(through) <= 0.05 * blocked, through
    assert (stopped, odd) == ([], [])


def test_the_sinkhole_saw_every_connection_to_its_end(outcomes: list[dict[str, Any]]) -> None:
    assert {one["unasked"] for one in outcomes} == {0}
