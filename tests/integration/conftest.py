"""Real programs that several tests start, and the bottle that the contract's tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.git_gate_fixtures import (  # noqa: F401 - fixtures
    gate_lab,
    gate_scanner,
    gate_ssh_agent,
    gate_sshd,
)
from tests.support.npm import installed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.lab import Lab, RunningBottle

PACKAGE = "@anthropic-ai/claude-code"


@pytest.fixture(scope="session")
def claude() -> Path:
    """Install the program from npm into the cache, unless it is there."""
    return installed(PACKAGE, "claude")


@pytest.fixture(scope="session")
def room(lab: Lab) -> Iterator[RunningBottle]:
    """Launch the bottle that tests of the contract share, one for each backend and account."""
    lab.declare(
        "contract",
        "agent_provider: {template: command, argv: [/bin/true]}\n"
        'env: {MARK: "one two\\nthree \'four\' \\"$five\\" `six`\\\\"}\n'
        "egress: {routes: [{host: allowed.test}]}\n",
    )
    with lab.launch("contract") as running:
        yield running
