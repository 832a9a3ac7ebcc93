"""Fixtures that bring up real parts. What a machine cannot give is a skip with doctor's own words.

``BOT_BOTTLE_TEST_REQUIRE`` turns those skips into failures, for machines that are known to be able: it names
the backends that must work, or is ``1`` for all of them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import settings

from bot_bottle.backend.registry import known_backend_names
from tests.support import container_tests, evidence, machine_tests, once, sharing
from tests.support.container_tests import GVISOR
from tests.support.engine import Engine, NoEngineError, gvisor_trouble
from tests.support.lab import Lab
from tests.support.machine_image import NoImageError, machine_image
from tests.support.outside import PACE, REPO, Account, World, accounts, download_cache

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_PROBE = """
import json, sys
from bot_bottle.backend.registry import get_bottle_backend
result = get_bottle_backend(sys.argv[1]).probe()
print(json.dumps([result.level, result.detail, result.remedy]))
"""


def pytest_configure() -> None:
    """Judge no property by the clock, and let launchers be told to end even under nohup(1) or ``&``.

    A signal that is ignored stays so in every program started from here; one that is handled does not
    (execve(2)), and this run itself is as deaf to it as before.
    """
    settings.register_profile("patient", deadline=None)
    settings.load_profile("patient")
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


#: A test that is the first to need an engine also pays for making its images.
_FIRST_IMAGES_SECONDS = 420


#: The tests that run in gVisor too.
_IN_GVISOR = {
    "tests/attacks/test_a_no_route.py",
    "tests/attacks/test_gvisor.py",
    "tests/integration/test_contract_exec.py",
    "tests/integration/test_verify.py",
}

#: Set where a run judges a change (``.ci/run``): a test of real parts that failed is told and run once more.
_AGAIN = os.environ.get("BOT_BOTTLE_TEST_AGAIN", "") == "1"

#: In an emulated machine, what a test may take, by a clock three times slower than ours, for itself and for
#: the bottle that it is the first to need.
#: One that hangs is so told by its name before the machine's own time is over.
_EMULATED_SECONDS = 120


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what proves nothing more somewhere; give slow places the time that they take."""
    left_out: list[pytest.Item] = []
    kept: list[pytest.Item] = []
    for item in items:
        (left_out if any(leaves_out(item) for leaves_out in _NOT_RUN) else kept).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept
    for item in items:
        spec = getattr(item, "callspec", None)
        if PACE > 1:
            item.add_marker(pytest.mark.timeout(_EMULATED_SECONDS))
        if _AGAIN and _may_run_again(item):
            item.add_marker(pytest.mark.flaky(reruns=1))
        if reason := machine_tests.reason_otherwise(item):
            item.add_marker(pytest.mark.skip(reason=reason))
        if spec is not None and spec.params.get("backend") in {"docker", GVISOR}:
            item.add_marker(pytest.mark.timeout(_FIRST_IMAGES_SECONDS))


def _may_run_again(item: pytest.Item) -> bool:
    """Tell whether a second try says something: what got out once got out, what is pure does not waver."""
    return item.nodeid.startswith("tests/integration/") and item.get_closest_marker("attack") is None


def _is_left_out(item: pytest.Item) -> bool:
    spec = getattr(item, "callspec", None)
    in_gvisor = spec is not None and spec.params.get("backend") == GVISOR
    return in_gvisor and item.nodeid.partition("::")[0] not in _IN_GVISOR


#: What decides that a test is none of this run.
_NOT_RUN = (
    _is_left_out,
    machine_tests.is_left_out,
    container_tests.is_left_out,
    container_tests.is_of_other_part,
    once.is_left_out,
)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run what this run takes, where it shares its tests with others; pytest's own way of it otherwise."""
    if not sharing.is_shared() or session.testsfailed or session.config.option.collectonly:
        return None
    items = sharing.taken(session.items)
    item = next(items, None)
    while item is not None:
        following = next(items, None)  # what the two have in common stays up between them
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what became of each test, where this run was told to."""
    report = yield
    evidence.note(item, report)
    return report


def cannot(reason: str, backend: str = "") -> NoReturn:
    """Skip, saying why, or fail where this machine is required to be able (to run ``backend``, or at all)."""
    required = os.environ.get("BOT_BOTTLE_TEST_REQUIRE", "").split()
    if required and (not backend or "1" in required or backend in required):
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


@pytest.fixture(scope="session")
def engine_host(world: World) -> Iterator[str]:
    """Run a container engine in the scripted outside; gives the URL that DOCKER_HOST takes."""
    try:
        engine = Engine(world)
    except NoEngineError as error:
        cannot(f"no container engine of the tests' own can be run here: {error}", "docker")
    yield engine.url
    engine.close()


# An emulated machine carries its own backend's tests alone; only to list the others would take it a minute.
@pytest.fixture(
    scope="session", params=[*known_backend_names(), GVISOR] if PACE == 1 else [machine_tests.BACKEND]
)
def backend(request: pytest.FixtureRequest) -> str:
    """Name every backend in turn, and at last docker with gVisor's kernel in its bottles."""
    return str(request.param)


@pytest.fixture(scope="session", params=accounts(), ids=lambda account: account.name)
def account(request: pytest.FixtureRequest) -> Account:
    """Name every account that can run the product here in turn."""
    chosen: Account = request.param
    return chosen


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest, world: World, backend: str, account: Account) -> Lab:
    """Install the product for an account; skip with the backend's own sentence where it cannot run."""
    gvisor = backend == GVISOR
    engine_host = request.getfixturevalue("engine_host") if gvisor or backend == "docker" else ""
    if gvisor and (trouble := gvisor_trouble(engine_host)):
        cannot(trouble, GVISOR)
    image = ""
    if backend == machine_tests.BACKEND:
        if os.environ.get(machine_tests.APART):
            pytest.skip("microVMs' tests have a run of their own: python -m tests.tools.machines")
        try:
            image = machine_image()
        except NoImageError as error:
            cannot(f"{backend}: there is nothing to start a machine from: {error}", backend)
    installation = Lab(
        world=world,
        account=account,
        backend="docker" if gvisor else backend,
        engine_host=engine_host,
        machine_image=image,
        runtime="auto" if gvisor else "runc",
    )
    probe = world.run(
        [sys.executable, "-c", _PROBE, installation.backend], account=account, env=installation.env, cwd=REPO
    )
    assert probe.returncode == 0, probe.err
    level, detail, remedy = json.loads(probe.stdout)
    if level == "unavailable":
        cannot(f"{backend} as {account.name}: {detail} {remedy}".strip(), backend)
    return installation
