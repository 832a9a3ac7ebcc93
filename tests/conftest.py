"""Fixtures that bring up real parts. What a machine cannot give is a skip with doctor's own words.

``BOT_BOTTLE_TEST_REQUIRE=1`` turns those skips into failures, for machines that are known to be able.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import pytest

from bot_bottle.backend.registry import known_backend_names
from tests.support.lab import Lab
from tests.support.outside import REPO, Account, World, accounts, download_cache

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROBE = """
import json, sys
from bot_bottle.backend.registry import get_bottle_backend
result = get_bottle_backend(sys.argv[1]).probe()
print(json.dumps([result.level, result.detail, result.remedy]))
"""


def pytest_configure() -> None:
    """Let launchers be hung up on even where this run was started by nohup(1).

    A signal that is ignored stays so in every program started from here; one that is handled does not
    (execve(2)), and this run itself is as deaf to it as before.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


def cannot(reason: str) -> NoReturn:
    """Skip, saying why, or fail where this machine is required to be able."""
    if os.environ.get("BOT_BOTTLE_TEST_REQUIRE"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """Bring up the scripted outside."""
    try:
        outside = World(readable=[download_cache()])
    except RuntimeError as error:
        cannot(f"this machine cannot make the scripted outside (a network namespace of its own): {error}")
    yield outside
    outside.close()


@pytest.fixture(scope="session", params=known_backend_names())
def backend(request: pytest.FixtureRequest) -> str:
    """Name every backend in turn."""
    return str(request.param)


@pytest.fixture(scope="session", params=accounts(), ids=lambda account: account.name)
def account(request: pytest.FixtureRequest) -> Account:
    """Name every account that can run the product here in turn."""
    chosen: Account = request.param
    return chosen


@pytest.fixture(scope="session")
def lab(world: World, backend: str, account: Account) -> Lab:
    """Install the product for an account; skip with the backend's own sentence where it cannot run."""
    installation = Lab(world=world, account=account, backend=backend)
    probe = world.run(
        [sys.executable, "-c", _PROBE, backend], account=account, env=installation.env, cwd=REPO
    )
    assert probe.returncode == 0, probe.err
    level, detail, remedy = json.loads(probe.stdout)
    if level == "unavailable":
        cannot(f"{backend} as {account.name}: {detail} {remedy}".strip())
    return installation
