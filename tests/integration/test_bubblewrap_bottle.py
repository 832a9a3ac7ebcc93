"""What a bubblewrap bottle does its own way; what every bottle does is in ``test_contract_*.py``."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bot_bottle import bottle_state
from bot_bottle.agent_provider.plan import AgentProvisionPlan
from bot_bottle.backend.bubblewrap import bwrap, sandbox
from bot_bottle.backend.bubblewrap.backend import BubblewrapBackend
from bot_bottle.backend.plan import BottlePlan, BottleSpec
from bot_bottle.backend.prepare import AGENT_PATH
from bot_bottle.errors import LaunchError, UsageError
from bot_bottle.manifest.model import Manifest, ManifestAgentProvider, ManifestBottle
from tests.conftest import cannot
from tests.support.family import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.backend.bubblewrap.bottle import BubblewrapBottle

pytestmark = pytest.mark.integration

_GUEST_ENV = {"PATH": AGENT_PATH, "HOME": "/home/agent", "MARK": "one two\nthree"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("operator")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOT_BOTTLE_HOME", str(folder))
        yield folder


def make_plan(home: Path, identity: str, program: str = "") -> BottlePlan:
    provider = ManifestAgentProvider(template="command", argv=("true",))
    bottle = ManifestBottle(name="room", path=home / "room.md", agent_provider=provider)
    state_dir = bottle_state.create_state(bottle_state.BottleMetadata(identity=identity))
    return BottlePlan(
        spec=BottleSpec(manifest=Manifest(), agent_name="room", user_cwd=home),
        identity=identity,
        backend_name="bubblewrap",
        bottle=bottle,
        provision=AgentProvisionPlan(template="command", program=program, argv=("true",)),
        routes=(),
        state_dir=state_dir,
        audit_path=home / "audit" / f"{identity}.jsonl",
        guest_env=_GUEST_ENV,
        secrets={},
    )


@pytest.fixture(scope="module")
def backend() -> BubblewrapBackend:
    backend = BubblewrapBackend()
    result = backend.probe()
    if result.level == "unavailable":
        cannot(f"{result.detail} {result.remedy}".strip(), backend.name)
    return backend


@pytest.fixture(scope="module")
def bottle(home: Path, backend: BubblewrapBackend) -> Iterator[BubblewrapBottle]:
    # A descriptor that anybody's child would inherit, as a careless shell leaves them open.
    secret = os.memfd_create("operators-secret", 0)
    os.set_inheritable(secret, True)
    try:
        with backend.launch(make_plan(home, "room-aaaaa")) as running:
            yield running
    finally:
        os.close(secret)


def test_one_user_and_no_endless_script(bottle: BubblewrapBottle) -> None:
    with pytest.raises(UsageError, match="one user"):
        bottle.exec("true", user="root")
    with pytest.raises(UsageError, match="128 KiB"):
        bottle.exec("#" * (128 << 10))
    assert bottle.exec(": " + "x" * (100 << 10)).returncode == 0


def test_an_inherited_descriptor_reaches_no_process_of_the_bottle(bottle: BubblewrapBottle) -> None:
    inside = [
        pid
        for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        if b"bwrap" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    inside += [
        child for pid in inside for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ]
    assert len(inside) >= 2
    held: list[str] = []
    for pid in inside:
        with contextlib.suppress(PermissionError):  # an ordinary user may not look into PID 1 at all
            held += [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    assert held
    assert not [name for name in held if "operators-secret" in name]
    assert b"operators-secret" not in bottle.exec("ls -l /proc/self/fd").stdout


def test_a_planted_link_for_a_mount_point_is_refused(home: Path, backend: BubblewrapBackend) -> None:
    plan = make_plan(home, "room-ddddd")
    with backend.launch(plan):
        pass
    mount_point = plan.state_dir / "home" / "workspace"
    mount_point.rmdir()
    mount_point.symlink_to(home)
    with pytest.raises(LaunchError, match="expected a folder"), backend.launch(plan):
        pass


@pytest.mark.parametrize("origin", ["system", "wheel"])
def test_either_bubblewrap_makes_bottles(
    origin: str, home: Path, backend: BubblewrapBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [candidate for candidate in bwrap.candidates() if candidate.origin == origin]
    if not chosen:
        pytest.skip(f"this machine has no usable bubblewrap from the {origin}")
    monkeypatch.setattr(bwrap, "candidates", lambda: tuple(chosen))
    assert f"{origin} bwrap" in backend.probe().detail
    with backend.launch(make_plan(home, f"room-{origin:x<6}"[:10])) as bottle:
        assert bottle.agent_argv(["x"])[0] == chosen[0].path
        status = bottle.exec("cat /proc/self/status; touch /usr/x").stdout.decode()
    assert "Seccomp:\t2" in status
    assert "CapBnd:\t0000000000000000" in status


def test_a_start_that_is_interrupted_half_way_leaves_no_process(
    backend: BubblewrapBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C once bubblewrap has made its child, and has perhaps not yet let it go on."""
    monitors: list[int] = []
    kill = sandbox._kill_with_children

    def noted(monitor: int) -> None:
        monitors.append(monitor)
        kill(monitor)

    def interrupted(_info: int) -> bytes:
        mine = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
        wait_until(
            lambda: any(_children(int(one)) for one in mine.read_text().split() if _is_bwrap(int(one))),
            "bubblewrap's child",
        )
        raise KeyboardInterrupt

    monkeypatch.setattr(sandbox, "_kill_with_children", noted)
    monkeypatch.setattr(sandbox, "_read_info", interrupted)
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            backend.probe()
    assert len(monitors) == 5
    # The child stands in bubblewrap's session, wherever the kernel has hung it since.
    wait_until(lambda: not {_session(pid) for pid in _all_pids()} & set(monitors), "the end of all of them")


def _all_pids() -> list[int]:
    return [int(place.name) for place in Path("/proc").iterdir() if place.name.isdigit()]


def _is_bwrap(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text() == "bwrap\n"
    return False


def _children(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return []


def _session(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    return 0
