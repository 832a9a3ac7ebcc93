"""Fixtures of the gate's tests: one sshd and one scanner a session, a fresh lab a test."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from bot_bottle.git_gate.scanning import PipelockScanner
from bot_bottle.pipelock.loader import LateEngine
from bot_bottle.secret import Secret
from tests.conftest import cannot
from tests.support.git_lab import GitLab, git_lab, throwaway_sshd
from tests.support.outside import download_cache
from tests.support.ssh_server import NoSshError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OWN_SECRET = "own-7f3c9a12e45b8d60c1f2"


@pytest.fixture(scope="session")
def gate_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Run an ssh server for the whole session."""
    if shutil.which("git") is None:
        cannot("git is not installed")
    folder = tmp_path_factory.mktemp("sshd")
    try:
        with throwaway_sshd(folder) as server:
            yield server
    except NoSshError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def gate_scanner() -> PipelockScanner:
    """Load the engine once; a bottle's own secret is known to it."""
    engine = LateEngine(download_cache(), wait=120.0)
    return PipelockScanner({"OWN_TOKEN": Secret(OWN_SECRET)}, placeholders=(), engine=engine)


@pytest.fixture
def gate_lab(tmp_path: Path, gate_sshd: tuple[str, Path], gate_scanner: PipelockScanner) -> Iterator[GitLab]:
    """Make a lab whose gate is not started yet."""
    with git_lab(tmp_path / "lab", gate_sshd, lambda: gate_scanner) as made:
        yield made


@pytest.fixture
def gate_ssh_agent(gate_lab: GitLab, tmp_path: Path) -> Iterator[str]:
    """Run the operator's own agent with the lab's key in it; gives its socket."""
    place = tmp_path / "agent"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        env = {"PATH": os.environ["PATH"], "SSH_AUTH_SOCK": str(place)}
        subprocess.run(
            ["ssh-add", "-q", str(gate_lab.keys / "user")], env=env, check=True, stdin=subprocess.DEVNULL
        )
        yield str(place)
    finally:
        process.terminate()
        process.communicate()
