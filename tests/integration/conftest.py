"""Real programs that several tests start, and the bottle that the contract's tests share."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import cannot
from tests.support.git_gate_fixtures import (  # noqa: F401 - fixtures
    gate_lab,
    gate_scanner,
    gate_ssh_agent,
    gate_sshd,
)
from tests.support.outside import download_cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.lab import Lab, RunningBottle

PACKAGE = "@anthropic-ai/claude-code"


@pytest.fixture(scope="session")
def claude() -> Path:
    """Install the program from npm into the cache, unless it is there."""
    prefix = download_cache() / "claude"
    program = prefix / "node_modules" / ".bin" / "claude"
    if not program.exists():
        npm = shutil.which("npm")
        if npm is None:
            cannot("npm is not installed, so the real claude program cannot be fetched")
        result = subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(prefix), PACKAGE],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        if result.returncode != 0:
            shutil.rmtree(prefix, ignore_errors=True)
            cannot(f"npm could not install {PACKAGE}: {result.stderr.strip()[-500:]}")
    return program


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
